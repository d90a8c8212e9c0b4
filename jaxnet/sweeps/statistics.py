"""What seeds allow to say of results in plain arrays: means with intervals, learning curves with bands, ranks.

    interval(values) -> Interval                     the mean over seeds
    summarize(groups, values) -> {group: Interval}   the same for every configuration of a study
    bands(history, groups) -> {group: Bands}         the same for every epoch
    rank_stability(values) -> RankStability          whether another draw of seeds would rank configurations alike

A value that isn't finite belongs to a member that diverged: it is left out of means and counted as missing, and it
ranks last. Random draws come from NumPy's PCG64 by `seed`, so results are a function of the arguments alone.
Two configurations are compared in `jaxnet.sweeps.comparison`.
"""

from __future__ import annotations

import math
import numbers
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Bands", "Interval", "RankStability", "bands", "interval", "rank_stability", "summarize"]

RESAMPLES = 10_000  # bootstrap draws


class Interval(NamedTuple):
    """A mean over seeds and its interval. NaN where n is too small: mean below 1 value, the rest below 2."""

    mean: float
    std: float  # with n − 1
    low: float
    high: float
    n: int  # values used
    missing: int  # values left out because they aren't finite


class Bands(NamedTuple):
    """A learning curve and its interval; arrays (epochs,)."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n: np.ndarray  # members that still have a value at this epoch


class RankStability(NamedTuple):
    """What `rank_stability` found."""

    kendall_w: float  # 0: seeds disagree as by chance, 1: all rank alike; NaN when every seed ties all
    spearman: float  # mean over pairs of seeds
    best: int  # the configuration with the best mean
    stays_best: float  # the probability that it is the best under another draw of seeds
    probability_best: np.ndarray  # the same for each configuration, sum 1


def interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """The mean over seeds with Student's t interval: mean ± t(n−1)·s/√n.

    Args:
        values: (seeds,); those that aren't finite are left out and counted as missing.
        level: of confidence, in (0, 1).

    Raises:
        ValueError: for another shape or level; TypeError: for what isn't numbers.

    >>> interval([1.0, 2.0, 3.0, float("nan")])
    Interval(mean=2.0, std=1.0, low=-0.484..., high=4.484..., n=3, missing=1)
    """
    values = checked_values("values", values, 1, "(seeds,)")
    return _intervals(np.zeros(len(values), int), values, 1, level)[0]


def summarize(groups: ArrayLike, values: ArrayLike, level: float = 0.95) -> dict[int, Interval]:
    """`interval` of each group's values, by group id in ascending order.

    Args:
        groups: integers (members,), such as each member's configuration.
        values: (members,).
        level: of confidence, in (0, 1).

    Raises:
        ValueError, TypeError: for other shapes, unequal lengths, ids that aren't integers, a level out of range.

    >>> summarize([0, 0, 1], [0.9, 1.1, 0.5])[0].mean
    1.0
    """
    values = checked_values("values", values, 1, "(members,)")
    ids, inverse = _group_ids(groups, len(values))
    return dict(zip(ids, _intervals(inverse, values, len(ids), level), strict=True))


def bands(history: ArrayLike, groups: ArrayLike, level: float = 0.95) -> dict[int, Bands]:
    """Learning curves with confidence bands: per group and epoch the mean and Student's t interval over members.

    After a member's end its history is NaN and it is left out; where members stop at different epochs, a curve's
    tail is the mean of those that went on (`n` of them), not of all.

    Args:
        history: (members, epochs).
        groups: integers (members,).
        level: of confidence, in (0, 1).

    Raises:
        ValueError, TypeError: as `summarize`.

    >>> curve = bands([[3.0, 2.0], [1.0, float("nan")]], [7, 7])[7]
    >>> curve.mean, curve.n
    (array([2., 2.]), array([2, 1]))
    """
    history = checked_values("history", history, 2, "(members, epochs)")
    ids, inverse = _group_ids(groups, len(history))
    epochs = history.shape[1]
    cells = inverse[:, None] * epochs + np.arange(epochs)
    mean, _, low, high, n, _ = _moments(cells.ravel(), history.ravel(), len(ids) * epochs, level)
    curves = (a.reshape(len(ids), epochs) for a in (mean, low, high, n))
    return {group: Bands(*rows) for group, rows in zip(ids, zip(*curves, strict=True), strict=True)}


def rank_stability(values: ArrayLike, *, best: Literal["max", "min"], seed: int = 0) -> RankStability:
    """Whether configurations rank alike from seed to seed, and how sure the best one is.

    Kendall's W = 12·S / (m²(n³−n) − m·ΣT) for m seeds and n configurations, S the squared deviations of the rank sums,
    T = Σ(t³−t) over each seed's ties (Kendall & Smith 1939). The probability of being best is the share of 10,000
    bootstrap draws of seeds, common to all configurations, with the best mean; equal means share it.

    A value that isn't finite ranks last, and a configuration with more of them below one with fewer.

    Args:
        values: (configurations, seeds), at least 2 of each; a column is one seed.
        best: "max" if more is better (accuracy), "min" if less is (loss).
        seed: of the bootstrap.

    Raises:
        ValueError, TypeError: for another shape or another `best`.

    >>> found = rank_stability([[0.97, 0.98, 0.96], [0.91, 0.95, 0.90]], best="max")
    >>> found.kendall_w, found.best, found.stays_best
    (1.0, 0, 1.0)
    """
    from scipy.stats import rankdata

    values = checked_values("values", values, 2, "(configurations, seeds)")
    if min(values.shape) < 2:
        raise ValueError(f"got values of shape {values.shape}; expected at least 2 configurations and 2 seeds")
    if best not in ("max", "min"):
        raise ValueError(f"best: got {best!r}; expected 'max' or 'min'")
    n, m = values.shape
    seen = np.isfinite(values)
    scores = values if best == "max" else -values
    ranks = rankdata(np.where(seen, -scores, np.inf), axis=0)
    ties = sum(float((t**3 - t).sum()) for t in (np.unique(column, return_counts=True)[1] for column in ranks.T))
    squares = float(((ranks.sum(1) - m * (n + 1) / 2) ** 2).sum())
    possible = m**2 * (n**3 - n) - m * ties
    varied = ranks[:, np.ptp(ranks, axis=0) > 0].T
    pairs = np.triu_indices(len(varied), 1)
    spearman = float(np.corrcoef(varied)[pairs].mean()) if len(varied) > 1 else math.nan

    # Scores in [0, 1], less 2 for each missing one, so that fewer missing always wins.
    low, high = (scores[seen].min(), scores[seen].max()) if seen.any() else (0.0, 0.0)
    scaled = np.where(seen, (np.where(seen, scores, low) - low) / ((high - low) or 1.0), 0.0)

    def leaders(counts: np.ndarray) -> np.ndarray:
        total = counts @ scaled.T / m - 2 * (counts @ ~seen.T)
        return total >= total.max(1, keepdims=True) - 1e-12

    winner = int(leaders(np.ones((1, m)))[0].argmax())
    led = np.zeros(n)
    for part in np.array_split(resamples(m, seed), -(-RESAMPLES * n // 1_000_000)):
        leading = leaders(part)
        led += (leading / leading.sum(1, keepdims=True)).sum(0)
    probability = led / RESAMPLES
    w = 12 * squares / possible if possible else math.nan
    return RankStability(w, spearman, winner, float(probability[winner]), probability)


def resamples(n: int, seed: int) -> np.ndarray:
    """How often each of n seeds occurs in each of 10,000 bootstrap draws of n: floats (10000, n), rows sum to n.

    >>> resamples(3, seed=0).sum(1).tolist()[:4]
    [3.0, 3.0, 3.0, 3.0]
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(float)


