"""Standardization against scikit-learn and against plain float64 NumPy, and where both of them go wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jaxnet.data.standardize import Statistics, apply_statistics, as_float, column_statistics, standardize

FLOAT = jnp.result_type(float)
EPS = float(np.finfo(FLOAT).eps)


@pytest.mark.source("B-7.48-50")
def test_equals_scikit_learn_and_reuses_the_statistics_of_training():
    from sklearn.datasets import load_wine
    from sklearn.preprocessing import StandardScaler

    x, y = load_wine(return_X_y=True)
    scaler = StandardScaler().fit(x[:100])
    train, valid, test = standardize((x[:100], y[:100]), (x[100:150], y[100:150]), (x[150:], y[150:]))
    for ours, theirs in zip((train, valid, test), (x[:100], x[100:150], x[150:]), strict=True):
        np.testing.assert_allclose(ours[0], scaler.transform(theirs), rtol=4 * EPS, atol=16 * EPS)
        assert ours[0].dtype == FLOAT
    assert abs(valid[0].mean()) > 0.1  # by training's mean, not by its own
    statistics = column_statistics(x[:100])
    np.testing.assert_allclose(statistics.mean, scaler.mean_, rtol=1e-14)
    np.testing.assert_allclose(statistics.scale, scaler.scale_, rtol=1e-13)
    assert statistics.mean.dtype == statistics.scale.dtype == np.float64


@settings(max_examples=40)
@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=6),
        elements=st.floats(-1e3, 1e3, allow_subnormal=False).map(lambda v: round(v, 3)),
    )
)
def test_equals_float64_numpy(x):
    (train,) = standardize((x, np.zeros(len(x))))
    constant = (x == x[:1]).all(axis=0)
    centred = x - x.mean(axis=0)
    expected = np.where(constant, 0.0, centred / np.where(constant, 1.0, x.std(axis=0)))
    assert train[0].shape == x.shape
    np.testing.assert_allclose(train[0], expected, rtol=4 * EPS, atol=1e-9 + 4 * EPS)
    assert (train[0][:, constant] == 0).all()


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    power=st.integers(-300, 300),
    shift=st.sampled_from([0.0, 1.0, -3.0]),
    negate=st.booleans(),
)
def test_an_affine_change_of_units_changes_nothing(seed, power, shift, negate):
    x = np.random.default_rng(seed).normal(size=(7, 3))
    factor = (-1.0 if negate else 1.0) * 10.0**power
    original = apply_statistics(x, column_statistics(x))
    changed = apply_statistics(factor * (x + shift), column_statistics(factor * (x + shift)))
    np.testing.assert_allclose(changed, np.sign(factor) * original, rtol=8 * EPS, atol=8 * EPS + 1e-12)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6 / 3, 3e38, 1e-300])
def test_constant_columns_become_exactly_zero(value):
    x = np.full((1001, 2), value)
    x[:, 1] = np.arange(1001)
    train, other = standardize((x, np.zeros(1001)), (x[:2] + np.array([1.0, 0.0]), np.zeros(2)))
    assert (train[0][:, 0] == 0).all()
    assert np.isfinite(train[0]).all()
    np.testing.assert_allclose(other[0][:, 0], FLOAT.type((value + 1.0) - value))
    assert column_statistics(x).scale[0] == 1


def test_one_example_is_all_constant():
    (train,) = standardize((np.array([[3.0, -4.0]]), np.array([1])))
    assert train[0].tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("low", [-1.7e308, -5e-324, 0.0, 1e-308])
@pytest.mark.parametrize("high", [1.7e308, 5e-324, 2e-308])
def test_the_ends_of_the_float64_range(low, high):
    if low == high:
        return
    x = np.array([[low], [high], [low], [high]])
    statistics = column_statistics(x)
    assert np.isfinite(statistics.mean).all()
    assert np.isfinite(statistics.scale).all()
    assert (statistics.scale > 0).all()
    if abs(low) > 1e-300 or high > 1e-300:
        np.testing.assert_allclose(apply_statistics(x, statistics), [[-1], [1], [-1], [1]], rtol=1e-6)


def test_targets_and_weights_pass_through_and_do_not_matter():
    x, y, weight = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1]), np.array([0.0, 0.0, 1.0, 5.0])
    before = x.copy()
    (weighted,), (plain,) = standardize((x, y, weight)), standardize((x, y))
    assert weighted[1] is y
    assert weighted[2] is weight
    np.testing.assert_array_equal(weighted[0], plain[0])
    weighted[0][:] = 9
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    "x",
    [
        np.array([[1, 2], [3, 4]], np.uint8),
        np.array([[True, False], [False, False]]),
        jnp.array([[1.0, 2.0], [3.0, 4.0]]),
        jnp.array([[1.0, 2.0], [3.0, 4.0]], jnp.bfloat16),
        np.array([[1.0, 2.0], [3.0, 4.0]], np.float16),
        [[1, 2.0], [3, 4.0]],
    ],
    ids=["uint8", "bool", "jax", "bfloat16", "float16", "list"],
)
def test_any_real_numbers_come_back_in_the_default_float(x):
    (train,) = standardize((x, np.zeros(2)))
    assert isinstance(train[0], np.ndarray)
    assert train[0].dtype == FLOAT
    assert set(np.abs(train[0]).ravel().tolist()) <= {0.0, 1.0}


def test_statistics_of_images_and_of_single_numbers():
    images = np.random.default_rng(0).normal(size=(5, 4, 4, 1))
    assert column_statistics(images).mean.shape == (4, 4, 1)
    assert column_statistics(images[:, 0, 0, 0]).scale.shape == ()
    flat = apply_statistics(images.reshape(5, 16), column_statistics(images.reshape(5, 16)))
    np.testing.assert_array_equal(apply_statistics(images, column_statistics(images)).reshape(5, 16), flat)
    assert apply_statistics(images[:0], column_statistics(images)).shape == (0, 4, 4, 1)


def test_statistics_can_be_saved_as_arrays(tmp_path):
    x = np.random.default_rng(0).normal(size=(9, 3))
    np.savez(tmp_path / "statistics.npz", **column_statistics(x)._asdict())
    with np.load(tmp_path / "statistics.npz") as saved:
        again = Statistics(saved["mean"], saved["scale"])
    np.testing.assert_array_equal(apply_statistics(x, again), apply_statistics(x, column_statistics(x)))


def test_as_float_copies_and_checks():
    x = np.zeros(3, FLOAT)
    assert not np.shares_memory(as_float(x, "x"), x)
    with pytest.raises(ValueError, match=r"pixels: got 1 values that are NaN or infinite, the first at \(1,\)"):
        as_float([0.0, np.nan], "pixels")
    if EPS > 1e-10:
        with pytest.raises(ValueError, match=r"x: got 1e\+39 .* at most 3.40282e\+38.*JAX_ENABLE_X64=1"):
            as_float([1e39], "x")


PAIR = (np.zeros((2, 2)), np.zeros(2))


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: standardize(np.zeros((2, 2))), TypeError, r"set 0 .*got ndarray, expected a tuple \(x, y\)"),
        (lambda: standardize(PAIR, (np.zeros((2, 2)),)), TypeError, r"set 1 .*got tuple of 1, expected"),
        (lambda: standardize(({"a": np.zeros(2)}, PAIR[1])), TypeError, r"x: got dict, expected one array"),
        (lambda: standardize((np.zeros((0, 2)), np.zeros(0))), ValueError, r"x: got \(0, 2\), no examples"),
        (lambda: standardize((np.array([["a"]]), [0])), TypeError, r"x: got dtype <U1, expected real numbers"),
        (lambda: standardize((np.zeros(2, complex), [0])), TypeError, r"got dtype complex128, expected real"),
        (lambda: standardize((np.array(None), [0])), TypeError, r"got dtype object, expected real numbers"),
        (lambda: standardize(([[1.0], [1.0, 2.0]], [0])), ValueError, r"x: got rows of unequal lengths"),
        (lambda: standardize((np.array([[0.0], [np.nan]]), [0])), ValueError, r"1 values .*first at \(1, 0\)"),
        (lambda: standardize(PAIR, (np.array([[0, np.inf]]), [0])), ValueError, r"1 values .*first at \(0, 1\)"),
        (lambda: standardize(PAIR, (np.zeros((2, 3)), [0])), ValueError, r"shape \(3,\), expected \(2,\)"),
        (lambda: column_statistics(np.array(1.0)), ValueError, r"x: got a single number, expected an array"),
        (lambda: apply_statistics(PAIR[0], (np.zeros(2), np.zeros(2))), ValueError, r"a scale above 0"),
        (lambda: apply_statistics(PAIR[0], (np.full(2, np.nan), np.ones(2))), ValueError, r"a finite mean"),
        (lambda: apply_statistics([[1e300]], ([0.0], [1e-300])), ValueError, r"overflow, x is far outside"),
        (lambda: apply_statistics([[0.0]], ([[0.0]], [[1.0]])), ValueError, r"shape \(1,\), expected \(1, 1\)"),
    ],
)
def test_errors_say_what_came_and_what_was_expected(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_inside_jit_is_refused_by_jax():
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(lambda x: column_statistics(x).mean)(jnp.zeros((2, 2)))
