"""Convolutions that don't share one kernel over all places: locally connected and tiled (Goodfellow §9.5).

    local        every place has its own kernel                     eq. 9.9, fig. 9.14
    tiled_conv   t kernels take turns, place o uses kernel o mod t  eq. 9.10, fig. 9.16

With one tile the tiled convolution is a convolution, with as many tiles as outputs it is locally connected. Biases
are shared exactly as the kernels are.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import initializers
from jaxnet.layers.layer import Layer
from jaxnet.layers.windows import Padding, checked_example, checked_outputs, fold, unfold, windows


def local(
    units: int,
    kernel: tuple[int, ...],
    *,
    stride: int | tuple[int, ...] = 1,
    dilation: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    bias: bool = True,
    weight_init: initializers.Initializer | None = None,
    bias_init: initializers.Initializer | None = None,
) -> Layer:
    """z[n, o, u] = Σ_{i, c} x[n, o s + i d − low, c] w[o, i, c, u] + b[o, u]: unshared convolution (eq. 9.9).

    x is (batch, *spatial, inputs); parameters are `w` (*outputs, *kernel, inputs, units) and, with `bias`, `b`
    (*outputs, units): the layer is made for one size of inputs. Backward, with X the windows of x:
    dw[o] = Σ_n X[n, o]ᵀ dz[n, o], db = Σ_n dz, and dx sums dz[n, o] w[o]ᵀ over the windows that an input is in.
    Each place's initial kernel is drawn on its own, with the fans of one kernel.

    Raises:
        TypeError: a kernel that isn't a tuple; inputs that aren't floating.
        ValueError: settings out of range; inputs of another shape than the weights were made for.

    >>> params, _ = local(4, (3,), padding="VALID").init(jax.random.key(0), (10, 2))
    >>> params["w"].shape, params["b"].shape
    ((8, 3, 2, 4), (8, 4))
    """
    return _unshared("local", units, kernel, None, stride, dilation, padding, bias, weight_init, bias_init)


def tiled_conv(
    units: int,
    kernel: tuple[int, ...],
    tiles: tuple[int, ...],
    *,
    stride: int | tuple[int, ...] = 1,
    dilation: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    bias: bool = True,
    weight_init: initializers.Initializer | None = None,
    bias_init: initializers.Initializer | None = None,
) -> Layer:
    """z[n, o, u] = Σ_{i, c} x[n, o s + i d − low, c] w[o mod t, i, c, u] + b[o mod t, u]: tiled (eq. 9.10).

    `tiles` is t, the number of kernels that take turns along each axis. Parameters are `w` (*tiles, *kernel, inputs,
    units) and, with `bias`, `b` (*tiles, units). Backward is `local`'s, dw and db summed over the places of a tile.

    Raises:
        TypeError, ValueError: as in `local`; more tiles than outputs.

    >>> params, _ = tiled_conv(4, (3,), (2,)).init(jax.random.key(0), (10, 2))
    >>> params["w"].shape, params["b"].shape
    ((2, 3, 2, 4), (2, 4))
    """
    return _unshared("tiled_conv", units, kernel, tiles, stride, dilation, padding, bias, weight_init, bias_init)


def _unshared(name, units, kernel, tiles, stride, dilation, padding, bias, weight_init, bias_init) -> Layer:
    """The Layer of both; tiles=None is a tile per place."""
    label = f"{name}({units}, {kernel}{'' if tiles is None else f', {tiles}'})"
    geometry = windows(label, kernel, stride, dilation, padding)
    axes = len(geometry.size)
    if not isinstance(units, int) or isinstance(units, bool) or units < 1:
        raise ValueError(f"{label}: got units={units!r}; expected a positive integer")
    if tiles is not None:
        windows(f"{label}: tiles", tiles, 1, 1, "VALID")
        if len(tiles) != axes:
            raise ValueError(f"{label}: got tiles {tiles}; expected {axes} positive integers in a tuple")
    weight_init = weight_init or initializers.glorot_uniform()
    bias_init = bias_init or initializers.zeros()

    def shape_of_tiles(spatial):
        outputs = checked_outputs(label, geometry, spatial)
        if tiles is not None and any(t > n for t, n in zip(tiles, outputs, strict=True)):
            raise ValueError(
                f"{label}: got tiles {tiles} for outputs of shape {outputs}; expected no more than outputs"
            )
        return tiles or outputs

    def tile_of_places(spatial):
        """For each output place in order, the index of its tile among all."""
        used = shape_of_tiles(spatial)
        places = np.indices(geometry.outputs(spatial)).reshape(axes, -1)
        return np.ravel_multi_index(tuple(p % t for p, t in zip(places, used, strict=True)), used)

    def spread(leaf, spatial, tail):
        """A parameter with a leading axis of places: itself, or each place's tile."""
        leaf = leaf.reshape(-1, *tail)
        return leaf if tiles is None else leaf[tile_of_places(spatial)]

    def gathered(grads, spatial, shape):
        """The adjoint of `spread`."""
        if tiles is not None:
            grads = jnp.zeros((math.prod(tiles), *grads.shape[1:]), grads.dtype).at[tile_of_places(spatial)].add(grads)
        return grads.reshape(shape)

    def rows_of(x):
        """Windows as (batch, places, taps · inputs)."""
        rows = unfold(x, geometry)
        return rows.reshape(rows.shape[0], -1, rows.shape[-1])

    def init(key, spec):
        example = checked_example(label, spec, axes)
        used = shape_of_tiles(example.shape[:-1])
        key_w, key_b = jax.random.split(key)
        one = (*geometry.size, example.shape[-1], units)
        keys = jax.random.split(key_w, math.prod(used))
        w = jax.vmap(lambda k: weight_init(k, one, example.dtype))(keys)
        params = {"w": w.reshape(*used, *one)}
        if bias:
            params["b"] = bias_init(key_b, (*used, units), example.dtype)
        return params, {}

    def apply(params, state, x, *, key=None, train=False):
        w, x = params["w"], jnp.asarray(x)
        checked_example(label, jax.ShapeDtypeStruct(x.shape[1:], x.dtype), axes)
        spatial = x.shape[1:-1]
        expected = (*shape_of_tiles(spatial), *geometry.size, x.shape[-1], units)
        if w.shape != expected or w.dtype != x.dtype:
            raise ValueError(
                f"{label}: got inputs of shape {x.shape} and dtype {x.dtype} for weights of shape {w.shape} and "
                f"{w.dtype}; expected weights of shape {expected}: give the data and the `spec` of init the same shape"
            )
        z = jnp.einsum("npk,pku->npu", rows_of(x), spread(w, spatial, (geometry.taps * x.shape[-1], units)))
        if bias:
            z = z + spread(params["b"], spatial, (units,))[None]
        return z.reshape(x.shape[0], *geometry.outputs(spatial), units), state

    def backward(params, state, x, dz, *, key=None, train=False):
        w, spatial = params["w"], x.shape[1:-1]
        dz = dz.reshape(dz.shape[0], -1, units)
        kernels = spread(w, spatial, (geometry.taps * x.shape[-1], units))
        rows = jnp.einsum("npu,pku->npk", dz, kernels).reshape(dz.shape[0], *geometry.outputs(spatial), -1)
        grads = {"w": gathered(jnp.einsum("npk,npu->pku", rows_of(x), dz), spatial, w.shape)}
        if bias:
            grads["b"] = gathered(jnp.sum(dz, axis=0), spatial, params["b"].shape)
        return fold(rows, geometry, spatial), grads

    shown = [("", units), ("", kernel), *([("", tiles)] if tiles else []), ("stride", geometry.stride)]
    shown += [("dilation", geometry.dilation), ("padding", geometry.padding), ("bias", bias)]
    plain = {"stride": (1,) * axes, "dilation": (1,) * axes, "padding": "SAME", "bias": True}
    return Layer(name, init, apply, backward, tuple((k, v) for k, v in shown if not k or v != plain[k]))
