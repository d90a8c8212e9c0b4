"""Averages of the parameters along the way: transformations that stand last in an optax chain and change no update.

    θ̂ ← θ̂ + w_t (θ_t − θ̂)      θ_t: the parameters after step t = 1, 2, …

    exponential_average        w_t = (1 − α)/(1 − αᵗ)    so w₁ = 1: no bias towards the start
    polyak_average             w_t = 1/t                 the mean of all θ_t
    stochastic_weight_average  the mean of every so manyth θ_t from some step on

The average is in the optimizer's state; `averaged_parameters` finds it there:
`program(…, optax.chain(optax.adam(1e-3), exponential_average(0.99)), averaged=averaged_parameters)` validates and
returns the average.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array


class AveragingState(NamedTuple):
    """What the average of the parameters needs."""

    step: Array  # () int32, steps seen
    taken: Array  # () int32, how many parameters went into the average
    average: Any  # like the parameters


def _averaging(weight) -> optax.GradientTransformation:
    """weight(step, taken) -> (whether this step counts, its weight w)."""

    def init(params):
        return AveragingState(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32), params)

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("an average of the parameters got params=None; expected update(grads, state, params)")
        step = state.step + 1
        counts, w = weight(step, state.taken + 1)

        def moved(average, p, u):
            after = p + u.astype(p.dtype)
            return jnp.where(counts, average + w.astype(average.dtype) * (after - average), average)

        average = jax.tree.map(moved, state.average, params, updates)
        return updates, AveragingState(step, state.taken + counts.astype(jnp.int32), average)

    return optax.GradientTransformation(init, update)


def exponential_average(decay: Any) -> optax.GradientTransformation:
    """θ̂ = (1 − α) Σ_i α^{t−i} θ_i / (1 − αᵗ), of the last 1/(1 − α) steps or so (Goodfellow §8.7.3, unbiased).

    Args:
        decay: α in [0, 1), traced or not; 0 is the last parameters.

    Raises:
        ValueError: for another α.

    >>> optimizer = exponential_average(0.5)
    >>> state, params = optimizer.init(jnp.zeros(())), jnp.zeros(())
    >>> for _ in range(2):
    ...     updates, state = optimizer.update(jnp.ones(()), state, params)
    ...     params = params + updates
    >>> round(float(averaged_parameters(state, params)), 4)  # (0.5 · 1 + 1 · 2) / 1.5
    1.6667
    """
    if isinstance(decay, (int, float)) and not 0 <= decay < 1:
        raise ValueError(f"exponential_average: got decay={decay}; expected 0 ≤ α < 1")

    def weight(step, taken):
        a = jnp.asarray(decay, jnp.result_type(float))
        return step > 0, (1 - a) / (1 - a ** taken.astype(a.dtype))

    return _averaging(weight)


def polyak_average() -> optax.GradientTransformation:
    """θ̂ = (1/t) Σ_i θ_i, the mean of every step's parameters (Goodfellow §8.7.3; Polyak & Juditsky 1992).

    >>> optimizer = polyak_average()
    >>> state, params = optimizer.init(jnp.zeros(())), jnp.zeros(())
    >>> for _ in range(3):
    ...     updates, state = optimizer.update(jnp.ones(()), state, params)
    ...     params = params + updates
    >>> float(averaged_parameters(state, params))
    2.0
    """
    return _averaging(lambda step, taken: (step > 0, 1 / taken.astype(jnp.result_type(float))))


def stochastic_weight_average(start: int, every: int = 1) -> optax.GradientTransformation:
    """The mean of θ_t for t = start, start + every, … (SWA; Izmailov et al. 2018).

    Before `start` there is no average, and `averaged_parameters` gives the parameters themselves. With batch norm the
    averaged network's statistics are those of the last network.

    Args:
        start: the first step that counts, from 1.
        every: from one step that counts to the next.

    Raises:
        ValueError: below 1.

    >>> optimizer = stochastic_weight_average(2, every=2)
    >>> state, params = optimizer.init(jnp.zeros(())), jnp.zeros(())
    >>> for _ in range(5):
    ...     updates, state = optimizer.update(jnp.ones(()), state, params)
    ...     params = params + updates
    >>> float(averaged_parameters(state, params))  # of 2 and 4
    3.0
    """
    for name, value in (("start", start), ("every", every)):
        if isinstance(value, (int, float)) and not value >= 1:
            raise ValueError(f"stochastic_weight_average: got {name}={value}; expected a step from 1 on")

    def weight(step, taken):
        return (step >= start) & ((step - start) % every == 0), 1 / taken.astype(jnp.result_type(float))

    return _averaging(weight)


def averaged_parameters(opt_state: Any, params: Any) -> Any:
    """The average within an optimizer's state, `params` as long as nothing went into it; for `program(averaged=…)`.

    Raises:
        ValueError: a state without an average, or with several.

    >>> params = jnp.ones(2)
    >>> averaged_parameters(exponential_average(0.9).init(params), params).tolist()
    [1.0, 1.0]
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, AveragingState))
    found = [node for node in nodes if isinstance(node, AveragingState)]
    if len(found) != 1:
        raise ValueError(
            f"averaged_parameters: got an optimizer with {len(found)} averages of the parameters; expected one: "
            "optax.chain(optimizer, exponential_average(0.99))"
        )
    (state,) = found
    return jax.tree.map(lambda a, p: jnp.where(state.taken > 0, a, p), state.average, params)
