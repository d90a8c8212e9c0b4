"""Intervals, bands and rank stability against scipy, enumeration and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxnet.sweeps.statistics import Interval, bands, interval, rank_stability, resamples, summarize

NAN = math.nan
numbers = st.floats(-100, 100, allow_subnormal=False)
levels = st.sampled_from([0.5, 0.9, 0.95, 0.99])


def rng(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def same(left: Interval, right: Interval):
    np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-12)


@given(st.lists(numbers, min_size=2, max_size=12), levels, st.integers(0, 3))
def test_interval_is_scipys(values, level, missing):
    values = np.asarray(values)
    found = interval(np.concatenate([values, [NAN, np.inf, -np.inf][:missing]]), level)
    np.testing.assert_allclose(found.mean, np.mean(values), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.std, np.std(values, ddof=1), rtol=1e-9, atol=1e-12)
    if values.std() > 1e-9:
        expected = stats.ttest_1samp(values, 0).confidence_interval(level)
        np.testing.assert_allclose([found.low, found.high], expected, rtol=1e-9, atol=1e-9)
    assert (found.n, found.missing) == (len(values), missing)


def test_too_few_values_give_nan_without_warning():
    np.testing.assert_equal(interval([]), Interval(NAN, NAN, NAN, NAN, 0, 0))
    np.testing.assert_equal(interval([NAN]), Interval(NAN, NAN, NAN, NAN, 0, 1))
    np.testing.assert_equal(interval([3.0, NAN]), Interval(3.0, NAN, NAN, NAN, 1, 1))


@given(numbers, st.integers(2, 50))
def test_equal_values_have_exactly_no_spread(value, n):
    assert interval([value] * n) == Interval(value, 0.0, value, value, n, 0)


@pytest.mark.parametrize("n", [3, 5, 20])
@pytest.mark.parametrize("level", [0.5, 0.95])
def test_coverage_of_few_seeds(n, level):
    """A normal quantile in place of Student's would cover 85 % at n = 3 and 88 % at n = 5."""
    runs = 10_000
    values = rng(n).normal(2.0, 3.0, (runs, n))
    found = summarize(np.repeat(np.arange(runs), n), values.ravel(), level)
    covered = np.mean([i.low <= 2.0 <= i.high for i in found.values()])
    assert abs(covered - level) < 4 * math.sqrt(level * (1 - level) / runs)


@pytest.mark.source("GB-5.4.3-CI")
def test_coverage_and_the_rule_of_comparison_for_many_examples():
    """95 ± 1 % coverage at m = 1000; upper(A) < lower(B) is rare without a difference, certain with a large one."""
    m, runs = 1000, 2000
    errors = rng(1).random((2, runs, m)) < 0.3
    a, b, worse = (
        list(summarize(np.repeat(np.arange(runs), m), e.ravel()).values()) for e in (*errors, errors[1] + 0.2)
    )
    assert abs(np.mean([i.low <= 0.3 <= i.high for i in a]) - 0.95) < 0.01
    np.testing.assert_allclose(a[0].high - a[0].mean, 1.96 * errors[0, 0].std() / math.sqrt(m), rtol=2e-3)
    assert np.mean([i.high < j.low for i, j in zip(a, b, strict=True)]) < 0.01
    assert np.mean([i.high < j.low for i, j in zip(a, worse, strict=True)]) == 1


@given(st.lists(st.tuples(st.sampled_from([-3, 0, 7, 10**12]), numbers | st.just(NAN)), max_size=30), levels)
def test_summarize_is_interval_of_each_group(pairs, level):
    found = summarize([g for g, _ in pairs], [v for _, v in pairs], level)
    assert list(found) == sorted({g for g, _ in pairs})
    for group, summary in found.items():
        same(summary, interval([v for g, v in pairs if g == group], level))


