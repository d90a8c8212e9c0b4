"""Levenberg–Marquardt: Gauss–Newton steps, damped until the value falls."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxnet import outcomes
from jaxnet.optimizers.second_order.method import (
    Method,
    Move,
    Problem,
    State,
    all_finite,
    choose,
    method,
    strong,
)
from jaxnet.optimizers.second_order.normal_equations import FORMS, System, chosen_form, system
from jaxnet.optimizers.second_order.scaling import units_of

LEAST_GAIN = 1e-4  # of the foretold fall, for a step to be taken
SHORTER = 0.99  # the square of the gradient's length, for a step whose fall is lost in rounding


class Damping(NamedTuple):
    """The memory of the method."""

    damping: Array  # () μ of the next trial
    scale: Array  # D (P,), the largest seen so far


class Rule(NamedTuple):
    """How the damping changes; Nielsen's way where the factors are None."""

    increase: Any
    decrease: Any
    largest: Any
    scaling: bool


def levenberg_marquardt(
    damping: Any = 1e-3,
    *,
    increase: Any = 4.0,
    decrease: Any = 0.2,
    largest: Any = 1e10,
    scaling: bool = True,
    form: str | None = None,
    memory_limit: int | None = None,
) -> Method:
    """δ = −(AᵀA + l2 I_w + μ D)⁻¹ g, with μ raised until the value falls as the quadratic model foretells.

    A are the rows of the problem: the residuals' Jacobian, or a network's, which back-propagates all examples at once
    (squared error, softmax and sigmoid cross-entropy and others: the generalised Gauss–Newton matrix). Within a step
    AᵀA is formed once, whatever the number of trials. A trial that isn't finite, or whose matrix isn't positive
    definite, counts as one that failed. The batch may change with each step: nothing of the last one is used but μ
    and D.

    Args:
        damping: the first μ, traced or not.
        increase, decrease: μ is multiplied by `increase` after a failed trial and by `decrease` after a step; on
            networks 4 and 0.2 took 1/4 to 3/4 of Nielsen's steps; 10 and 0.1 are Hagan & Menhaj's. None
            (both) is Nielsen's, by the gain ratio ρ = fall / foretold fall: μ max(1/3, 1 − (2ρ − 1)³) after a step, and
            2, 4, 8, … times μ after failures in a row.
        largest: the damping is exhausted beyond it.
        scaling: D is the largest of the parameters' units seen so far (see `scaling`): of residuals the diagonal of
            AᵀA (Moré 1978), of a network the mean squares of the layers' inputs. Badly scaled parameters and inputs
            cost nothing. False is D = I: a large μ goes down the gradient.
        form: "primal" factors a P × P matrix, "dual" a rows × rows one; None takes the smaller.
        memory_limit: bytes, half of the memory unless given.

    Outcomes: stalled where the foretold fall is lost in rounding and the gradient no longer shrinks, damping exhausted.

    Raises:
        ValueError: options out of range; a problem without residuals, or too large for the memory, before any compile.
    Source: Levenberg 1944; Marquardt 1963; Moré 1978; Hagan & Menhaj 1994; Nielsen 1999; Nocedal & Wright §10.3.

    >>> from jaxnet.optimizers.second_order import least_squares
    >>> def rosenbrock(p):
    ...     return jnp.stack([1 - p[0], 10 * (p[1] - p[0] ** 2)])
    >>> found = least_squares(rosenbrock, jnp.array([-1.2, 1.0]), method=levenberg_marquardt())
    >>> [round(float(p), 4) for p in found.params]
    [1.0, 1.0]
    """
    _check(damping, increase, decrease, largest, form)
    rule = Rule(increase, decrease, largest, scaling)

    def first(problem, params, value, gradient):
        chosen_form("levenberg_marquardt", problem, params, form, memory_limit)
        flat, _ = ravel_pytree(params)
        return Damping(jnp.asarray(damping, flat.dtype), jnp.zeros_like(flat))

    def move(problem: Problem, state: State) -> Move:
        kind = chosen_form("levenberg_marquardt", problem, state.params, form, memory_limit)
        found = system(problem, state.params, kind)
        return damped_step(problem, state, found, rule)

    return method("levenberg_marquardt", first, move, needs="residuals")


class Trial(NamedTuple):
    """The last step tried, or the start where none was taken."""

    params: Any
    value: Array
    gradient: Any
    damping: Array
    growth: Array  # () what the next failure multiplies μ by
    tried: Array  # () int32
    verdict: Array  # () int32, TRYING, TAKEN or an outcome


TRYING, TAKEN = -2, outcomes.RUNNING


