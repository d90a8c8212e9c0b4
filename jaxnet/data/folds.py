"""Folds and resamples of one data set, as index rows: nothing is copied.

    k_fold(data, k, key=key)                 every example validates once (per repeat)
    holdout(data, share, resamples, key=key) random splits: Monte-Carlo cross-validation
    bootstrap(data, resamples, key=key)      rows drawn with replacement, judged on those not drawn

Each gives a tuple of `Fold(rows, valid_rows)`, what `Data(train, rows=…, valid_rows=…)` takes; both are sorted.
Programs are compiled per size, so the folds of one call have as few different sizes as can be; `sizes` counts them.

Repeat or resample i draws from `fold_in(key, i)`: more of them can be added later without changing the first. The key
decides alone, together with the number of examples, the labels where they are stratified, and the groups. The k folds
are dealt by scikit-learn's splitters, whose `random_state` is the upper half of the first number of `split.stream`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnet.data.arrays import plain
from jaxnet.data.checks import check_key, positive_integer
from jaxnet.data.sets import Data
from jaxnet.data.split import count_examples, count_held, split, strata, stream

__all__ = ["Fold", "bootstrap", "holdout", "k_fold", "sizes"]


class Fold(NamedTuple):
    """Which examples of one set train and which validate, by index."""

    rows: np.ndarray  # (m,) int32, ascending; with repeats in a bootstrap
    valid_rows: np.ndarray  # (v,) int32, ascending, none of them in rows


def k_fold(
    data: tuple[Any, ...] | Data,
    k: int,
    *,
    key: jax.Array,
    stratified: bool | None = None,
    groups: Any = None,
    repeats: int = 1,
) -> tuple[Fold, ...]:
    """Deal n examples into k parts at random; fold i validates on part i and trains on the rest.

    Without groups n mod k parts have ⌈n / k⌉ examples and the others ⌊n / k⌋: two sizes at most, one where k divides
    n. 1,797 examples in 5 folds are 2 folds that train on 1,437 and validate on 360, and 3 of 1,438 and 359.
    Stratified, each part also has ⌊n_c / k⌋ or ⌈n_c / k⌉ of the n_c examples of class c.

    With groups, every group is in one part as a whole, so sizes may differ. Not stratified, the largest remaining
    group goes to the smallest part (sizes as even as groups allow) and the key decides between groups of one size
    alone. Stratified, class shares are as even as that heuristic gets them, and sizes vary more. With k the number
    of groups one group is left out at a time; with k = n one example.

    Args:
        data: (x, y) or (x, y, weight), or a `Data` with a training set alone; only n and the labels are read.
        k: the number of folds, 2 … n, and no more than there are groups.
        key: a typed JAX key, `jax.random.key(0)`.
        stratified: None stratifies where y is one array of integer (or bool) labels of rank 1 with at least k
            examples of every class; True insists on it; False does not stratify.
        groups: (n,) integers or strings; examples of one group are never on both sides.
        repeats: how often all is dealt again; k folds each, in this order.

    Raises:
        TypeError: data, key, k, groups or repeats are not of these types.
        ValueError: k or repeats out of range, stratification impossible, groups of another length, `data` with a
            validation set or rows, or repeats that can't differ.

    Sources: Hastie et al., §7.10; scikit-learn's KFold, StratifiedKFold, GroupKFold, StratifiedGroupKFold.

    >>> folds = k_fold((np.zeros((1797, 2)), np.zeros(1797)), 5, key=jax.random.key(0))
    >>> sizes(folds)
    {(1437, 360): 2, (1438, 359): 3}
    >>> [len(fold.rows) for fold in k_fold((np.zeros(6), np.array([0, 0, 0, 1, 1, 1])), 3, key=jax.random.key(0))]
    [4, 4, 4]
    """
    train = _train_set(data)
    n = count_examples(train)
    k, repeats = positive_integer("k", k), positive_integer("repeats", repeats)
    if not 2 <= k <= n:
        raise ValueError(f"got k={k} for {n} examples; expected 2…{n}, so that no fold is empty")
    check_key(key)
    labels = strata(train[1], stratified, at_least=k)
    group = None if groups is None else _numbered(groups, n)
    if group is not None and k > group.max() + 1:
        raise ValueError(f"got k={k} for {group.max() + 1} groups; expected at most one fold per group: a smaller k")
    repeated = [_deal(k, _seed(key, i), n, labels, group) for i in range(repeats)]
    if repeats > 1 and len({frozenset(part.tobytes() for part in parts) for parts in repeated}) == 1:
        raise ValueError(
            f"got repeats={repeats} that all deal the same folds, since k={k} leaves little or nothing to chance here; "
            "expected repeats that differ: repeats=1, another k, or without stratified or groups"
        )
    return tuple(_fold(n, part) for parts in repeated for part in parts)


def holdout(
    data: tuple[Any, ...] | Data,
    share: float | int,
    resamples: int,
    *,
    key: jax.Array,
    stratified: bool | None = None,
    groups: Any = None,
) -> tuple[Fold, ...]:
    """Split n examples at random, again and again: fold i is `split(data, share, key=fold_in(key, i))` as rows.

    All folds have one size: round(share · n) validate (half to even), at least 1 and at most n − 1, or `share`
    itself if an int. With groups, `share` counts groups and each is held out as a whole: sizes differ from fold to
    fold unless groups are of one size; a study compiles once per size.

    Args:
        data: (x, y) or (x, y, weight), or a `Data` with a training set alone; only n and the labels are read.
        share: of the validation part: a float in (0, 1), or a number of examples (with groups: of groups).
        resamples: the number of folds.
        key: a typed JAX key, `jax.random.key(0)`.
        stratified: as in `split`; not together with groups.
        groups: (n,) integers or strings; examples of one group are never on both sides.

    Raises:
        TypeError: data, key, share, groups or resamples are not of these types.
        ValueError: share or resamples out of range, stratification impossible, groups of another length or fewer
            than 2, or `data` with a validation set or rows.

    Sources: Picard & Cook 1984 (Monte-Carlo cross-validation).

    >>> folds = holdout((np.zeros(10), np.zeros(10)), 0.2, 3, key=jax.random.key(0))
    >>> sizes(folds)
    {(8, 2): 3}
    """
    train = _train_set(data)
    n = count_examples(train)
    resamples = positive_integer("resamples", resamples)
    check_key(key)
    if groups is None:
        count_held(share, n)
        labels = strata(train[1], stratified)
        unit, y = np.arange(n), np.arange(n) if labels is None else labels
    else:
        if stratified:
            raise ValueError("got stratified=True and groups; expected one of the two: k_fold takes both")
        unit = _numbered(groups, n)
        labels, y = None, np.arange(unit.max() + 1)
        count_held(share, len(y), "groups")
    folds = []
    for i in range(resamples):
        _, (held, _) = split(
            (np.arange(len(y)), y), share, key=jax.random.fold_in(key, i), stratified=labels is not None
        )
        folds.append(_fold(n, np.flatnonzero(np.isin(unit, held))))
    return tuple(folds)


def bootstrap(
    data: tuple[Any, ...] | Data, resamples: int, *, key: jax.Array, size: int | None = None
) -> tuple[Fold, ...]:
    """Draw `size` of n examples with replacement, again and again; those never drawn, out of bag, validate.

    An example is out of bag with probability (1 − 1/n)^size, 1/e ≈ 0.368 for size = n, so how many are is itself
    random, and a study would compile once per resample. Therefore all resamples validate on equally many: as many as
    the resample with the fewest has, drawn at random from each one's own. All folds have one size. The price: for
    n = 1,797 and 100 resamples about 4 % of the out-of-bag examples go unused; and more resamples, which leave the
    `rows` of the first as they are, may shorten `valid_rows` (what stays is a subset).

    Args:
        data: (x, y) or (x, y, weight), or a `Data` with a training set alone; only n is read.
        resamples: the number of folds.
        key: a typed JAX key, `jax.random.key(0)`.
        size: the number of rows drawn, n unless given.

    Raises:
        TypeError: data, key, resamples or size are not of these types.
        ValueError: size or resamples below 1, a resample that draws every example (likely only for n below 12 or a
            large size), or `data` with a validation set or rows.

    Sources: Efron 1983; Hastie et al., §7.11.

    >>> folds = bootstrap((np.zeros(100), np.zeros(100)), 20, key=jax.random.key(0))
    >>> sizes(folds)
    {(100, 31): 20}
    """
    n = count_examples(_train_set(data))
    resamples = positive_integer("resamples", resamples)
    size = n if size is None else positive_integer("size", size)
    check_key(key)
    draws = []
    for i in range(resamples):
        random = np.random.RandomState(_seed(key, i))
        rows = np.sort(random.randint(n, size=size))
        left = random.permutation(np.setdiff1d(np.arange(n), rows))
        if not left.size:
            raise ValueError(
                f"got a resample (number {i}) of size={size} that draws all {n} examples; expected some left to "
                "validate on: more examples, or a smaller size"
            )
        draws.append((rows, left))
    common = min(left.size for _, left in draws)
    return tuple(Fold(rows.astype(np.int32), np.sort(left[:common]).astype(np.int32)) for rows, left in draws)


def sizes(folds: Iterable[Fold]) -> dict[tuple[int, int], int]:
    """(number of rows, number of valid_rows) -> how many folds; a study compiles once per entry.

    >>> sizes([Fold(np.arange(2), np.array([2])), Fold(np.arange(1, 3), np.array([0]))])
    {(2, 1): 2}
    """
    return dict(Counter((len(fold.rows), len(fold.valid_rows)) for fold in folds))


def _train_set(data: Any) -> Any:
    """The set that is dealt; a `Data` must leave validation to the folds."""
    if not isinstance(data, Data):
        return data
    if data.valid is not None:
        raise ValueError("got data with `valid`; expected a training set alone, of which each fold holds out a part")
    if data.rows is not None or data.valid_rows is not None:
        raise ValueError("got data with `rows` or `valid_rows`; expected none: folds of the whole set set them")
    return tuple(data.train) if isinstance(data.train, list) else data.train


def _numbered(groups: Any, n: int) -> np.ndarray:
    """Groups as numbers 0 … G − 1, (n,)."""
    names = plain("groups", groups)
    if names.dtype == object and all(isinstance(name, str) for name in names.flat):
        names = names.astype(str)
    if names.dtype.kind not in "biuUS":
        raise TypeError(f"got groups of dtype {names.dtype}; expected integers or strings, none missing")
    if names.shape != (n,):
        raise ValueError(f"got groups of shape {names.shape}; expected one per example, ({n},)")
    return np.unique(names, return_inverse=True)[1]


def _seed(key: jax.Array, i: int) -> int:
    """The 32-bit `random_state` of repeat or resample i."""
    return int(stream(jax.random.fold_in(key, i)).random_raw()) >> 32


def _deal(k: int, seed: int, n: int, labels: np.ndarray | None, group: np.ndarray | None) -> list[np.ndarray]:
    """The k parts, each ascending."""
    from sklearn import model_selection as splitters

    if group is None:
        deal = splitters.KFold if labels is None else splitters.StratifiedKFold
        pairs = deal(k, shuffle=True, random_state=seed).split(np.empty(n), labels)
    else:
        # Both deal by the groups' contents, ties by the order of their names: new names at random shuffle the ties
        # alone. shuffle=True ignores sizes in GroupKFold (which has it since scikit-learn 1.6), and up to 1.5 spoils
        # the class shares of StratifiedGroupKFold.
        names = np.random.RandomState(seed).permutation(group.max() + 1)[group]
        deal = splitters.GroupKFold if labels is None else splitters.StratifiedGroupKFold
        pairs = deal(k).split(np.empty(n), labels, names)
    return [np.sort(np.asarray(part)) for _, part in pairs]


def _fold(n: int, valid_rows: np.ndarray) -> Fold:
    """What validates, and all the rest to train on."""
    validates = np.zeros(n, bool)
    validates[valid_rows] = True
    return Fold(np.flatnonzero(~validates).astype(np.int32), np.flatnonzero(validates).astype(np.int32))