def test_bands_are_the_interval_of_each_epoch():
    history = rng().normal(size=(7, 5))
    history[0, 3:] = NAN
    history[1, 1:] = NAN
    history[6, 2:] = NAN
    groups = np.array([1, 1, 1, 1, -2, -2, 8])
    found = bands(history, groups, 0.9)
    assert list(found) == [-2, 1, 8]
    for group, curve in found.items():
        for epoch in range(5):
            expected = interval(history[groups == group, epoch], 0.9)
            row = [curve.mean[epoch], curve.low[epoch], curve.high[epoch], curve.n[epoch]]
            np.testing.assert_allclose(row, [expected.mean, expected.low, expected.high, expected.n], rtol=1e-12)
    assert found[1].n.tolist() == [4, 3, 3, 2, 2]
    assert np.isnan(found[8].mean).tolist() == [False, False, True, True, True]


@st.composite
def tables(draw, elements, most=5):
    n, m = draw(st.integers(3, most)), draw(st.integers(2, most))
    return np.array(draw(st.lists(elements, min_size=n * m, max_size=n * m))).reshape(n, m)


@given(tables(st.integers(0, 3)))
def test_kendalls_w_with_ties_is_friedmans_statistic(values):
    n, m = values.shape
    found = rank_stability(values, best="max").kendall_w
    if all(np.ptp(values, axis=0) == 0):
        assert math.isnan(found)
    else:
        expected = stats.friedmanchisquare(*values).statistic / (m * (n - 1))
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@given(tables(st.floats(-10, 10, allow_subnormal=False)))
def test_spearman_is_scipys_mean_over_pairs(values):
    varied = [column for column in values.T if np.ptp(column) > 0]
    found = rank_stability(values, best="min").spearman
    if len(varied) < 2:
        assert math.isnan(found)
    else:
        pairs = itertools.combinations(varied, 2)
        expected = np.mean([stats.spearmanr(x, y).statistic for x, y in pairs])
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_without_ties_kendalls_w_and_spearman_are_one_number():
    """Mean Spearman = (m·W − 1)/(m − 1) (Kendall & Smith 1939)."""
    found = rank_stability(rng(3).normal(size=(6, 4)), best="max")
    np.testing.assert_allclose(found.spearman, (4 * found.kendall_w - 1) / 3, rtol=1e-12)


@pytest.mark.parametrize("best", ["max", "min"])
def test_probability_of_being_best_is_that_of_all_draws(best):
    values = rng(4).integers(0, 4, (4, 4)) / 3
    choose = np.max if best == "max" else np.min
    expected = np.zeros(4)
    for draw in itertools.product(range(4), repeat=4):
        means = values[:, draw].mean(1)
        leading = np.isclose(means, choose(means), rtol=0, atol=1e-9)
        expected += leading / leading.sum() / 4**4
    found = rank_stability(values, best=best)
    np.testing.assert_allclose(found.probability_best.sum(), 1)
    np.testing.assert_allclose(found.probability_best, expected, atol=4 * math.sqrt(0.25 / 10_000))
    assert found.best == (np.argmax if best == "max" else np.argmin)(values.mean(1))
    assert found.stays_best == found.probability_best[found.best]


def test_equal_means_share_the_probability_of_being_best():
    """The means of 0.1, 0.2, 0.3 in another order differ by rounding; 10⁻⁹ is a difference."""
    found = rank_stability([[0.1, 0.1], [0.1, 0.1], [0.1 - 1e-9, 0.1 - 1e-9], [0.05, 0.0]], best="max")
    np.testing.assert_allclose(found.probability_best, [0.5, 0.5, 0, 0])
    found = rank_stability([[0.7] * 3, [0.7] * 3], best="min")
    assert math.isnan(found.kendall_w)
    assert math.isnan(found.spearman)
    assert (found.best, found.stays_best) == (0, 0.5)


