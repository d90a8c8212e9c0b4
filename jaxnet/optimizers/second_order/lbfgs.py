"""L-BFGS: BFGS's direction from the last m pairs (s, y), never forming the matrix.

M is what BFGS makes of γ I, γ = sᵀy / yᵀy of the newest pair, by the last m updates. Written out (Byrd, Nocedal &
Schnabel 1994; Nocedal & Wright eq. 7.24), with S, Y the pairs in their order of age, R the upper triangle of SᵀY (its
diagonal included) and D its diagonal:

    w = R⁻¹ Sᵀg
    M g = γ g + S R⁻ᵀ((D + γ YᵀY) w − γ Yᵀg) − γ Y w

which is the two-loop recursion's result in two passes over the pairs instead of 4m dependent ones. The pairs are
stacked leaf by leaf in a ring; the m × m products are kept, one column of them is made in a step.

With m = 1 and no scaling it's the book's memoryless BFGS (Goodfellow eqs. 8.37–8.39), −g + a s + b y: the book has
its coefficients a and b swapped.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet import outcomes
from jaxnet.optimizers.second_order.line_search import Search, first_trial, strong_wolfe
from jaxnet.optimizers.second_order.method import Method, Move, dot, method
from jaxnet.optimizers.second_order.quasi_newton import curved


class Pairs(NamedTuple):
    """The last m pairs, pair k in slot k mod m; a slot that holds none is 0."""

    both: Any  # like params with a leading axis of 2m: s in rows 0 … m − 1, y in m … 2m − 1
    products: Array  # (2m, m) column j is both · y_j, its newest column to be made
    number: Array  # () int32, pairs stored so far


def lbfgs(memory: int = 10, scaling: bool = True, search: Search | None = None) -> Method:
    """L-BFGS (Liu & Nocedal 1989; Nocedal & Wright alg. 7.5): O(m P) memory and work a step.

    A step is one evaluation in the common case: α = 1 is tried first. A pair whose curvature sᵀy isn't positive is
    left out. If no step along the direction is found, the pairs are forgotten; if none is found along −g, the method
    has stalled.

    Args:
        memory: m, the pairs kept.
        scaling: γ as above; without it γ = 1.
        search: `strong_wolfe()` by default.

    Raises:
        ValueError: memory < 1.

    >>> import jaxnet as jn
    >>> from jaxnet.optimizers.second_order import minimize
    >>> found = minimize(lambda p: 100 * (p[1] - p[0]**2)**2 + (1 - p[0])**2, jnp.array([-1.2, 1.0]), method=lbfgs(),
    ...                  gradient_tolerance=1e-3)
    >>> [round(float(p), 3) for p in found.params]
    [1.0, 1.0]
    """
    if isinstance(memory, bool) or not isinstance(memory, int) or memory < 1:
        raise ValueError(f"lbfgs: got memory={memory!r}; expected an integer ≥ 1")
    search = search or strong_wolfe()

    def first(problem, params, value, gradient):
        both = jax.tree.map(lambda p: jnp.zeros((2 * memory, *p.shape), p.dtype), params)
        return Pairs(both, jnp.zeros((2 * memory, memory), value.dtype), jnp.zeros((), jnp.int32))

    def move(problem, state):
        pairs, old = state.memory, state.gradient
        direction, products = directed(pairs, old, scaling)
        slope = dot(old, direction).astype(state.value.dtype)
        never = jnp.zeros_like(slope)
        trial = jnp.where(pairs.number > 0, jnp.ones_like(slope), first_trial(state, slope, never, never))
        found = search.along(problem, state, direction, trial)
        s = jax.tree.map(jnp.subtract, found.params, state.params)
        y = jax.tree.map(jnp.subtract, found.gradient, old)
        good = found.ok & curved(dot(s, y), dot(s, s), dot(y, y))
        after = Pairs(
            jax.tree.map(lambda rows, *new: stored(rows, new, pairs.number, good), pairs.both, s, y),
            products,
            jnp.where(found.ok, pairs.number + good, 0).astype(jnp.int32),
        )
        outcome = jnp.where(found.ok | (pairs.number > 0), outcomes.RUNNING, outcomes.STALLED)
        return Move(found.params, found.value, found.gradient, after, found.evaluations, outcome)

    return method(f"lbfgs({memory}, {search.name})", first, move)


def directed(pairs: Pairs, gradient: Any, scaling: bool = True) -> tuple[Any, Array]:
    """−M g, like params, and the products with the newest pair's column made.

    >>> s, y = jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0])
    >>> pairs = Pairs(jnp.stack([s, y]), jnp.zeros((2, 1)), jnp.array(1))
    >>> jax.jit(directed)(pairs, jnp.array([1.0, 1.0]))[0].tolist()
    [-0.5, -0.5]
    """
    m = pairs.products.shape[1]
    dtype = pairs.products.dtype
    newest = (pairs.number - 1) % m
    y = jax.tree.map(lambda rows: jax.lax.dynamic_index_in_dim(rows, m + newest, keepdims=False), pairs.both)
    projected = along(pairs.both, gradient).astype(dtype)
    column = along(pairs.both, y).astype(dtype)
    products = jax.lax.dynamic_update_index_in_dim(pairs.products, column, newest, 1)
    products = jax.lax.dynamic_update_index_in_dim(products, column[m:], m + newest, 0)  # YᵀY is symmetric

    order = (pairs.number + jnp.arange(m)) % m  # slots by age; those that hold none first
    held = jnp.arange(m) >= m - pairs.number
    sg, yg = (jnp.where(held, p[order], 0.0) for p in (projected[:m], projected[m:]))
    grid = held[:, None] & held[None, :]
    sy, yy = (jnp.where(grid, p[order][:, order], 0.0) for p in (products[:m], products[m:]))
    diagonal = jnp.diagonal(sy)
    gamma = jnp.ones((), dtype)
    if scaling:
        gamma = jnp.where(pairs.number > 0, diagonal[-1] / jnp.where(yy[-1, -1] > 0, yy[-1, -1], 1.0), gamma)
    upper = jnp.triu(sy) + jnp.diag(jnp.where(held, 0.0, 1.0).astype(dtype))
    w = jax.scipy.linalg.solve_triangular(upper, sg)
    inner = diagonal * w + gamma * (jnp.matmul(yy, w, precision="highest") - yg)
    of_s, of_y = jax.scipy.linalg.solve_triangular(upper, inner, trans=1), -gamma * w
    weights = jnp.concatenate([jnp.zeros(m, dtype).at[order].set(of_s), jnp.zeros(m, dtype).at[order].set(of_y)])

    def leaf(rows, g):
        mixed = jnp.tensordot(weights.astype(g.dtype), rows, 1, precision="highest")
        return -(gamma.astype(g.dtype) * g + mixed)

    return jax.tree.map(leaf, pairs.both, gradient), products


def along(both: Any, vector: Any) -> Array:
    """Each row's product with the vector, (rows,), summed over the leaves.

    >>> along({"w": jnp.eye(2)}, {"w": jnp.array([3.0, 4.0])}).tolist()
    [3.0, 4.0]
    """
    products = jax.tree.map(lambda rows, v: jnp.tensordot(rows, v, v.ndim, precision="highest"), both, vector)
    return jnp.sum(jnp.stack(jax.tree.leaves(products)), axis=0)


def stored(rows: Array, pair: tuple[Array, Array], count: Array, good: Array) -> Array:
    """The rows of one leaf with the pair in the next slot, unchanged where it isn't good.

    >>> stored(jnp.zeros((2, 1)), (jnp.ones(1), jnp.ones(1)), jnp.array(3), jnp.array(True)).tolist()
    [[1.0], [1.0]]
    """
    m = rows.shape[0] // 2
    for slot, new in zip((count % m, m + count % m), pair, strict=True):
        kept = jax.lax.dynamic_index_in_dim(rows, slot, keepdims=False)
        rows = jax.lax.dynamic_update_index_in_dim(rows, jnp.where(good, new, kept), slot, 0)
    return rows
