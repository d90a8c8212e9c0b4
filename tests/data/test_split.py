"""Splitting: a partition, in proportion, by the key alone."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnet.data.split import split

KEY = jax.random.key(0)


def ids(n):
    """A set whose x and y both tell which example is which."""
    return np.arange(n)[:, None] * 10, np.arange(n) + 0.5


@settings(max_examples=40)
@given(
    n=st.integers(2, 200),
    share=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**32 - 1),
    stratified=st.sampled_from([None, False]),
    classes=st.integers(1, 6),
)
def test_a_split_is_a_partition_in_the_original_order(n, share, seed, stratified, classes):
    labels = np.random.default_rng(seed).integers(0, classes, n)
    data = ({"id": np.arange(n), "twice": [2 * np.arange(n)]}, labels, np.arange(n) / 4)
    parts = split(data, share, key=jax.random.key(seed), stratified=stratified)
    again = split(data, share, key=jax.random.key(seed), stratified=stratified)
    jax.tree.map(np.testing.assert_array_equal, parts, again)
    rest, held_out = parts
    assert sorted([*rest[0]["id"], *held_out[0]["id"]]) == list(range(n))
    assert len(held_out[1]) == min(max(round(share * n), 1), n - 1)
    for x, y, weight in parts:
        assert (np.diff(x["id"]) > 0).all()
        np.testing.assert_array_equal(x["twice"][0], 2 * x["id"])
        np.testing.assert_array_equal(y, labels[x["id"]])
        np.testing.assert_array_equal(weight, x["id"] / 4)


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(2, 40), min_size=1, max_size=8),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_classes_are_held_out_in_proportion(counts, share, seed):
    n = sum(counts)
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)) * 3 - 1, counts))
    rest, held_out = split((np.arange(n), y), share, key=jax.random.key(seed))
    held = min(max(round(share * n), 1), n - 1)
    assert len(held_out[1]) == held
    down, up = [Fraction(0)], [Fraction(1)]  # the remainders of the classes that were rounded down, and up
    for position, count in enumerate(counts):
        quota = Fraction(held * count, n)
        taken = int((held_out[1] == position * 3 - 1).sum())
        assert taken + (rest[1] == position * 3 - 1).sum() == count
        assert abs(taken - quota) < 1
        (up if taken > quota else down).append(quota % 1)
    assert max(down) <= min(up)


def test_proportions_equal_those_of_scikit_learn():
    from sklearn.datasets import load_wine
    from sklearn.model_selection import train_test_split

    x, y = load_wine(return_X_y=True)
    for size in (18, 45, 89):
        theirs = np.bincount(train_test_split(x, y, test_size=size, stratify=y, random_state=0)[3])
        ours = np.bincount(split((x, y), size, key=KEY)[1][1])
        assert np.abs(ours - theirs).max() <= 1  # they too round each class down or up
        assert ours.sum() == theirs.sum() == size


@pytest.mark.parametrize("y", [np.arange(6) + 0.5, np.repeat([0, 1], 3)], ids=["plain", "stratified"])
def test_over_many_keys_each_example_is_held_out_equally_often(y):
    draws = 600
    held = sum(
        np.isin(np.arange(6), split((np.arange(6), y), 2, key=jax.random.key(seed))[1][0]) for seed in range(draws)
    )
    deviation = np.sqrt(draws * (1 / 3) * (2 / 3))
    assert np.abs(held - draws / 3).max() < 4 * deviation


def test_ties_between_classes_are_broken_by_the_key():
    y = np.repeat([0, 1, 2], 4)
    taken = {tuple(split((y, y), 1, key=jax.random.key(seed))[1][1].tolist()) for seed in range(40)}
    assert taken == {(0,), (1,), (2,)}


def test_the_split_of_a_key_never_changes():
    """Pinned: a stored run must find its examples again, under any version of NumPy or JAX."""
    assert split(ids(12), 4, key=KEY)[1][0].ravel().tolist() == [10, 20, 30, 110]
    assert split(ids(12), 4, key=KEY)[1][0].tolist() != split(ids(12), 4, key=jax.random.key(1))[1][0].tolist()


def test_every_word_of_the_key_counts():
    keys = [jax.random.wrap_key_data(jnp.array(words, jnp.uint32)) for words in ([0, 0], [1, 0], [0, 1], [1, 1])]
    assert len({tuple(split(ids(100), 50, key=key)[1][1]) for key in keys}) == 4


def test_the_split_depends_on_labels_and_key_only():
    y = np.repeat([0, 1], 10)
    by_numbers = split((np.arange(20), y), 0.3, key=KEY)[1][0]
    images = np.broadcast_to(np.arange(20)[:, None, None], (20, 3, 1))
    by_images = split((images, y.astype(np.uint8), np.ones(20)), 0.3, key=KEY)[1][0]
    np.testing.assert_array_equal(by_numbers, by_images[:, 0, 0])


def test_none_stratifies_where_it_can():
    labels = np.repeat([0, 1, 2], [50, 4, 2])
    stratified = split((labels, labels), 0.5, key=KEY, stratified=True)
    np.testing.assert_array_equal(split((labels, labels), 0.5, key=KEY)[1][1], stratified[1][1])
    assert np.bincount(stratified[1][1]).tolist() == [25, 2, 1]
    plain = split((labels, labels), 0.5, key=KEY, stratified=False)[1][1]
    single = np.append(labels, 3)
    for y in (labels + 0.5, labels[:, None], {"a": labels}):
        x = split((labels, y), 0.5, key=KEY)[1][0]
        np.testing.assert_array_equal(x, plain)
    assert len(split((single, single), 0.5, key=KEY)[1][1]) == 28
    truth = labels == 0
    assert split((truth, truth), 0.5, key=KEY)[1][1].sum() == 25


def test_the_parts_are_copies_and_numpy_arrays():
    x, y = np.zeros((4, 2)), jnp.array([0, 0, 1, 1])
    rest, held_out = split((x, y), 0.5, key=KEY)
    x[:] = 7
    for part in (rest, held_out):
        assert (part[0] == 0).all()
        assert all(isinstance(array, np.ndarray) for array in part)
        assert part[1].dtype == y.dtype


@pytest.mark.parametrize(("share", "held"), [(0.001, 1), (0.999, 9), (0.25, 2), (0.35, 4), (3, 3), (np.int64(9), 9)])
def test_how_many_are_held_out(share, held):
    rest, held_out = split(ids(10), share, key=KEY)
    assert (len(rest[1]), len(held_out[1])) == (10 - held, held)


A, Y = np.zeros((4, 2)), np.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (((A, Y), 0.5, 0), TypeError, r"key"),
        (((A, Y), 0.5, None), TypeError, r"key"),
        (((A, Y), 0.5, jax.random.PRNGKey(0)), TypeError, r"expected a typed key.*jax.random.key\(0\)"),
        (((A, Y), 0.5, jax.random.split(KEY)), ValueError, r"\(2,\) keys; expected one"),
        (((A, Y), 0.0, KEY), ValueError, r"share: got 0.0, expected a float in \(0, 1\)"),
        (((A, Y), 1.0, KEY), ValueError, r"share: got 1.0, expected .* or an int"),
        (((A, Y), float("nan"), KEY), ValueError, r"share: got nan, expected"),
        (((A, Y), 4, KEY), ValueError, r"share: got 4 examples of 4, expected 1 to 3"),
        (((A, Y), 0, KEY), ValueError, r"share: got 0 examples of 4, expected 1 to 3"),
        (((A, Y), -1, KEY), ValueError, r"share: got -1 examples of 4"),
        (((A, Y), True, KEY), TypeError, r"share: got True, expected a float"),
        (((A, Y), "0.5", KEY), TypeError, r"share: got '0.5', expected a float"),
        (((A[:1], Y[:1]), 0.5, KEY), ValueError, r"data: got 1 examples, expected at least 2"),
        (((A[:0], Y[:0]), 0.5, KEY), ValueError, r"data: got 0 examples, expected at least 2"),
        ((A, 0.5, KEY), TypeError, r"data: got ndarray, expected a tuple \(x, y\)"),
        (((A,), 0.5, KEY), TypeError, r"data: got tuple of 1, expected a tuple"),
        (([A, Y], 0.5, KEY), TypeError, r"data: got list, expected a tuple"),
        (((A, Y[:3]), 0.5, KEY), ValueError, r"different numbers of examples \(4 in x, 3 in y\)"),
        ((({"a": A, "b": A[:2]}, Y), 0.5, KEY), ValueError, r"4 in x\['a'\], 2 in x\['b'\], 4 in y"),
        (((A, Y, None), 0.5, KEY), ValueError, r"got weight without any array \(None\)"),
        (((A, Y, np.float64(1)), 0.5, KEY), ValueError, r"got weight of shape \(\), expected a leading"),
        (((A, [0, 0, 1, 1]), 0.5, KEY), TypeError, r"got y\[0\] of type int, expected an array"),
    ],
)
def test_errors_say_what_came_and_what_was_expected(arguments, error, sentence):
    data, share, key = arguments
    with pytest.raises(error, match=sentence):
        split(data, share, key=key)


@pytest.mark.parametrize(
    ("y", "sentence"),
    [
        (np.array([0.0, 0.0, 1.0, 1.0]), r"stratified=True: got y of shape \(4,\) and dtype float64, expected int"),
        (np.zeros((4, 1), int), r"got y of shape \(4, 1\) .*; pass stratified=None or False"),
        (np.array([7, 5, 5, 5]), r"got 1 example of class 7, expected at least 2 of every class"),
        ({"a": np.zeros(4, int)}, r"got y of type dict, expected one array of integer labels"),
    ],
)
def test_impossible_stratification_is_refused(y, sentence):
    with pytest.raises(ValueError, match=sentence):
        split((A, y), 0.5, key=KEY, stratified=True)


def test_stratified_must_be_a_truth_value():
    with pytest.raises(TypeError, match=r"stratified: got 'yes', expected True, False or None"):
        split((A, Y), 0.5, key=KEY, stratified="yes")
