"""Folds: partitions by the key alone, in as few sizes as can be, and training on them = training on copies."""

import jax
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnet as jn
from jaxnet.data.folds import Fold, bootstrap, holdout, k_fold, sizes
from jaxnet.data.split import split

KEY = jax.random.key(0)
seeds = st.integers(0, 2**32 - 1)


def plain(n):
    """A set of n examples without labels."""
    return np.zeros((n, 2)), np.arange(n) / 2


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a, b) for pair in zip(one, other, strict=True) for a, b in zip(*pair, strict=True)
    )


def check_rows(folds, n):
    """Ascending int32 indices of the set, and nothing on both sides."""
    for rows in (rows for fold in folds for rows in fold):
        assert isinstance(rows, np.ndarray)
        assert rows.dtype == np.int32
        assert rows.ndim == 1
        assert rows.size
        assert 0 <= rows[0] <= rows[-1] < n
        assert (np.diff(rows) >= 0).all()
    assert not any(np.intersect1d(fold.rows, fold.valid_rows).size for fold in folds)


def check_partition(folds, n, k):
    """Each example validates exactly once per repeat, and trains in all other folds."""
    check_rows(folds, n)
    for start in range(0, len(folds), k):
        assert sorted(np.concatenate([fold.valid_rows for fold in folds[start : start + k]])) == list(range(n))
    for fold in folds:
        assert sorted(np.concatenate(fold)) == list(range(n))


# k folds


@given(n=st.integers(2, 90), share=st.floats(0, 1), repeats=st.integers(1, 3), seed=seeds)
def test_k_fold_is_a_partition_with_two_sizes_at_most(n, share, repeats, seed):
    k = 2 + round(share * (n - 2))
    repeats = repeats if n >= 40 and k <= n - 3 else 1  # few examples may be dealt the same again
    folds = k_fold(plain(n), k, key=jax.random.key(seed), repeats=repeats)
    assert len(folds) == k * repeats
    check_partition(folds, n, k)
    low, more = divmod(n, k)
    expected = {(n - low - 1, low + 1): more * repeats, (n - low, low): (k - more) * repeats}
    assert sizes(folds) == {size: count for size, count in expected.items() if count}


@given(
    counts=st.lists(st.integers(4, 30), min_size=1, max_size=6),
    k=st.integers(2, 4),
    stratified=st.sampled_from([None, True]),
    dtype=st.sampled_from([np.int8, np.uint32, np.int64]),
    seed=seeds,
)
def test_each_class_is_dealt_evenly(counts, k, stratified, dtype, seed):
    n = sum(counts)
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts), dtype=dtype) * 3, counts))
    folds = k_fold((np.zeros(n), y), k, key=jax.random.key(seed), stratified=stratified)
    check_partition(folds, n, k)
    for fold in folds:
        assert len(fold.valid_rows) in (n // k, -(-n // k))
        for label, count in enumerate(counts):
            assert (y[fold.valid_rows] == 3 * label).sum() in (count // k, -(-count // k))


@given(group_sizes=st.lists(st.integers(1, 12), min_size=2, max_size=14), share=st.floats(0, 1), seed=seeds)
def test_groups_stay_together_and_sizes_are_even(group_sizes, share, seed):
    from sklearn.model_selection import GroupKFold

    k = 2 + round(share * (len(group_sizes) - 2))
    n = sum(group_sizes)
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(group_sizes)) * 7 - 9, group_sizes))
    folds = k_fold(plain(n), k, key=jax.random.key(seed), groups=groups)
    check_partition(folds, n, k)
    for fold in folds:
        assert not np.intersect1d(groups[fold.rows], groups[fold.valid_rows]).size
    theirs = [len(part) for _, part in GroupKFold(k).split(np.zeros(n), groups=groups)]
    assert sorted(len(fold.valid_rows) for fold in folds) == sorted(theirs)


@given(groups=st.integers(3, 12), k=st.integers(2, 3), classes=st.integers(1, 3), seed=seeds)
def test_stratified_groups_stay_together(groups, k, classes, seed):
    random = np.random.default_rng(seed)
    n = groups * 6
    group, y = random.permutation(np.arange(n) % groups), random.permutation(np.arange(n) % classes)
    folds = k_fold((np.zeros(n), y), k, key=jax.random.key(seed), groups=group.astype(str), stratified=True)
    check_partition(folds, n, k)
    for fold in folds:
        assert not np.intersect1d(group[fold.rows], group[fold.valid_rows]).size


