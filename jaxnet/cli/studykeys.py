"""The keys of a study file: what each may be, and what it is unless given.

PROGRAM, DATA, STUDY      the tables' keys by name
one(where, value, key)    a value, checked
shown(value)              a value as TOML
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from jaxnet import activations
from jaxnet.data.load import NAMES


class Key(NamedTuple):
    """One key of a table: what it is unless given (None: nothing), what it may be."""

    default: Any
    fits: Callable[[Any], Any]
    expected: str
    is_float: bool = False
    names: tuple[str, ...] = ()  # all that it may be


def _whole(default: int | None, least: int, most: int = 2**31 - 1) -> Key:
    expected = f"a whole number, at least {least}" if most == 2**31 - 1 else f"a whole number from {least} to {most}"
    return Key(default, lambda v: type(v) is int and least <= v <= most, expected)


def _number(default: float | None, fits: Callable[[float], bool], expected: str) -> Key:
    return Key(default, lambda v: type(v) in (int, float) and abs(v) < 1e300 and fits(v), expected, is_float=True)


def _one_of(default: str | None, *names: str) -> Key:
    return Key(default, lambda v: v in names, f"one of {', '.join(names)}", names=names)


def _listed(default: Any, of: Key, what: str, least: int = 1) -> Key:
    return Key(default, lambda v: isinstance(v, list) and len(v) >= least and all(map(of.fits, v)), what)


MOST = 1_000_000  # configurations, and seeds of each
SEED = _whole(0, 0, 2**32 - 1)
TEXT = Key(None, lambda v: isinstance(v, str) and v, "a text")
FUNCTION = Key(
    None, lambda v: isinstance(v, str) and re.fullmatch(r"[\w.]+:\w+", v), 'a function in a module, "module:function"'
)
NAME = Key(None, lambda v: isinstance(v, str) and re.fullmatch(r"\w[\w.-]*", v), "letters, digits, _, - and .")

PROGRAM = {
    "hidden": _listed([32], _whole(None, 1), "units of the hidden layers, such as [64, 32]", least=0),
    "activation": _one_of("relu", *(name for name, f in activations.named.items() if f.differentiable)),
    "dropout": _number(0.0, lambda v: 0 <= v < 1, "a number from 0 up to 1, without 1"),
    "optimizer": _one_of("adamw", "adam", "adamw", "sgd", "momentum", "nesterov", "rmsprop"),
    "lr": _number(1e-3, lambda v: v > 0, "a number above 0"),
    "weight_decay": _number(0.0, lambda v: v >= 0, "a number of at least 0"),
    "momentum": _number(0.9, lambda v: 0 <= v < 1, "a number from 0 up to 1, without 1"),
    "batch_size": _whole(32, 1),
    "patience": _whole(5, 0),
}
SHAPING = ("hidden", "activation", "optimizer", "batch_size", "patience")  # static wherever they stand
OF_OPTIMIZERS = {"weight_decay": ("adamw",), "momentum": ("momentum", "nesterov")}

SHARE = _number(0.2, lambda v: 0 < v < 1, "a number between 0 and 1")
DATA = {
    "name": _one_of(None, *NAMES),
    "file": Key(None, lambda v: isinstance(v, str) and v.lower().endswith((".csv", ".npz")), "a .csv or .npz file"),
    "function": FUNCTION,
    "task": _one_of(None, "classification", "regression"),
    "target": TEXT,
    "ignore": _listed(None, TEXT, "a list of columns", least=0),
    "missing": _one_of("refuse", "refuse", "drop", "mean"),
    "test_share": _number(0.2, lambda v: 0 <= v < 1, "a number from 0 up to 1, without 1"),
    "valid_share": SHARE,
    "folds": _whole(None, 2),
    "stratified": Key(None, lambda v: isinstance(v, bool), "true or false"),
    "repeats": _whole(1, 1),
    "bootstrap": _whole(None, 1),
    "split_seed": SEED,
}
STUDY = {
    "method": _one_of("grid", "grid", "zipped", "random", "sobol"),
    "draws": _whole(None, 1, MOST),
    "draw_seed": SEED,
    "epochs": _whole(20, 1),
    "seeds": Key(
        1, lambda v: _whole(None, 1, MOST).fits(v) or _listed(None, SEED, "").fits(v), "how many, or a list of seeds"
    ),
    "study_seed": SEED,
    "width": _whole(None, 1),
    "keep": _one_of("best", "best", "all", "none"),
    "rank_by": TEXT,
    "mode": _one_of(None, "min", "max"),
    "devices": Key("auto", lambda v: v == "auto" or _whole(None, 1).fits(v), '"auto", or how many'),
}


def one(where: str, value: Any, key: Key) -> Any:
    """One value, checked against its key; whole numbers that stand for others become those.

    Raises:
        ValueError: it doesn't fit.

    >>> one("study.toml: [program] lr", 1, PROGRAM["lr"])
    1.0
    """
    if not key.fits(value):
        close = difflib.get_close_matches(value, key.names, n=1) if isinstance(value, str) else []
        near = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"{where}: got {shown(value)}; expected {key.expected}{near}")
    return float(value) if key.is_float else value


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say after a name that isn't known.

    >>> nearest("hiddn", PROGRAM)
    'did you mean hidden?'
    """
    known = tuple(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"


def lacking(name: str, program: Mapping[str, Any], space: Mapping[str, Any]) -> str:
    """What a key of [program] needs to have an effect, "" if it has one: an optimizer that uses it, in any
    configuration.

    >>> lacking("momentum", {"optimizer": "sgd"}, {}), lacking("momentum", {}, {"optimizer": ["sgd", "momentum"]})
    ('optimizer = "momentum" or "nesterov"', '')
    """
    axis = space.get("optimizer", program.get("optimizer", PROGRAM["optimizer"].default))
    axis = axis.get("static", []) if isinstance(axis, dict) else axis
    users, chosen = OF_OPTIMIZERS.get(name, ()), axis if isinstance(axis, list) else [axis]
    return "" if not users or any(user in chosen for user in users) else f"optimizer = {' or '.join(map(shown, users))}"


def shown(value: Any) -> str:
    """A value as TOML.

    >>> shown({"log": [1e-4, 0.1], "n": 3}), shown(["relu", True])
    ('{ log = [0.0001, 0.1], n = 3 }', '["relu", true]')
    """
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{bare(name)} = {shown(item)}" for name, item in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else str(value)


def bare(name: str) -> str:
    """A name as a key of TOML.

    >>> bare("lr"), bare("größe")
    ('lr', '"größe"')
    """
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else shown(name)