@pytest.mark.parametrize("best", ["max", "min"])
@pytest.mark.parametrize("bad", [NAN, np.inf, -np.inf])
def test_diverged_seeds_rank_last(best, bad):
    values = np.array([[1.0, 5.0, bad], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    last = np.array([[1.0, 5.0, -99.0 if best == "max" else 99.0], [2.0, 2.0, 2.0], [3.0, 3.0, 3.0]])
    found, expected = rank_stability(values, best=best), rank_stability(last, best=best)
    assert (found.kendall_w, found.spearman, found.best) == (expected.kendall_w, expected.spearman, expected.best)
    assert (
        rank_stability(values[:, [0, 2]], best=best).kendall_w == rank_stability(last[:, [0, 2]], best=best).kendall_w
    )
    # Row 0 leads only in draws without seed 2: for "max" whenever their mean of 1 and 5 exceeds 3, for "min" 2.
    draws = list(itertools.product(range(3), repeat=3))
    ones = [d.count(1) for d in draws if 2 not in d]
    leads = [k >= 2 for k in ones] if best == "max" else [k == 0 for k in ones]
    np.testing.assert_allclose(found.probability_best[0], sum(leads) / len(draws), atol=0.02)


def test_where_all_diverge_somewhere_the_fewest_lost_seeds_win():
    values = [[NAN, 0.9, 0.9, NAN], [0.1, 0.1, 0.1, NAN], [NAN, NAN, NAN, NAN]]
    assert rank_stability(values, best="max").best == 1
    assert rank_stability(values, best="min").best == 1
    np.testing.assert_allclose(rank_stability([[NAN, NAN]] * 2, best="max").probability_best, 0.5)


def test_many_configurations_are_taken_in_parts():
    """1,500 configurations need 15 parts; one far ahead is best in all of them."""
    values = rng(5).normal(size=(1500, 4))
    values[700] += 100
    found = rank_stability(values, best="max")
    assert (found.best, found.stays_best) == (700, 1.0)


def test_a_seed_fixes_the_draws():
    values = rng(6).normal(size=(3, 5))
    one, again, other = (rank_stability(values, best="max", seed=s).probability_best for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_resamples_are_multinomial():
    counts = resamples(5, 7)
    assert counts.shape == (10_000, 5)
    assert (counts.sum(1) == 5).all()
    np.testing.assert_allclose(counts.mean(0), 1, atol=4 * math.sqrt(0.8 / 10_000))
    np.testing.assert_allclose(counts.var(0), 0.8, rtol=0.1)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: interval([[1.0, 2.0]]), ValueError, r"values: got shape \(1, 2\); expected \(seeds,\)"),
        (lambda: interval(["0.9"]), TypeError, "values: got dtype <U3; expected real numbers"),
        (lambda: interval([1.0, 2.0], 95), ValueError, "level: got 95; expected a number between 0 and 1"),
        (lambda: interval([1.0, 2.0], True), TypeError, "level: got True"),
        (lambda: interval([1.0, 2.0], "95 %"), TypeError, "level: got '95 %'"),
        (lambda: summarize([0, 1], [1.0]), ValueError, r"groups: got shape \(2,\); expected one id per member: \(1,\)"),
        (lambda: summarize([0.0], [1.0]), TypeError, "groups: got dtype float64; expected integers"),
        (lambda: bands([1.0], [0]), ValueError, r"history: got shape \(1,\); expected \(members, epochs\)"),
        (lambda: bands([[1.0]], [0], 1.0), ValueError, "level: got 1.0"),
        (lambda: rank_stability([[1.0, 2.0]], best="max"), ValueError, "at least 2 configurations and 2 seeds"),
        (lambda: rank_stability([[1.0], [2.0]], best="max"), ValueError, "at least 2 configurations and 2 seeds"),
        (lambda: rank_stability([[1.0, 2.0]] * 2, best="low"), ValueError, "best: got 'low'; expected 'max' or 'min'"),
    ],
)
def test_bad_input_is_refused(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
