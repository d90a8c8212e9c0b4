"""Standardization: every column shifted and scaled by what the training examples say about it.

    statistics = column_statistics(x)        mean and scale of each column, over the leading axis
    apply_statistics(x, statistics)          (x - mean) / scale
    standardize(train, *others)              both, for whole sets: the training set's statistics serve all

A column is a position of one example: x of shape (n, ...) has statistics of shape (...).
Statistics are computed and kept in float64 NumPy arrays, so that they can be saved and used again on new
examples; standardized examples come in JAX's default float. Weights and targets pass through untouched.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnet.data.arrays import plain

__all__ = ["Statistics", "apply_statistics", "as_float", "column_statistics", "standardize"]


class Statistics(NamedTuple):
    """Mean and scale of each column: two float64 arrays of one example's shape."""

    mean: np.ndarray  # x.shape[1:]
    scale: np.ndarray  # x.shape[1:], the standard deviation, 1 where the column is constant but for rounding


def as_float(values: Any, what: str) -> np.ndarray:
    """A new array of `values` in JAX's default float: float32, or float64 under JAX_ENABLE_X64=1.

    `what` names the values in errors.

    Raises:
        TypeError: values are not real numbers.
        ValueError: a value is not finite, or too large for the default float.

    >>> as_float([1, 2.5], "x").tolist()
    [1.0, 2.5]
    """
    given = _real(values, what)
    _refuse_non_finite(given, what)
    dtype = jnp.result_type(float)
    with np.errstate(over="ignore"):
        result = given.astype(dtype)
    if not np.isfinite(result).all():
        raise ValueError(
            f"{what}: got {np.abs(given).max():g} as the largest magnitude, expected at most "
            f"{np.finfo(dtype).max:g}, the largest {np.dtype(dtype).name}; rescale the values"
            + (" or set JAX_ENABLE_X64=1" if np.dtype(dtype) == np.float32 else "")
        )
    return result


def column_statistics(x: Any) -> Statistics:
    """Mean and biased standard deviation of each column of the examples x.

    mean = (1/N) sum_n x_n,  scale = sqrt((1/N) sum_n (x_n - mean)^2),  but scale = 1 for a constant column

    A column is constant too if it's so but for the rounding of its numbers, scale <= 4 eps max |x_n| with the eps of
    x's dtype: divided by its scale, rounding errors would look like a feature.

    Computed in float64, without overflow or underflow for any finite x. Source: Bishop eq. 7.48, 7.49.

    Args:
        x: real numbers (n, ...), n >= 1.

    Raises:
        TypeError: x is not one array of real numbers (a table, a sparse matrix, text).
        ValueError: x has no example axis, no examples, masked entries, or a value that is not finite.

    >>> column_statistics(np.array([[1.0, 5.0], [3.0, 5.0]]))
    Statistics(mean=array([2., 5.]), scale=array([1., 1.]))
    """
    x = _examples(x, "x")
    if len(x) == 0:
        raise ValueError(f"x: got {x.shape}, no examples; expected at least one to take the mean of")
    _refuse_non_finite(x, "x")
    low, high = x.min(axis=0).astype(np.float64), x.max(axis=0).astype(np.float64)
    # Scaling by a power of two is exact and keeps the squares of huge and of tiny values in range.
    _, exponent = np.frexp(np.maximum(np.abs(low), np.abs(high)))
    exponent = np.clip(exponent, -1000, 1000)
    unit = np.array(x, np.float64)
    unit *= np.ldexp(1.0, -exponent)
    mean, scale = np.ldexp(unit.mean(axis=0), exponent), np.ldexp(unit.std(axis=0), exponent)
    noise = 4 * _epsilon(x.dtype) * np.maximum(np.abs(low), np.abs(high))
    constant = (low == high) | (scale <= noise)
    return Statistics(np.where(low == high, low, mean), np.where(constant, 1.0, scale))


