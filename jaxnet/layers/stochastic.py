"""Layers that are random in training: dropout."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.layers.layer import Layer, parameterless

_LEVELS = 65536  # a 16-bit draw per unit: half the random bits of a 32-bit one


def dropout(rate) -> Layer:
    """y = x ⊙ m / (1 − rate) in training, with m ~ Bernoulli(1 − rate) per example and unit; y = x in inference.

    `rate` is the probability to DROP a unit, in [0, 1]; it may be traced, so that a study can sweep it. It is
    rounded to a multiple of 2⁻¹⁶ and the scale uses the rounded rate, so E[y] = x holds exactly. rate = 1 gives
    y = 0. Backward: dx = dy ⊙ m / (1 − rate) with the same mask, from the same key (Goodfellow §7.12; the course
    notes' rule that scales by p in inference needs p to be the keep probability).

    Raises:
        ValueError: a rate outside [0, 1]; training without a key.

    >>> y, _ = dropout(0.5).apply({}, {}, jnp.ones((1, 4)), key=jax.random.key(1), train=True)
    >>> sorted(set(y[0].tolist())) in ([0.0], [2.0], [0.0, 2.0])
    True
    """
    if isinstance(rate, (bool, str)) or (isinstance(rate, (int, float, np.number)) and not 0 <= rate <= 1):
        raise ValueError(f"got dropout(rate={rate!r}); expected the probability to drop a unit, in [0, 1]")
    never = isinstance(rate, (int, float, np.number)) and rate == 0

    def mask(x, key):
        """m / (1 − rate), shape and dtype of x."""
        if key is None:
            raise ValueError("dropout in training got key=None; expected a key: pass key=jax.random.key(…)")
        count = x.size
        words = jax.random.bits(key, ((count + 1) // 2,), jnp.uint32)
        draws = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:count].reshape(x.shape)
        dropped = jnp.round(jnp.asarray(rate, jnp.float32) * _LEVELS).astype(jnp.int32)  # of 65,536 draws
        kept = (_LEVELS - dropped).astype(x.dtype)
        scale = jnp.where(kept > 0, _LEVELS / jnp.where(kept > 0, kept, jnp.ones_like(kept)), jnp.zeros_like(kept))
        return jnp.where(draws.astype(jnp.int32) >= dropped, scale, jnp.zeros_like(scale))

    def apply(x, key, train):
        return x * mask(x, key) if train and not never else x

    def backward(x, dy, key, train):
        return dy * mask(x, key) if train and not never else dy

    return parameterless("dropout", apply, backward, (("", rate),))
