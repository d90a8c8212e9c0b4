"""The gradient of a batch from its pieces, one after another: the memory of one piece, the result of the whole."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.gradients.roads import GradientFunction


def accumulated(gradient: GradientFunction, pieces: int) -> GradientFunction:
    """`gradient` of a batch as the weighted mean of its microbatches' gradients, summed in a scan (Goodfellow §6.5.8).

    Σ_k W_k ∇L_k / Σ_k W_k, with W_k the piece's examples, or the sum of their weights. The pieces' sizes differ by at
    most one. State passes from piece to piece; piece k gets the key folded with k. Without dropout, other noise and
    batch statistics it is the whole batch's gradient.

    Args:
        pieces: how many microbatches, at least 1; a batch with fewer examples is cut into single examples.

    Raises:
        ValueError: for fewer than one piece.

    >>> def gradient(params, state, batch, *, key=None, train=False):
    ...     return (jnp.mean(batch[0]) * params, state), jnp.mean(batch[0])
    >>> round(float(accumulated(gradient, 3)(jnp.ones(()), {}, (jnp.arange(7.0), jnp.zeros(7)))[1]), 4)
    3.0
    """
    if isinstance(pieces, bool) or not isinstance(pieces, int) or pieces < 1:
        raise ValueError(f"accumulated: got pieces={pieces!r}; expected a whole number of microbatches ≥ 1")

    def accumulated_gradient(params, state, batch, *, key=None, train=False):
        count = jax.tree.leaves(batch)[0].shape[0]
        size, longer = divmod(count, min(pieces, count))  # so many of size + 1 first
        carry: Any = None
        for first, number, length in ((0, longer, size + 1), (longer, min(pieces, count) - longer, size)):
            if number == 0:
                continue
            start = first * (size + 1)
            cut = jax.tree.map(
                lambda a, start=start, number=number, length=length: a[start : start + number * length].reshape(
                    number, length, *a.shape[1:]
                ),
                batch,
            )
            if carry is None:
                carry = _zero(gradient, params, state, jax.tree.map(lambda a: a[0], cut), key, train)

            def body(carry, at):
                (state, total, loss, grads), (k, piece) = carry, at
                own = None if key is None else jax.random.fold_in(key, k)
                (value, state), slopes = gradient(params, state, piece, key=own, train=train)
                w = jnp.sum(piece[2]) if len(piece) == 3 else jnp.asarray(jax.tree.leaves(piece)[0].shape[0])
                w = w.astype(total.dtype)
                grads = jax.tree.map(lambda s, g: s + w.astype(g.dtype) * g, grads, slopes)
                return (state, total + w, loss + w * value, grads), None

            carry, _ = jax.lax.scan(body, carry, (first + jnp.arange(number), cut))
        state, total, loss, grads = carry
        share = 1 / jnp.where(total == 0, jnp.ones_like(total), total)
        return (loss * share, state), jax.tree.map(lambda g: g * share.astype(g.dtype), grads)

    return accumulated_gradient


def _zero(gradient, params, state, piece, key, train):
    """The carry before the first piece: (state, Σ W, Σ W L, Σ W ∇L)."""
    (loss, _), grads = jax.eval_shape(lambda: gradient(params, state, piece, key=key, train=train))
    zero = jnp.zeros((), loss.dtype)
    return state, zero, zero, jax.tree.map(lambda g: jnp.zeros(g.shape, g.dtype), grads)
