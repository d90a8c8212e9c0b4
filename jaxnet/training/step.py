"""One update of the parameters.

    step = train_step(gradient, optimizer)
    step(TrainState, batch) -> TrainState, metrics

`TrainState` is a pytree of arrays; `step` is pure: jit it, scan it, vmap it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxnet.gradients import GradientFunction
from jaxnet.training.nonfinite import Policy, all_finite, cause_of, counted, no_faults, policy_of


class TrainState(NamedTuple):
    """All that decides the next step."""

    params: Any  # the network's parameters
    state: Any  # the layers' state
    opt_state: Any  # the optimizer's state
    key: Array  # () typed key; step t draws from fold_in(key, t)
    step: Array  # () int32, steps taken
    faults: Any = ()  # what a policy about non-finite updates counts; () without one


def train_state(
    params: Any,
    state: Any,
    optimizer: optax.GradientTransformation,
    key: Array,
    nonfinite: "str | Policy" = "stop",
) -> TrainState:
    """The state before the first step. Every leaf gets a strong type, so that later steps don't compile anew.

    `nonfinite` is the one of `train_step`.

    >>> train_state({"w": jnp.zeros(2)}, {}, optax.sgd(0.1), jax.random.key(0)).step.dtype
    dtype('int32')
    """
    with jax.numpy_dtype_promotion("standard"):
        opt_state = optimizer.init(params)
    faults = no_faults(policy_of(nonfinite))
    return TrainState(strong(params), strong(state), strong(opt_state), key, jnp.zeros((), jnp.int32), faults)


def strong(tree: Any) -> Any:
    """The same values, no leaf of weak type.

    >>> strong(jnp.asarray(1.0)).weak_type
    False
    """
    return jax.tree.map(
        lambda a: a if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else jax.lax.convert_element_type(a, a.dtype),
        tree,
    )


def train_step(
    gradient: GradientFunction, optimizer: optax.GradientTransformation, nonfinite: "str | Policy" = "stop"
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Array]]]:
    """The function (TrainState, batch) -> TrainState, {"loss": …} that makes one update.

    θ ← θ + update(∇L(θ)): the gradient function is called with `train=True` and this step's key; the optimizer gets
    `value=`, `grad=` and `value_fn=` of the same batch, state and key, so optax's line searches work. A batch
    whose weights sum to 0 changes nothing but the step count. With `nonfinite` "skip", "reduce" or a policy of
    `jaxnet.training.nonfinite`, given to `train_state` too, an update that isn't finite changes nothing but the step
    count and `faults`, and the row says whether it was "skipped".

    Raises:
        TypeError: for an optimizer that isn't an optax GradientTransformation.

    >>> import jaxnet as jn
    >>> net = jn.mlp([1])
    >>> params, state = net.init(jax.random.key(0), (2,))
    >>> optimizer = optax.sgd(0.1)
    >>> step = jax.jit(train_step(jn.loss_and_grad(net, jn.losses.squared_error), optimizer))
    >>> now = train_state(params, state, optimizer, jax.random.key(1))
    >>> now, metrics = step(now, (jnp.ones((4, 2)), jnp.ones((4, 1))))
    >>> int(now.step)
    1
    """
    policy = policy_of(nonfinite)
    if policy is not None:
        return watched_step(gradient, optimizer, policy)
    update = _updating(gradient, optimizer)

    def step(now: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        after, loss, _ = update(now, batch, ())
        if len(batch) == 3:
            after = choose(jnp.sum(batch[2]) > 0, after, now)
        return after._replace(step=now.step + 1), {"loss": loss}

    return step


def watched_step(
    gradient: GradientFunction, optimizer: optax.GradientTransformation, policy: Policy, *, drop: bool = True
) -> Callable[[TrainState, Any], tuple[TrainState, dict[str, Array]]]:
    """The `train_step` of a policy. Without `drop` it takes every update and looks at loss and gradient alone.

    >>> import jaxnet as jn
    >>> gradient = jn.loss_and_grad(jn.mlp([1]), lambda z, y: jnp.log(y - z)[:, 0])
    >>> params, optimizer = {"dense_0": {"w": jnp.zeros((1, 1)), "b": jnp.zeros(1)}}, optax.adam(0.1)
    >>> now = train_state(params, {}, optimizer, jax.random.key(0), "skip")
    >>> batch = jnp.ones((1, 1)), -jnp.ones((1, 1))
    >>> now, row = watched_step(gradient, optimizer, policy_of("skip"))(now, batch)
    >>> bool(row["skipped"]), float(now.params["dense_0"]["b"][0])
    (True, 0.0)
    """
    update = _updating(gradient, optimizer)

    def step(now: TrainState, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        after, loss, grads = update(now, batch, now.faults.scale)
        if drop:
            cause = cause_of(loss, grads, now, after)
            taken = cause == 0
        else:
            taken = jnp.ones((), bool)
            cause = (~(jnp.isfinite(loss) & all_finite(grads))).astype(jnp.int32)
        faults = counted(policy, now.faults, cause, now.step)
        if len(batch) == 3:
            weighs = jnp.sum(batch[2]) > 0
            faults, taken, cause = choose(weighs, faults, now.faults), taken & weighs, jnp.where(weighs, cause, 0)
        if drop or len(batch) == 3:
            after = choose(taken, after, now)
        return after._replace(step=now.step + 1, faults=faults), {"loss": loss, "skipped": cause > 0}

    return step


def _updating(gradient, optimizer):
    """The function (TrainState, batch, scale) -> TrainState, loss, gradient; a scale of () leaves the update alone."""
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"got optimizer {optimizer!r}; expected an optax GradientTransformation: optax.adam(1e-3), not optax.adam"
        )
    update = optax.with_extra_args_support(optimizer).update

    def advance(now: TrainState, batch: Any, scale: Any) -> tuple[TrainState, Array, Any]:
        key = jax.random.fold_in(now.key, now.step)
        (loss, state), grads = gradient(now.params, now.state, batch, key=key, train=True)

        def value_fn(params):
            return gradient(params, now.state, batch, key=key, train=True)[0][0]

        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = update(grads, now.opt_state, now.params, value=loss, grad=grads, value_fn=value_fn)
            if not isinstance(scale, tuple):
                updates = jax.tree.map(lambda u: u * scale.astype(u.dtype), updates)
            params = optax.apply_updates(now.params, updates)
        after = now._replace(
            params=params,
            state=_in_dtypes_of(now.state, state),
            opt_state=_in_dtypes_of(now.opt_state, opt_state),
        )
        return after, loss, grads

    return advance


def choose(condition: Array, one: Any, other: Any) -> Any:
    """`one` where the scalar `condition` holds, else `other`, leaf by leaf.

    >>> float(choose(jnp.array(True), jnp.ones(()), jnp.zeros(())))
    1.0
    """
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), one, other)


def _in_dtypes_of(reference, tree):
    """A traced rate in another precision must not change the dtype of what is carried."""
    return jax.tree.map(
        lambda a, b: b if a.dtype == b.dtype else jax.lax.convert_element_type(b, a.dtype), reference, tree
    )
