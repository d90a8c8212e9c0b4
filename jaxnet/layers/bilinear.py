"""Bilinear maps whose derivatives are told, in forward and reverse mode, under vmap and to any order.

Automatic differentiation transposes an operation into others that may be slow where our own form isn't. A
`jax.custom_vjp` would give up forward mode, so the transpose is told to the one operation of lax that has both modes,
vmap and a transpose of its own, a linear solve. With the linear map L, the unit triangular system

    [ I   0 ] [ p ]   [ t ]                                                    [ I   Lᵀ ] [ a ]
    [ −L  I ] [ q ] = [ 0 ]  has the solution q = L t, and its transposed one  [ 0   I  ] [ b ] by substitution,

so `fun` computes the solution and `transpose` the transposed one. The matrix itself, which is `plain`, is looked at by
second derivatives alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import custom_vmap

Product = Callable[[Array, Array], Array]


def _one_by_one(product: Product) -> Product:
    """`product`, which under a vmap over both arguments runs in a loop over the members."""
    mapped = custom_vmap(product)

    @mapped.def_vmap
    def rule(size, batched, *arguments):
        if all(batched):
            return lax.map(lambda members: mapped(*members), arguments), True
        return jax.vmap(product, [0 if b else None for b in batched])(*arguments), True

    return mapped


def _linear(fun, transpose, plain, t):
    """fun(t), whose transpose is `transpose` and whose derivatives by anything else are `plain`'s."""
    out = jax.eval_shape(fun, t)
    zeros = lax.pad(t.ravel()[:0], jnp.zeros((), t.dtype), [(0, out.size, 0)])  # 0 as a linear function of t
    return lax.custom_linear_solve(
        lambda b: (b[0], b[1] - plain(b[0])),
        (t, zeros.reshape(out.shape)),
        lambda _, b: (b[0], b[1] + fun(b[0])),
        lambda _, b: (b[0] + transpose(b[1]), b[1]),
    )[1]


def bilinear(product: Product, by_first: Product, by_second: Product, plain: Product, a: Array, b: Array) -> Array:
    """product(a, b), with the gradients by_first(b, dz) and by_second(a, dz) of Σ dz product(a, b).

    `plain` is the same map in operations that JAX differentiates, for derivatives of the derivatives. A vmap over both
    arguments is a loop over the members, over one argument the operations' own batching.

    >>> left, right = lambda b, dz: dz @ b.T, lambda a, dz: a.T @ dz
    >>> f = lambda a, b: bilinear(jnp.matmul, left, right, jnp.matmul, a, b).sum()
    >>> jax.grad(f)(jnp.ones((1, 2)), jnp.array([[3.0], [4.0]])).tolist()
    [[3.0, 4.0]]
    """
    product, by_first, by_second = _one_by_one(product), _one_by_one(by_first), _one_by_one(by_second)

    @jax.custom_jvp
    def value(a, b):
        return product(a, b)

    @value.defjvp
    def derivative(primals, tangents):
        (a, b), (da, db) = primals, tangents
        first = _linear(lambda t: product(t, b), lambda dz: by_first(b, dz), lambda t: plain(t, b), da)
        second = _linear(lambda t: product(a, t), lambda dz: by_second(a, dz), lambda t: plain(a, t), db)
        return value(a, b), first + second

    return value(a, b)
