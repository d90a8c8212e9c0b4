"""Initial values of parameters.

An initializer is `(key, shape, dtype) -> array`, the signature of `jax.nn.initializers`, so those fit too.
For weights the last two axes are (inputs, units) and the axes before them a receptive field:
fan-in = receptive field · inputs, fan-out = receptive field · units.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Initializer = Callable[[Array, tuple[int, ...], jnp.dtype], Array]


def zeros() -> Initializer:
    """0 everywhere: the usual start of biases. Weights of zeros keep all hidden units alike for ever.

    >>> zeros()(jax.random.key(0), (2,), jnp.float32).tolist()
    [0.0, 0.0]
    """
    return constant(0.0)


def constant(value: float) -> Initializer:
    """`value` everywhere; a small positive bias such as 0.1 lets ReLU units start active (Goodfellow §6.3.1).

    >>> constant(0.5)(jax.random.key(0), (2,), jnp.float32).tolist()
    [0.5, 0.5]
    """
    return lambda key, shape, dtype: jnp.full(shape, value, dtype)


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan-in, fan-out) of weights of that shape.

    Raises:
        ValueError: for fewer than two axes.

    >>> fans((784, 256)), fans((3, 3, 16, 32))
    ((784, 256), (144, 288))
    """
    if len(shape) < 2:
        raise ValueError(
            f"got shape {shape}; expected weights with axes (…, inputs, units): use zeros() or constant() for a bias"
        )
    field = math.prod(shape[:-2])
    return field * shape[-2], field * shape[-1]


def variance_scaling(
    scale: float,
    fan: Literal["in", "out", "mean"] = "in",
    distribution: Literal["normal", "uniform"] = "normal",
) -> Initializer:
    """Independent draws with mean 0 and variance `scale` / fan.

    `fan` is fan-in, fan-out or their mean; the distribution is N(0, v) or U[−√(3v), √(3v)]. `scale` may be traced.

    Raises:
        ValueError: for another `fan` or `distribution`.

    >>> w = variance_scaling(1.0, "in", "uniform")(jax.random.key(0), (300, 200), jnp.float32)
    >>> bool(jnp.abs(w).max() <= (3 / 300) ** 0.5)
    True
    """
    if fan not in ("in", "out", "mean"):
        raise ValueError(f'got fan {fan!r}; expected "in", "out" or "mean"')
    if distribution not in ("normal", "uniform"):
        raise ValueError(f'got distribution {distribution!r}; expected "normal" or "uniform"')

    def init(key, shape, dtype):
        fan_in, fan_out = fans(shape)
        units = {"in": fan_in, "out": fan_out, "mean": (fan_in + fan_out) / 2}[fan]
        variance = jnp.asarray(scale, dtype) / units
        if distribution == "normal":
            return jnp.sqrt(variance) * jax.random.normal(key, shape, dtype)
        return jnp.sqrt(3 * variance) * jax.random.uniform(key, shape, dtype, -1, 1)

    return init


def he_normal() -> Initializer:
    """N(0, 2 / fan-in): keeps the second moment through ReLU layers (Bishop eq. 7.23).

    >>> round(float(he_normal()(jax.random.key(0), (200, 500), jnp.float32).var() * 200), 1)
    2.0
    """
    return variance_scaling(2.0, "in", "normal")


def he_uniform() -> Initializer:
    """U[−√(6 / fan-in), √(6 / fan-in)], variance 2 / fan-in.

    >>> round(float(he_uniform()(jax.random.key(0), (200, 500), jnp.float32).var() * 200), 1)
    2.0
    """
    return variance_scaling(2.0, "in", "uniform")


def glorot_normal() -> Initializer:
    """N(0, 2 / (fan-in + fan-out)).

    >>> round(float(glorot_normal()(jax.random.key(0), (200, 500), jnp.float32).var() * 700), 1)
    2.0
    """
    return variance_scaling(1.0, "mean", "normal")


def glorot_uniform() -> Initializer:
    """U[−√(6 / (fan-in + fan-out)), √(6 / (fan-in + fan-out))], the "normalized" rule of Glorot & Bengio 2010.

    The lecture slides print the bound as 6 / √(N + M); the root belongs over the whole fraction.

    >>> w = glorot_uniform()(jax.random.key(0), (200, 500), jnp.float32)
    >>> bool(jnp.abs(w).max() <= (6 / 700) ** 0.5)
    True
    """
    return variance_scaling(1.0, "mean", "uniform")


def gaussian() -> Initializer:
    """N(0, 1 / m) for m inputs: the start of the course notes' SGD algorithm (MIT 6.036 §5).

    The notes call 1/m both variance and standard deviation; it's the variance.

    >>> round(float(gaussian()(jax.random.key(0), (200, 500), jnp.float32).var() * 200), 1)
    1.0
    """
    return variance_scaling(1.0, "in", "normal")


def uniform(limit: float) -> Initializer:
    """U[−limit, limit], whatever the fans.

    >>> bool(jnp.abs(uniform(0.1)(jax.random.key(0), (50,), jnp.float32)).max() <= 0.1)
    True
    """
    return lambda key, shape, dtype: jnp.asarray(limit, dtype) * jax.random.uniform(key, shape, dtype, -1, 1)


def normal(std: float) -> Initializer:
    """N(0, std²), whatever the fans.

    >>> normal(0.1)(jax.random.key(0), (3,), jnp.float32).shape
    (3,)
    """
    return lambda key, shape, dtype: jnp.asarray(std, dtype) * jax.random.normal(key, shape, dtype)