def test_stratified_groups_have_even_classes_where_groups_allow_it():
    group = np.repeat(np.arange(12), 5)
    y = np.repeat(np.arange(3), 20)  # four groups of each class
    for seed in range(5):
        for fold in k_fold((y, y), 4, key=jax.random.key(seed), groups=group):
            assert np.bincount(y[fold.valid_rows]).tolist() == [5, 5, 5]


def test_groups_of_one_size_are_dealt_by_the_key():
    """Each pair of ten groups validates together in 1/9 of the deals."""
    groups, deals = np.arange(10), 400
    together = np.zeros((10, 10))
    for fold in k_fold(plain(10), 5, key=KEY, groups=groups, repeats=deals):
        together[np.ix_(fold.valid_rows, fold.valid_rows)] += 1
    pairs = together[np.triu_indices(10, 1)]
    assert pairs.sum() == 5 * deals
    assert np.abs(pairs - deals / 9).max() < 4.5 * np.sqrt(deals * (1 / 9) * (8 / 9))


def test_k_of_all_groups_leaves_one_group_out():
    groups = np.array(["b", "a", "a", "c", "b", "c", "c"])
    folds = k_fold(plain(7), 3, key=KEY, groups=list(groups))
    assert sorted(fold.valid_rows.tolist() for fold in folds) == [[0, 4], [1, 2], [3, 5, 6]]
    assert same(folds, k_fold(plain(7), 3, key=KEY, groups=groups.astype(object)))


def random_state(key, repeat):
    """As documented: the upper half of the first number of the stream of the folded key."""
    words = np.asarray(jax.random.key_data(jax.random.fold_in(key, repeat))).tolist()
    return int(np.random.PCG64(words).random_raw()) >> 32


def test_the_folds_are_those_of_scikit_learn_each_repeat_by_its_own_key():
    from sklearn.model_selection import KFold, StratifiedKFold

    y = np.arange(60) % 3
    for splitter, stratified in ((KFold, False), (StratifiedKFold, True)):
        ours = k_fold((y, y), 5, key=KEY, repeats=3, stratified=stratified)
        theirs = [splitter(5, shuffle=True, random_state=random_state(KEY, i)).split(y, y) for i in range(3)]
        assert same(ours, [pair for pairs in theirs for pair in pairs])


def test_the_folds_of_a_key_never_change():
    """Pinned: a stored study must find its examples again."""
    assert [fold.valid_rows.tolist() for fold in k_fold(plain(9), 3, key=KEY)] == [[0, 1, 8], [4, 5, 6], [2, 3, 7]]
    assert [[rows.tolist() for rows in fold] for fold in bootstrap(plain(6), 2, key=KEY)] == [
        [[0, 2, 2, 2, 3, 5], [1, 4]],
        [[0, 2, 2, 4, 5, 5], [1, 3]],
    ]


def test_none_stratifies_where_every_class_has_k_examples():
    y = np.repeat([0, 1], [40, 4])
    even = [fold.valid_rows.tolist() for fold in k_fold((y, y), 4, key=KEY)]
    assert [y[part].sum() for part in even] == [1, 1, 1, 1]
    assert same(k_fold((y, y), 5, key=KEY), k_fold((y, y), 5, key=KEY, stratified=False))
    assert same(k_fold((y, y + 0.5), 4, key=KEY), k_fold((y, y), 4, key=KEY, stratified=False))
    assert not same(k_fold((y, y), 4, key=KEY), k_fold((y, y), 4, key=KEY, stratified=False))


# Random splits


@given(
    n=st.integers(4, 60),
    share=st.one_of(st.floats(0.05, 0.95), st.integers(1, 3)),
    classes=st.integers(1, 3),
    stratified=st.sampled_from([None, False]),
    seed=seeds,
)
def test_holdout_gives_the_rows_of_split(n, share, classes, stratified, seed):
    y, key = np.random.default_rng(seed).integers(0, classes, n), jax.random.key(seed)
    folds = holdout((np.arange(n), y), share, 3, key=key, stratified=stratified)
    check_rows(folds, n)
    for i, fold in enumerate(folds):
        rest, held_out = split((np.arange(n), y), share, key=jax.random.fold_in(key, i), stratified=stratified)
        np.testing.assert_array_equal(fold.rows, rest[0])
        np.testing.assert_array_equal(fold.valid_rows, held_out[0])
    assert len(sizes(folds)) == 1


