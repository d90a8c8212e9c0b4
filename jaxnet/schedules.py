"""Learning-rate schedules: pure functions from the step's number, counted from 0, to a rate.

    schedule(step) -> () array of the default float

Every argument may be a traced number, so that a study sweeps lengths and factors as it sweeps rates; `step` too. A
schedule goes wherever a rate goes: `optimizers.momentum(schedule)`, `optax.adam(schedule)`. `warmup` and `joined` take
schedules and give one.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Schedule = Callable[[Any], Array]

__all__ = [
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "joined",
    "linear",
    "one_cycle",
    "power",
    "robbins_monro",
    "step",
    "warmup",
]


def _number(value: Any) -> Array:
    return jnp.asarray(value, jnp.result_type(float))


def known(argument: str, value: Any) -> float | None:
    """The value of a number, of Python, NumPy or jax; None for one that's traced, of which nothing is known yet.

    `argument` names it in errors, such as "adam: got epsilon".

    Raises:
        TypeError: not one real number: a boolean, text, None, a complex number, an array with axes.

    >>> known("adam: got epsilon", jnp.float32(0.5)), known("adam: got epsilon", 1)
    (0.5, 1.0)
    """
    shape, dtype = getattr(value, "shape", ()), jnp.dtype(getattr(value, "dtype", type(value)))
    scalar = (isinstance(value, (int, float)) or hasattr(value, "dtype")) and shape == ()
    if not scalar or dtype.kind not in "iufV":
        raise TypeError(f"{argument}={value!r}; expected one real number")
    try:
        return float(value)
    except jax.errors.ConcretizationTypeError:
        return None


def _check(schedule: str, **positive: Any) -> None:
    """Numbers that aren't traced are finite and > 0."""
    for name, value in positive.items():
        given = known(f"{schedule}: got {name}", value)
        if given is not None and not 0 < given < math.inf:
            raise ValueError(f"{schedule}: got {name}={value}; expected a number > 0")


def _check_rates(schedule: str, **rates: Any) -> None:
    """Rates that aren't traced are finite and ≥ 0."""
    for name, value in rates.items():
        given = known(f"{schedule}: got {name}", value)
        if given is not None and not 0 <= given < math.inf:
            raise ValueError(f"{schedule}: got {name}={value}; expected a rate ≥ 0, since a negative one climbs")


def constant(rate: Any) -> Schedule:
    """η_k = η₀.

    Raises:
        TypeError, ValueError: here and in all others: an argument that isn't one finite number, a rate below 0.

    >>> float(constant(0.5)(7))
    0.5
    """
    _check_rates("constant", rate=rate)
    return lambda k: _number(rate)


def linear(start: Any, end: Any, steps: Any) -> Schedule:
    """η_k = (1 − k/K) η₀ + (k/K) η_K up to step K, then η_K (Bishop eq. 7.36; Goodfellow eq. 8.14).

    Goodfellow's rules of thumb: η_K is 1 % of η₀, and K is a few hundred epochs.

    Args:
        start, end: η₀ and η_K.
        steps: K.

    Raises:
        ValueError: K ≤ 0.

    >>> [round(float(linear(1.0, 0.01, 10)(k)), 4) for k in (0, 5, 10, 20)]
    [1.0, 0.505, 0.01, 0.01]
    """
    _check("linear", steps=steps)
    _check_rates("linear", start=start, end=end)

    def schedule(k):
        done = jnp.minimum(_number(k) / _number(steps), 1.0)
        return (1 - done) * _number(start) + done * _number(end)

    return schedule


def power(start: Any, exponent: Any, scale: Any = 1.0) -> Schedule:
    """η_k = η₀ (1 + k/s)^c (Bishop eq. 7.37); c < 0 decays.

    Args:
        start: η₀.
        exponent: c.
        scale: s, in steps.

    Raises:
        ValueError: s ≤ 0.

    >>> [float(power(1.0, -1.0, scale=10)(k)) for k in (0, 10, 30)]
    [1.0, 0.5, 0.25]
    """
    _check("power", scale=scale)
    _check_rates("power", start=start)
    known("power: got exponent", exponent)
    return lambda k: _number(start) * (1 + _number(k) / _number(scale)) ** _number(exponent)


def exponential(start: Any, factor: Any, scale: Any = 1.0) -> Schedule:
    """η_k = η₀ c^(k/s) (Bishop eq. 7.38): times c every s steps, continuously.

    Args:
        start: η₀.
        factor: c > 0.
        scale: s, in steps.

    Raises:
        ValueError: c ≤ 0 or s ≤ 0.

    >>> [float(exponential(1.0, 0.25, scale=10)(k)) for k in (0, 5, 10)]
    [1.0, 0.5, 0.25]
    """
    _check("exponential", factor=factor, scale=scale)
    _check_rates("exponential", start=start)
    return lambda k: _number(start) * _number(factor) ** (_number(k) / _number(scale))


def step(start: Any, factor: Any, every: Any) -> Schedule:
    """η_k = η₀ c^⌊k/s⌋: times c at steps s, 2s, …

    Args:
        start: η₀.
        factor: c > 0.
        every: s, in steps.

    Raises:
        ValueError: c ≤ 0 or s ≤ 0.

    >>> [float(step(1.0, 0.5, every=10)(k)) for k in (0, 9, 10, 25)]
    [1.0, 1.0, 0.5, 0.25]
    """
    _check("step", factor=factor, every=every)
    _check_rates("step", start=start)
    return lambda k: _number(start) * _number(factor) ** jnp.floor(_number(k) / _number(every))


