"""Paired comparisons against scipy, enumeration, published sample sizes and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from jaxnet.sweeps.comparison import compare, seeds_needed

NAN = math.nan
numbers = st.floats(-100, 100, allow_subnormal=False)
pairs = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=9)


def rng(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def two_with(effect):
    """Two differences whose mean is `effect` times their standard deviation."""
    return [effect + math.sqrt(0.5), effect - math.sqrt(0.5)]


@given(pairs, st.sampled_from([0.8, 0.95]))
def test_t_test_is_scipys(pairs, level):
    a, b = np.array(pairs).T
    assume((b - a).std() > 1e-6)
    found, expected = compare(a, b, level=level), stats.ttest_rel(b, a)
    np.testing.assert_allclose(found.t_test, expected.pvalue, rtol=1e-9)
    np.testing.assert_allclose(found.difference.mean, (b - a).mean(), rtol=1e-9, atol=1e-12)
    low, high = expected.confidence_interval(level)
    np.testing.assert_allclose([found.difference.low, found.difference.high], [low, high], rtol=1e-9, atol=1e-9)


@given(st.lists(st.tuples(*[st.integers(-4, 4)] * 2), min_size=2, max_size=9))
def test_sign_flips_are_all_enumerated(pairs):
    """Integers, so that ties among the sums are exact."""
    a, b = np.array(pairs).T
    d = b - a
    sums = [abs(np.dot(signs, d)) for signs in itertools.product([-1, 1], repeat=len(d))]
    np.testing.assert_allclose(compare(a, b).sign_flip, np.mean(np.array(sums) >= abs(d.sum())), rtol=1e-12)


def test_sign_flips_of_many_seeds_estimate_the_exact_p():
    n = 18
    d = rng(1).normal(0.2, 1, n)
    bits = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
    exact = np.mean(np.abs((2 * bits - 1) @ d) >= abs(d.sum()) - 1e-12)
    found = compare(np.zeros(n), d)
    assert 0.02 < exact < 0.5
    assert abs(found.sign_flip - exact) < 4 * math.sqrt(2 * exact / 10_000)
    assert found.sign_flip != compare(np.zeros(n), d, seed=1).sign_flip
    assert found == compare(np.zeros(n), d)


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 2), min_size=2, max_size=9))
def test_improvement_is_mann_whitneys_share(pairs):
    a, b = np.array(pairs).T
    expected = stats.mannwhitneyu(b, a).statistic / len(a) ** 2
    np.testing.assert_allclose(compare(a, b).improvement, expected, rtol=1e-12)


def test_interval_of_improvement_is_scipys_bootstrap():
    a, b = rng(2).normal(0, 1, 12), rng(3).normal(0.7, 1, 12)

    def share(a, b, axis):
        return (b[..., :, None] > a[..., None, :]).mean((-2, -1))

    expected = stats.bootstrap(
        (a, b), share, paired=True, vectorized=True, method="percentile", n_resamples=10_000, rng=rng(4)
    ).confidence_interval
    found = compare(a, b)
    np.testing.assert_allclose([found.improvement_low, found.improvement_high], expected, atol=0.015)
    narrow = compare(a, b, level=0.5)
    assert found.improvement_low < narrow.improvement_low < narrow.improvement_high < found.improvement_high


@given(pairs)
def test_exchanging_a_and_b_mirrors_everything(pairs):
    a, b = np.array(pairs).T
    one, other = compare(a, b), compare(b, a)
    np.testing.assert_allclose(one.difference.mean, -other.difference.mean)
    np.testing.assert_allclose(one.difference.low, -other.difference.high)
    np.testing.assert_allclose([one.t_test, one.sign_flip], [other.t_test, other.sign_flip])
    np.testing.assert_allclose(one.improvement_low, 1 - other.improvement_high, atol=1e-12)
    assert one.needed == other.needed
    assert one.verdict.replace("higher", "lower") == other.verdict.replace("higher", "lower")
    assert ("higher" in one.verdict) == ("lower" in other.verdict)


def test_pairs_with_a_diverged_member_are_dropped():
    a = np.array([0.1, NAN, 0.4, 0.2, 0.3, np.inf])
    b = np.array([0.3, 0.2, 0.5, -np.inf, 0.1, np.inf])
    found, expected = compare(a, b), compare(a[[0, 2, 4]], b[[0, 2, 4]])
    assert found.difference.missing == 3
    assert found._replace(difference=expected.difference) == expected
    assert "(3 pairs, 3 dropped)" in str(found)


def test_equal_configurations():
    found = compare([0.9, 0.8, 0.7], [0.9, 0.8, 0.7])
    assert (found.t_test, found.sign_flip, found.improvement, found.needed) == (1.0, 1.0, 0.5, None)
    assert found.verdict == "undecided after 3 seeds: all pairs are equal"
    assert compare([0.0, 1.0], [1.0, 0.0]).verdict == "undecided after 2 seeds: the means are equal"


@pytest.mark.parametrize(("n", "counted"), [(0, "0 seeds"), (1, "1 seed")])
def test_too_few_pairs(n, counted):
    found = compare([1.0] * n + [NAN], [2.0] * n + [0.0])
    assert found.verdict == f"undecided after {counted}: a comparison needs at least 2"
    np.testing.assert_equal(found[1:3], (NAN, NAN))
    np.testing.assert_equal(found.improvement, 1.0 if n else NAN)
    assert found.difference.n == n


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_differences_without_spread_are_left_to_the_sign_flips(dtype):
    """One test example more on each of two seeds: t is infinite (or, in float32, thousands), and proves nothing."""
    a = np.arange(300, 306, dtype=dtype) / dtype(360)
    b = np.arange(301, 307, dtype=dtype) / dtype(360)
    found = compare(a[:2], b[:2])
    assert (found.sign_flip, found.needed) == (0.5, 6)
    assert found.verdict == "undecided after 2 seeds: about 4 more would decide a difference of this size"
    assert compare(a[:5], b[:5]).verdict.startswith("undecided after 5 seeds: about 1 more")
    assert compare(a, b).verdict == "b is higher: by 0.00278 on average over 6 seeds"


def test_verdicts():
    noise = rng(5).normal(0, 1, 20)
    clear = compare(np.zeros(20), noise + 3)
    assert clear.verdict == f"b is higher: by {(noise + 3).mean():.3g} on average over 20 seeds"
    assert compare(noise + 3, np.zeros(20)).verdict.startswith("b is lower: by ")
    few = compare([0.0] * 4, [1.0, 1.1, 0.9, 1.0])
    assert few.t_test < 0.05 < few.sign_flip
    assert few.verdict.endswith("over 4 seeds; sign flips, which assume no normal distribution, don't decide")
    d = noise - noise.mean() + 0.2
    weak = compare(np.zeros(20), d)
    assert weak.needed == seeds_needed(d)
    assert weak.verdict == (
        f"undecided after 20 seeds: about {weak.needed - 20} more would decide a difference of this size"
    )
    tiny = compare(np.zeros(20), noise - noise.mean() + 1e-5)
    assert tiny.verdict == "undecided after 20 seeds: a difference of this size would need more than 1,000,000"
    assert compare(np.zeros(20), d, level=0.5).verdict.startswith("b is higher")
    assert len(str(weak).splitlines()) == 4


def test_decides_as_seldom_as_promised_where_nothing_differs():
    runs = 200
    draws = rng(6).normal(size=(runs, 2, 8))
    decided = np.mean(["undecided" not in compare(a, b, level=0.9).verdict for a, b in draws])
    assert abs(decided - 0.1) < 4 * math.sqrt(0.1 * 0.9 / runs)


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_needed_are_the_published_sample_sizes(effect, n):
    """Matched pairs, two-sided 5 %, power 80 %: G*Power 3 and Cohen's small, medium and large effects."""
    assert seeds_needed(two_with(effect)) == n
    assert seeds_needed(two_with(-effect)) == n


