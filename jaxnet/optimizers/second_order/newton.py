"""Newton's method: the minimum of the quadratic model, of the exact Hessian, at each step."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_factor, cho_solve

from jaxnet import outcomes
from jaxnet.gradients.products import matrix_of
from jaxnet.optimizers.second_order.damping import damped
from jaxnet.optimizers.second_order.memory import check_bytes
from jaxnet.optimizers.second_order.method import Method, Move, Problem, State, all_finite, method, norm

MATRICES = 4  # of P × P that are alive at once: the curvature, the units it came from, damped, factored


def newton(*, damping: Any = None) -> Method:
    """θ ← θ − (H + λI)⁻¹ g with the Hessian H of all parameters, dense.

    Args:
        damping: λ. None adapts it: it starts at 0 and is raised until H + λI is positive definite and the step
            lowers the value, then relaxed as the model proves right; the value never rises. A number ≥ 0,
            traced or not, stays: at 0 it's Newton's own step, one to the minimum of a quadratic, which a saddle or a
            maximum attracts as well and which may go uphill; a large one goes down the gradient, g/λ.

    P parameters cost P² numbers and P³ operations a step. Outcomes: damping exhausted, non-finite (a singular
    H with λ = 0 too).

    Raises:
        ValueError: λ < 0; at the first step, before any compile, matrices larger than half of the memory.
    Source: Hagan eq. 3.28; Goodfellow eq. 4.12, 8.27, 8.28 and alg. 8.8; Nocedal & Wright ch. 3.4, 4.

    >>> from jaxnet import outcomes
    >>> from jaxnet.optimizers.second_order import minimize
    >>> found = minimize(lambda p: (p[0] - 1) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2, jnp.zeros(2), method=newton())
    >>> [round(float(p), 4) for p in found.params], int(found.outcome) == outcomes.CONVERGED
    ([1.0, 1.0], True)
    """
    return by_curvature("newton", hessian, solved, damping)


def hessian(problem: Problem, params: Any) -> Array:
    """The matrix of second derivatives (P, P) in the order of the raveled parameters, forward over reverse.

    >>> from jaxnet.optimizers.second_order.method import of_function
    >>> hessian(of_function(lambda p: p[0] ** 2 * p[1]), jnp.array([1.0, 2.0])).tolist()
    [[4.0, 2.0], [2.0, 0.0]]
    """
    _, product = jax.linearize(lambda p: problem.value_and_grad(p)[1], params)
    return matrix_of(product, params)


def solved(curvature: Array, gradient: Array) -> Callable[[Array], tuple[Array, Array]]:
    """λ -> (d, foretold fall) with d = −(C + λI)⁻¹ g by Cholesky; NaN unless C + λI is positive definite.

    >>> d, fall = solved(4 * jnp.eye(1), jnp.ones(1))(jnp.array(0.0))
    >>> float(d[0]), float(fall)
    (-0.25, 0.125)
    """

    def propose(damping):
        step = -cho_solve(cho_factor(plus(curvature, damping), lower=True), gradient)
        # m(0) − m(d) = −gᵀd − ½ dᵀCd, with Cd = −g − λd
        return step, (damping * jnp.vdot(step, step) - jnp.vdot(gradient, step)) / 2

    return propose


def plus(curvature: Array, damping: Array) -> Array:
    """C + λI."""
    return curvature + damping * jnp.eye(curvature.shape[0], dtype=curvature.dtype)


def by_curvature(
    name: str,
    curvature_of: Callable[[Problem, Any], Array],
    solver: Callable[[Array, Array], Callable[[Array], tuple[Array, Array]]],
    damping: Any,
    needs: str = "value",
) -> Method:
    """The method of steps −(C + λI)⁻¹ g for a curvature matrix C(θ), with λ fixed or adapted.

    Args:
        curvature_of: (problem, params) -> (P, P).
        solver: (C, g) -> (λ -> (d, foretold fall)), for an adapted λ.
    """
    if isinstance(damping, (int, float)) and not 0 <= damping < float("inf"):
        raise ValueError(f"{name}: got damping={damping}; expected a finite number ≥ 0, or None to adapt it")

    def first(problem, params, value, gradient):
        count = sum(leaf.size for leaf in jax.tree.leaves(params))
        check_bytes(
            name,
            MATRICES * count**2 * value.dtype.itemsize,
            cure=f"{count:,} parameters are too many for matrices of their square: take lbfgs or conjugate_gradients",
        )
        return jnp.zeros_like(value) if damping is None else ()

    def fixed(problem: Problem, state: State) -> Move:
        flat, unravel = ravel_pytree(state.params)
        matrix = plus(curvature_of(problem, state.params), jnp.asarray(damping, flat.dtype))
        params = unravel(flat - jnp.linalg.solve(matrix, ravel_pytree(state.gradient)[0]))
        return Move(params, *problem.value_and_grad(params), (), 1)

    def adapted(problem: Problem, state: State) -> Move:
        _, unravel = ravel_pytree(state.params)
        matrix = curvature_of(problem, state.params)
        propose = solver(matrix, ravel_pytree(state.gradient)[0])

        def proposed(damping):
            step, foretold = propose(damping)
            return unravel(step), foretold

        scale = jnp.maximum(norm(matrix), norm(state.gradient) / (1 + norm(state.params)))
        trial = damped(problem, state.params, state.value, state.gradient, proposed, state.memory, scale)
        ended = jnp.where(all_finite(matrix), outcomes.DAMPING_EXHAUSTED, outcomes.NON_FINITE)
        outcome = jnp.where(trial.accepted, outcomes.RUNNING, ended)
        return Move(trial.params, trial.value, trial.gradient, trial.damping, trial.evaluations, outcome)

    return method(name, first, adapted if damping is None else fixed, needs)
