"""A derivative against finite differences: the proof that takes no other derivative's word."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.testing.differences import offsets, slopes, values_along
from jaxnet.testing.gradients import Comparison, LeafComparison, measured, rounded_once_more, rounding_unit
from jaxnet.testing.roads import floating
from jaxnet.testing.tolerances import tolerance


def gradcheck(
    fn: Callable,
    *x: Any,
    backward: Callable | None = None,
    directions: int = 3,
    entries: int = 64,
    complex_step: bool = True,
    seed: int = 0,
    bound: float | None = None,
) -> Comparison:
    """Check the derivative of fn at x against what the values of fn alone say.

    The derivative is that of g = Σ c · fn(x) with random c (1 for a number), so fn may return an array or a tree. Rows:

    - each leaf of x: ∂g/∂x by five-point differences, at no more than `entries` drawn entries;
    - directions: ⟨∂g/∂x, v⟩ for random v, which no entry escapes; and the same by `jax.jvp`;
    - each leaf by the complex step Im g(x + ih) / h, exact to rounding, where fn is analytic.

    Differences are taken in float64 where JAX_ENABLE_X64 is on, whatever the dtype of x. Allowed is a share `bound` of
    the leaf's scale (10⁻⁸, or `tolerance` of a narrower dtype) and four times the doubt that the differences have about
    themselves; in float32 doubt is most of it, 10⁻⁴ to 10⁻² of the scale: read the bound column. Entries at a kink or
    at the edge of the domain are left out and counted.

    Args:
        fn: of floating arrays or trees of them; integers and keys in x are passed on.
        x: where.
        backward: a hand-written rule, (*x, dy) -> dx with a tuple for several x, None for integers; else `jax.vjp`.
        directions, entries: how many.
        complex_step: False leaves that row out, and its compilation.
        seed: of everything random.
        bound: see above.

    Raises:
        ValueError: fn isn't finite at x, or nothing in x is floating; dx of other shapes than x.

    >>> x = jnp.array([0.3, -2.0])
    >>> bool(gradcheck(jnp.tanh, x)), bool(gradcheck(jnp.tanh, x, backward=lambda x, dy: dy * (1 - jnp.tanh(x))))
    (True, False)
    """
    output = jax.eval_shape(fn, *x)
    number = [a.shape for a in jax.tree.leaves(output)] == [()]
    draw = np.ones if number else np.random.default_rng(seed + 1).standard_normal
    dy = jax.tree.map(lambda a: np.asarray(draw(a.shape), a.dtype) if floating(a) else None, output)
    parts = Parts(fn, x, dy)
    gradient = jax.jit(parts.automatic if backward is None else partial(parts.by_hand, backward))
    near = [gradient(rounded_once_more(parts.leaves, s)) for s in range(2)]
    return check_by_values(
        parts, gradient(parts.leaves), near, directions=directions, entries=entries, complex_step=complex_step,
        seed=seed, bound=bound, forward_mode=backward is None,
    )  # fmt: skip


def check_by_values(
    parts: "Parts",
    gradient: list,
    near: list,
    *,
    directions=3,
    entries=64,
    complex_step=True,
    seed=0,
    bound=None,
    forward_mode=False,
) -> Comparison:
    """`gradcheck` of a gradient that is known already: an array for each floating leaf of x.

    `near` has the gradients at x rounded once more.

    >>> parts = Parts(jnp.sin, (jnp.zeros(2),), np.ones(2))
    >>> bool(check_by_values(parts, [np.ones(2)], []))
    True
    """
    tested = [np.asarray(g).astype(np.float64) for g in gradient]
    moved = parts.rounding(tested, near)
    flat = np.concatenate([g.ravel() for g in tested])
    rng = np.random.default_rng(seed)
    drawn = [np.sort(rng.permutation(leaf.size)[:entries]) for leaf in parts.leaves]
    at = np.concatenate([first + a for first, a in zip(parts.firsts, drawn, strict=True)]).astype(int)
    lines = rng.normal(size=(directions, flat.size))
    lines /= np.linalg.norm(lines, axis=1, keepdims=True)
    slope, doubt, magnitude = parts.differences(at, lines)
    largest = max(np.abs(slope[np.isfinite(doubt)]).max(initial=0), np.abs(flat).max(initial=0))
    out = ~(doubt <= 1e-2 * max(largest, 1e-2 * magnitude))
    n = len(at)

    def row_per_leaf(kind, expected, slack, floor):
        """The drawn entries of each leaf; those of all leaves stand one after the other in `expected`."""
        rows, end = [], 0
        for i, (name, leaf, entry) in enumerate(zip(parts.names, parts.leaves, drawn, strict=True)):
            here, end = slice(end, end + len(entry)), end + len(entry)
            scale = max(np.abs(expected[here][~out[here]]).max(initial=0), 1e-3 * largest)
            share = max(floor, tolerance(leaf.dtype)) if bound is None else bound
            row = measured(
                f"{name} ({kind})", tested[i].ravel()[entry], expected[here], scale, share, leaf.dtype,
                slack=slack[here] + moved[i], left_out=out[here], note=_left_out(out[here]),
            )  # fmt: skip
            place = np.unravel_index(entry[row.at[0]], leaf.shape) if row.at else ()
            rows.append(replace(row, shape=leaf.shape, at=tuple(int(j) for j in place)))
        return rows

    def row_of_lines(name, tested):
        dtype = max((leaf.dtype for leaf in parts.leaves), key=lambda d: float(jnp.finfo(d).eps))
        share = max(1e-8, tolerance(dtype)) if bound is None else bound
        products = float(np.abs(flat * lines).sum(axis=1).max(initial=0))
        slack = 4 * doubt[n:] + max(moved, default=0.0) * np.abs(lines).sum(axis=1)
        return measured(
            name, tested, slope[n:], products, share, dtype, slack=slack, left_out=out[n:], note=_left_out(out[n:])
        )

    rows = row_per_leaf("five-point", slope[:n], 4 * doubt[:n], 1e-8)
    if directions:
        rows.append(row_of_lines("directions", (flat * lines).sum(axis=1)))
    if directions and forward_mode:
        try:
            rows.append(row_of_lines("directions (jvp)", parts.forward_mode(lines)))
        except TypeError:  # of a function with `jax.custom_vjp`
            rows.append(_skipped("directions (jvp)", "no forward-mode derivative"))
    if complex_step:
        try:
            steps = parts.complex_steps(at)
        except Exception as error:  # whatever the function says to complex numbers
            rows.append(_skipped("complex step", f"refused: {type(error).__name__}"))
            return Comparison(tuple(rows))
        differs = ~(np.abs(steps - slope[:n]) <= 4 * doubt[:n] + 1e-8 * largest) & ~out[:n]
        if differs.any():
            rows.append(_skipped("complex step", f"not analytic: another derivative at {differs.sum()} entries"))
        else:
            rows += row_per_leaf("complex step", steps, np.zeros(n), 0.0)
    return Comparison(tuple(rows))


def _left_out(out) -> str:
    return f"{out.sum()} of {out.size} left out, at a kink or the edge of the domain" if out.any() else ""


def _skipped(name, why) -> LeafComparison:
    return LeafComparison(name, (), 0.0, 0.0, 0.0, (), np.nan, np.nan, note=why, skipped=True)


class Parts:
    """The function as g(floating leaves of x) = Σ dy · fn(x), and as g of one vector of JAX's default float.

    >>> parts = Parts(lambda n, x: n * x, (2, jnp.ones(3)), np.ones(3))
    >>> parts.names, float(parts.value(parts.leaves))
    (['1'], 6.0)
    """

    def __init__(self, fn: Callable, x: tuple, dy: Any):
        flat, self.tree = jax.tree_util.tree_flatten_with_path(x if len(x) > 1 else x[0])
        self.fn, self.dy, self.single = fn, dy, len(x) == 1
        self.all = [jnp.asarray(leaf) for _, leaf in flat]
        self.floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in self.all]
        self.leaves = [leaf for leaf, floats in zip(self.all, self.floating, strict=True) if floats]
        if not self.leaves:
            raise ValueError("gradcheck: got x without a floating array; expected what fn is differentiated by")
        paths = [jax.tree_util.keystr(path, simple=True, separator=".") or "x" for path, _ in flat]
        self.names = [name for name, floats in zip(paths, self.floating, strict=True) if floats]
        self.wide = jnp.result_type(float)
        self.start = jnp.concatenate([leaf.astype(self.wide).ravel() for leaf in self.leaves])
        self.firsts = np.cumsum([0] + [leaf.size for leaf in self.leaves])[:-1]

    def arguments(self, leaves):
        """The arguments of fn with these floating leaves."""
        given = iter(leaves)
        x = jax.tree.unflatten(
            self.tree, [next(given) if f else a for a, f in zip(self.all, self.floating, strict=True)]
        )
        return (x,) if self.single else tuple(x)

    def terms(self, leaves):
        """dy · fn(x), each output's array by itself."""
        y = [a for a in jax.tree.leaves(self.fn(*self.arguments(leaves))) if floating(a)]
        return [jnp.asarray(c, a.dtype) * a for c, a in zip(jax.tree.leaves(self.dy), y, strict=True)]

    def value(self, leaves):
        return sum(jnp.sum(term) for term in self.terms(leaves))

    def automatic(self, leaves):
        return jax.grad(self.value)(leaves)

    def by_hand(self, backward, leaves):
        """The rule's floating gradients, one for each floating leaf."""
        got = jax.tree.leaves(backward(*self.arguments(leaves), jax.tree.map(jnp.asarray, self.dy)))
        if [np.shape(a) for a in got] != [a.shape for a in leaves]:
            raise ValueError(
                f"gradcheck: got gradients of shapes {[np.shape(a) for a in got]} from the rule; expected "
                f"{[a.shape for a in leaves]}, those of x"
            )
        return got

    def split(self, vector):
        """The floating leaves, in the vector's dtype."""
        ends = [*self.firsts[1:], vector.size]
        return [vector[i:j].reshape(a.shape) for i, j, a in zip(self.firsts, ends, self.leaves, strict=True)]

    def rounding(self, tested, near):
        """How much each leaf's gradient may be off because x was rounded, as seen by rounding x once more."""
        moved = [0.0] * len(tested)
        for gradient in near:
            for i, (a, g) in enumerate(zip(self.leaves, gradient, strict=True)):
                change = float(np.abs(np.asarray(g).astype(np.float64) - tested[i]).max(initial=0))
                moved[i] = max(moved[i], change * tolerance(a.dtype) / rounding_unit(a.dtype))
        return moved

    def differences(self, at, lines):
        """(derivative, doubt) along the axes `at` and then along the lines; and the size of what g sums."""
        steps = offsets(self.wide)
        stretch = np.maximum(1.0, np.abs(np.asarray(self.start)[at]))
        lines, axes, long = (jnp.asarray(a) for a in (lines.astype(self.wide), at, stretch.astype(self.wide)))

        def direction(i):
            k = len(at)
            axis = jnp.zeros_like(self.start).at[axes[jnp.minimum(i, k - 1)]].set(long[jnp.minimum(i, k - 1)])
            return jnp.where(i < k, axis, lines[i - k]) if len(lines) else axis

        def both(vector):
            terms = self.terms(self.split(vector))
            return sum(jnp.sum(t) for t in terms), sum(jnp.sum(jnp.abs(t)) for t in terms)

        count = len(at) + len(lines)
        table = jax.jit(lambda start, steps: values_along(both, start, steps, direction, count))
        values, sizes = (np.asarray(a, np.float64) for a in table(self.start, jnp.asarray(steps, self.wide)))
        if not np.isfinite(values[:, 0]).all():
            raise ValueError(
                "gradcheck: got a function that isn't finite at x; expected finite values: choose another x"
            )
        slope, doubt = slopes(values, sizes, self.wide)
        stretch = np.concatenate([stretch, np.ones(len(lines))])
        return slope / stretch, doubt / stretch, float(sizes[:, 0].max(initial=0))

    def forward_mode(self, lines):
        """The derivative along each line by `jax.jvp`."""

        def along(vector):
            tangents = [v.astype(a.dtype) for v, a in zip(self.split(vector), self.leaves, strict=True)]
            return jax.jvp(self.value, (self.leaves,), (tangents,))[1]

        return np.asarray(jax.jit(jax.vmap(along))(jnp.asarray(lines, self.wide)), np.float64)

    def complex_steps(self, at):
        """Im g(x + ih) / h along the axes `at`."""
        h = 1e-20 if jnp.finfo(self.wide).bits >= 64 else 1e-10
        dtype = jnp.result_type(self.wide, jnp.complex64)

        def imaginary(j):
            terms = self.terms(self.split(self.start.astype(dtype).at[j].add(1j * h)))
            return sum(jnp.sum(t) for t in terms).imag / h

        return np.asarray(jax.jit(lambda at: jax.lax.map(imaginary, at))(jnp.asarray(at)), np.float64)
