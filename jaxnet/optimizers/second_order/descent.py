"""Steepest descent: d = −g, and a line search.

With the exact search successive gradients are orthogonal, so that on a quadratic the path zig-zags: f − f* falls by
at worst ((κ − 1)/(κ + 1))² a step, κ the condition number of the Hessian (Goodfellow fig. 8.6).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet import outcomes
from jaxnet.optimizers.second_order.line_search import Search, first_trial, strong_wolfe
from jaxnet.optimizers.second_order.method import Method, Move, dot, method


class Descent(NamedTuple):
    step: Array  # () α of the last step; 0 before the first
    slope: Array  # () gᵀd there


def gradient_descent(search: Search | None = None) -> Method:
    """θ ← θ − α ∇f(θ), α by a line search (Goodfellow §4.3).

    Args:
        search: of `jaxnet.optimizers.second_order.line_search`: `exact()`, `backtracking()`, `strong_wolfe()` (the
            default), `grid()`.

    >>> import jaxnet as jn
    >>> from jaxnet.optimizers.second_order import line_search, minimize
    >>> bowl = lambda p: jnp.sum(jnp.array([1.0, 5.0]) * p**2) / 2
    >>> found = minimize(bowl, jnp.array([5.0, 1.0]), method=gradient_descent(line_search.exact()), steps=2)
    >>> [round(float(v), 4) for v in found.history["value"]]  # 4/9 of it after each step
    [15.0, 6.6667, 2.963]
    """
    search = search or strong_wolfe()

    def first(problem, params, value, gradient):
        return Descent(jnp.zeros_like(value), jnp.zeros_like(value))

    def move(problem, state):
        direction = jax.tree.map(jnp.negative, state.gradient)
        slope = dot(state.gradient, direction).astype(state.value.dtype)
        found = search.along(problem, state, direction, first_trial(state, slope, *state.memory))
        again = state.memory.step > 0  # the next search starts from a fresh first trial
        outcome = jnp.where(found.ok | again, outcomes.RUNNING, outcomes.STALLED)
        return Move(found.params, found.value, found.gradient, Descent(found.step, slope), found.evaluations, outcome)

    return method(f"gradient_descent({search.name})", first, move)
