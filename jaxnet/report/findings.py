"""What a study's page says, as numbers: its configurations in order, and what explains their means.

findings_of(study) -> Findings              the configurations' means over seeds, best first
levels(space, name, bins) -> Levels         a hyperparameter's values as groups of configurations
shares(findings), pairs(findings)           which hyperparameters, alone and two at a time, explain the means
"""

import itertools
import math
from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from jaxnet import outcomes
from jaxnet.report.levels import Levels, levels, number, said, text_key
from jaxnet.report.pieces import SPACE
from jaxnet.sweeps.space import Space
from jaxnet.sweeps.study import Study, mode_of

BINS = 8  # of drawn values, at most
PER_BIN = 10  # configurations in each bin of `shares`, at least: chance explains about 1 / PER_BIN of the variance
PAIRS = 6  # heat maps
SPREAD = 20  # positive values that spread wider are compared by their logarithms


class Measure(NamedTuple):
    """What the study is judged by, and how its values are written."""

    name: str
    mode: str  # "min" or "max"
    share: bool  # values in [0, 1], written as percentages
    log: bool  # compared by logarithms

    def show(self, value: float, digits: int = 1) -> str:
        """A value as text: a percentage, or a number of 3 + digits − 1 significant digits."""
        if not np.isfinite(value):
            return "–"
        return f"{100 * value:.{digits}f}{SPACE}%" if self.share else number(value, 2 + digits, full=True)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        """Values on the scale on which they are compared."""
        return np.log10(values) if self.log else values


@dataclass(frozen=True, eq=False)
class Findings:
    """A study's members and configurations by one measure; arrays are empty of numbers where nothing has finished."""

    study: Study
    measure: Measure | None  # None: no member has left a value
    values: np.ndarray  # (members,) NaN where not finished or not finite
    lost: np.ndarray  # (members,) bool, diverged
    mean: np.ndarray  # (configurations,) over seeds, NaN without a value
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    diverged: np.ndarray  # (configurations,) members that diverged
    order: np.ndarray  # the configurations with a mean, best first

    @property
    def space(self) -> Space:
        return self.study.plan.space

    @property
    def varied(self) -> list[str]:
        """The hyperparameters with two values or more; that a configuration doesn't have one is a value too."""
        return [name for name in self.space.names if len({text_key(c, name) for c in self.space}) > 1]

    @property
    def outcomes(self) -> dict[str, int]:
        """How many members ended how, in words; those that haven't run last."""
        codes = self.study.values.get("outcome")
        done = self.study.finished
        ended = {} if codes is None else {outcomes.word(c): n for c, n in sorted(Counter(codes[done].tolist()).items())}
        if codes is None and done.any():
            ended = {"finished": int(done.sum())}
        return ended | ({"not run": int((~done).sum())} if not done.all() else {})

    def ranked_members(self) -> np.ndarray:
        """The finished members, best first; those without a finite value last."""
        done = np.flatnonzero(self.study.finished)
        worse = self.values[done] if self.measure and self.measure.mode == "min" else -self.values[done]
        return done[np.argsort(worse, kind="stable")]  # NaN sorts last

    def told(self, configuration: int, names: list[str] | None = None) -> str:
        """A configuration in words, by default its varied hyperparameters: lr 0.01, act relu."""
        chosen = self.space.configurations[configuration]
        names = self.varied if names is None else names
        return ", ".join(f"{name} {said(chosen[name])}" for name in names if name in chosen)


