"""Two configurations on common seeds: which one is higher, how sure that is, and how many more seeds would decide.

    compare(a, b) -> Comparison              print it: four lines
    seeds_needed(differences) -> int | None  the seeds at which a paired t-test would decide

Members of a study share their keys seed by seed, whatever their configuration (common random numbers), so results
are compared in pairs: what a seed adds to both cancels.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxnet.sweeps.statistics import Interval, check_share, checked_values, interval, resamples

__all__ = ["Comparison", "compare", "seeds_needed"]

MOST_SEEDS = 1_000_000  # beyond, a difference counts as undecidable


class Comparison(NamedTuple):
    """What `compare` found; `print` shows it in four lines."""

    difference: Interval  # of b − a over pairs; `missing` counts the pairs dropped
    t_test: float  # p
    sign_flip: float  # p
    improvement: float  # P(b > a)
    improvement_low: float
    improvement_high: float
    needed: int | None  # seeds that would decide a difference of this size; None: no number would, or unknown
    level: float
    verdict: str

    def __str__(self) -> str:
        d, level = self.difference, f"{100 * self.level:g} %"
        dropped = f", {d.missing} dropped" if d.missing else ""
        return (
            f"b − a: {d.mean:.4g}, {level} interval {d.low:.4g} to {d.high:.4g} ({_counted(d.n, 'pair')}{dropped})\n"
            f"p: {self.t_test:.3g} by the paired t-test, {self.sign_flip:.3g} by sign flips\n"
            f"P(b > a): {self.improvement:.3g}, {level} interval "
            f"{self.improvement_low:.3g} to {self.improvement_high:.3g}\n"
            f"{self.verdict}"
        )


def compare(a: ArrayLike, b: ArrayLike, *, level: float = 0.95, seed: int = 0) -> Comparison:
    """Compare two configurations on common seeds.

    The mean of b − a with its paired t interval and p; the sign-flip permutation test's p (exact by enumeration up to
    13 pairs, else from 10,000 flips); the probability of improvement P(b > a) over all n² pairings, ties half, with a
    percentile bootstrap interval over seeds (Agarwal et al. 2021, "Deep RL at the edge of the statistical precipice").

    The t-test decides. Where the differences don't vary beyond float32 rounding (few seeds, a coarse metric) it has
    no spread to go by, and the sign flips decide.

    Args:
        a, b: (seeds,), values of the same seeds in the same order. A pair with a value that isn't finite is dropped.
        level: of confidence, in (0, 1).
        seed: of the flips and the bootstrap.

    Raises:
        ValueError, TypeError: for other shapes, unequal lengths, a level out of range.

    >>> print(compare([0.90, 0.91, 0.92, 0.93], [0.92, 0.93, 0.93, 0.96]))
    b − a: 0.02, 95 % interval 0.007008 to 0.03299 (4 pairs)
    p: 0.0163 by the paired t-test, 0.125 by sign flips
    P(b > a): 0.844, 95 % interval 0.781 to 1
    b is higher: by 0.02 on average over 4 seeds; sign flips, which assume no normal distribution, don't decide
    """
    from scipy import stats

    check_share("level", level)
    x, y = checked_values("a", a, 1, "(seeds,)"), checked_values("b", b, 1, "(seeds,)")
    if len(x) != len(y):
        raise ValueError(f"got {len(x)} values of a and {len(y)} of b; expected pairs: values of the same seeds")
    paired = np.isfinite(x) & np.isfinite(y)
    d = np.full(len(x), np.nan)
    d[paired] = y[paired] - x[paired]
    difference = interval(d, level)
    x, y, d, n = x[paired], y[paired], d[paired], difference.n
    wins = (y[:, None] > x) + (y[:, None] == x) / 2
    nan = math.nan
    if n < 2:
        verdict = f"undecided after {_counted(n, 'seed')}: a comparison needs at least 2"
        return Comparison(difference, nan, nan, float(wins[0, 0]) if n else nan, nan, nan, None, level, verdict)

    size = abs(difference.mean)
    if difference.std > 0:
        t_test = float(2 * stats.t.sf(size / (difference.std / math.sqrt(n)), n - 1))
    else:
        t_test = 0.0 if size else 1.0
    rng = np.random.Generator(np.random.PCG64(seed))
    flips: Any = stats.permutation_test(
        (d,), np.mean, permutation_type="samples", n_resamples=10_000, batch=1000, rng=rng
    )
    sign_flip = float(flips.pvalue)

    counts = resamples(n, seed)
    shares = ((counts @ wins) * counts).sum(1) / n**2
    low, high = np.quantile(shares, [(1 - level) / 2, (1 + level) / 2]).tolist()

    steady = difference.std <= 2 * np.finfo(np.float32).eps * max(np.abs(x).max(), np.abs(y).max())
    needed = None if not size else _fewest_flips(level) if steady else seeds_needed(d, level=level)
    verdict = _verdict(difference, sign_flip if steady else t_test, sign_flip, needed, level)
    return Comparison(difference, t_test, sign_flip, float(wins.mean()), low, high, needed, level, verdict)


def seeds_needed(differences: ArrayLike, *, level: float = 0.95, power: float = 0.8) -> int | None:
    """The fewest seeds at which a two-sided paired t-test has this power, if the observed mean and std are the truth.

    power(n) = P(|T| > t(n−1; (1+level)/2)), T noncentral t with n−1 degrees of freedom, noncentrality √n·|mean|/std.

    A plan, not a promise: the true difference may be smaller than the one observed. Differences that are all equal
    leave the t-test nothing to go by; the answer is then the fewest pairs at which sign flips can decide, 6 at 0.95.

    Args:
        differences: (seeds,), b − a per seed; those that aren't finite are left out.
        level: 1 − the probability of deciding where there is no difference, in (0, 1).
        power: the probability of deciding where there is this difference, in (0, 1).

    Returns: n, at least 2; None if the mean is 0 or n would be beyond 1,000,000.

    Raises:
        ValueError, TypeError: for another shape, fewer than 2 finite differences, a level or power out of range.

    >>> seeds_needed([0.5, 1.5, -1.0, 1.0])
    39
    """
    from scipy import stats

    check_share("level", level)
    check_share("power", power)
    observed = interval(checked_values("differences", differences, 1, "(seeds,)"), level)
    if observed.n < 2:
        raise ValueError(f"got {observed.n} finite differences; expected at least 2: one alone has no spread")
    if observed.mean == 0:
        return None
    if observed.std == 0:
        return _fewest_flips(level)
    effect = min(abs(observed.mean) / observed.std, 1e6)

    def reached(n: int) -> bool:
        limit, shift = stats.t.ppf((1 + level) / 2, n - 1), effect * math.sqrt(n)
        lower = np.nan_to_num(stats.nct.cdf(-limit, n - 1, shift))  # NaN where it is far below the smallest float
        return bool(stats.nct.sf(limit, n - 1, shift) + lower >= power)

    enough = 2
    while not reached(enough):
        if enough >= MOST_SEEDS:
            return None
        enough = min(2 * enough, MOST_SEEDS)
    too_few = enough // 2
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if reached(middle) else (middle, enough)
    return enough


def _fewest_flips(level: float) -> int:
    """The fewest pairs n, all of one sign, whose sign-flip p = 2^(1−n) is below 1 − level."""
    return math.floor(1 - math.log2(1 - level)) + 1


def _verdict(difference: Interval, p: float, sign_flip: float, needed: int | None, level: float) -> str:
    """One sentence from the deciding p, the sign-flip p, and the seeds that would decide."""
    n = difference.n
    if p < 1 - level:
        side = "higher" if difference.mean > 0 else "lower"
        hedge = "" if sign_flip < 1 - level else "; sign flips, which assume no normal distribution, don't decide"
        return f"b is {side}: by {abs(difference.mean):.3g} on average over {n} seeds{hedge}"
    if difference.mean == 0:
        return f"undecided after {n} seeds: " + (
            "all pairs are equal" if difference.std == 0 else "the means are equal"
        )
    if needed is None:
        return f"undecided after {n} seeds: a difference of this size would need more than {MOST_SEEDS:,}"
    return f"undecided after {n} seeds: about {max(needed - n, 1):,} more would decide a difference of this size"


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