@given(group_sizes=st.lists(st.integers(1, 5), min_size=2, max_size=12), share=st.floats(0.05, 0.95), seed=seeds)
def test_holdout_holds_out_a_share_of_the_groups(group_sizes, share, seed):
    n, count = sum(group_sizes), len(group_sizes)
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(count), group_sizes))
    folds = holdout((np.zeros(n), groups % 2), share, 4, key=jax.random.key(seed), groups=groups)
    check_rows(folds, n)
    for fold in folds:
        assert sorted(np.concatenate(fold)) == list(range(n))
        held = np.unique(groups[fold.valid_rows])
        assert len(held) == min(max(round(share * count), 1), count - 1)
        assert not np.isin(held, groups[fold.rows]).any()


def test_over_many_resamples_each_group_is_held_out_equally_often():
    groups, resamples = np.repeat(np.arange(6), 2), 600
    folds = holdout(plain(12), 2, resamples, key=KEY, groups=groups)
    held = np.bincount(groups[np.concatenate([fold.valid_rows for fold in folds])]) / 2
    assert held.sum() == 2 * resamples
    assert np.abs(held - resamples / 3).max() < 4 * np.sqrt(resamples * (1 / 3) * (2 / 3))


# Bootstraps


@given(n=st.integers(30, 80), size=st.sampled_from([None, 1, 10, 25]), resamples=st.integers(1, 6), seed=seeds)
def test_a_bootstrap_validates_out_of_bag_in_one_size(n, size, resamples, seed):
    folds = bootstrap(plain(n), resamples, key=jax.random.key(seed), size=size)
    check_rows(folds, n)
    out_of_bag = [n - len(np.unique(fold.rows)) for fold in folds]
    assert sizes(folds) == {(size or n, min(out_of_bag)): resamples}
    for fold in folds:
        assert len(np.unique(fold.valid_rows)) == len(fold.valid_rows)


@pytest.mark.parametrize(("n", "size"), [(500, 500), (500, 100), (300, 600)])
def test_the_share_of_examples_drawn_is_that_of_the_bootstrap(n, size):
    """1 − (1 − 1/n)^size, near 1 − 1/e for size = n; its variance by the occupancy distribution."""
    resamples = 300
    drawn = np.array([len(np.unique(fold.rows)) for fold in bootstrap(plain(n), resamples, key=KEY, size=size)])
    missed = (1 - 1 / n) ** size
    variance = n * (n - 1) * (1 - 2 / n) ** size + n * missed - n**2 * missed**2
    assert abs(drawn.mean() - n * (1 - missed)) < 4 * np.sqrt(variance / resamples)
    assert 0.8 < drawn.var() / variance < 1.25
    if n == size:
        assert abs(drawn.mean() / n - (1 - np.exp(-1))) < 0.002


def test_each_example_is_drawn_and_validates_equally_often():
    n, resamples = 30, 800
    folds = bootstrap(plain(n), resamples, key=KEY)
    drawn = np.bincount(np.concatenate([fold.rows for fold in folds]), minlength=n)
    assert np.abs(drawn - resamples).max() < 4 * np.sqrt(resamples * (1 - 1 / n))
    share = len(folds[0].valid_rows) / n
    assert share < 0.25  # so the cut matters
    valid = np.bincount(np.concatenate([fold.valid_rows for fold in folds]), minlength=n)
    assert np.abs(valid - resamples * share).max() < 4 * np.sqrt(resamples * share * (1 - share))


# What the key decides

