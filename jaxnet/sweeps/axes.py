"""Axes: the values that one hyperparameter takes in a space, as a person writes them.

0.1                          one number or boolean: an axis of one value
[0.0, 0.3]                   a list, tuple, range, or array of rank 1: each value in turn
lin_space, log_space         n numbers between two ends
static(values)               values that shape the program: one compile for each distinct one
when(condition, values)      an axis that only some configurations have
uniform, log_uniform, integers      ranges to draw from
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from jaxnet.sweeps.values import Value, as_float, check_int32, check_name, integer_from, plain, unified


def lin_space(low: float, high: float, n: int) -> tuple[float, ...]:
    """n equally spaced numbers from `low` to `high`, both exact; only `low` if n is 1.

    low + (high - low) · i / (n - 1), computed from the decimals as they are written and rounded once.

    Raises:
        TypeError, ValueError: n < 1; ends that aren't finite numbers, or not low < high.

    >>> lin_space(0.1, 0.5, 5)
    (0.1, 0.2, 0.3, 0.4, 0.5)
    """
    n = integer_from("lin_space", "n", n, 1)
    first, last = (Fraction(repr(end)) for end in _ends("lin_space", low, high))
    return tuple(float(first + (last - first) * Fraction(i, max(n - 1, 1))) for i in range(n))


def log_space(low: float, high: float, n: int) -> tuple[float, ...]:
    """n numbers from `low` to `high`, both exact, each the same multiple of the one before; only `low` if n is 1.

    low · (high / low)^(i / (n - 1))

    Raises:
        TypeError, ValueError: n < 1; ends that aren't finite numbers, or not 0 < low < high.

    >>> log_space(1e-4, 1e-1, 4)
    (0.0001, 0.001, 0.01, 0.1)
    """
    n = integer_from("log_space", "n", n, 1)
    low, high = _ends("log_space", low, high, positive=True)
    first, last = math.log10(low), math.log10(high)
    inner = (10.0 ** (first + (last - first) * i / (n - 1)) for i in range(1, n - 1))
    return (low, *inner, high)[:n]


@dataclass(frozen=True)
class Static:
    """Values that shape the program; made by `static`."""

    values: tuple[Value, ...]


def static(values: Any) -> Static:
    """Mark values that shape the program: widths, the name of an activation, a tuple of widths.

    Members with different static values can't share a compiled program: each distinct value is a bucket of its own.

    Args:
        values: a list, tuple, range or array of rank 1 of values, or one value that isn't a list or tuple.

    Raises:
        TypeError, ValueError: for values of other types than bool, int, float, str, None and tuples of these; for a
            range of draws, NaN, infinity, booleans mixed with numbers, no value.

    >>> static(["relu", None]), static([[32, 32], [64]]), static("relu")
    (Static(values=('relu', None)), Static(values=((32, 32), (64,))), Static(values=('relu',)))
    """
    if isinstance(values, (Range, When)):
        cure = "static(list(range(low, high + 1)))" if isinstance(values, Range) else "when(condition, static(values))"
        raise TypeError(f"static: got {values!r}; expected values, each a program of its own: {cure}")
    return Static(tuple(unified("static", _listed("static", values), static=True)))


@dataclass(frozen=True, repr=False)
class Range:
    """An interval to draw from; made by `uniform`, `log_uniform`, `integers`."""

    kind: str
    low: float
    high: float

    def at(self, u: float) -> int | float:
        """The value at the share u of the range, 0 ≤ u < 1: its quantile function."""
        if self.kind == "integers":
            return int(self.low + int(u * (self.high - self.low + 1)))
        if self.kind == "log_uniform":
            value = 10.0 ** ((1 - u) * math.log10(self.low) + u * math.log10(self.high))
        else:
            value = (1 - u) * self.low + u * self.high
        return min(max(value, self.low), self.high)

    def __repr__(self) -> str:
        return f"{self.kind}({self.low!r}, {self.high!r})"


def uniform(low: float, high: float) -> Range:
    """Floats between `low` and `high`, uniformly.

    Raises:
        TypeError, ValueError: ends that aren't finite numbers, or not low < high.

    >>> uniform(0, 0.5)
    uniform(0.0, 0.5)
    """
    return Range("uniform", *_ends("uniform", low, high))


def log_uniform(low: float, high: float) -> Range:
    """Floats between `low` and `high` whose logarithm is uniform.

    Raises:
        TypeError, ValueError: ends that aren't finite numbers, or not 0 < low < high.

    >>> log_uniform(1e-4, 1)
    log_uniform(0.0001, 1.0)
    """
    return Range("log_uniform", *_ends("log_uniform", low, high, positive=True))


def integers(low: int, high: int) -> Range:
    """Integers from `low` to `high`, both included, uniformly.

    Raises:
        TypeError, ValueError: ends that aren't integers of 32 bits, or not low < high.

    >>> integers(1, 6)
    integers(1, 6)
    """
    for name, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise TypeError(f"integers: got {name}={value!r}; expected an integer")
        check_int32("integers", int(value))
    _ends("integers", low, high)
    return Range("integers", int(low), int(high))


@dataclass(frozen=True)
class When:
    """An axis that only some configurations have; made by `when`."""

    condition: Callable[[dict[str, Value]], Any]
    values: Any


def when(condition: Callable[[dict[str, Value]], Any], values: Any) -> When:
    """An axis that exists only in the configurations for which `condition(configuration so far)` is true.

    The condition sees the axes that stand before this one in the dict, as far as the configuration has them.

    Args:
        condition: a function of a dict of values.
        values: a list (array, one value, …), `static(...)`, or in draws a range.

    Raises:
        TypeError: if the condition can't be called, or for a `when` inside a `when`.

    >>> from jaxnet.sweeps.space import grid
    >>> space = grid({"rule": static(["adam", "sgd"]), "momentum": when(lambda c: c["rule"] == "sgd", [0.0, 0.9])})
    >>> list(space)
    [{'rule': 'adam'}, {'rule': 'sgd', 'momentum': 0.0}, {'rule': 'sgd', 'momentum': 0.9}]
    """
    if not callable(condition):
        raise TypeError(f"when: got the condition {condition!r}; expected a function: when(lambda c: ..., values)")
    if isinstance(values, When):
        raise TypeError("when: got a when inside a when; expected one condition: join the two with `and`")
    return When(condition, values)


@dataclass(frozen=True)
class Axis:
    """One axis of a space, checked: its values, or the range it is drawn from."""

    name: str
    values: tuple[Value, ...]
    range: Range | None
    static: bool
    condition: Callable[[dict[str, Value]], Any] | None

    def exists(self, configuration: dict[str, Value]) -> bool:
        """Whether `configuration`, as far as it is made, has this axis."""
        return self.condition is None or holds(self.name, self.condition, configuration)

    def at(self, u: float) -> Value:
        """The value at the share u of the range or of the list, 0 ≤ u < 1."""
        return self.range.at(u) if self.range else self.values[int(u * len(self.values))]


def axes_from(what: str, axes: Any, *, ranges: bool = False, repeats: bool = False) -> list[Axis]:
    """The axes that a dict describes, checked; ranges, and values that come twice, are refused unless allowed.

    Raises:
        TypeError, ValueError: for no dict; a name or a value that a configuration may not have; no value.

    >>> [(axis.name, axis.values) for axis in axes_from("grid", {"decay": [0, 1e-4], "bias": True})]
    [('decay', (0.0, 0.0001)), ('bias', (True,))]
    """
    if not isinstance(axes, Mapping):
        raise TypeError(f"{what}: got axes of type {type(axes).__name__}; expected a dict {{name: values}}")
    checked = [_axis(name, given) for name, given in axes.items()]
    for axis in checked:
        if axis.range and not ranges:
            raise TypeError(
                f"{axis.name}: got {axis.range} in {what}(...); expected values, such as jn.lin_space(low, high, n), "
                "or draws: jn.random_draws({...}, draws)"
            )
        texts = [json.dumps(value) for value in axis.values]  # tell 1, 1.0 and True apart, inside tuples too
        if len(set(texts)) < len(texts) and not repeats:
            twice = next(text for text, count in Counter(texts).items() if count > 1)
            raise ValueError(f"{axis.name}: got {twice} twice; expected distinct values: to repeat a run, use seeds")
    return checked


def _axis(name: Any, given: Any) -> Axis:
    check_name(name)
    condition = given.condition if isinstance(given, When) else None
    given = given.values if isinstance(given, When) else given
    if isinstance(given, Range):
        return Axis(name, (), given, False, condition)
    shaping = isinstance(given, Static)
    values = unified(name, given.values if shaping else _listed(name, given), static=shaping)
    return Axis(name, tuple(values), None, shaping, condition)


def holds(what: str, condition: Callable[[dict[str, Value]], Any], configuration: dict[str, Value]) -> bool:
    """Whether `condition` is true of (a copy of) `configuration`.

    Raises:
        ValueError: if it reads a name that the configuration doesn't have.

    >>> holds("momentum", lambda c: c["lr"] > 0.1, {"lr": 0.5})
    True
    """
    try:
        return bool(condition(dict(configuration)))
    except KeyError as error:
        if not error.args or error.args[0] in configuration:
            raise
        raise ValueError(
            f"{what}: got a condition that reads {error} of a configuration with {', '.join(configuration) or 'none'}; "
            f"expected names that it has: an axis sees those before it, and c.get({error}) asks for one some lack"
        ) from error


def uniforms(stream: str, n: int) -> list[float]:
    """n multiples of 2^-53 in [0, 1), each from one word of a PCG64 of its own; the first of more are the same.

    >>> uniforms("0 lr", 3)[:1] == uniforms("0 lr", 1)
    True
    """
    seed = int.from_bytes(hashlib.sha256(stream.encode()).digest(), "big")
    return ((np.random.PCG64(seed).random_raw(n) >> 11) * 2.0**-53).tolist()


def _listed(name: str, values: Any) -> list[Any]:
    """The values one by one; at least one."""
    if hasattr(values, "__array__"):
        values = np.asarray(values)
        if values.ndim > 1:
            raise ValueError(f"{name}: got an array of shape {values.shape}; expected rank 1, one value after another")
        values = values.tolist()
    values = list(values) if isinstance(values, (list, tuple, range)) else [values]
    if not values:
        raise ValueError(f"{name}: got no values; expected at least one")
    return values


def _ends(what: str, low: Any, high: Any, positive: bool = False) -> tuple[float, float]:
    """Both ends of an interval, as floats."""
    ends = []
    for name, value in (("low", low), ("high", high)):
        number = plain(f"{what}: {name}", value)
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            raise TypeError(f"{what}: got {name}={value!r}; expected a number")
        ends.append(as_float(what, number))
    if not ends[0] < ends[1]:
        raise ValueError(f"{what}: got low={low}, high={high}; expected low < high")
    if positive and ends[0] <= 0:
        raise ValueError(f"{what}: got low={low}; expected a number above 0, which has a logarithm")
    return ends[0], ends[1]