def test_power_at_seeds_needed_by_simulation():
    d = rng(7).normal(1, 1, 10)
    d = (d - d.mean()) / d.std(ddof=1) + 0.9
    n = seeds_needed(d, level=0.9, power=0.7)
    runs = 60_000

    def power(n):
        draws = rng(n).normal(0.9, 1, (runs, n))
        return np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.1)

    assert power(n - 1) < 0.7 < power(n)


def test_seeds_needed_where_they_are_many_few_or_none():
    normal = stats.norm.ppf([0.975, 0.8]).sum()
    np.testing.assert_allclose(seeds_needed(two_with(0.003)), (normal / 0.003) ** 2, rtol=1e-4)
    assert seeds_needed(two_with(0.002)) is None
    assert seeds_needed([1.0, -1.0]) is None
    assert seeds_needed([0.0, 0.0]) is None
    assert seeds_needed([1.0, 1.0 + 1e-12, NAN]) == 2
    assert [seeds_needed([0.1] * 3, level=level) for level in (0.5, 0.9375, 0.95, 0.99)] == [3, 6, 6, 8]


@given(st.floats(0.05, 3), st.sampled_from([0.5, 0.8, 0.95]), st.sampled_from([0.8, 0.95]))
def test_more_power_or_certainty_never_needs_fewer_seeds(effect, power, level):
    n = seeds_needed(two_with(effect), level=level, power=power)
    assert n >= 2
    assert n <= seeds_needed(two_with(effect), level=level, power=power + 0.04)
    assert n <= seeds_needed(two_with(effect), level=level + 0.04, power=power)
    assert n >= seeds_needed(two_with(effect * 1.5), level=level, power=power)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: compare([1.0], [1.0, 2.0]), ValueError, "got 1 values of a and 2 of b; expected pairs"),
        (lambda: compare([[1.0]], [1.0]), ValueError, r"a: got shape \(1, 1\); expected \(seeds,\)"),
        (lambda: compare([1.0], [None]), TypeError, "b: got dtype object; expected real numbers"),
        (lambda: compare([1.0], [1.0], level=0), ValueError, "level: got 0"),
        (lambda: seeds_needed([1.0, NAN]), ValueError, "got 1 finite differences; expected at least 2"),
        (lambda: seeds_needed([1.0, 2.0], power=1), ValueError, "power: got 1"),
        (lambda: seeds_needed([1.0, 2.0], level="x"), TypeError, "level: got 'x'"),
    ],
)
def test_bad_input_is_refused(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
