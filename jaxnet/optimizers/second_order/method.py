"""What is minimized, and the contract of the methods that minimize it.

    Problem(value, value_and_grad, residuals, network)      functions of a parameter tree
    Method(name, needs, init, step)
        init(problem, params) -> State                      arrays only: jit it, scan it, vmap it
        step(problem, state)  -> State                      one iteration; where `outcome` isn't RUNNING nothing changes

Unlike an optax transformation, which sees one gradient, such a method evaluates the function as often as it wants
within a step. The problem may be another one at each step: the next minibatch.

A method is made by `method` from two functions, and gets from it what all share: counting, and that a step which
isn't finite is never taken: the state stays the last finite one, with the outcome NON_FINITE.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet import outcomes
from jaxnet.layers import Layer
from jaxnet.losses import Loss


class NetworkBatch(NamedTuple):
    """What a network's problem is made of: L(θ) = Σ wℓ / Σ w + l2·½‖weights‖², the sums over the batch."""

    net: Layer
    loss: Loss
    state: Any  # the layers' state, constant within a step
    batch: tuple  # (x, y) or (x, y, weight)
    l2: Any  # () factor of the penalty on the leaves named w


class Problem(NamedTuple):
    """A function of a parameter tree. The functions are pure; arrays inside them may be traced."""

    value: Callable[[Any], Array]  # params -> ()
    value_and_grad: Callable[[Any], tuple[Array, Any]]  # params -> (), gradient like params
    residuals: Callable[[Any], Array] | None = None  # params -> (N,), value = ½‖residuals‖²
    network: NetworkBatch | None = None


class State(NamedTuple):
    """All that decides the next step."""

    params: Any
    value: Array  # () f(params)
    gradient: Any  # like params
    memory: Any  # the method's own arrays
    step_norm: Array  # () ‖Δθ‖₂ of the last step; inf before the first
    change: Array  # () f before the last step − f after it; inf before the first
    iteration: Array  # () int32, steps taken or tried
    evaluations: Array  # () int32, evaluations of f, with or without its gradient
    outcome: Array  # () int32, outcomes.RUNNING while it can go on


class Move(NamedTuple):
    """What a method's own function proposes."""

    params: Any
    value: Array
    gradient: Any
    memory: Any
    evaluations: Array | int  # made in this step
    outcome: Array | int = (
        outcomes.RUNNING
    )  # or STALLED, DAMPING_EXHAUSTED: then params, value, gradient are the old ones


@dataclass(frozen=True, eq=False)
class Method:
    """A record of two functions, compared by identity; `needs` is "value", "residuals" or "network"."""

    name: str
    needs: str
    init: Callable[[Problem, Any], State]
    step: Callable[[Problem, State], State]

    def __repr__(self) -> str:
        return f"<method {self.name}>"


def method(
    name: str,
    first: Callable[[Problem, Any, Array, Any], Any],
    move: Callable[[Problem, State], Move],
    needs: str = "value",
) -> Method:
    """The method whose memory starts as `first(problem, params, value, gradient)` and whose step is `move`.

    >>> def first(problem, params, value, gradient):
    ...     return ()
    >>> def move(problem, state):
    ...     params = jax.tree.map(lambda p, g: p - 0.5 * g, state.params, state.gradient)
    ...     return Move(params, *problem.value_and_grad(params), (), 1)
    >>> halving = method("halving", first, move)
    >>> square = of_function(lambda p: p**2 / 2)
    >>> float(halving.step(square, halving.init(square, jnp.array(8.0))).params)
    4.0
    """

    def init(problem: Problem, params: Any) -> State:
        params = jax.tree.map(lambda p: strong(jnp.asarray(p)), params)
        value, gradient = problem.value_and_grad(params)
        value, gradient = strong(value), jax.tree.map(strong, gradient)
        far = jnp.full_like(value, jnp.inf)
        finite = jnp.isfinite(value) & all_finite(gradient)
        return State(
            params,
            value,
            gradient,
            jax.tree.map(lambda m: strong(jnp.asarray(m)), first(problem, params, value, gradient)),
            step_norm=far,
            change=far,
            iteration=jnp.zeros((), jnp.int32),
            evaluations=jnp.ones((), jnp.int32),
            outcome=jnp.where(finite, outcomes.RUNNING, outcomes.NON_FINITE).astype(jnp.int32),
        )

    def step(problem: Problem, state: State) -> State:
        new = move(problem, state)
        finite = jnp.isfinite(new.value) & all_finite((new.params, new.gradient))
        outcome = jnp.where(finite, new.outcome, outcomes.NON_FINITE).astype(jnp.int32)
        params, value, gradient, memory = choose(finite, new[:4], state[:4])
        difference = jax.tree.map(jnp.subtract, params, state.params)
        after = State(
            params,
            value,
            gradient,
            memory,
            step_norm=norm(difference).astype(state.step_norm.dtype),
            change=state.value - value,
            iteration=state.iteration + 1,
            evaluations=state.evaluations + jnp.asarray(new.evaluations, jnp.int32),
            outcome=outcome,
        )
        return choose(state.outcome == outcomes.RUNNING, after, state)

    return Method(name, needs, init, step)


