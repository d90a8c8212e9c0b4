"""The three maps that convolutional layers are made of; each is linear in both of its arguments.

They are one another's derivatives. Like every library's, the "convolution" is a cross-correlation: the kernel isn't
flipped (Goodfellow eq. 9.6).

    convolve(x, w)          c(K, V), eq. 9.8     z[n, o, u] = Σ_{i, c} x[n, o s + i d − low, c] w[i, c, u]
    input_gradient(w, dz)   h(K, G), eq. 9.13    the gradient of Σ z dz by x: a convolution of dz, dilated by s
    kernel_gradient(x, dz)  g(G, V), eq. 9.11    the gradient of Σ z dz by w: a convolution of x with dz as the kernel

`convolve_patches` and `transpose_patches` are the first two as matrix products; `convolve_direct` and
`transpose_direct` are the first two with the other maps as their derivatives, where JAX's own are slow in loops.
With groups, the channels of inputs and outputs are cut into as many blocks, and block meets block (fig. 9.15).
"""

import jax.numpy as jnp
from jax import Array, lax

from jaxnet.layers.bilinear import bilinear
from jaxnet.layers.windows import Windows, fold, unfold

_LETTERS = "DHW"  # of up to three spatial axes


def _conv(x, w, stride, pads, x_dilation, w_dilation, groups=1, batch_groups=1):
    """lax's convolution with operands in its canonical order, the only one that is fast everywhere on a CPU."""
    places = _LETTERS[-(x.ndim - 2) :]
    order = ("N" + places + "C", places + "IO", "N" + places + "C")
    return lax.conv_general_dilated(x, w, stride, pads, x_dilation, w_dilation, order, groups, batch_groups)


def swapped(w: Array, groups: int) -> Array:
    """Inputs and outputs of a kernel exchanged, (…, a, groups · b) to (…, b, groups · a); its own inverse.

    >>> swapped(jnp.zeros((3, 2, 8)), 4).shape
    (3, 2, 8)
    """
    a, b = w.shape[-2], w.shape[-1] // groups
    return jnp.swapaxes(w.reshape(*w.shape[:-1], groups, b), -1, -3).reshape(*w.shape[:-2], b, groups * a)


