"""The comparator: do two gradients, or two gradient functions, agree, leaf by leaf?

The scale of a leaf is max(largest entry of the leaf, 10⁻³ · largest entry of the tree), so that a leaf which is zero
up to rounding is not asked for relative accuracy. Errors up to `tolerance` of the scale pass: in float64 a wrong rule
is off by many orders more. The scale is at least what the leaf changes, in units of the machine epsilon ε, when every
parameter and x is rounded once more at random: a sum that cancels, such as the gradient of a bias before a batch norm,
has lost digits before either road can be right about them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.gradients import GradientFunction
from jaxnet.tables import table
from jaxnet.testing.tolerances import tolerance


@dataclass(frozen=True)
class LeafComparison:
    """One leaf of the two gradients (or the loss itself, path "loss")."""

    path: str
    shape: tuple[int, ...]
    error: float  # largest |tested − expected|, as a share of `scale`; nan where one side isn't finite
    bound: float  # what the error may be
    scale: float
    at: tuple[int, ...]  # where the error is largest
    tested: float  # both sides there
    expected: float
    absolute: float = 0.0  # largest |tested − expected|
    relative: float = (
        0.0  # largest |tested − expected| / |expected|: large, and harmless, where an entry is nearly zero
    )
    ulp: float = 0.0  # largest |tested − expected| in units in the last place of the larger side
    note: str = ""
    skipped: bool = False  # nothing could be compared; `note` says why

    @property
    def agrees(self) -> bool:
        """Whether the error is within the bound."""
        return self.skipped or bool(self.error <= self.bound)

    @property
    def verdict(self) -> str:
        """ "ok", "WRONG" or "skipped"."""
        return "skipped" if self.skipped else "ok" if self.agrees else "WRONG"


@dataclass(frozen=True)
class Comparison:
    """All leaves; true when all agree, printed as a table."""

    leaves: tuple[LeafComparison, ...]

    def __bool__(self) -> bool:
        return all(leaf.agrees for leaf in self.leaves)

    @property
    def worst(self) -> LeafComparison:
        """The leaf with the largest share of its bound."""
        return max(self.leaves, key=_share_of_bound)

    @property
    def verdict(self) -> str:
        """ "WRONG" where a leaf is, "skipped" where none could be compared, else "ok"."""
        return "WRONG" if not self else "skipped" if self.leaves and all(leaf.skipped for leaf in self.leaves) else "ok"

    @property
    def summary(self) -> str:
        """The worst leaf in a line."""
        if not self.leaves:
            return "no floating values to compare"
        leaf = self.worst
        if leaf.skipped:
            return leaf.note
        name = leaf.path or "value"
        where = (
            f"{name} at {list(leaf.at)}: {leaf.tested:.6g}, expected {leaf.expected:.6g}; "
            if not self
            else f"worst {name}: "
        )
        return f"{where}error {leaf.error:.1e}, allowed {leaf.bound:.1e}"

    def __str__(self) -> str:
        head = ("leaf", "shape", "error/scale", "bound", "absolute", "relative", "ulp", "at", "tested", "expected", "")
        rows = []
        for leaf in self.leaves:
            errors = (leaf.error, leaf.bound, leaf.absolute, leaf.relative, leaf.ulp)
            place = (str(list(leaf.at)), f"{leaf.tested:.6g}", f"{leaf.expected:.6g}")
            verdict = f"{leaf.verdict}{leaf.note and ': '}{leaf.note}"
            rows.append((leaf.path, str(leaf.shape), *(f"{e:.1e}" for e in errors), *place, verdict))
        return table(head, rows)


def _share_of_bound(leaf: LeafComparison) -> float:
    if leaf.skipped:
        return -1.0
    return np.inf if np.isnan(leaf.error) else leaf.error / leaf.bound if leaf.bound else leaf.error


def compare_gradients(
    tested: GradientFunction,
    expected: GradientFunction,
    params: Any,
    state: Any,
    batch: Any,
    *,
    key: jax.Array | None = None,
    train: bool = True,
    bound: float | None = None,
) -> Comparison:
    """Compare two gradient functions on one batch: their losses and each leaf of their gradients.

    error = max |tested − expected| / scale, with the scale of this module's contract. `bound` is `tolerance` of the
    dtype and of the longest sum (over the batch, or over a weight's inputs) unless given. Non-finite numbers never
    agree.

    Raises:
        ValueError: the two gradients have different trees or shapes.

    >>> import jaxnet as jn
    >>> net = jn.mlp([4, 2], activation="tanh")
    >>> params, state = net.init(jax.random.key(0), (3,))
    >>> batch = jax.numpy.ones((5, 3)), jax.numpy.zeros(5, int)
    >>> roads = [make(net, jn.losses.softmax_cross_entropy) for make in (jn.backprop, jn.loss_and_grad)]
    >>> bool(compare_gradients(*roads, params, state, batch))
    True
    """
    (loss, _), grads = tested(params, state, batch, key=key, train=train)
    (expected_loss, _), expected_grads = expected(params, state, batch, key=key, train=train)
    near = []
    for seed in range(2):  # of parameters and x: a target that is rounded may not be a target
        rounded, x = rounded_once_more((params, batch[0]), seed)
        near.append(expected(rounded, state, (x, *batch[1:]), key=key, train=train)[1])
    fan_in = longest_sum(params, batch)
    leaves = compare_trees(grads, expected_grads, bound=bound, fan_in=fan_in, near=near).leaves
    return Comparison((_compared("loss", loss, expected_loss, 0.0, bound, fan_in), *leaves))


def compare_trees(
    tested: Any, expected: Any, *, bound: float | None = None, fan_in: int = 1, near: Sequence[Any] = ()
) -> Comparison:
    """Compare two trees of arrays leaf by leaf, on the scale of this module's contract; None agrees with None.

    `fan_in` is the number of terms that an entry sums; `near` are trees like `expected` for inputs that are rounded
    once more.

    Raises:
        ValueError: the trees or shapes differ.

    >>> print(compare_trees({"w": jnp.array([1.0, 2.5])}, {"w": jnp.array([1.0, 2.0])}))
    leaf  shape  error/scale  bound    absolute  relative  ulp       at   tested  expected
    w     (2,)   2.5e-01      7.6e-06  5.0e-01   2.5e-01   2.1e+06   [1]  2.5     2         WRONG
    """
    trees = [str(jax.tree.structure(tree)) for tree in (tested, expected)]
    if trees[0] != trees[1]:
        raise ValueError(f"got the tree {trees[0]}; expected {trees[1]}")
    wanted = [_doubled(b) for b in jax.tree.leaves(expected)]
    largest = max((float(np.abs(b).max(initial=0)) for b in wanted), default=0.0)
    moved = [0.0] * len(wanted)
    for tree in near:
        for i, (a, b) in enumerate(zip(jax.tree.leaves(tree), wanted, strict=True)):
            moved[i] = max(moved[i], float(np.abs(_doubled(a) - b).max(initial=0)))
    leaves = []
    pairs = zip(jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(tested), moved, strict=True)
    for (path, b), a, change in pairs:
        least_scale = max(
            1e-3 * largest, change / rounding_unit(b.dtype) if change and jnp.issubdtype(b.dtype, jnp.inexact) else 0.0
        )
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        leaves.append(_compared(name, a, b, least_scale, bound, fan_in))
    return Comparison(tuple(leaves))


def longest_sum(*trees: Any) -> int:
    """The number of terms of the longest sum that arrays of these shapes go into: all axes but the last.

    >>> longest_sum({"w": jnp.ones((784, 10))}, jnp.ones((32, 784)))
    784
    """
    return max([1, *(a.size // a.shape[-1] for a in jax.tree.leaves(trees) if a.ndim and a.size)])


def rounding_unit(dtype: Any) -> float:
    """In what units a change by rounding is counted: ε, or 10⁻¹²/64 in float64, so that 64 times the change pass too.

    >>> rounding_unit("float32") == 2.0**-23, rounding_unit("float64")
    (True, 1.5625e-14)
    """
    return 1e-12 / 64 if jnp.finfo(dtype).bits >= 64 else float(jnp.finfo(dtype).eps)


def rounded_once_more(tree: Any, seed: int) -> Any:
    """Each floating entry times 1 ± ε, the sign at random.

    >>> bool(rounded_once_more(jnp.ones(1), 0)[0] == 1)
    False
    """
    rng = np.random.default_rng(seed)

    def rounded(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        eps = float(jnp.finfo(leaf.dtype).eps)
        return jnp.asarray(_doubled(leaf) * (1 + eps * rng.choice([-1.0, 1.0], leaf.shape)), leaf.dtype)

    return jax.tree.map(rounded, tree)


def worst_leaves(comparisons: Iterable[Comparison]) -> Comparison:
    """One comparison of several with the same paths: for each path the leaf with the largest share of its bound.

    >>> close, far = (compare_trees({"w": jnp.ones(1)}, {"w": jnp.array([w])}) for w in (1.0, 2.0))
    >>> worst_leaves([close, far]).leaves[0].expected
    2.0
    """
    rows = zip(*(comparison.leaves for comparison in comparisons), strict=True)
    return Comparison(tuple(max(leaves, key=_share_of_bound) for leaves in rows))


def _doubled(a) -> np.ndarray:
    return np.asarray(a).astype(np.float64)


def _compared(path, a, b, least_scale, bound, fan_in) -> LeafComparison:
    shape, dtype = np.shape(b), np.asarray(b).dtype
    if np.shape(a) != shape:
        raise ValueError(f"{path}: got shape {np.shape(a)}; expected {shape}")
    floating = jnp.issubdtype(dtype, jnp.inexact)
    if bound is None:
        coarser = max((np.asarray(a).dtype, dtype), key=lambda d: float(jnp.finfo(d).eps)) if floating else dtype
        bound = tolerance(coarser, fan_in) if floating else 0.0
    wide_a, wide_b = _doubled(a), _doubled(b)
    scale = max(float(np.abs(wide_b).max(initial=0)), least_scale)
    return measured(path, wide_a, wide_b, scale, float(bound), dtype)


def measured(path, tested, expected, scale, bound, dtype, *, slack=0.0, note="", left_out=None) -> LeafComparison:
    """The row of a leaf: float64 arrays of one shape, whose numbers were rounded to `dtype`.

    `bound` is a share of `scale`; `slack`, for each entry, is an absolute error allowed besides. `left_out` marks
    entries about which `expected` says nothing.

    >>> measured("w", np.array([1.0, 2.0]), np.array([1.0, 4.0]), 4.0, 1e-6, "float32").error
    0.5
    """
    shape = expected.shape
    kept = np.ones(shape, bool) if left_out is None else ~left_out
    if not kept.any():
        skipped = expected.size > 0
        return LeafComparison(path, shape, 0.0, bound, scale, (), np.nan, np.nan, note=note, skipped=skipped)
    unit = scale if scale > 0 else 1.0
    with np.errstate(all="ignore"):
        difference = np.where(kept, np.abs(tested - expected), 0.0)
        relative = np.where(difference == 0, 0.0, difference / np.abs(expected))
        ulp = np.where(kept, difference / _spacing(np.maximum(np.abs(tested), np.abs(expected)), dtype), 0.0)
        allowed = np.broadcast_to(bound * scale + slack, shape)
        excess = np.where(difference == 0, 0.0, difference / allowed)
    at = tuple(int(i) for i in np.unravel_index(np.argmax(np.nan_to_num(excess, nan=np.inf)), shape))
    return LeafComparison(
        path, shape, float(difference[at] / unit), float(allowed[at] / unit) if np.any(slack) else bound, scale,
        at, float(tested[at]), float(expected[at]),
        float(difference.max()), float(relative.max()), float(ulp.max()), note,
    )  # fmt: skip


def _spacing(magnitude, dtype):
    """The distance to the next number of `dtype` above each magnitude (1 for integers)."""
    if not jnp.issubdtype(dtype, jnp.inexact):
        return np.ones_like(magnitude)
    info = jnp.finfo(dtype)
    exponent = np.floor(np.log2(np.maximum(magnitude, float(info.tiny))))
    return float(info.eps) * 2.0**exponent