def cosine(start: Any, steps: Any, end: Any = 0.0) -> Schedule:
    """η_k = η_K + (η₀ − η_K)(1 + cos(π k/K))/2 up to step K, then η_K (Loshchilov & Hutter 2017, without restarts).

    Args:
        start, end: η₀ and η_K.
        steps: K.

    Raises:
        ValueError: K ≤ 0.

    >>> [round(float(cosine(1.0, 10)(k)), 6) for k in (0, 5, 10, 20)]
    [1.0, 0.5, 0.0, 0.0]
    """
    _check("cosine", steps=steps)
    _check_rates("cosine", start=start, end=end)

    def schedule(k):
        done = jnp.minimum(_number(k) / _number(steps), 1.0)
        return _number(end) + (_number(start) - _number(end)) * (1 + jnp.cos(jnp.pi * done)) / 2

    return schedule


def warmup(schedule: Schedule, steps: Any, start: Any = 0.0) -> Schedule:
    """From η_start straight to schedule(0) in K steps, then schedule(k − K) (Goyal et al. 2017).

    Args:
        schedule: what follows.
        steps: K ≥ 0; 0 is `schedule` alone.
        start: η_start.

    Raises:
        ValueError: K < 0.

    >>> [float(warmup(constant(1.0), 4)(k)) for k in (0, 1, 4, 9)]
    [0.0, 0.25, 1.0, 1.0]
    """
    length = known("warmup: got steps", steps)
    if length is not None and not 0 <= length < math.inf:
        raise ValueError(f"warmup: got steps={steps}; expected a number ≥ 0")
    _check_rates("warmup", start=start)

    def schedule_(k):
        now, length = _number(k), _number(steps)
        done = jnp.minimum(now / jnp.maximum(length, 1.0), 1.0)
        rising = (1 - done) * _number(start) + done * _number(schedule(jnp.zeros_like(now)))
        return jnp.where(now < length, rising, _number(schedule(jnp.maximum(now - length, 0.0))))

    return schedule_


def one_cycle(peak: Any, steps: Any, rise: Any = 0.3, start_divisor: Any = 25.0, end_divisor: Any = 1e4) -> Schedule:
    """A cosine up from η/a to η in the first part of K steps, then a cosine down to η/(a b) (Smith & Topin 2019).

    Args:
        peak: η.
        steps: K.
        rise: the part of K that rises, in (0, 1).
        start_divisor, end_divisor: a and b.

    Raises:
        ValueError: K, a or b ≤ 0, or a part outside (0, 1).

    >>> [round(float(one_cycle(1.0, 100)(k)), 4) for k in (0, 30, 65, 100)]
    [0.04, 1.0, 0.5, 0.0]
    """
    _check("one_cycle", steps=steps, start_divisor=start_divisor, end_divisor=end_divisor)
    _check_rates("one_cycle", peak=peak)
    part = known("one_cycle: got rise", rise)
    if part is not None and not 0 < part < 1:
        raise ValueError(f"one_cycle: got rise={rise}; expected a part of the steps, in (0, 1)")

    def schedule(k):
        top, first = _number(peak), _number(peak) / _number(start_divisor)
        length, up = _number(steps), _number(steps) * _number(rise)
        rising = cosine(first, up, top)
        falling = cosine(top, length - up, first / _number(end_divisor))
        return jnp.where(_number(k) < up, rising(k), falling(_number(k) - up))

    return schedule


def robbins_monro(start: Any, exponent: Any = 1.0) -> Schedule:
    """η_k = η₀/(k + 1)^p, ½ < p ≤ 1: Σ η_k = ∞ and Σ η_k² < ∞ (Goodfellow eq. 8.12, 8.13; Robbins & Monro 1951).

    The first condition lets the iterates reach the minimum from anywhere, the second makes their noise vanish.

    Args:
        start: η₀.
        exponent: p.

    Raises:
        ValueError: p outside (½, 1], where one of the conditions fails.

    >>> [float(robbins_monro(1.0)(k)) for k in (0, 1, 3)]
    [1.0, 0.5, 0.25]
    """
    _check_rates("robbins_monro", start=start)
    given = known("robbins_monro: got exponent", exponent)
    if given is not None and not 0.5 < given <= 1:
        raise ValueError(f"robbins_monro: got exponent={exponent}; expected ½ < p ≤ 1; others are schedules.power")
    return lambda k: _number(start) / (_number(k) + 1) ** _number(exponent)


def joined(schedules: Sequence[Schedule], boundaries: Sequence[Any]) -> Schedule:
    """One schedule after another; each counts from its own first step.

    Args:
        schedules: at least one.
        boundaries: ascending, the first step of each schedule but the first.

    Raises:
        ValueError: when there isn't one boundary fewer than schedules.

    >>> [float(joined([constant(1.0), linear(0.5, 0.0, 10)], [5])(k)) for k in (4, 5, 10)]
    [1.0, 0.5, 0.25]
    """
    if len(boundaries) != len(schedules) - 1:
        raise ValueError(
            f"joined: got {len(schedules)} schedules and {len(boundaries)} boundaries; "
            "expected one boundary between each two schedules"
        )

    def schedule(k):
        now = _number(k)
        rate = _number(schedules[0](now))
        for boundary, following in zip(boundaries, schedules[1:], strict=True):
            since = now - _number(boundary)
            rate = jnp.where(since < 0, rate, _number(following(jnp.maximum(since, 0.0))))
        return rate

    return schedule
