"""The proof of a layer: its hand-written backward is `jax.vjp` of its apply, leaf by leaf."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

BOUND = 1e-12 if jax.config.jax_enable_x64 else 64 * float(np.finfo(np.float32).eps)


def floating(a):
    return a is not None and jnp.issubdtype(a.dtype, jnp.inexact)


def drawn(*shape, seed=0):
    """Normal numbers in the default float; nothing compiles for them."""
    return jax.device_put(np.random.default_rng(seed).normal(0, 1, shape).astype(jnp.result_type(float)))


@partial(jax.jit, static_argnums=(0, 6))
def both_roads(layer, params, state, x, dy, key, train):
    """(dx's floating leaves, dparams) by hand and by automatic differentiation; dy: its floating leaves."""
    leaves, structure = jax.tree.flatten(x)

    def forward(params, floats):
        given = iter(floats)
        inputs = jax.tree.unflatten(structure, [next(given) if floating(a) else a for a in leaves])
        y, _ = layer.apply(params, state, inputs, key=key, train=train)
        return [a for a in jax.tree.leaves(y) if floating(a)], y

    _, pullback, y = jax.vjp(forward, params, [a for a in leaves if floating(a)], has_aux=True)
    grads, dx = pullback(dy)
    given = iter(dy)
    by_hand = layer.backward(
        params, state, x, jax.tree.map(lambda a: next(given) if floating(a) else None, y), key=key, train=train
    )
    form = jax.tree.structure(jax.tree.map(lambda a: a if floating(a) else None, x))
    assert jax.tree.structure(by_hand[0]) == form, (by_hand[0], form)
    return (jax.tree.leaves(by_hand[0]), by_hand[1]), (dx, grads)


def agree(got, want, bound=BOUND):
    """Two trees of gradients: errors within the bound of max(largest of the leaf, 10⁻³ · largest of the tree)."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    largest = max((float(np.abs(b).max(initial=0)) for b in jax.tree.leaves(want)), default=0.0)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = a.astype(np.float64), b.astype(np.float64)
        scale = max(float(np.abs(b).max(initial=0)), 1e-3 * largest)
        assert np.abs(a - b).max(initial=0) <= bound * scale, (a, b)


def check_backward(layer, params, state, x, *, key=None, train=False, seed=0, bound=BOUND):
    """The proof, for a dy drawn by `seed`; returns what both roads agree on, (dx's leaves, dparams)."""
    y, _ = jax.eval_shape(lambda: layer.apply(params, state, x, key=key, train=train))
    dy = [
        drawn(*a.shape, seed=seed + 100 + i).astype(a.dtype)
        for i, a in enumerate(a for a in jax.tree.leaves(y) if floating(a))
    ]
    by_hand, by_autodiff = both_roads(layer, params, state, x, dy, key, train)
    agree(by_hand, by_autodiff, bound)
    return by_hand
