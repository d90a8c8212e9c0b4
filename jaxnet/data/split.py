"""Splitting: a set into two, each example in exactly one of them, by a key alone.

    rest, held_out = split(data, share, key=key)

Every example draws a 64-bit number from NumPy's PCG64, seeded by the words of the key; those with the
smallest numbers are held out (stratified: the smallest of each class). NumPy promises this stream for all
its versions, so a split depends on the key and on the number of examples (stratified: and on the labels), not
on the machine, the precision, or x. Both parts keep the examples in their original order.
"""

from __future__ import annotations

import numbers
from typing import Any

import jax
import numpy as np

from jaxnet.data.arrays import is_sparse, plain
from jaxnet.data.checks import check_key

__all__ = ["count_examples", "count_held", "split", "strata", "stream"]


def split(
    data: tuple[Any, ...], share: float | int, *, key: jax.Array, stratified: bool | None = None
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Split a set of n examples into (rest, held_out), at random by a key.

    held = round(share * n) (half to even), at least 1 and at most n - 1, or `share` itself if an int.
    Stratified, class c with n_c examples gives held * n_c / n of them, rounded down or up (largest
    remainder, ties by the key), so a very rare class may be missing from held_out.

    Args:
        data: (x, y) or (x, y, weight); arrays, or pytrees of arrays, with a common leading example axis.
            Weights are split along and have no influence.
        share: of the held-out part: a float in (0, 1), or a number of examples in 1 ... n - 1.
        key: a typed JAX key, `jax.random.key(0)`. The same key gives the same split.
        stratified: None stratifies where y is one array of integer (or bool) labels of rank 1 with at
            least two examples of every class; True insists on it; False does not stratify.

    Returns: two sets like `data`, of NumPy arrays that are copies, with the examples in their original order.

    Raises:
        TypeError: data is not a tuple of arrays (tables and sparse matrices are none), key is not a typed key, share
            is not a number.
        ValueError: lengths differ, masked entries, fewer than 2 examples, share out of range, or stratification
            impossible.

    >>> data = (np.arange(6.0)[:, None], np.array([0, 0, 0, 0, 1, 1]))
    >>> rest, held_out = split(data, 1 / 2, key=jax.random.key(0))
    >>> rest[1].tolist(), held_out[1].tolist()
    ([0, 0, 1], [0, 0, 1])
    """
    n = count_examples(data)
    held = count_held(share, n)
    check_key(key)
    names = ("x", "y", "weight")[: len(data)]
    data = tuple(_arrays(f"data {name}", part) for name, part in zip(names, data, strict=True))
    draws = stream(key).random_raw(n)
    labels = strata(data[1], stratified)
    if labels is None:
        chosen = np.argsort(draws, kind="stable")[:held]
    else:
        chosen = _choose_stratified(labels, held, draws)
    mask = np.zeros(n, bool)
    mask[chosen] = True
    rest = jax.tree.map(lambda leaf: leaf[~mask], data)
    held_out = jax.tree.map(lambda leaf: leaf[mask], data)
    return rest, held_out


def _arrays(name: str, tree: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: plain(name + jax.tree_util.keystr(path), leaf), tree, is_leaf=is_sparse
    )


def _choose_stratified(labels: np.ndarray, held: int, draws: np.ndarray) -> np.ndarray:
    """Row numbers of the held-out examples: in each class those with the smallest draws."""
    _, label, counts = np.unique(labels, return_inverse=True, return_counts=True)
    exact = held * counts.astype(object)  # Python integers: times 1/n gives each class's quota
    seats = np.array(exact // len(labels), np.int64)
    remainder = np.array(exact % len(labels), np.int64)
    ends = np.cumsum(counts)
    order = np.lexsort((draws, label))  # by class, within a class by draw
    tie = draws[order[ends - counts]]  # the smallest draw of each class
    seats[np.lexsort((tie, -remainder))[: held - seats.sum()]] += 1
    rank = np.arange(len(labels)) - np.repeat(ends - counts, counts)
    return order[rank < np.repeat(seats, counts)]


def stream(key: jax.Array) -> np.random.PCG64:
    """NumPy's PCG64, seeded by the words of a typed key that has been checked.

    >>> stream(jax.random.key(0)).random_raw() == stream(jax.random.key(0)).random_raw()
    True
    """
    return np.random.PCG64([int(word) for word in np.asarray(jax.random.key_data(key))])


def strata(y: Any, stratified: bool | None, at_least: int = 2) -> np.ndarray | None:
    """The labels (n,) to stratify by, or None to do without.

    Labels can be stratified where y is one array of integers (or bools) of rank 1 with `at_least` examples of every
    class. True insists on it, None does so where it can, False never does.

    Raises:
        TypeError: stratified is neither None nor a bool; ValueError: True, and y can't be stratified.

    >>> strata(np.array([0, 1, 1, 0]), None), strata(np.array([0.5, 1.5]), None)
    (array([0, 1, 1, 0]), None)
    """
    if stratified is not None and not isinstance(stratified, bool):
        raise TypeError(f"stratified: got {stratified!r}, expected True, False or None")
    reason = "not asked for" if stratified is False else _why_not_stratified(y, at_least)
    if stratified and reason:
        raise ValueError(f"stratified=True: {reason}; pass stratified=None or False to split without classes")
    return None if reason else np.asarray(y)


def _why_not_stratified(y: Any, at_least: int) -> str:
    """The reason that y cannot be stratified, or "" if it can."""
    if not hasattr(y, "shape"):
        return f"got y of type {type(y).__name__}, expected one array of integer labels"
    y = plain("y", y)
    if y.ndim != 1 or y.dtype.kind not in "biu":
        return f"got y of shape {y.shape} and dtype {y.dtype}, expected integer labels of shape (n,)"
    values, counts = np.unique(y, return_counts=True)
    least = counts.min()
    if least < at_least:
        examples = "1 example" if least == 1 else f"{least} examples"
        return f"got {examples} of class {values[counts.argmin()]}, expected at least {at_least} of every class"
    return ""


def count_examples(data: Any) -> int:
    """The number of examples of (x, y) or (x, y, weight), the same in every array.

    Raises:
        TypeError: not a tuple of arrays; ValueError: lengths differ, or an array without axes.

    >>> count_examples((np.zeros((3, 2)), np.zeros(3)))
    3
    """
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        got = type(data).__name__ + (f" of {len(data)}" if isinstance(data, tuple) else "")
        raise TypeError(f"data: got {got}, expected a tuple (x, y) or (x, y, weight)")
    sizes: dict[str, int] = {}
    for name, part in zip(("x", "y", "weight"), data, strict=False):
        leaves = jax.tree_util.tree_leaves_with_path(part, is_leaf=is_sparse)
        if not leaves:
            raise ValueError(f"data: got {name} without any array ({part!r}), expected arrays (n, ...)")
        for path, leaf in leaves:
            where = name + jax.tree_util.keystr(path)
            if not hasattr(leaf, "shape"):
                raise TypeError(f"data: got {where} of type {type(leaf).__name__}, expected an array (n, ...)")
            if not leaf.shape:
                raise ValueError(f"data: got {where} of shape (), expected a leading example axis")
            sizes[where] = leaf.shape[0]
    if len(set(sizes.values())) > 1:
        listing = ", ".join(f"{size} in {where}" for where, size in sizes.items())
        raise ValueError(f"data: got different numbers of examples ({listing}), expected equal ones")
    return next(iter(sizes.values()))


def count_held(share: Any, n: int, what: str = "examples") -> int:
    """How many of n are held out: round(share * n) within 1 … n - 1, or `share` itself if an int.

    Raises:
        TypeError: share is not a number; ValueError: share out of range, or n < 2.

    >>> count_held(0.2, 1797), count_held(300, 1797)
    (359, 300)
    """
    if isinstance(share, (bool, np.bool_)) or not isinstance(share, numbers.Real):
        raise TypeError(f"share: got {share!r}, expected a float in (0, 1) or a number of {what}")
    if n < 2:
        raise ValueError(f"data: got {n} {what}, expected at least 2 to split")
    if isinstance(share, numbers.Integral):
        if not 1 <= int(share) <= n - 1:
            raise ValueError(f"share: got {share} {what} of {n}, expected 1 to {n - 1} so that neither part is empty")
        return int(share)
    if not 0 < float(share) < 1:
        raise ValueError(f"share: got {share!r}, expected a float in (0, 1), or an int to count {what}")
    return min(max(round(float(share) * n), 1), n - 1)