def findings_of(study: Study, name: str | None = None, mode: str | None = None) -> Findings:
    """A study by the metric `name`: what it was ranked by unless given, else the first that says which way is good.

    Raises:
        KeyError: no such metric. ValueError: a mode that can't be told from the name.

    >>> from jaxnet.sweeps.plan import plan_of
    >>> from jaxnet.sweeps.space import grid
    >>> study = Study.blank(plan_of(grid({"lr": [0.5, 1.0]}), seeds=(0, 1)))
    >>> study.take([0, 1, 2, 3], {"metrics/loss": np.array([3.0, 1.0, 5.0, 1.0])}, {})
    >>> found = findings_of(study)
    >>> found.order.tolist(), found.mean.tolist(), found.varied
    ([1, 0], [4.0, 1.0], ['lr'])
    """
    members, configurations = len(study), len(study.plan.space)
    nothing = np.full(configurations, np.nan)
    zeros, none = np.zeros(configurations, int), np.zeros(members, bool)
    if not study.metrics or not study.finished.any():
        empty = np.full(members, np.nan)
        return Findings(study, None, empty, none, nothing, nothing, nothing, nothing, zeros, zeros, zeros[:0])
    name, mode = ranking(study, name, mode)
    values = study.values[f"metrics/{name}"].astype(float)
    values = np.where(study.finished & np.isfinite(values), values, np.nan)
    codes = study.values.get("outcome")
    lost = study.finished & (np.isnan(values) if codes is None else np.isin(codes, outcomes.LOST))
    table = study.summary(name)
    mean, std, low, high, n = (np.asarray(table[part]) for part in ("mean", "std", "low", "high", "n"))
    diverged = np.bincount(study.plan.configuration[lost], minlength=configurations)
    usable = np.flatnonzero(np.isfinite(mean))
    order = usable[np.argsort(mean[usable] if mode == "min" else -mean[usable], kind="stable")]
    known = values[np.isfinite(values)]
    inside = known.size > 0 and known.min() >= 0 and known.max() <= 1
    share = bool(inside and name.endswith(("accuracy", "precision", "recall")))
    log = bool(not share and known.size and known.min() > 0 and np.ptp(np.log10(known)) > math.log10(SPREAD))
    return Findings(
        study, Measure(name, mode, share, log), values, lost, mean, std, low, high, n, diverged, order
    )  # fmt: skip


def ranking(study: Study, name: str | None, mode: str | None) -> tuple[str, str]:
    """The metric that ranks and its mode."""
    if name is None:
        name = study.about.get("rank_by")
    if name is None:
        telling = (m for m in study.metrics if mode or _tells(m))
        name = next(telling, study.metrics[0])
    if name not in study.metrics:
        raise KeyError(f"got {name!r}; expected one of {', '.join(study.metrics)}")
    if mode is None and name == study.about.get("rank_by"):
        mode = study.about.get("mode")
    return name, mode_of(name, mode)


def _tells(name: str) -> bool:
    try:
        return bool(mode_of(name, None))
    except ValueError:
        return False


def explained(values: np.ndarray, group: np.ndarray) -> float:
    """The share of the values' variance that their groups' means explain: η² = Σ n_g (ȳ_g − ȳ)² / Σ (y − ȳ)².

    NaN where the values are equal or every group holds one. Fisher 1925.

    >>> explained(np.array([0.0, 0.0, 2.0, 2.0]), np.array([0, 0, 1, 1]))
    1.0
    """
    _, place, n = np.unique(group, return_inverse=True, return_counts=True)
    if len(n) == len(values):
        return math.nan
    values = values / (np.abs(values).max() or 1.0)  # no square overflows
    total = float(((values - values.mean()) ** 2).sum())
    if total <= 1e-20 * len(values):
        return math.nan
    means = np.bincount(place, values) / n
    return float((n * (means - values.mean()) ** 2).sum()) / total


def shares(found: Findings) -> dict[str, float]:
    """How much of the variance of the configurations' means each hyperparameter explains alone, the most first.

    The main effect of a functional ANOVA (Hutter, Hoos & Leyton-Brown 2014) on the configurations that were run: in a
    full grid the shares add up to at most 1, the rest are joint effects and chance. Of logarithms where the values
    spread wide. Empty for one hyperparameter, and where there are too few configurations to tell.
    """
    if found.measure is None or len(found.varied) < 2:
        return {}
    used = found.order
    bins = min(BINS, len(used) // PER_BIN)
    y = found.measure.scaled(found.mean[used])
    told = {}
    for name in found.varied:
        one = levels(found.space, name, max(bins, 1))
        if one.binned and bins < 2:
            continue
        told[name] = explained(y, one.group[used])
    told = {name: share for name, share in told.items() if math.isfinite(share)}
    return dict(sorted(told.items(), key=lambda item: -item[1]))


def pairs(found: Findings) -> list[tuple[Levels, Levels]]:
    """The pairs of hyperparameters that explain most, at most 6: (columns, rows); more values go into the columns."""
    bins = max(2, min(BINS, math.isqrt(len(found.space))))
    every = [levels(found.space, name, bins) for name in found.varied]
    every = [one for one in every if len(one.labels) > 1]
    scored: list[tuple[float, int, Levels, Levels]] = []
    for one, other in itertools.combinations(every, 2):
        score = math.nan
        if found.measure is not None:
            y = found.measure.scaled(found.mean[found.order])
            score = explained(y, (one.group * len(other.labels) + other.group)[found.order])
        columns, rows = (one, other) if len(one.labels) >= len(other.labels) else (other, one)
        scored.append((-score if math.isfinite(score) else 0.0, len(scored), columns, rows))
    return [(columns, rows) for _, _, columns, rows in sorted(scored, key=lambda item: item[:2])[:PAIRS]]
