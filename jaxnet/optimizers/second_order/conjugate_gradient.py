"""Nonlinear conjugate gradients: d ← −g + β d, and a line search.

    fletcher-reeves     β = g'ᵀg' / gᵀg                          g' the new gradient, g the old one
    polak-ribiere+      β = max(0, (g' − g)ᵀg' / gᵀg)
    hestenes-stiefel    β = max(0, (g' − g)ᵀg' / (g' − g)ᵀd)
    dai-yuan            β = g'ᵀg' / (g' − g)ᵀd

On a quadratic of k variables, with the exact search, all four are the same: dᵀH d' = 0 and the minimum after at most
k steps. The first direction is −g (the book's alg. 8.9 starts from g₀ = 0, which makes Polak–Ribière's β 0/0), and
so is every direction after a restart: each `restart` steps, and where −g + β d doesn't fall.
"""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet import outcomes
from jaxnet.optimizers.second_order.line_search import Search, first_trial, strong_wolfe
from jaxnet.optimizers.second_order.method import Method, Move, choose, dot, method

Formula = Literal["polak-ribiere+", "fletcher-reeves", "hestenes-stiefel", "dai-yuan"]


class Conjugate(NamedTuple):
    direction: Any  # like params, the last one
    beta: Array  # () its share in the next; 0 starts anew
    since: Array  # () int32, steps since the last direction that was −g
    step: Array  # () α of the last step; 0 before the first
    slope: Array  # () gᵀd there


def conjugate_gradient(
    formula: Formula = "polak-ribiere+", restart: int | None = None, search: Search | None = None
) -> Method:
    """Nonlinear conjugate gradients (Goodfellow §8.6.2, alg. 8.9 corrected; Nocedal & Wright alg. 5.4).

    Args:
        formula: of β, see the module.
        restart: steps after which the direction is −g again; the number of parameters by default.
        search: `strong_wolfe(curvature=0.1)` by default; `exact()` for quadratics. Fletcher–Reeves needs c₂ < ½.

    Raises:
        ValueError: an unknown formula; restart < 1.

    >>> import jaxnet as jn
    >>> from jaxnet.optimizers.second_order import line_search, minimize
    >>> bowl = lambda p: jnp.sum(jnp.array([1.0, 5.0]) * p**2) / 2
    >>> int(minimize(bowl, jnp.array([5.0, 1.0]), method=conjugate_gradient(search=line_search.exact())).iterations)
    2
    """
    if formula not in Formula.__args__:  # type: ignore[attr-defined]
        raise ValueError(
            f"conjugate_gradient: got formula={formula!r}; expected one of {', '.join(Formula.__args__)}"  # type: ignore[attr-defined]
        )
    if restart is not None and (isinstance(restart, bool) or not isinstance(restart, int) or restart < 1):
        raise ValueError(f"conjugate_gradient: got restart={restart!r}; expected an integer ≥ 1, or None")
    search = search or strong_wolfe(curvature=0.1)

    def first(problem, params, value, gradient):
        zero = jnp.zeros_like(value)
        return Conjugate(jax.tree.map(jnp.zeros_like, params), zero, jnp.zeros((), jnp.int32), zero, zero)

    def move(problem, state):
        memory, gradient, dtype = state.memory, state.gradient, state.value.dtype
        limit = restart or sum(leaf.size for leaf in jax.tree.leaves(state.params))
        mixed = jax.tree.map(lambda g, d: memory.beta.astype(d.dtype) * d - g, gradient, memory.direction)
        conjugate = (memory.beta != 0) & (memory.since < limit - 1) & (dot(gradient, mixed) < 0)
        direction = choose(conjugate, mixed, jax.tree.map(jnp.negative, gradient))
        slope = dot(gradient, direction).astype(dtype)
        found = search.along(problem, state, direction, first_trial(state, slope, memory.step, memory.slope))
        beta = share(formula, gradient, found.gradient, direction).astype(dtype)
        after = Conjugate(
            direction,
            jnp.where(found.ok & jnp.isfinite(beta), beta, jnp.zeros_like(beta)),
            jnp.where(conjugate, memory.since + 1, 0).astype(jnp.int32),
            found.step,
            slope,
        )
        again = conjugate | (memory.step > 0)  # the next search goes along −g, and from a fresh first trial
        outcome = jnp.where(found.ok | again, outcomes.RUNNING, outcomes.STALLED)
        return Move(found.params, found.value, found.gradient, after, found.evaluations, outcome)

    return method(f"conjugate_gradient({formula}, {search.name})", first, move)


def share(formula: Formula, old: Any, new: Any, direction: Any) -> Array:
    """β of the last direction, () (Goodfellow eqs. 8.31 and 8.32; Nocedal & Wright §5.2).

    >>> float(share("fletcher-reeves", jnp.array([2.0]), jnp.array([1.0]), jnp.array([-2.0])))
    0.25
    """
    rise = jax.tree.map(jnp.subtract, new, old)
    top = dot(new, new) if formula in ("fletcher-reeves", "dai-yuan") else jnp.maximum(dot(rise, new), 0.0)
    return top / (dot(old, old) if formula in ("fletcher-reeves", "polak-ribiere+") else dot(rise, direction))
