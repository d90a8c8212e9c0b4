"""How far two floating-point computations of one gradient may be apart."""

from typing import Any

import jax.numpy as jnp


def tolerance(dtype: Any, fan_in: int = 1) -> float:
    """The largest error that comparisons let pass, as a share of the scale of what is compared.

    10⁻¹² in float64, 64 ε in float32, 8 ε in narrower dtypes (whose sums are accumulated in float32 and rounded once),
    times √(fan_in / 256) where more than 256 terms are summed: rounding errors of a sum grow like a random walk
    (Higham, Accuracy and Stability of Numerical Algorithms, §2.8). These are at least ten times what right gradients of
    drawn networks were seen to differ by; a wrong rule is off by many orders of magnitude more in float64.

    Raises:
        TypeError: a dtype that isn't floating; ValueError: fan_in < 1.

    >>> tolerance("float64"), tolerance("float32") == 64 * 2.0**-23, tolerance("float64", 1024)
    (1e-12, True, 2e-12)
    """
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise TypeError(
            f"tolerance: got dtype {jnp.dtype(dtype)}; expected a floating one: integers are compared exactly"
        )
    if not fan_in >= 1:
        raise ValueError(f"tolerance: got fan_in={fan_in}; expected the number of terms of a sum, at least 1")
    info = jnp.finfo(dtype)
    at_once = 1e-12 if info.bits >= 64 else (64 if info.bits >= 32 else 8) * float(info.eps)
    return at_once * max(1.0, fan_in / 256) ** 0.5
