"""Layers that are random in training and the identity in inference: dropout, Gaussian noise."""

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


def gaussian_noise(std, *, multiplicative: bool = False) -> Layer:
    """y = x + σ n or, `multiplicative`, x ⊙ (1 + σ n) in training, n ~ N(0, 1) per entry; y = x in inference.

    Both keep E[y] = x, so inference scales nothing. `std` is σ ≥ 0; it may be traced. Backward: dx = dy, or
    dy ⊙ (1 + σ n) with the same n, from the same key. On the inputs additive noise acts like weight decay: for a linear
    model with squared error exactly like the penalty ½ σ² ‖w‖² (MIT 6.036 §8.1; Goodfellow §7.4). On hidden units σ
    must be tuned. Multiplicative noise with σ = 1 can beat binary dropout (Goodfellow §7.12; Srivastava et al. 2014).

    Raises:
        ValueError: a negative or non-finite std; training without a key.

    >>> layer, x = gaussian_noise(0.1), jnp.ones((1, 2))
    >>> y, _ = layer.apply({}, {}, x, key=jax.random.key(0), train=True)
    >>> bool((y != x).all()), layer.apply({}, {}, x)[0] is x
    (True, True)
    """
    static = isinstance(std, (int, float, np.number))
    if isinstance(std, (bool, str)) or (static and not 0 <= std < np.inf):
        raise ValueError(f"got gaussian_noise(std={std!r}); expected a standard deviation ≥ 0")
    never = static and std == 0

    def noise(x, key):
        """σ n, shape and dtype of x."""
        if key is None:
            raise ValueError("gaussian_noise in training got key=None; expected a key: pass key=jax.random.key(…)")
        return jnp.asarray(std, x.dtype) * jax.random.normal(key, x.shape, x.dtype)

    def apply(x, key, train):
        if not train or never:
            return x
        return x * (1 + noise(x, key)) if multiplicative else x + noise(x, key)

    def backward(x, dy, key, train):
        return dy * (1 + noise(x, key)) if multiplicative and train and not never else dy

    settings = (("", std), ("multiplicative", True)) if multiplicative else (("", std),)
    return parameterless("gaussian_noise", apply, backward, settings)
