"""Hyperparameters as a report shows them: their values as text, and as the groups of configurations that share one.

levels(space, name, bins) -> Levels      one group per value; drawn numbers in bins
"""

import json
import math
from collections import Counter
from typing import Any, NamedTuple

import numpy as np

from jaxnet.sweeps.space import Space

LEVELS = 16  # values of one hyperparameter that stand for themselves


class Levels(NamedTuple):
    """A hyperparameter's values as groups of configurations."""

    name: str
    labels: list[str]
    group: np.ndarray  # (configurations,) position among the labels
    numeric: bool
    binned: bool  # a label is the median of the values in its bin


def levels(space: Space, name: str, bins: int) -> Levels:
    """The groups: one per value, numbers ascending; "–" where a configuration doesn't have the hyperparameter.

    Numbers that hardly repeat (drawn ones) are put into `bins` bins of about equally many configurations; of more than
    16 other values the most frequent 15 stand for themselves.

    >>> from jaxnet.sweeps.space import grid
    >>> levels(grid({"lr": [1.0, 0.1], "decay": [0, 1]}), "lr", bins=2)[:3]
    ('lr', ['0.1', '1'], array([1, 1, 0, 0]))
    """
    there = np.array([name in c for c in space.configurations])
    values = [c[name] for c in space.configurations if name in c]
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    numbers = np.array(values, float) if numeric else np.zeros(0)
    count = len(set(numbers.tolist()))
    binned = numeric and (count > LEVELS or len(values) < 2 * count)
    if binned:
        edges = np.quantile(numbers, np.arange(1, bins) / bins)
        place = np.searchsorted(edges, numbers, side="right")
        _, place = np.unique(place, return_inverse=True)
        labels = [brief(float(np.median(numbers[place == i])), 2) for i in range(int(place.max()) + 1)]
    elif numeric:
        distinct, place = np.unique(numbers, return_inverse=True)
        labels = [brief(float(v)) for v in distinct]
        if len(set(labels)) < len(labels):
            labels = [repr(float(v)) for v in distinct]
    else:
        keys = [text_key({name: v}, name) for v in values]
        texts = dict(zip(keys, map(said, values), strict=True))
        kept = list(texts)
        if len(kept) > LEVELS:
            often = {key for key, _ in Counter(keys).most_common(LEVELS - 1)}
            kept = [key for key in kept if key in often]
        where = {key: i for i, key in enumerate(kept)}
        place = np.array([where.get(key, len(kept)) for key in keys])
        labels = [texts[key] for key in kept] + ["others"] * (len(kept) < len(texts))
    group = np.full(len(space), len(labels))
    group[there] = place
    return Levels(name, labels + ["–"] * bool((~there).any()), group, numeric, binned)


def is_log_spaced(values: np.ndarray) -> bool:
    """Whether positive values are more even by their logarithms: whether the median lies nearer the geometric middle.

    >>> is_log_spaced(np.array([0.01, 0.1, 1.0])), is_log_spaced(np.array([1.0, 2.0, 3.0]))
    (True, False)
    """
    low, middle, high = (float(v) for v in (values.min(), np.median(values), values.max()))
    if low <= 0 or low == high:
        return False
    by_log = math.log(middle / low) / math.log(high / low)
    return abs(by_log - 0.5) + 1e-9 < abs((middle - low) / (high - low) - 0.5)


def text_key(configuration: dict[str, Any], name: str) -> str:
    """Text that two configurations share exactly if they have the same value; the empty text for none."""
    return json.dumps(configuration[name]) if name in configuration else ""


def said(value: Any) -> str:
    """A hyperparameter's value as people read it: 0.001, relu, [32, 32]."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return number(value)
    return " ".join((json.dumps(value) if isinstance(value, (tuple, list)) else str(value)).split())


def brief(value: float, digits: int = 3) -> str:
    """A number for an axis, where room is scarce.

    >>> brief(0.00025), brief(0.001)
    ('2.5e-4', '0.001')
    """
    if 0 < abs(value) < 1e-3:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return number(value, digits)


def number(value: float, digits: int = 4, *, full: bool = False) -> str:
    """A number with so many significant digits; `full`: trailing zeros too.

    >>> number(1e-5), number(0.25), number(0.25, 3, full=True), number(32)
    ('1e-5', '0.25', '0.250', '32')
    """
    if value == 0 or (abs(value) < 10**6 and (isinstance(value, int) or abs(value) >= 10**digits)):
        return f"{value:.0f}"
    text = f"{value:{'#' if full else ''}.{digits}g}"
    mantissa, e, exponent = text.partition("e")
    mantissa = mantissa.rstrip(".")
    return f"{mantissa}e{int(exponent)}" if e else mantissa


def spoken(name: str) -> str:
    """A metric's name in words: valid_loss is the validation loss.

    >>> spoken("valid_accuracy")
    'validation accuracy'
    """
    words = name.split("_")
    return " ".join([{"valid": "validation", "train": "training"}.get(words[0], words[0]), *words[1:]])
