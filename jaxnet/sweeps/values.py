"""Values: what a configuration, a dict of hyperparameters, may hold, and the text that identifies it.

Traced values are inputs of one compiled program, so a name has one type throughout a space: bool, int (of 32 bits) or
float; integers beside floats become floats. Static values shape the program and may be str, None and (nested) tuples
too, and integers of any size; the numbers among them have one type as well. All are plain Python values: arrays and
NumPy scalars are converted, lists become tuples, -0.0 is 0.0; NaN and infinity are refused.
"""

import json
import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import numpy as np

Value: TypeAlias = bool | int | float | str | tuple | None

RESERVED = (
    "member", "seed", "fold", "best_epoch", "epochs_run", "outcome", "bucket",
    "mean", "std", "low", "high", "n", "diverged",
)  # fmt: skip
"""Columns of a study's table, which no hyperparameter may be called."""


def key_of(configuration: dict[str, Value]) -> str:
    """The canonical JSON text of a configuration: equal exactly if the configurations are, wherever they stand.

    Names are sorted; 1, 1.0 and true differ; floats are written so that they read back bitwise; tuples become lists.

    Raises:
        TypeError, ValueError: for values that no configuration may hold.

    >>> key_of({"lr": 1e-3, "depth": 2, "act": "relu", "widths": (32, 32)})
    '{"act": "relu", "depth": 2, "lr": 0.001, "widths": [32, 32]}'
    """
    return json.dumps({name: plain(name, value) for name, value in configuration.items()}, sort_keys=True)


def configuration_from(text: str) -> dict[str, Value]:
    """The configuration that `key_of` wrote; lists come back as tuples.

    Raises:
        ValueError: if the text isn't a JSON object; TypeError: for nested objects.

    >>> configuration_from('{"depth": 2, "widths": [32, [8]]}')
    {'depth': 2, 'widths': (32, (8,))}
    """
    loaded = json.loads(text)
    if not isinstance(loaded, dict):
        raise ValueError(f"configuration_from: got {text[:40]!r}; expected a JSON object, as key_of writes it")
    return {name: plain(name, value) for name, value in loaded.items()}


def plain(name: str, value: Any) -> Value:
    """`value` as plain, finite Python: bool, int, float, str, None, or a tuple of these.

    Raises:
        TypeError, ValueError: for other types, NaN and infinity, with the name it stands under.

    >>> plain("widths", [np.int64(32), (np.float32(0.5), None)])
    (32, (0.5, None))
    """
    if type(value) is float:
        if not math.isfinite(value):
            raise ValueError(f"{name}: got {value}; expected finite numbers")
        return value + 0.0  # -0.0 becomes 0.0
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, (list, tuple)):
        return tuple(plain(name, item) for item in value)
    if hasattr(value, "__array__") and type(python := np.asarray(value).tolist()) in (bool, int, float, str, list):
        return plain(name, python)
    raise TypeError(
        f"{name}: got a value of type {type(value).__name__}; expected bool, int or float, or inside jn.static([...]) "
        "also str, None and tuples"
    )


def unified(name: str, values: Iterable[Any], *, static: bool) -> list[Value]:
    """The values of one name, as plain Python ones of one type.

    Raises:
        TypeError, ValueError: booleans among numbers; integers too large; where not static: str, None, tuples.

    >>> unified("lr", [1, 0.5], static=False)
    [1.0, 0.5]
    """
    values = [plain(name, value) for value in values]
    types = {type(value) for value in values}
    if not static and not types <= {bool, int, float}:
        odd = next(value for value in values if type(value) not in (bool, int, float))
        raise TypeError(
            f"{name}: got {odd!r}; expected numbers or booleans, the inputs of a compiled program: mark what shapes "
            "the program, jn.static([...])"
        )
    if bool in types and types & {int, float}:
        raise TypeError(f"{name}: got booleans mixed with numbers; expected one type: write 0 and 1, or False and True")
    if int in types and float in types:
        return [as_float(name, value) if type(value) is int else value for value in values]
    if int in types and not static:
        for value in values:
            check_int32(name, value)
    return values


def as_float(name: str, value: int | float) -> float:
    """`value` as a float, exactly (-0.0 as 0.0).

    Raises:
        ValueError: for an integer beyond 2**53.

    >>> as_float("lr", 1)
    1.0
    """
    if type(value) is int and abs(value) > 2**53:
        raise ValueError(f"{name}: got the integer {value} as a float; expected at most 2**53, which a float holds")
    return float(value) + 0.0


def check_int32(name: str, value: Any) -> None:
    """An integer that jax computes with.

    Raises:
        ValueError: beyond 32 bits.

    >>> check_int32("depth", 2**31 - 1)
    """
    if not -(2**31) <= value < 2**31:
        raise ValueError(
            f"{name}: got {value}; expected integers of 32 bits, which jax computes with: write it as a float, or mark "
            "it as jn.static([...])"
        )


def check_name(name: Any) -> None:
    """An identifier that isn't a column of a study's table.

    Raises:
        TypeError, ValueError: with the name.

    >>> check_name("lr")
    """
    if not isinstance(name, str):
        raise TypeError(f"got the name {name!r}; expected a string")
    if not name.isidentifier():
        raise ValueError(f"got the name {name!r}; expected letters, digits and _, as in a Python name")
    if name in RESERVED:
        raise ValueError(f"got the name {name!r}, a column of a study's table; expected none of {', '.join(RESERVED)}")


def integer_from(what: str, name: str, value: Any, least: int) -> int:
    """`value` as an int, at least `least`.

    Raises:
        TypeError, ValueError: with the function's and the argument's name.

    >>> integer_from("lin_space", "n", np.int64(3), 1)
    3
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{what}: got {name}={value!r}; expected an integer, at least {least}")
    if value < least:
        raise ValueError(f"{what}: got {name}={value}; expected at least {least}")
    return int(value)
