"""Bayesian regularization: Levenberg–Marquardt that estimates the weight decay from the training data alone.

    F(θ) = β E_D + α E_W        E_D = Σ w ½r², the errors of all examples and outputs; E_W = ½‖θ‖²

α is the precision of a Gaussian prior on all parameters, biases too, and β that of the noise. Where the evidence is
largest (MacKay 1992)

    γ = P − α tr H⁻¹            H = ∇²F by Gauss–Newton: so many of the P parameters are determined by the data
    α = γ / 2E_W                β = (rows − γ) / 2E_D

Each step is one of Levenberg–Marquardt on F/(β Σw), whose penalty is l2 = α/(β Σw) on all parameters; then α, β and γ
are estimated anew (Foresee & Hagan 1997).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxnet import outcomes
from jaxnet.losses import as_loss
from jaxnet.optimizers.second_order.levenberg_marquardt import Damping, Rule, damped_step
from jaxnet.optimizers.second_order.method import Method, Move, Problem, State, choose, method
from jaxnet.optimizers.second_order.normal_equations import (
    chosen_form,
    normal_matrix,
    primal_solve,
    primal_system,
    size,
)

FIRST = 1e-2  # α/β at the start


class Evidence(NamedTuple):
    """The memory of the method."""

    damping: Damping
    alpha: Array  # () precision of the prior
    beta: Array  # () precision of the noise
    gamma: Array  # () effective number of parameters


def bayesian_regularization(
    damping: Any = 1e-3, *, largest: Any = 1e10, scaling: bool = True, memory_limit: int | None = None
) -> Method:
    """Levenberg–Marquardt on β E_D + α E_W, with α and β estimated at each step; for squared error.

    `memory` holds `alpha`, `beta` and `gamma`, the effective number of parameters. The value and gradient of the state
    are those of F/(β Σw), the mean loss and l2 ½‖θ‖² with l2 = α/(β Σw) as estimated last, so that the value may rise
    when l2 does; converged is where both the parameters and l2 stay. With residuals instead of a network Σw is 1. Bring
    inputs and targets to size one and mean zero, as the prior supposes, and train on all examples at once.

    Args:
        damping, largest, scaling, memory_limit: as in `levenberg_marquardt`.

    Raises:
        ValueError: as `levenberg_marquardt`; another loss than squared error; a penalty of the problem's own.
    Source: MacKay 1992; Foresee & Hagan 1997; Hagan ch. 13.

    >>> from jaxnet.optimizers.second_order import least_squares
    >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    >>> found = least_squares(lambda p: x @ p - jnp.array([2.0, 0.1, 2.0, 1.9]), jnp.zeros(2),
    ...                       method=bayesian_regularization())
    >>> 1 < float(found.memory.gamma) < 2, float(found.params[0]) < 1.97
    (True, True)
    """
    rule = Rule(None, None, largest, scaling)
    name = "bayesian_regularization"

    def first(problem, params, value, gradient):
        _check(problem)
        chosen_form(name, problem, params, "primal", memory_limit)
        flat, _ = ravel_pytree(params)
        zero = jnp.zeros((), flat.dtype)
        start = Damping(jnp.asarray(damping, flat.dtype), jnp.zeros_like(flat))
        return Evidence(start, zero + FIRST, zero + 1, zero + flat.size)

    def move(problem: Problem, state: State) -> Move:
        total = _total(problem)
        memory = state.memory
        l2 = memory.alpha / (memory.beta * total)
        flat, _ = ravel_pytree(state.params)
        gram, slope = normal_matrix(problem, state.params)
        penalty = jnp.full_like(flat, l2)
        found = primal_system(gram, slope + l2 * flat, penalty)
        step = damped_step(with_penalty(problem, l2), state._replace(memory=memory.damping), found, rule)
        # The matrix at the step's end would cost as much as the step: that at its start stands for it.
        alpha, beta, gamma = estimated(problem, step.params, gram, penalty, total)
        now = Evidence(step.memory, alpha, beta, gamma)
        # Where no step lowers F, new estimates may still make another F.
        moves = jnp.abs(alpha / beta - memory.alpha / memory.beta) > 1e-3 * alpha / beta
        after = with_penalty(problem, alpha / (beta * total))
        value, gradient = after.value_and_grad(step.params)
        sound = jnp.isfinite(step.value)
        return Move(
            step.params,
            jnp.where(sound, value, step.value),
            gradient,
            choose(sound, now, memory),
            step.evaluations + 1,
            jnp.where(moves & sound, outcomes.RUNNING, step.outcome),
        )

    return method(name, first, move, needs="residuals")


def estimated(problem: Problem, params: Any, gram: Array, penalty: Array, total: Array) -> tuple[Array, Array, Array]:
    """(α, β, γ) at `params`, where the mean loss has the Gauss–Newton matrix `gram` and the penalty this diagonal."""
    flat, _ = ravel_pytree(params)
    rows = size(problem, params)[0]
    inverse = primal_solve(gram, penalty, jnp.eye(flat.size, dtype=flat.dtype))
    gamma = flat.size - jnp.sum(penalty * jnp.diagonal(inverse))
    # In rounding, or without a factor, it's still above none and below all of the rows and parameters.
    gamma = jnp.clip(jnp.where(jnp.isfinite(gamma), gamma, flat.size), 1e-3, min(flat.size, rows - 1e-3))
    smallest = jnp.finfo(flat.dtype).tiny ** 0.5
    alpha = gamma / jnp.maximum(jnp.sum(jnp.square(flat)), smallest)
    beta = (rows - gamma) / jnp.maximum(2 * total * problem.value(params), smallest)
    return alpha, beta, gamma


def with_penalty(problem: Problem, l2: Array) -> Problem:
    """The same problem with l2 · ½ ‖θ‖² added, all parameters alike.

    >>> from jaxnet.optimizers.second_order.method import of_function
    >>> float(with_penalty(of_function(lambda p: p), jnp.array(2.0)).value(jnp.array(3.0)))
    12.0
    """

    def value(params):
        flat, _ = ravel_pytree(params)
        return problem.value(params) + l2 * jnp.sum(jnp.square(flat)) / 2

    return Problem(value, jax.value_and_grad(value), problem.residuals, problem.network)


def _total(problem: Problem) -> Array:
    """Σw, what the mean loss has been divided by."""
    if problem.network is None:
        return jnp.ones((), jnp.result_type(float))
    x, _, *weight = problem.network.batch
    n = jax.tree.leaves(x)[0].shape[0]
    return jnp.sum(weight[0]) if weight else jnp.full((), n, jnp.result_type(float))


def _check(problem: Problem) -> None:
    if problem.network is None:
        return
    loss, l2 = as_loss(problem.network.loss), problem.network.l2
    if loss.name != "squared_error":
        raise ValueError(f"bayesian_regularization: got loss {loss.name}; expected squared_error")
    if not (isinstance(l2, (int, float)) and l2 == 0):
        raise ValueError(f"bayesian_regularization: got l2={l2}; expected 0, since it's estimated")
