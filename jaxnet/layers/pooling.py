"""Pooling over windows and over all places of sequences and images, channels last (Goodfellow §9.3).

Ties: of equal maxima the first in row-major order of the window gets the whole gradient, on both roads (torch's rule
too). A NaN in a window is its maximum. Padding is never seen: it's neither a maximum nor counted in an average.
Pooling with "SAME" keeps the last, smaller window (Goodfellow fig. 9.10).
"""

import functools
import itertools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.layers.layer import Layer, as_spec
from jaxnet.layers.windows import Padding, Windows, checked_example, checked_outputs, fold, taps_of, unfold, windows


def max_pool(
    window: tuple[int, ...], *, stride: int | tuple[int, ...] | None = None, padding: Padding = "VALID"
) -> Layer:
    """y[n, o, c] = max over the window of o: of x[n, o s + i − low, c].

    x is (batch, length, channels) for a window (k,), (batch, height, width, channels) for (kh, kw); the stride is the
    window unless given. Backward: dx sums each dy at the first place of its window's maximum.

    Raises:
        TypeError: a window that isn't a tuple; inputs that aren't floating.
        ValueError: settings out of range; inputs of another rank or without room for one window; windows that see
            padding only.

    >>> x = jnp.array([1.0, 3.0, 2.0, 2.0]).reshape(1, 4, 1)
    >>> layer = max_pool((2,))
    >>> layer.apply({}, {}, x)[0].ravel().tolist(), layer.backward({}, {}, x, jnp.ones((1, 2, 1)))[0].ravel().tolist()
    ([3.0, 2.0], [0.0, 1.0, 1.0, 0.0])
    """

    def value(x, geometry):
        for axis in reversed(range(len(geometry.size))):  # the last axis first: the first in row-major order wins
            x = functools.reduce(_first_maximum, taps_of(x, geometry, axis, -math.inf))
        return x

    def backward(x, dy, geometry):
        rows = unfold(x, geometry, -math.inf)
        rows = rows.reshape(*rows.shape[:-1], geometry.taps, -1)
        chosen = jnp.argmax(rows, axis=-2, keepdims=True) == _column(np.arange(geometry.taps), rows.ndim)
        placed = jnp.where(chosen, dy[..., None, :], jnp.zeros((), dy.dtype))
        return fold(placed.reshape(*dy.shape[:-1], -1), geometry, x.shape[1:-1])

    return _pool("max_pool", window, stride, padding, value, backward)


def _first_maximum(a, b):
    """The larger of two arrays, the first where they're equal; the first NaN where there is one."""
    return jnp.where((b > a) | (jnp.isnan(b) & ~jnp.isnan(a)), b, a)


def _column(values, rank):
    return jnp.asarray(values).reshape((1,) * (rank - 2) + (-1, 1))


def average_pool(
    window: tuple[int, ...], *, stride: int | tuple[int, ...] | None = None, padding: Padding = "VALID"
) -> Layer:
    """y[n, o, c] = the mean of x[n, o s + i − low, c] over the places of o's window that aren't padding.

    Shapes, stride and errors are `max_pool`'s. Backward: each place of a window of m places gets dy / m.

    >>> average_pool((3,), stride=2, padding="SAME").apply({}, {}, jnp.arange(6.0).reshape(1, 6, 1))[0].ravel().tolist()
    [1.0, 3.0, 4.5]
    """

    def counts(x, geometry):
        """How many places each window has, 1 × outputs × 1."""
        ones = []
        for axis, n in enumerate(x.shape[1:-1]):
            first = np.arange(geometry.outputs(x.shape[1:-1])[axis]) * geometry.stride[axis]
            first = first - geometry.pads(x.shape[1:-1])[axis][0]
            ones.append(np.minimum(first + geometry.size[axis], n) - np.maximum(first, 0))
        product = functools.reduce(np.multiply.outer, ones)
        return jnp.asarray(product[None, ..., None], x.dtype)

    def value(x, geometry):
        if geometry.tiles(x.shape[1:-1]):  # as a reshape, which alone is fast both ways outside of loops
            sizes = zip(geometry.outputs(x.shape[1:-1]), geometry.size, strict=True)
            cut = x.reshape(x.shape[0], *itertools.chain(*sizes), x.shape[-1])
            return jnp.mean(cut, axis=tuple(range(2, cut.ndim - 1, 2)))
        count = counts(x, geometry)
        for axis in reversed(range(len(geometry.size))):
            x = functools.reduce(operator.add, taps_of(x, geometry, axis))
        return x / count

    def backward(x, dy, geometry):
        share = dy / counts(x, geometry)
        if geometry.tiles(x.shape[1:-1]):
            for axis, k in enumerate(geometry.size):
                share = jnp.repeat(share, k, axis=axis + 1)
            return share
        return fold(jnp.concatenate([share] * geometry.taps, axis=-1), geometry, x.shape[1:-1])

    return _pool("average_pool", window, stride, padding, value, backward)


