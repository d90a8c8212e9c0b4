"""The derivative of a function along a line from its values alone, with an estimate of its own error.

    D(s) = (f(−2s) − 8 f(−s) + 8 f(s) − f(2s)) / 12 s        error s⁴ f⁽⁵⁾ / 30, and rounding, ε |f| / s

Three steps s are tried, and the one with the smallest *doubt* is taken. Doubt is |D(s) − D(s/2)|, plus
s · |A(s) − A(s/2)| with A(s) = (f(s) − 2 f(0) + f(−s)) / s², which is the jump of the slope where 0 is a kink and of
order s³ elsewhere, plus the rounding error. So a kink, or an edge of the domain, shows as doubt and not as a wrong
derivative.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

STEPS = {64: 2.0**-10, 32: 2.0**-4}
"""The largest step, by the bits of the floating dtype: near the one that balances truncation and rounding."""
_SHRINK = (1.0, 1 / 8, 1 / 64)
_POINTS = (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)  # in steps


def offsets(dtype) -> np.ndarray:
    """Where the function is needed: 0, and six points for each of the three steps; as multiples of a direction.

    >>> offsets("float64").shape
    (19,)
    """
    largest = STEPS[64 if jnp.finfo(dtype).bits >= 64 else 32]
    return np.array([0.0] + [largest * shrink * point for shrink in _SHRINK for point in _POINTS])


def slopes(values: np.ndarray, magnitude: np.ndarray, dtype) -> tuple[np.ndarray, np.ndarray]:
    """(derivative, doubt) from values at `offsets`, (…, 19), and the size of the terms that each value sums, (…, 19).

    >>> t = offsets("float64")
    >>> slope, doubt = slopes(np.exp(t), np.exp(t), "float64")
    >>> bool(abs(slope - 1) < 1e-11), bool(doubt < 1e-9)
    (True, True)
    >>> round(float(slopes(np.abs(t), np.abs(t), "float64")[1]), 6)  # the slope jumps from -1 to 1
    2.0
    """
    eps, largest = float(jnp.finfo(dtype).eps), STEPS[64 if jnp.finfo(dtype).bits >= 64 else 32]
    middle, candidates, doubts = values[..., 0], [], []
    with np.errstate(all="ignore"):
        for k, shrink in enumerate(_SHRINK):
            s = largest * shrink
            m2, m1, m05, p05, p1, p2 = np.moveaxis(values[..., 1 + 6 * k : 7 + 6 * k], -1, 0)
            slope, half = (m2 - 8 * m1 + 8 * p1 - p2) / (12 * s), (m1 - 8 * m05 + 8 * p05 - p1) / (6 * s)
            curvature, finer = (p1 - 2 * middle + m1) / s**2, (p05 - 2 * middle + m05) / (s / 2) ** 2
            rounding = 4 * eps * magnitude[..., 1 + 6 * k : 7 + 6 * k].max(axis=-1) / s
            doubt = np.abs(slope - half) + s * np.abs(curvature - finer) + rounding
            candidates.append(slope)
            doubts.append(np.where(np.isfinite(doubt), doubt, np.inf))
    best = np.argmin(doubts, axis=0)[None]
    return np.take_along_axis(np.array(candidates), best, 0)[0], np.take_along_axis(np.array(doubts), best, 0)[0]


def values_along(function: Callable, start: jax.Array, steps: jax.Array, direction: Callable, count: int):
    """function(start + t d_i) for t in `steps` and i < count, with d_i = direction(i): a tree of (count, steps).

    One after the other: no memory beyond that of the function, and quick to compile.

    >>> values_along(jnp.sum, jnp.zeros(2), jnp.array([0.0, 1.0]), lambda i: jnp.ones(2), 1).tolist()
    [[0.0, 2.0]]
    """

    def one(k):
        return function(start + steps[k % len(steps)] * direction(k // len(steps)))

    values = jax.lax.map(one, jnp.arange(count * len(steps)))
    return jax.tree.map(lambda a: a.reshape(count, len(steps)), values)