def apply_statistics(x: Any, statistics: Statistics) -> np.ndarray:
    """Standardized examples (x - mean) / scale, in JAX's default float (Bishop eq. 7.50).

    Computed in float64. A column that was constant in training becomes x - mean: 0 where x has that constant.

    Args:
        x: real numbers (n, ...); n may be 0.
        statistics: of `column_statistics`, for examples of the same shape.

    Raises:
        TypeError: x is not one array of real numbers.
        ValueError: shapes differ, a value is not finite, a scale is not positive, or the result overflows.

    >>> statistics = Statistics(mean=np.array([2.0, 5.0]), scale=np.array([0.5, 1.0]))
    >>> apply_statistics(np.array([[4.0, 6.0]]), statistics).tolist()
    [[4.0, 1.0]]
    """
    x = _examples(x, "x")
    mean, scale = np.asarray(statistics[0], np.float64), np.asarray(statistics[1], np.float64)
    if not x.shape[1:] == mean.shape == scale.shape:
        raise ValueError(
            f"x: got examples of shape {x.shape[1:]}, expected {mean.shape} as in the statistics "
            f"(mean {mean.shape}, scale {scale.shape}); use the columns that the statistics were taken from"
        )
    if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
        raise ValueError("statistics: expected a finite mean and a scale above 0; use column_statistics")
    _refuse_non_finite(x, "x")
    with np.errstate(over="ignore"):
        result = np.array(x, np.float64)
        result -= mean
        result /= scale
    if not np.isfinite(result).all():
        raise ValueError("x: standardized values overflow, x is far outside the range of the training set")
    return as_float(result, "standardized x")


def standardize(train: tuple[Any, ...], *others: tuple[Any, ...]) -> tuple[tuple[Any, ...], ...]:
    """Sets whose x is standardized by the column means and standard deviations of `train`.

    x' = (x - mean) / scale with mean and scale of train's x alone, so that nothing leaks from the others.
    A column that is constant in train becomes 0 there, never NaN. Source: Bishop eq. 7.48-7.50.

    Args:
        train, *others: sets (x, y) or (x, y, weight); x is one array (n, ...). Weights do not enter the
            statistics; y and weight come back as they are.

    Returns: as many sets as given, in order: `train, valid = standardize(train, valid)`; of a single set
        a tuple of one: `(train,) = standardize(train)`.

    Raises:
        TypeError: a set is not a tuple (x, y[, weight]), or its x is not one array of real numbers.
        ValueError: train is empty, shapes differ, or a value is not finite.

    >>> train = (np.array([[1.0, 7.0], [3.0, 7.0]]), np.array([0, 1]))
    >>> train, valid = standardize(train, (np.array([[5.0, 7.0]]), np.array([1])))
    >>> train[0].tolist(), valid[0].tolist()
    ([[-1.0, 0.0], [1.0, 0.0]], [[3.0, 0.0]])
    """
    for position, data in enumerate((train, *others)):
        if not isinstance(data, tuple) or len(data) not in (2, 3):
            got = type(data).__name__ + (f" of {len(data)}" if isinstance(data, tuple) else "")
            raise TypeError(
                f"set {position} of standardize: got {got}, expected a tuple (x, y) or (x, y, weight); "
                "use column_statistics and apply_statistics for bare arrays"
            )
    statistics = column_statistics(train[0])
    return tuple((apply_statistics(data[0], statistics), *data[1:]) for data in (train, *others))


def _examples(x: Any, what: str) -> np.ndarray:
    if not hasattr(x, "shape") and not isinstance(x, list):
        raise TypeError(
            f"{what}: got {type(x).__name__}, expected one array (n, ...); "
            "of a tree of arrays, standardize each array by itself"
        )
    array = _real(x, what)
    if array.ndim == 0:
        raise ValueError(f"{what}: got a single number, expected an array (n, ...) of examples")
    return array


def _real(values: Any, what: str) -> np.ndarray:
    array = plain(what, values)
    kind_is_real = array.dtype.kind in "biuf" or jnp.issubdtype(array.dtype, jnp.floating)  # "V": bfloat16
    if not kind_is_real:
        raise TypeError(f"{what}: got dtype {array.dtype}, expected real numbers; convert it first")
    return array


def _epsilon(dtype: np.dtype) -> float:
    return float(jnp.finfo(dtype).eps) if jnp.issubdtype(dtype, jnp.floating) else 0.0


def _refuse_non_finite(array: np.ndarray, what: str) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"{what}: got {int((~finite).sum())} values that are NaN or infinite, the first at {first}; "
            "expected finite numbers: fix or drop those examples"
        )
