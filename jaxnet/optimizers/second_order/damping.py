"""Damping found by trial: raised until the step lowers the value, relaxed where the model foretold it well."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet.optimizers.second_order.method import Problem, all_finite, choose, norm

LEAST_GAIN = 1e-4  # of the fall that the model foretells, for a step to be taken
SHORTER = 0.99  # of the gradient's norm, for a step to be taken where values are lost in rounding
RAISE, RELAX = 10.0, 4.0  # not inverse to each other: a λ that was too small isn't tried again at once


class Trial(NamedTuple):
    """The last step that was tried, or the start where none lowered the value."""

    params: Any
    value: Array
    gradient: Any
    damping: Array  # () for the next step; the first one where no step was taken: the next problem is another
    accepted: Array  # () bool
    evaluations: Array  # () int32


def damped(
    problem: Problem,
    params: Any,
    value: Array,
    gradient: Any,
    propose: Callable[[Array], tuple[Any, Array]],
    damping: Array,
    scale: Array,
) -> Trial:
    """The first step along λ, 10 λ, 100 λ, … that lowers the value; λ for the next one follows the gain ratio.

    ρ = (f(θ) − f(θ + d)) / (m(0) − m(d)), with m the quadratic model: λ is divided by 4 where ρ > ¾ and multiplied by
    10 where ρ < ¼ or the step isn't taken (Marquardt 1963; Nocedal & Wright alg. 4.1). Where the foretold fall is lost
    in rounding, a step that doesn't raise the value and shortens the gradient by 1 % is taken.

    Args:
        propose: λ -> (d, m(0) − m(d)), a tree like `params` and (); NaN where no such step exists.
        damping: () the first λ.
        scale: () size of the curvature, positive. λ runs from scale · ε, with 0 below it, to scale / ε, where a step
            no longer changes anything; ε is the precision of the dtype.
    """
    number = jnp.finfo(value.dtype)
    epsilon = number.eps
    least, most = (jnp.clip(bound, number.tiny, number.max) for bound in (scale * epsilon, scale / epsilon))

    def raised(damping):
        return jnp.maximum(damping * RAISE, least)

    def lowered(damping):
        lower = damping / RELAX
        return jnp.where(lower < least, jnp.zeros_like(lower), lower)

    def attempt(trial):
        step, foretold = propose(trial.damping)
        there = jax.tree.map(jnp.add, params, step)
        new_value, new_gradient = problem.value_and_grad(there)
        fall = value - new_value
        rounding = foretold <= 8 * epsilon * jnp.abs(value)
        falls = ~rounding & (fall > 0) & (fall > LEAST_GAIN * foretold) & (foretold > 0)
        shortens = rounding & (fall >= 0) & (norm(new_gradient) < SHORTER * norm(gradient))
        accepted = (falls | shortens) & all_finite((there, new_gradient))
        good, bad = (fall > 0.75 * foretold) | rounding, fall < 0.25 * foretold
        after = jnp.where(good, lowered(trial.damping), jnp.where(bad, raised(trial.damping), trial.damping))
        there, new_value, new_gradient = choose(accepted, (there, new_value, new_gradient), (params, value, gradient))
        return Trial(
            there,
            new_value,
            new_gradient,
            jnp.where(accepted, after, raised(trial.damping)).astype(trial.damping.dtype),
            accepted,
            trial.evaluations + 1,
        )

    start = Trial(
        params,
        value,
        gradient,
        jnp.minimum(damping, most).astype(value.dtype),
        jnp.zeros((), bool),
        jnp.zeros((), jnp.int32),
    )
    last = jax.lax.while_loop(lambda t: ~t.accepted & (t.damping <= most), attempt, start)
    return last._replace(damping=jnp.where(last.accepted, last.damping, start.damping))