KINDS = {
    "k_fold": lambda key, more: k_fold(plain(40), 4, key=key, repeats=1 + more),
    "stratified": lambda key, more: k_fold((np.zeros(40), np.arange(40) % 3), 4, key=key, repeats=1 + more),
    "groups": lambda key, more: k_fold(plain(40), 4, key=key, groups=np.arange(40) // 2, repeats=1 + more),
    "stratified groups": lambda key, more: k_fold(
        (np.zeros(40), np.arange(40) % 2), 4, key=key, groups=np.arange(40) // 2, repeats=1 + more
    ),
    "holdout": lambda key, more: holdout(plain(40), 0.2, 4 * (1 + more), key=key),
    "holdout of groups": lambda key, more: holdout(plain(40), 4, 4 * (1 + more), key=key, groups=np.arange(40) // 2),
    "bootstrap": lambda key, more: bootstrap(plain(40), 4 * (1 + more), key=key),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_key_decides_and_more_folds_leave_the_first_as_they_are(kind):
    make = KINDS[kind]
    folds = make(KEY, 0)
    assert same(folds, make(jax.random.key(0), 0))
    others = [make(jax.random.key(seed), 0) for seed in range(1, 6)]
    assert not any(same(folds, other) for other in others)
    more = make(KEY, 1)
    assert len({fold.rows.tobytes() for fold in more}) == len(more) == 2 * len(folds)
    for first, again in zip(folds, more, strict=False):
        np.testing.assert_array_equal(first.rows, again.rows)
        assert np.isin(again.valid_rows, first.valid_rows).all()
        assert kind == "bootstrap" or len(first.valid_rows) == len(again.valid_rows)


def test_only_the_number_of_examples_and_the_labels_are_read():
    y = np.arange(24) % 2
    folds = k_fold((np.zeros(24), y), 3, key=KEY)
    assert same(folds, k_fold(({"a": np.full((24, 2, 2), np.nan)}, y, np.arange(24.0)), 3, key=KEY))
    assert same(folds, k_fold(jn.Data((np.zeros(24), y)), 3, key=KEY))
    assert same(bootstrap(plain(24), 3, key=KEY), bootstrap(jn.Data((np.zeros(24), y)), 3, key=KEY))
    assert same(holdout((y, y), 0.5, 2, key=KEY), holdout(jn.Data((y, y)), 0.5, 2, key=KEY))


def test_sizes_of_a_real_set():
    digits = plain(1797)
    assert sizes(k_fold(digits, 5, key=KEY)) == {(1437, 360): 2, (1438, 359): 3}
    assert sizes(k_fold(digits, 3, key=KEY, repeats=4)) == {(1198, 599): 12}
    assert sizes(holdout(digits, 0.2, 7, key=KEY)) == {(1438, 359): 7}
    assert sizes(()) == {}


# Training


@pytest.mark.parametrize("kind", ["k_fold", "bootstrap"])
def test_training_on_a_fold_is_training_on_the_copied_subset(kind):
    random = np.random.default_rng(0)
    x = random.normal(size=(48, 3)).astype("float32")
    y = (x @ random.normal(size=(3, 1)) + 0.1 * random.normal(size=(48, 1))).astype("float32")
    whole = x, y, random.uniform(0.5, 2, 48).astype("float32")
    fold = k_fold(whole, 3, key=KEY)[0] if kind == "k_fold" else bootstrap(whole, 2, key=KEY, size=32)[0]
    program = jn.program(jn.mlp([1]), jn.losses.squared_error, optax.sgd(0.1), batch_size=8)
    by_rows = jn.fit(KEY, program, jn.Data(whole, rows=fold.rows, valid_rows=fold.valid_rows), epochs=4)
    copies = (tuple(part[rows] for part in whole) for rows in fold)
    by_copies = jn.fit(KEY, program, jn.Data(*copies), epochs=4)
    for a, b in zip(jax.tree.leaves(by_rows), jax.tree.leaves(by_copies), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert by_rows.history["valid_loss"][-1] < by_rows.history["valid_loss"][0]
    wrong = jn.fit(KEY, program, jn.Data(whole, rows=(fold.rows + 1) % 48, valid_rows=fold.valid_rows), epochs=4)
    assert not np.allclose(by_rows.history["train_loss"], wrong.history["train_loss"], rtol=1e-3)


# Refusals

X, Y = np.zeros((8, 2)), np.array([0, 0, 0, 0, 0, 1, 1, 1])
G = np.array([0, 0, 0, 0, 0, 1, 1, 2])


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: k_fold((X, Y), 1, key=KEY), ValueError, r"got k=1 for 8 examples; expected 2…8"),
        (lambda: k_fold((X, Y), 9, key=KEY), ValueError, r"got k=9 for 8 examples; expected 2…8"),
        (lambda: k_fold((X, Y), 0, key=KEY), ValueError, r"got k=0"),
        (lambda: k_fold((X, Y), 2.0, key=KEY), TypeError, r"got k=2.0; expected a positive integer"),
        (lambda: k_fold((X, Y), 2, key=KEY, repeats=0), ValueError, r"got repeats=0"),
        (lambda: k_fold((X, Y), 4, key=KEY, stratified=True), ValueError, r"3 examples of class 1, .* at least 4 of"),
        (lambda: k_fold((X, Y / 2), 2, key=KEY, stratified=True), ValueError, r"dtype float64, expected integer"),
        (lambda: k_fold((X, Y), 2, key=KEY, stratified=1), TypeError, r"stratified: got 1, expected True"),
        (lambda: k_fold((X, Y), 4, key=KEY, groups=G), ValueError, r"got k=4 for 3 groups; expected at most one"),
        (lambda: k_fold((X, Y), 2, key=KEY, groups=G[:7]), ValueError, r"groups of shape \(7,\); .*, \(8,\)"),
        (lambda: k_fold((X, Y), 2, key=KEY, groups=G[:, None]), ValueError, r"groups of shape \(8, 1\)"),
        (lambda: k_fold((X, Y), 2, key=KEY, groups=G / 2), TypeError, r"groups of dtype float64; expected integers or"),
        (lambda: k_fold((X, Y), 2, key=KEY, groups=[*"abcdefg", None]), TypeError, r"dtype object; .* none missing"),
        (lambda: k_fold((X, Y / 2), 3, key=KEY, groups=G, repeats=2), ValueError, r"repeats=2 that all deal the same"),
        (lambda: k_fold((X, Y), 8, key=KEY, repeats=3), ValueError, r"repeats=3 that all deal the same folds"),
        (lambda: k_fold((X, Y), 2, key=0), TypeError, r"expected a typed key"),
        (lambda: k_fold((X, Y[:5]), 2, key=KEY), ValueError, r"different numbers of examples"),
        (lambda: k_fold(X, 2, key=KEY), TypeError, r"data: got ndarray, expected a tuple"),
        (lambda: k_fold(jn.Data((X, Y), (X, Y)), 2, key=KEY), ValueError, r"`valid`; expected a training set alone"),
        (lambda: k_fold(jn.Data((X, Y), rows=G), 2, key=KEY), ValueError, r"`rows` or `valid_rows`; expected none"),
        (lambda: k_fold(jn.Data((X, Y), valid_rows=G), 2, key=KEY), ValueError, r"`rows` or `valid_rows`"),
        (lambda: holdout((X, Y), 0.0, 2, key=KEY), ValueError, r"share: got 0.0, expected a float"),
        (lambda: holdout((X, Y), 8, 2, key=KEY), ValueError, r"share: got 8 examples of 8, expected 1 to 7"),
        (lambda: holdout((X, Y), 3, 2, key=KEY, groups=G), ValueError, r"got 3 groups of 3, expected 1 to 2"),
        (lambda: holdout((X, Y), 1, 2, key=KEY, groups=0 * G), ValueError, r"got 1 groups, expected at least 2"),
        (lambda: holdout((X, Y), 1, 2, key=KEY, groups=G[1:]), ValueError, r"groups of shape \(7,\)"),
        (lambda: holdout((X, Y), 0.5, 0, key=KEY), ValueError, r"got resamples=0"),
        (lambda: holdout((X, Y), 0.5, 2, key=None), TypeError, r"expected a typed key"),
        (lambda: holdout((X, Y / 2), 0.5, 2, key=KEY, stratified=True), ValueError, r"stratified=True: got y of"),
        (lambda: holdout((X, Y), 1, 2, key=KEY, groups=G, stratified=True), ValueError, r"k_fold takes both"),
        (lambda: holdout(jn.Data((X, Y), (X, Y)), 0.5, 2, key=KEY), ValueError, r"`valid`; expected a training set"),
        (lambda: bootstrap((X, Y), 2, key=KEY, size=0), ValueError, r"got size=0; expected at least 1"),
        (lambda: bootstrap((X, Y), 2, key=KEY, size=0.5), TypeError, r"got size=0.5; expected a positive integer"),
        (lambda: bootstrap((X, Y), 0, key=KEY), ValueError, r"got resamples=0"),
        (lambda: bootstrap((X, Y), 2, key=jax.random.split(KEY)), ValueError, r"\(2,\) keys; expected one"),
        (lambda: bootstrap((X, Y), 2, key=KEY, size=200), ValueError, r"number 0\) of size=200 that draws all 8"),
        (lambda: bootstrap(jn.Data((X, Y), rows=G), 2, key=KEY), ValueError, r"`rows` or `valid_rows`"),
    ],
)
def test_refusals_say_what_came_and_what_was_expected(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_the_names_at_the_door():
    assert (jn.data.k_fold, jn.data.holdout, jn.data.bootstrap, jn.data.Fold) == (k_fold, holdout, bootstrap, Fold)
