"""BFGS: an estimate M of the inverse Hessian from the gradients' changes; d = −M g, and a line search.

With s = θ' − θ, y = g' − g and ρ = 1/sᵀy each step makes M the nearest one with M' y = s:

    M' = M + ρ (1 + ρ yᵀM y) s sᵀ − ρ (s (M y)ᵀ + M y sᵀ)

M' is symmetric, and positive definite where M was and sᵀy > 0; elsewhere M stays as it is. The change has rank two.

The book's text is corrected here (Goodfellow §8.6.3): its secant condition has the wrong sign (eq. 8.34), the middle
term is the outer product s sᵀ, not a scalar (eq. 8.35), and the direction is −M g, not +M g (alg. 8.10).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxnet import outcomes
from jaxnet.optimizers.second_order.line_search import Search, first_trial, strong_wolfe
from jaxnet.optimizers.second_order.method import Method, Move, choose, dot, method


class Estimate(NamedTuple):
    inverse: Array  # (P, P) M, over the parameters raveled in the tree's order
    updates: Array  # () int32, since it was a multiple of I


def bfgs(scaling: bool = True, search: Search | None = None) -> Method:
    """BFGS with a dense M: O(P²) memory and work a step, for hundreds to a few thousand parameters.

    Nocedal & Wright alg. 6.1; Goodfellow alg. 8.10, corrected as the module says. If no step along −M g is found, M
    is I again; if none is found along −g, the method has stalled.

    Args:
        scaling: begin from (sᵀy / yᵀy) I, known after the first step, rather than from I (Nocedal & Wright eq. 6.20).
        search: `strong_wolfe()` by default, which keeps sᵀy > 0; `exact()` for quadratics.

    >>> import jaxnet as jn
    >>> from jaxnet.optimizers.second_order import minimize
    >>> found = minimize(lambda p: 100 * (p[1] - p[0]**2)**2 + (1 - p[0])**2, jnp.array([-1.2, 1.0]), method=bfgs(),
    ...                  gradient_tolerance=1e-3)
    >>> [round(float(p), 3) for p in found.params]
    [1.0, 1.0]
    """
    search = search or strong_wolfe()

    def first(problem, params, value, gradient):
        flat, _ = ravel_pytree(params)
        return Estimate(jnp.eye(flat.size, dtype=flat.dtype), jnp.zeros((), jnp.int32))

    def move(problem, state):
        old, _ = ravel_pytree(state.gradient)
        start, tree = ravel_pytree(state.params)
        inverse, updates = state.memory
        direction = tree(-jnp.matmul(inverse, old, precision="highest"))
        slope = dot(state.gradient, direction).astype(state.value.dtype)
        never = jnp.zeros_like(slope)
        trial = jnp.where(updates > 0, jnp.ones_like(slope), first_trial(state, slope, never, never))
        found = search.along(problem, state, direction, trial)
        s, y = ravel_pytree(found.params)[0] - start, ravel_pytree(found.gradient)[0] - old
        good = found.ok & curved(dot(s, y), dot(s, s), dot(y, y))
        if scaling:
            inverse = inverse * jnp.where(updates == 0, jnp.where(good, dot(s, y) / dot(y, y), 1.0), 1.0)
        after = Estimate(
            choose(found.ok, choose(good, updated(inverse, s, y), inverse), jnp.eye(s.size, dtype=s.dtype)),
            jnp.where(found.ok, updates + good, 0).astype(jnp.int32),
        )
        outcome = jnp.where(found.ok | (updates > 0), outcomes.RUNNING, outcomes.STALLED)
        return Move(found.params, found.value, found.gradient, after, found.evaluations, outcome)

    return method(f"bfgs({search.name})", first, move)


def updated(inverse: Array, s: Array, y: Array) -> Array:
    """M' with M' y = s, (P, P) (Goodfellow eq. 8.35, corrected).

    >>> updated(jnp.eye(2), jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0])).tolist()
    [[0.5, 0.0], [0.0, 1.0]]
    """
    my = jnp.matmul(inverse, y, precision="highest")
    rho = 1 / dot(s, y)
    cross = jnp.outer(s, my)
    return inverse + rho * ((1 + rho * dot(y, my)) * jnp.outer(s, s) - (cross + cross.T))


def curved(sy: Array, ss: Array, yy: Array) -> Array:
    """Whether the curvature sᵀy is positive beyond rounding, () bool: ≥ ε ‖s‖ ‖y‖, and s, y aren't 0.

    >>> bool(curved(jnp.array(-1.0), jnp.array(1.0), jnp.array(1.0)))
    False
    """
    return (sy > jnp.finfo(sy.dtype).eps * jnp.sqrt(ss) * jnp.sqrt(yy)) & (yy > 0)