def _pool(name, window, stride, padding, value, backward) -> Layer:
    """The Layer of `value(x, geometry)` and `backward(x, dy, geometry)`."""
    label = f"{name}({window})"
    general = windows(label, window, window if stride is None else stride, 1, padding)
    axes = len(general.size)

    def geometry_of(x):
        """Windows with explicit padding, for x of this shape."""
        checked_example(label, jax.ShapeDtypeStruct(x.shape[1:], x.dtype), axes)
        spatial = x.shape[1:-1]
        outputs, pads = checked_outputs(label, general, spatial), general.pads(spatial)
        for n, o, k, s, (low, _) in zip(spatial, outputs, general.size, general.stride, pads, strict=True):
            if low >= k or (o - 1) * s - low >= n:
                raise ValueError(
                    f"{label}: got padding {pads} and stride {general.stride} for inputs of spatial shape {spatial}; "
                    "expected no window of padding only: pad less"
                )
        return Windows(general.size, general.stride, general.dilation, pads)

    def init(key, spec):
        example = checked_example(label, spec, axes)
        geometry_of(jax.ShapeDtypeStruct((1, *example.shape), example.dtype))
        return {}, {}

    def apply(params, state, x, *, key=None, train=False):
        x = jnp.asarray(x)
        return value(x, geometry_of(x)), state

    def back(params, state, x, dy, *, key=None, train=False):
        return backward(x, dy, geometry_of(x)), {}

    shown = [("", window), ("stride", general.stride), ("padding", general.padding)]
    plain = {"stride": window, "padding": "VALID"}
    return Layer(name, init, apply, back, tuple((k, v) for k, v in shown if not k or v != plain[k]))


def global_max_pool() -> Layer:
    """y[n, c] = max over all places p of x[n, p, c]: a fixed size from inputs of any size (Goodfellow §9.3).

    x is (batch, *spatial, channels). Backward: the first place of the maximum gets dy.

    Raises:
        TypeError: inputs that aren't floating.
        ValueError: an example without a spatial axis.

    >>> global_max_pool().apply({}, {}, jnp.arange(6.0).reshape(1, 3, 2))[0].tolist()
    [[4.0, 5.0]]
    """

    def places(x):
        return x.reshape(x.shape[0], -1, x.shape[-1])

    def first(x):
        return jnp.argmax(places(x), axis=1, keepdims=True)

    def value(x):  # taken at the first maximum, so that automatic differentiation follows the tie rule
        return jnp.take_along_axis(places(x), first(x), axis=1)[:, 0]

    def backward(x, dy):
        chosen = first(x) == _column(np.arange(places(x).shape[1]), 3)
        return jnp.where(chosen, dy[:, None], jnp.zeros((), dy.dtype)).reshape(x.shape)

    return _global("global_max_pool", value, backward)


def global_average_pool() -> Layer:
    """y[n, c] = mean over all places p of x[n, p, c]: a fixed size from inputs of any size (Goodfellow fig. 9.11).

    Shapes and errors are `global_max_pool`'s. Backward: each of the P places gets dy / P.

    >>> global_average_pool().apply({}, {}, jnp.arange(6.0).reshape(1, 3, 2))[0].tolist()
    [[2.0, 3.0]]
    """

    def value(x):
        return jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))

    def backward(x, dy):
        share = dy / math.prod(x.shape[1:-1])
        return jnp.broadcast_to(share.reshape(dy.shape[0], *(1,) * (x.ndim - 2), -1), x.shape)

    return _global("global_average_pool", value, backward)


def _global(name, value, backward) -> Layer:
    def check(spec):
        example = as_spec(spec)
        if not isinstance(example, jax.ShapeDtypeStruct) or len(example.shape) < 2:
            raise ValueError(f"{name}: got an example of spec {spec}; expected (…, channels) with a spatial axis")
        checked_example(name, example, len(example.shape) - 1)

    def init(key, spec):
        check(spec)
        return {}, {}

    def apply(params, state, x, *, key=None, train=False):
        check(jax.ShapeDtypeStruct(x.shape[1:], x.dtype))
        return value(jnp.asarray(x)), state

    return Layer(name, init, apply, lambda params, state, x, dy, *, key=None, train=False: (backward(x, dy), {}))
