"""A run by a method that sees the whole function: the training set at once, one iteration an epoch.

    program_full_batch(net, loss, method=jn.optimizers.levenberg_marquardt())      a Program: fit, run and sweep take it

Validation, patience and the best parameters kept are those of `program`. A run ends by itself too, where the method
has converged or can't go on; the outcome says which.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet import outcomes
from jaxnet.data.checks import positive_integer
from jaxnet.data.sets import Data, take
from jaxnet.gradients.penalties import check_weights
from jaxnet.heads import Head
from jaxnet.layers import Layer
from jaxnet.losses import Loss
from jaxnet.optimizers.second_order.method import Method, Problem, State, largest
from jaxnet.optimizers.second_order.minimization import Tolerances, settled
from jaxnet.optimizers.second_order.of_network import of_network
from jaxnet.training.evaluation import PIECE
from jaxnet.training.passes import one_pass
from jaxnet.training.program import Program, network_and_loss, supervised
from jaxnet.training.step import choose


class Search(NamedTuple):
    """All that decides the next step."""

    method: State
    state: Any  # the layers' state

    @property
    def params(self) -> Any:
        return self.method.params


def program_full_batch(
    net: Layer,
    loss: "Loss | Callable | Head",
    *,
    method: Method,
    l2: Any = 0.0,
    batch_size: int | None = None,
    gradient_tolerance: Any = 1e-5,
    step_tolerance: Any = 0.0,
    value_tolerance: Any = 0.0,
    patience: int | None = None,
    metrics: Mapping[str, Callable] | None = None,
    eval_batch_size: int = PIECE,
) -> Program:
    """The supervised run by a method such as L-BFGS or Levenberg–Marquardt: an epoch is one of its iterations.

    Minimizes L(θ) = Σ wℓ / Σ w + l2 · ½ ‖weights‖² over the training set (of `data.rows` if there are any).
    Validation, patience, `params=`, keys and what is kept are those of `program`. A run ends where no entry of ∇L
    exceeds `gradient_tolerance` ("converged", at epoch 0 too), where the method stalls, exhausts its damping or meets
    a number that isn't finite, by patience, or with the epochs; `Fitted.outcome` says how.

    Args:
        net: the network; a fresh one is initialized in each run. Nothing in it may be random in training (dropout,
            noise). Where training changes a state (batch norm), methods that see one function value at a time run it
            on the whole batch as in training, and the state is updated after each step; the others refuse it.
        loss: a `Loss`, a function (output, target) -> (batch,), or a `Head`, whose layer is appended to `net`.
        method: what makes the steps; its settings may be traced.
        l2: α ≥ 0 of the penalty α · ½ ‖w‖² on the leaves named `w`, traced or not.
        batch_size: None for the whole set. A number cuts each epoch into batches as `program` does, each for one step
            of the method, with what it remembers of those before. A small gradient or step on a minibatch proves
            nothing, so tolerances aren't consulted, and a batch on which no step succeeds is passed over.
        gradient_tolerance, step_tolerance, value_tolerance: as in `minimize`.
        patience, metrics, eval_batch_size: as in `program`.

    History: `train_loss`, L at the epoch's end (with a `batch_size` the mean of what the steps started from), and
    without a `batch_size` `gradient_norm`, the largest magnitude in ∇L; `method_…`, the numbers that the method
    remembers, such as `method_damping`; `valid_…` as in `program`.

    Raises:
        ValueError, TypeError: for arguments out of range; a network or method that doesn't fit; before any compile.

    >>> import jaxnet as jn, numpy as np
    >>> x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
    >>> line = program_full_batch(jn.mlp([1]), jn.losses.squared_error, method=jn.optimizers.lbfgs())
    >>> fitted = jn.fit(jax.random.key(0), line, jn.Data((x, 3 * x)), epochs=50)
    >>> outcomes.describe(fitted.outcome, fitted.epochs_run)
    'converged at iteration ...: no entry of the gradient exceeds gradient_tolerance'
    """
    net, loss, metrics = network_and_loss(net, loss, metrics)
    if not isinstance(method, Method):
        raise TypeError(
            f"program_full_batch: got method {method!r}; expected a Method such as jn.optimizers.lbfgs(); optax "
            "optimizers are for jn.program"
        )
    tolerances = Tolerances(gradient_tolerance, step_tolerance, value_tolerance)
    _check(tolerances, l2, batch_size)
    batch_size = None if batch_size is None else positive_integer("batch_size", batch_size)

    def step(search: Search, batch: tuple, *, anew: bool) -> tuple[Search, Array]:
        """After one step on the batch; the value before it. `anew` where the last step had another problem."""
        problem = of_network(net, loss, search.state, batch, l2)
        now = elsewhere(problem, search.method) if anew else search.method
        after = method.step(problem, now)
        return Search(after, trained_state(net, after.params, search.state, batch[0])), now.value

    def begin(params, state, key, data: Data):
        if not (isinstance(l2, (int, float)) and l2 == 0):
            check_weights("program_full_batch", params, "or l2=0 and a penalty of your own in the loss")
        batch = whole(data) if batch_size is None else take(whole(data), jnp.arange(batch_size))
        if changes_state(net, params, state, batch[0]) and method.needs != "value":
            raise ValueError(
                f"program_full_batch: got a network whose state changes in training (batch norm) with {method.name}, "
                "which needs each example's own derivatives; expected one without: layer_norm, or jn.optimizers.lbfgs()"
            )
        first = method.init(of_network(net, loss, state, batch, l2), params)
        if batch_size is not None:
            return Search(first, state), {"train_loss": jnp.full_like(first.value, jnp.nan)} | _scalars(first), None
        return Search(first, state), _row(first), settled(first, tolerances)

    def iteration(search: Search, order, data: Data):
        batch = whole(data)
        search, _ = step(search, batch, anew=changes_state(net, search.params, search.state, batch[0]))
        return search, _row(search.method), settled(search.method, tolerances)

    def on_batch(search: Search, batch: tuple):
        after, value = step(search, batch, anew=True)
        if len(batch) == 3:
            after = choose(jnp.sum(batch[2]) > 0, after, search)
        return after, {"loss": value}

    def iterations(search: Search, order, data: Data, size: int):
        search, train_loss, _ = one_pass(on_batch, search, order, data, size)
        lost = search.method.outcome == outcomes.NON_FINITE
        return search, {"train_loss": jnp.where(lost, jnp.nan, train_loss)} | _scalars(search.method), None

    advance = iteration if batch_size is None else partial(iterations, size=batch_size)
    made = supervised(
        net, loss, metrics, begin, advance, kept=lambda search: search.params, batch_size=batch_size,
        patience=patience, eval_batch_size=eval_batch_size,
    )  # fmt: skip
    return replace(made, settings={**made.settings, "method": repr(method)})


def whole(data: Data) -> tuple:
    """The training examples that count, as one batch.

    >>> whole(Data((jnp.zeros((3, 1)), jnp.arange(3)), rows=jnp.array([2, 0])))[1].tolist()
    [2, 0]
    """
    return data.train if data.rows is None else take(data.train, data.rows)


def elsewhere(problem: Problem, state: State) -> State:
    """The state of a method at the same parameters on another problem; what it could not do on the last is forgotten.

    >>> from jaxnet.optimizers.second_order.method import Move, method, of_function
    >>> still = method("still", lambda *_: (), lambda problem, s: Move(*s[:4], 0, outcomes.STALLED))
    >>> one, other = of_function(lambda p: p**2), of_function(lambda p: 3 * p)
    >>> state = elsewhere(other, still.step(one, still.init(one, jnp.array(2.0))))
    >>> float(state.value), float(state.gradient), int(state.outcome) == outcomes.RUNNING
    (6.0, 3.0, True)
    """
    value, gradient = problem.value_and_grad(state.params)
    helpless = (state.outcome == outcomes.STALLED) | (state.outcome == outcomes.DAMPING_EXHAUSTED)
    return state._replace(
        value=value,
        gradient=gradient,
        evaluations=state.evaluations + 1,
        outcome=jnp.where(helpless, outcomes.RUNNING, state.outcome).astype(jnp.int32),
    )


def changes_state(net: Layer, params: Any, state: Any, x: Any) -> bool:
    """Whether the layers' state is another one after training on `x`; computes nothing.

    Raises:
        ValueError: a layer that is random in training.

    >>> import jaxnet as jn
    >>> net = jn.serial(jn.batch_norm())
    >>> changes_state(net, *net.init(jax.random.key(0), (2,)), jnp.ones((3, 2)))
    True
    """
    same = []

    def forward(params, state, x, key=None):
        _, after = net.apply(params, state, x, key=key, train=True)
        same.append(all(a is b for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True)))

    try:
        jax.eval_shape(forward, params, state, x)
    except Exception as error:
        try:
            jax.eval_shape(forward, params, state, x, jax.random.key(0))
        except Exception:
            raise error from None
        raise ValueError(
            f"program_full_batch: got a network that is random in training ({error}); expected one without dropout "
            "and noise, whose loss is a function of its parameters: leave them out, or use jn.program"
        ) from error
    return not same[-1]


def trained_state(net: Layer, params: Any, state: Any, x: Any) -> Any:
    """The layers' state after training on `x`, in the dtypes of `state`.

    >>> import jaxnet as jn
    >>> trained_state(jn.dense(1), *jn.dense(1).init(jax.random.key(0), (2,)), jnp.ones((3, 2)))
    {}
    """
    if not jax.tree.leaves(state):
        return state
    _, after = net.apply(params, state, x, train=True)
    return jax.tree.map(lambda old, new: new.astype(old.dtype), state, after)


def _row(state: State) -> dict[str, Array]:
    return {"train_loss": state.value, "gradient_norm": largest(state.gradient)} | _scalars(state)


def _scalars(state: State) -> dict[str, Array]:
    """The numbers that the method remembers, by name: its damping, its estimates."""
    named = state.memory._asdict() if hasattr(state.memory, "_asdict") else {}
    leaves = {name: leaf for name, leaf in named.items() if isinstance(leaf, jax.Array) and leaf.ndim == 0}
    return {f"method_{name}": leaf for name, leaf in leaves.items() if jnp.issubdtype(leaf.dtype, jnp.floating)}


def _check(tolerances: Tolerances, l2: Any, batch_size: Any) -> None:
    for name, value in (*((f"{n}_tolerance", t) for n, t in tolerances._asdict().items()), ("l2", l2)):
        if isinstance(value, (int, float)) and not 0 <= value < float("inf"):
            raise ValueError(f"program_full_batch: got {name}={value}; expected a number ≥ 0")
    if batch_size is not None:
        for (name, value), usual in zip(tolerances._asdict().items(), Tolerances(), strict=True):
            if not isinstance(value, (int, float)) or value != usual:
                raise ValueError(
                    f"program_full_batch: got {name}_tolerance with batch_size={batch_size}; expected none, since a "
                    "minibatch's small gradient or step proves nothing: batch_size=None, or patience"
                )