def damped_step(problem: Problem, state: State, found: System, rule: Rule) -> Move:
    """Trials along the damping from the point of `found`, until one is taken, none can be, or μ is exhausted.

    Where the foretold fall is lost in the value's rounding, a step that shortens the gradient, measured by D, is taken.
    """
    params, memory = state.params, state.memory
    flat, unravel = ravel_pytree(params)
    value = problem.value(params)
    epsilon = jnp.finfo(flat.dtype).eps
    seen = jnp.maximum(memory.scale, units_of(problem, params, found.diagonal))
    scale = jnp.where(seen > 0, seen, jnp.ones_like(seen)) if rule.scaling else jnp.ones_like(seen)
    least = epsilon * jnp.max(found.diagonal / scale)
    largest = jnp.asarray(rule.largest, flat.dtype)
    rounding = 4 * epsilon * jnp.abs(value)

    def length(gradient):
        return jnp.sum(jnp.square(gradient) / scale)

    start_length = length(found.gradient)

    def attempt(trial: Trial) -> Trial:
        step = found.solve(trial.damping * scale)
        foretold = (trial.damping * jnp.sum(scale * jnp.square(step)) - jnp.sum(found.gradient * step)) / 2
        there = unravel(flat + step)
        new_value, gradient = problem.value_and_grad(there)
        finite = jnp.isfinite(new_value) & all_finite((there, gradient)) & (foretold >= 0)
        fall = value - new_value
        gain = fall / jnp.where(foretold > 0, foretold, jnp.ones_like(foretold))
        lost = foretold <= rounding
        falls = ~lost & (fall > 0) & (gain > LEAST_GAIN)
        shortens = lost & (fall >= -rounding) & (length(ravel_pytree(gradient)[0]) < SHORTER * start_length)
        taken = finite & (falls | shortens)
        if rule.increase is None:
            cube = (2 * jnp.where(lost, jnp.ones_like(gain), gain) - 1) ** 3
            lower, raised = jnp.maximum(1 - cube, 1 / 3), trial.growth
        else:
            lower, raised = (jnp.asarray(a, flat.dtype) for a in (rule.decrease, rule.increase))
        damping = jnp.maximum(trial.damping * jnp.where(taken, lower, raised), least)
        verdict = jnp.select(
            [taken, finite & lost, ~(damping <= largest)],
            [jnp.full((), v, jnp.int32) for v in (TAKEN, outcomes.STALLED, outcomes.DAMPING_EXHAUSTED)],
            jnp.full((), TRYING, jnp.int32),
        )
        after = choose(taken, (there, new_value, gradient), (trial.params, trial.value, trial.gradient))
        return Trial(
            after[0],
            after[1],
            after[2],
            strong(damping),
            trial.growth * 2,
            trial.tried + 1,
            verdict,
        )

    # A point or a batch whose numbers are bad ends the run, and keeps no neighbour waiting for its trials.
    sound = jnp.isfinite(value) & all_finite((found.gradient, found.diagonal))
    going = sound & (state.outcome == outcomes.RUNNING)
    start = Trial(
        params,
        jnp.where(sound, value, jnp.full_like(value, jnp.nan)),
        unravel(found.gradient),
        jnp.clip(memory.damping, least, largest),
        jnp.full_like(memory.damping, 2),
        jnp.zeros((), jnp.int32),
        jnp.where(going, TRYING, TAKEN).astype(jnp.int32),
    )
    last = jax.lax.while_loop(lambda trial: trial.verdict == TRYING, attempt, start)
    return Move(
        last.params,
        last.value,
        last.gradient,
        Damping(last.damping, seen),
        last.tried + 1,
        last.verdict,
    )


def _check(damping, increase, decrease, largest, form) -> None:
    for name, number in (("damping", damping), ("largest", largest)):
        if isinstance(number, (int, float)) and not 0 < number < float("inf"):
            raise ValueError(f"levenberg_marquardt: got {name}={number}; expected a finite number above 0")
    if (increase is None) != (decrease is None):
        raise ValueError(
            f"levenberg_marquardt: got increase={increase}, decrease={decrease}; expected both, such as 10 and 0.1, or "
            "neither for Nielsen's rule"
        )
    if isinstance(increase, (int, float)) and not 1 < increase < float("inf"):
        raise ValueError(f"levenberg_marquardt: got increase={increase}; expected a factor above 1, such as 10")
    if isinstance(decrease, (int, float)) and not 0 < decrease <= 1:
        raise ValueError(f"levenberg_marquardt: got decrease={decrease}; expected a factor in (0, 1], such as 0.1")
    if form is not None and form not in FORMS:
        raise ValueError(f"levenberg_marquardt: got form={form!r}; expected 'primal', 'dual' or None")