def checked_values(name: str, values: ArrayLike, ndim: int, shape: str) -> np.ndarray:
    """`values` as float64 of this rank; `shape` is what the sentence says was expected.

    Raises:
        TypeError: for what isn't real numbers; ValueError: for another rank.

    >>> checked_values("values", [1, 2], 1, "(seeds,)")
    array([1., 2.])
    """
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: got dtype {array.dtype}; expected real numbers {shape}: mark what is missing as NaN")
    if array.ndim != ndim:
        raise ValueError(f"{name}: got shape {array.shape}; expected {shape}: reshape or select before")
    return array.astype(np.float64)


def check_share(name: str, share: float) -> None:
    """A number strictly between 0 and 1.

    Raises:
        TypeError, ValueError: for anything else.

    >>> check_share("level", 0.95)
    """
    if isinstance(share, bool) or not isinstance(share, numbers.Real):
        raise TypeError(f"{name}: got {share!r}; expected a number between 0 and 1, such as 0.95")
    if not 0 < share < 1:
        raise ValueError(f"{name}: got {share!r}; expected a number between 0 and 1, such as 0.95 for 95 %")


def _group_ids(groups: ArrayLike, members: int) -> tuple[list[int], np.ndarray]:
    """The distinct ids in ascending order, and each member's position among them."""
    groups = np.asarray(groups, int) if np.size(groups) == 0 else np.asarray(groups)
    if groups.dtype.kind not in "iu":
        raise TypeError(f"groups: got dtype {groups.dtype}; expected integers: number the configurations from 0")
    if groups.shape != (members,):
        raise ValueError(f"groups: got shape {groups.shape}; expected one id per member: ({members},)")
    ids, inverse = np.unique(groups, return_inverse=True)
    return ids.tolist(), inverse


def _moments(cells: np.ndarray, values: np.ndarray, count: int, level: float) -> tuple[np.ndarray, ...]:
    """mean, std, low, high, n, missing of the values in each of `count` cells."""
    from scipy.special import stdtrit  # the quantile of Student's t, what scipy.stats.t.ppf calls

    check_share("level", level)
    seen = np.isfinite(values)
    missing = np.bincount(cells[~seen], minlength=count)
    cells, values = cells[seen], values[seen]
    n = np.bincount(cells, minlength=count)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        mean = np.bincount(cells, values, count) / n
        mean += np.bincount(cells, values - mean[cells], count) / n  # so that equal values have exactly their mean
        squares = np.bincount(cells, (values - mean[cells]) ** 2, count)
        std = np.where(n > 1, np.sqrt(squares / np.maximum(n - 1, 1)), np.nan)
        half = stdtrit(np.maximum(n - 1, 1), (1 + level) / 2) * std / np.sqrt(n)
    return mean, std, mean - half, mean + half, n, missing


def _intervals(cells: np.ndarray, values: np.ndarray, count: int, level: float) -> list[Interval]:
    columns = (column.tolist() for column in _moments(cells, values, count, level))
    return [Interval(*row) for row in zip(*columns, strict=True)]
