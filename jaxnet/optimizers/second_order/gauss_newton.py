"""Gauss–Newton: the least-squares solution of the linearized residuals, at each step."""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxnet import outcomes
from jaxnet.optimizers.second_order.line_search import Search, backtracking
from jaxnet.optimizers.second_order.method import Method, Move, Problem, State, all_finite, method
from jaxnet.optimizers.second_order.normal_equations import (
    FORMS,
    chosen_form,
    normal_matrix,
    penalties,
    rows_of,
)


def gauss_newton(
    *, search: Search | None = None, full_steps: bool = False, form: str | None = None, memory_limit: int | None = None
) -> Method:
    """δ = −(AᵀA + l2 I_w)⁺ g, shortened until the value falls; the step of least norm where the matrix is singular.

    A are the rows of the problem, as for `levenberg_marquardt`. On linear residuals one step reaches the minimum. Far
    from one it may go astray where Levenberg–Marquardt doesn't.

    Args:
        search: the line search along δ, from δ itself; `backtracking()` by default. Stalled where it fails.
        full_steps: take δ itself without a search, uphill too.
        form: "primal" decomposes the P × P matrix, "dual" the rows × rows one; None takes the smaller. With a penalty
            it's the primal one.
        memory_limit: bytes, half of the memory unless given.

    Raises:
        ValueError: options out of range; a problem without residuals, or too large for the memory, before any compile;
            the dual form with a penalty.
    Source: Nocedal & Wright §10.3; Björck 1996 §9.2.

    >>> from jaxnet.optimizers.second_order import least_squares
    >>> line = lambda p: p["slope"] * jnp.array([1.0, 2.0]) - jnp.array([2.0, 4.0])
    >>> found = least_squares(line, {"slope": jnp.array(9.0)}, method=gauss_newton())
    >>> round(float(found.params["slope"]), 4), int(found.iterations)
    (2.0, 1)
    """
    if form is not None and form not in FORMS:
        raise ValueError(f"gauss_newton: got form={form!r}; expected 'primal', 'dual' or None")
    if full_steps and search is not None:
        raise ValueError("gauss_newton: got a search with full_steps=True; expected one of them")
    along = search or backtracking()

    def kind(problem, params):
        asked = form
        if _penalized(problem):
            if form == "dual":
                raise ValueError("gauss_newton: got form='dual' with a penalty; expected l2=0, or form='primal'")
            asked = "primal"
        return chosen_form("gauss_newton", problem, params, asked, memory_limit)

    def first(problem, params, value, gradient):
        kind(problem, params)
        return ()

    def move(problem: Problem, state: State) -> Move:
        step, gradient = least_norm_step(problem, state.params, kind(problem, state.params))
        flat, unravel = ravel_pytree(state.params)
        if full_steps:
            params = unravel(flat + step)
            return Move(params, *problem.value_and_grad(params), (), 2)
        here = state._replace(value=problem.value(state.params), gradient=unravel(gradient))
        found = along.along(problem, here, unravel(step), jnp.ones_like(here.value))
        # Where the point itself is bad, no search can tell.
        value = jnp.where(jnp.isfinite(here.value) & all_finite((gradient, step)), found.value, jnp.nan)
        outcome = jnp.where(found.ok, outcomes.RUNNING, outcomes.STALLED)
        return Move(found.params, value, found.gradient, (), found.evaluations + 1, outcome)

    return method("gauss_newton", first, move, needs="residuals")


def _penalized(problem: Problem) -> bool:
    if problem.network is None:
        return False
    l2 = problem.network.l2
    return not (isinstance(l2, (int, float)) and l2 == 0)


def least_norm_step(problem: Problem, params: Any, form: str) -> tuple[Array, Array]:
    """(δ (P,) of least norm, g (P,)) of the normal equations without damping; in the dual form without the penalty.

    >>> from jaxnet.optimizers.second_order.method import of_residuals
    >>> both = of_residuals(lambda p: jnp.array([[1.0, 1.0]]) @ p - 2.0)  # two parameters, one residual
    >>> [least_norm_step(both, jnp.zeros(2), form)[0].round(4).tolist() for form in FORMS]
    [[1.0, 1.0], [1.0, 1.0]]
    """
    flat, _ = ravel_pytree(params)
    if form == "dual":
        a, s = rows_of(problem, params)
        z = least_norm(jnp.matmul(a, a.T, precision="highest"), s)
        return -jnp.matmul(z, a, precision="highest"), jnp.matmul(s, a, precision="highest")
    penalty = penalties(problem, params)
    gram, gradient = normal_matrix(problem, params)
    gradient = gradient + penalty * flat
    return -least_norm(gram + jnp.diag(penalty), gradient), gradient


def least_norm(matrix: Array, right: Array) -> Array:
    """The least-norm solution of a symmetric positive semidefinite system, by its eigenvalues above n ε λ_max.

    >>> least_norm(jnp.ones((2, 2)), jnp.full(2, 4.0)).round(4).tolist()
    [2.0, 2.0]
    """
    values, vectors = jnp.linalg.eigh(matrix)
    kept = values > len(values) * jnp.finfo(values.dtype).eps * values[-1]
    weights = jnp.where(kept, 1 / jnp.where(kept, values, jnp.ones_like(values)), jnp.zeros_like(values))
    inner = jnp.matmul(right, vectors, precision="highest")
    return jnp.matmul(vectors, weights * inner, precision="highest")