def of_function(fun: Callable[[Any], Array]) -> Problem:
    """The problem of a function params -> (), differentiated by `jax.grad`.

    >>> float(of_function(lambda p: p**2).value_and_grad(jnp.array(3.0))[1])
    6.0
    """
    return Problem(fun, jax.value_and_grad(fun))


def of_residuals(residuals: Callable[[Any], Any]) -> Problem:
    """The problem ½‖r(θ)‖² of residuals params -> an array or a tree of arrays, which are flattened to (N,).

    >>> of_residuals(lambda p: {"a": p, "b": 2 * p}).residuals(jnp.array([1.0])).tolist()
    [1.0, 2.0]
    """

    def flat(params):
        return jnp.concatenate([jnp.ravel(r) for r in jax.tree.leaves(residuals(params))])

    def value(params):
        return jnp.sum(jnp.square(flat(params))) / 2

    return Problem(value, jax.value_and_grad(value), flat)


def strong(a: Array) -> Array:
    """The same array without a weak type.

    >>> strong(jnp.asarray(1.0)).weak_type
    False
    """
    return jax.lax.convert_element_type(a, a.dtype)


def choose(condition: Array, one: Any, other: Any) -> Any:
    """`one` where the scalar `condition` holds, else `other`, leaf by leaf, in the dtypes of `other`.

    >>> float(choose(jnp.array(True), jnp.ones(()), jnp.zeros(())))
    1.0
    """
    return jax.tree.map(lambda a, b: jnp.where(condition, a.astype(b.dtype), b), one, other)


def all_finite(tree: Any) -> Array:
    """Whether every number of the tree is finite, () bool.

    >>> bool(all_finite({"w": jnp.array([1.0, jnp.nan])}))
    False
    """
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(tree)] or [jnp.ones((), bool)]))


def dot(one: Any, other: Any) -> Array:
    """Σ over all leaves of the products, ().

    >>> float(dot({"a": jnp.ones(2)}, {"a": jnp.full(2, 3.0)}))
    6.0
    """
    products = jax.tree.map(lambda a, b: jnp.vdot(a, b, precision="highest"), one, other)
    return jnp.sum(jnp.stack(jax.tree.leaves(products)))


def norm(tree: Any) -> Array:
    """‖tree‖₂ over all leaves, ().

    >>> float(norm({"a": jnp.array([3.0]), "b": jnp.array(4.0)}))
    5.0
    """
    return jnp.sqrt(dot(tree, tree))


def largest(tree: Any) -> Array:
    """The largest magnitude of the tree's numbers, (); NaN if any is.

    >>> float(largest({"a": jnp.array([3.0]), "b": jnp.array(-4.0)}))
    4.0
    """
    return jnp.max(jnp.stack([jnp.max(jnp.abs(a), initial=0.0) for a in jax.tree.leaves(tree)]))