def convolve(x: Array, w: Array, geometry: Windows, groups: int = 1) -> Array:
    """c(K, V): the convolution of x (batch, *spatial, inputs) with w (*kernel, inputs / groups, units).

    >>> from jaxnet.layers.windows import windows
    >>> x, w = jnp.arange(4.0).reshape(1, 4, 1), jnp.array([-1.0, 1.0]).reshape(2, 1, 1)
    >>> convolve(x, w, windows("", (2,), 1, 1, "VALID"))[0, :, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    ones = (1,) * len(geometry.size)
    return _conv(x, w, geometry.stride, geometry.pads(x.shape[1:-1]), ones, geometry.dilation, groups)


def input_gradient(w: Array, dz: Array, geometry: Windows, spatial: tuple[int, ...], groups: int = 1) -> Array:
    """h(K, G): dx[n, p, c] = Σ over o s + i d − low = p, and u, of dz[n, o, u] w[i, c, u]; `spatial` is x's shape.

    As a convolution: dz with s − 1 zeros between its entries, the kernel flipped, inputs and units exchanged
    (Goodfellow eq. 9.13). Several sizes of x lead to one size of dz when the stride exceeds 1, so it has to be told.

    >>> from jaxnet.layers.windows import windows
    >>> dz, w = jnp.ones((1, 3, 1)), jnp.array([-1.0, 1.0]).reshape(2, 1, 1)
    >>> input_gradient(w, dz, windows("", (2,), 1, 1, "VALID"), (4,))[0, :, 0].tolist()
    [-1.0, 0.0, 0.0, 1.0]
    """
    axes = range(len(geometry.size))
    pads = []
    for n, o, s, k, (low, _) in zip(
        spatial, dz.shape[1:-1], geometry.stride, geometry.extent, geometry.pads(spatial), strict=True
    ):
        pads.append((k - 1 - low, n + low - ((o - 1) * s + 1)))
    flipped = jnp.flip(swapped(w, groups), axis=tuple(axes))
    return _conv(dz, flipped, (1,) * len(axes), pads, geometry.stride, geometry.dilation, groups)


def kernel_gradient(x: Array, dz: Array, geometry: Windows, groups: int = 1) -> Array:
    """g(G, V): dw[i, c, u] = Σ_{n, o} dz[n, o, u] x[n, o s + i d − low, c].

    As a convolution: the examples are the channels, dz is the kernel, stride and dilation change places
    (Goodfellow eq. 9.11).

    >>> from jaxnet.layers.windows import windows
    >>> x, dz = jnp.arange(4.0).reshape(1, 4, 1), jnp.ones((1, 3, 1))
    >>> kernel_gradient(x, dz, windows("", (2,), 1, 1, "VALID"))[:, 0, 0].tolist()
    [3.0, 6.0]
    """
    spatial = x.shape[1:-1]
    pads = []
    for n, o, s, k, (low, _) in zip(
        spatial, dz.shape[1:-1], geometry.stride, geometry.extent, geometry.pads(spatial), strict=True
    ):
        pads.append((low, k + (o - 1) * s - n - low))
    ones = (1,) * len(spatial)
    images, kernels = jnp.swapaxes(x, 0, -1), jnp.moveaxis(dz, 0, -2)
    return jnp.moveaxis(_conv(images, kernels, geometry.dilation, pads, ones, geometry.stride, 1, groups), 0, -2)


def convolve_patches(x: Array, w: Array, geometry: Windows, groups: int = 1) -> Array:
    """`convolve` as a matrix product: every window a row.

    >>> from jaxnet.layers.windows import windows
    >>> x, w = jnp.arange(4.0).reshape(1, 4, 1), jnp.array([-1.0, 1.0]).reshape(2, 1, 1)
    >>> convolve_patches(x, w, windows("", (2,), 1, 1, "VALID"))[0, :, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    rows, taps, units = unfold(x, geometry), geometry.taps, w.shape[-1]
    if groups == 1:
        return rows @ w.reshape(-1, units)
    blocks, kernel = rows.reshape(*rows.shape[:-1], taps, groups, -1), w.reshape(taps, -1, groups, units // groups)
    return jnp.einsum("...tgc,tcgu->...gu", blocks, kernel).reshape(*rows.shape[:-1], units)


def transpose_patches(w: Array, dz: Array, geometry: Windows, spatial: tuple[int, ...], groups: int = 1) -> Array:
    """`input_gradient` as a matrix product: every entry of dz a window of dx, summed where windows overlap.

    >>> from jaxnet.layers.windows import windows
    >>> dz, w = jnp.ones((1, 3, 1)), jnp.array([-1.0, 1.0]).reshape(2, 1, 1)
    >>> transpose_patches(w, dz, windows("", (2,), 1, 1, "VALID"), (4,))[0, :, 0].tolist()
    [-1.0, 0.0, 0.0, 1.0]
    """
    kernel = w.reshape(geometry.taps, w.shape[-2], groups, -1)
    blocks = dz.reshape(*dz.shape[:-1], groups, -1)
    return fold(jnp.einsum("...gu,tcgu->...tgc", blocks, kernel).reshape(*dz.shape[:-1], -1), geometry, spatial)


def convolve_direct(x: Array, w: Array, geometry: Windows, groups: int = 1) -> Array:
    """`convolve` with `input_gradient` and `kernel_gradient` as its derivatives.

    >>> from jaxnet.layers.windows import windows
    >>> x, w = jnp.arange(4.0).reshape(1, 4, 1), jnp.array([-1.0, 1.0]).reshape(2, 1, 1)
    >>> convolve_direct(x, w, windows("", (2,), 1, 1, "VALID"))[0, :, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    spatial = x.shape[1:-1]
    return bilinear(
        lambda x, w: convolve(x, w, geometry, groups),
        lambda w, dz: input_gradient(w, dz, geometry, spatial, groups),
        lambda x, dz: kernel_gradient(x, dz, geometry, groups),
        lambda x, w: convolve_patches(x, w, geometry, groups),
        x,
        w,
    )


def transpose_direct(w: Array, dz: Array, geometry: Windows, spatial: tuple[int, ...], groups: int = 1) -> Array:
    """`input_gradient` with `kernel_gradient` and `convolve` as its derivatives.

    >>> from jaxnet.layers.windows import windows
    >>> dz, w = jnp.ones((1, 3, 1)), jnp.array([-1.0, 1.0]).reshape(2, 1, 1)
    >>> transpose_direct(w, dz, windows("", (2,), 1, 1, "VALID"), (4,))[0, :, 0].tolist()
    [-1.0, 0.0, 0.0, 1.0]
    """
    return bilinear(
        lambda w, dz: input_gradient(w, dz, geometry, spatial, groups),
        lambda dz, x: kernel_gradient(x, dz, geometry, groups),
        lambda w, x: convolve(x, w, geometry, groups),
        lambda w, dz: transpose_patches(w, dz, geometry, spatial, groups),
        w,
        dz,
    )
