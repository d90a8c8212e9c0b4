"""The comparator: do two gradient functions agree, leaf by leaf?

The scale of a leaf is max(largest entry of the leaf, 10⁻³ · largest entry of the tree), so that a leaf which is zero
up to rounding is not asked for relative accuracy. In float64 errors up to 10⁻¹² of the scale pass: a wrong rule is off
by many orders more. In narrower dtypes up to 64 machine epsilons ε pass, and the scale is at least what the leaf
changes, in units of ε, when every input is rounded once more at random: a sum that cancels has lost digits before
either road can be right about them.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.gradients import GradientFunction


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

    @property
    def agrees(self) -> bool:
        """Whether the error is within the bound."""
        return bool(self.error <= self.bound)


@dataclass(frozen=True)
class Comparison:
    """All leaves; true when all agree, printed as a table."""

    leaves: tuple[LeafComparison, ...]

    def __bool__(self) -> bool:
        return all(leaf.agrees for leaf in self.leaves)

    @property
    def worst(self) -> LeafComparison:
        """The leaf with the largest share of its bound."""
        return max(self.leaves, key=lambda leaf: np.inf if np.isnan(leaf.error) else leaf.error / leaf.bound)

    def __str__(self) -> str:
        width = max(len(leaf.path) for leaf in self.leaves)
        lines = [f"{'leaf':<{width}}  {'shape':<12} {'error/scale':>11} {'bound':>8}  worst at (tested, expected)"]
        for leaf in self.leaves:
            mark = "ok" if leaf.agrees else "WRONG"
            lines.append(
                f"{leaf.path:<{width}}  {leaf.shape!s:<12} {leaf.error:>11.1e} {leaf.bound:>8.0e}  "
                f"{list(leaf.at)} ({leaf.tested:.6g}, {leaf.expected:.6g})  {mark}"
            )
        return "\n".join(lines)


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

    error = max |tested − expected| / scale, with the scale of this module's contract. `bound` is 10⁻¹² in float64
    and 64 machine epsilons in narrower dtypes, unless given. Non-finite numbers never agree.

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
    rounded = jax.tree.map(jnp.zeros_like, expected_grads)
    if jnp.finfo(expected_loss.dtype).bits < 64:
        for seed in range(2):
            inputs = _rounded_once_more(jax.random.key(seed), (params, batch))
            _, moved = expected(inputs[0], state, inputs[1], key=key, train=train)
            rounded = jax.tree.map(lambda r, a, b: jnp.maximum(r, jnp.abs(a - b)), rounded, moved, expected_grads)
    trees = [str(jax.tree.structure(tree)) for tree in (grads, expected_grads)]
    if trees[0] != trees[1]:
        raise ValueError(f"got gradients of the tree {trees[0]}; expected {trees[1]}")
    largest = max((float(jnp.abs(b).max(initial=0)) for b in jax.tree.leaves(expected_grads)), default=0.0)
    leaves = [_compared("loss", loss, expected_loss, 0.0, bound)]
    for (path, a), b, r in zip(
        jax.tree_util.tree_leaves_with_path(grads),
        jax.tree.leaves(expected_grads),
        jax.tree.leaves(rounded),
        strict=True,
    ):
        least_scale = max(1e-3 * largest, float(r.max(initial=0)) / float(jnp.finfo(b.dtype).eps))
        leaves.append(_compared(jax.tree_util.keystr(path, simple=True, separator="."), a, b, least_scale, bound))
    return Comparison(tuple(leaves))


def _rounded_once_more(key, tree):
    """Each floating entry times 1 ± ε, the sign at random."""

    def rounded(leaf, leaf_key):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        signs = jax.random.rademacher(leaf_key, leaf.shape, leaf.dtype)
        return leaf * (1 + signs * jnp.finfo(leaf.dtype).eps)

    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, map(rounded, leaves, jax.random.split(key, max(1, len(leaves)))))


def _compared(path, a, b, least_scale, bound) -> LeafComparison:
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        raise ValueError(f"{path}: got shape {a.shape}; expected {b.shape}")
    if bound is None:
        bound = 1e-12 if b.dtype == np.float64 else 64 * float(np.finfo(b.dtype).eps)
    difference = np.abs(a.astype(np.float64) - b.astype(np.float64))
    at = tuple(int(i) for i in np.unravel_index(np.argmax(np.nan_to_num(difference, nan=np.inf)), a.shape))
    scale = max(float(np.abs(b).max()), least_scale)
    error = 0.0 if difference[at] == 0 else float(difference[at] / scale) if scale > 0 else np.inf
    return LeafComparison(path, a.shape, error, float(bound), scale, at, float(a[at]), float(b[at]))
