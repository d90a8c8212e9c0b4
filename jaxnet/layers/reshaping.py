"""Layers that only rearrange: flatten."""

import math

import jax.numpy as jnp

from jaxnet.layers.layer import Layer, parameterless


def flatten() -> Layer:
    """y[n] = the entries of x[n] in row-major order: (batch, …) to (batch, product); an example () becomes (1,).

    Backward: dx is dy in the shape of x; None for integers.

    >>> flatten().apply({}, {}, jnp.zeros((2, 4, 4, 3)))[0].shape
    (2, 48)
    """

    def apply(x, key, train):
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))

    def backward(x, dy, key, train):
        return dy.reshape(x.shape) if jnp.issubdtype(x.dtype, jnp.inexact) else None

    return parameterless("flatten", apply, backward)