def lecun_normal() -> Initializer:
    """N(0, 1 / fan-in): keeps the variance through linear and SELU layers (LeCun et al. 1998).

    >>> round(float(lecun_normal()(jax.random.key(0), (200, 500), jnp.float32).var() * 200), 1)
    1.0
    """
    return variance_scaling(1.0, "in", "normal")


def lecun_uniform() -> Initializer:
    """U[−√(3 / fan-in), √(3 / fan-in)], variance 1 / fan-in.

    >>> round(float(lecun_uniform()(jax.random.key(0), (200, 500), jnp.float32).var() * 200), 1)
    1.0
    """
    return variance_scaling(1.0, "in", "uniform")


def orthogonal(gain=1.0) -> Initializer:
    """`gain` times a matrix drawn evenly from those with orthonormal columns, WᵀW = I (Saxe et al. 2013).

    By QR of a Gaussian matrix (fan-in, units), each column's sign that of R's diagonal. With more units than fan-in the
    rows are orthonormal. All singular values are `gain`: take √2 for ReLU. `gain` may be traced.

    >>> w = orthogonal()(jax.random.key(0), (4, 3), jnp.float32)
    >>> bool(jnp.allclose(w.T @ w, jnp.eye(3), atol=1e-6))
    True
    """

    def init(key, shape, dtype):
        fan_in, units = fans(shape)[0], shape[-1]
        wide = dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32  # QR knows no narrower
        q, r = jnp.linalg.qr(jax.random.normal(key, (max(fan_in, units), min(fan_in, units)), wide))
        q = q * jnp.where(jnp.diagonal(r) < 0, -jnp.ones_like(r[0]), jnp.ones_like(r[0])).reshape(1, -1)
        return (jnp.asarray(gain, wide) * (q if fan_in >= units else q.T)).reshape(shape).astype(dtype)

    return init


def sparse(incoming: int, std=1.0) -> Initializer:
    """Exactly `incoming` weights of each unit drawn from N(0, std²), at random places; the others 0 (Martens 2010).

    What enters a unit has the same scale whatever the fan-in. `std` may be traced.

    Raises:
        ValueError: `incoming` isn't a positive integer, or is above the fan-in.

    >>> (sparse(2)(jax.random.key(0), (5, 3), jnp.float32) != 0).sum(0).tolist()
    [2, 2, 2]
    """
    if isinstance(incoming, bool) or not isinstance(incoming, int) or incoming < 1:
        raise ValueError(f"got sparse({incoming!r}); expected a positive integer number of incoming weights")

    def init(key, shape, dtype):
        fan_in, units = fans(shape)[0], shape[-1]
        if incoming > fan_in:
            raise ValueError(
                f"sparse: got {incoming} incoming weights for a fan-in of {fan_in}; expected at most {fan_in}: "
                "take fewer, or a dense initializer"
            )
        key_place, key_value = jax.random.split(key)
        order = jnp.argsort(jax.random.uniform(key_place, (fan_in, units)), axis=0)
        values = jnp.asarray(std, dtype) * jax.random.normal(key_value, (fan_in, units), dtype)
        return jnp.where(order < incoming, values, jnp.zeros_like(values)).reshape(shape)

    return init


def class_marginals(frequencies) -> Initializer:
    """The output bias b with softmax(b) = c, the classes' frequencies: b = log c (Goodfellow §8.4).

    The mean prediction starts at c and the loss at c's entropy instead of log k. `frequencies` are k shares or counts,
    `jnp.bincount(y)`; a single logit for two classes gets logit(c₁) = log c₁ − log c₀.
    What the weights add comes on top.

    Raises:
        ValueError: not k ≥ 2 positive finite numbers; a bias of another shape than (k,), or (1,) for k = 2.

    >>> jax.nn.sigmoid(class_marginals([1, 3])(jax.random.key(0), (1,), jnp.float32)).round(4).tolist()
    [0.75]
    """
    counts = np.asarray(frequencies, np.float64)
    if counts.ndim != 1 or counts.size < 2 or not (np.isfinite(counts) & (counts > 0)).all():
        raise ValueError(
            f"got class_marginals({frequencies!r}); expected one positive number for each of two or more classes: "
            "give a class without examples a count of 1"
        )
    bias = np.log(counts / counts.sum())

    def init(key, shape, dtype):
        if shape == (1,) and counts.size == 2:
            return jnp.asarray(bias[1:] - bias[:1], dtype)
        if shape != bias.shape:
            raise ValueError(
                f"class_marginals of {counts.size} classes: got a bias of shape {shape}; expected {bias.shape}"
                + (" or (1,)" if counts.size == 2 else "")
                + ": give it to the last layer, dense(…, bias_init=class_marginals(…))"
            )
        return jnp.asarray(bias, dtype)

    return init


def inverse_softplus(value):
    """x with log(1 + eˣ) = value, the start of an output that passes through softplus: x = v + log(1 − e⁻ᵛ).

    `value` is a positive number or array; where it isn't, x is NaN or −∞ (Goodfellow eq. 3.39). For an array
    of any float dtype, and stable: log(eᵛ − 1) overflows.

    >>> round(float(inverse_softplus(1.0)), 6)
    0.541325
    """
    value = jnp.asarray(value, jnp.result_type(float) if isinstance(value, (int, float)) else None)
    return value + jnp.log(-jnp.expm1(-value))
