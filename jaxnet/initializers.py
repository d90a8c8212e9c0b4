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
