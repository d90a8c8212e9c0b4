"""Windows that slide over the spatial axes of (batch, *spatial, channels): geometry, unfolding, and its adjoint.

With n inputs along an axis, window k, stride s, dilation d and padding (low, high), output o of the axis sees the
inputs o s + i d − low for the taps i = 0 … k − 1; the window's extent is k′ = (k − 1) d + 1 and there are
⌊(n + low + high − k′) / s⌋ + 1 outputs. Paddings by name, with their outputs (Goodfellow §9.5, fig. 9.13):

    "VALID"  no padding                                         ⌈(n − k′ + 1) / s⌉
    "SAME"   least padding for them, low = half, rounded down   ⌈n / s⌉
    "FULL"   k′ − 1 on both sides                               ⌈(n + k′ − 1) / s⌉
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet.layers.layer import Spec, as_spec

Padding = str | tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Windows:
    """Window, stride, dilation and padding, an entry per spatial axis; `windows` makes one from what people write."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Padding

    @property
    def taps(self) -> int:
        """The number of inputs of a window."""
        return math.prod(self.size)

    @property
    def extent(self) -> tuple[int, ...]:
        """k′, what a window spans."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.size, self.dilation, strict=True))

    def pads(self, spatial: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """(low, high) of each axis, for inputs of that spatial shape."""
        if self.padding == "VALID":
            return ((0, 0),) * len(self.size)
        if self.padding == "FULL":
            return tuple((k - 1, k - 1) for k in self.extent)
        if self.padding == "SAME":
            totals = [
                max(0, (-(-n // s) - 1) * s + k - n) for n, s, k in zip(spatial, self.stride, self.extent, strict=True)
            ]
            return tuple((total // 2, total - total // 2) for total in totals)
        return self.padding  # type: ignore[return-value]

    def outputs(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """The spatial shape of the outputs; an entry below 1 where no window fits."""
        axes = zip(spatial, self.pads(spatial), self.extent, self.stride, strict=True)
        return tuple((n + low + high - k) // s + 1 for n, (low, high), k, s in axes)

    def tiles(self, spatial: tuple[int, ...]) -> bool:
        """Whether the windows tile the inputs: each input is in exactly one window, none is padding.

        >>> plane = windows("", (2, 3), (2, 3), 1, "VALID")
        >>> plane.tiles((4, 6)), plane.tiles((5, 6))
        (True, False)
        """
        axes = zip(spatial, self.size, self.stride, self.dilation, self.pads(spatial), strict=True)
        return all(s == k and d == 1 and pad == (0, 0) and n % k == 0 for n, k, s, d, pad in axes)


def windows(name: str, size, stride, dilation, padding) -> Windows:
    """The `Windows` of layer `name`, checked; an integer stride or dilation holds for every axis.

    Raises:
        TypeError: a size that isn't a tuple.
        ValueError: entries that aren't positive integers, one per axis; an unknown padding.

    >>> windows("conv", (3, 3), 2, 1, "SAME").outputs((28, 27))
    (14, 14)
    """
    if not isinstance(size, tuple):
        raise TypeError(f"{name}: got a window of {size!r}; expected a tuple: (3,) over sequences, (3, 3) over images")
    axes = len(size)
    if not 1 <= axes <= 3:
        raise ValueError(f"{name}: got a window of {size}; expected one to three axes")

    def entries(what, value):
        value = (value,) * axes if isinstance(value, int) else value
        fits = isinstance(value, tuple) and len(value) == axes
        if not fits or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in value):
            raise ValueError(f"{name}: got {what} {value!r}; expected {axes} positive integers in a tuple")
        return value

    if isinstance(padding, str):
        if padding not in ("SAME", "VALID", "FULL"):
            raise ValueError(f'{name}: got padding {padding!r}; expected "SAME", "VALID", "FULL" or pairs (low, high)')
    else:
        pairs = padding if isinstance(padding, tuple) else ()
        fits = len(pairs) == axes and all(isinstance(p, tuple) and len(p) == 2 for p in pairs)
        if not fits or not all(isinstance(n, int) and n >= 0 for pair in pairs for n in pair):
            raise ValueError(f"{name}: got padding {padding!r}; expected {axes} pairs (low, high), no entry negative")
    return Windows(entries("a window", size), entries("stride", stride), entries("dilation", dilation), padding)


def checked_example(label: str, spec: Spec, axes: int) -> jax.ShapeDtypeStruct:
    """The example's spec where it is one floating array of `axes` spatial axes and channels.

    Raises:
        ValueError, TypeError: for another rank; for a dtype that isn't floating.
    """
    example = as_spec(spec)
    if not isinstance(example, jax.ShapeDtypeStruct) or len(example.shape) != axes + 1:
        shape = example.shape if isinstance(example, jax.ShapeDtypeStruct) else example
        places = ", ".join(["length"] if axes == 1 else ["height", "width"] if axes == 2 else ["…"] * axes)
        raise ValueError(
            f"{label}: got an example of shape {shape}; expected ({places}, channels), channels last: reshape the "
            "data (a missing channel axis is x[..., None]) or load images as images"
        )
    if not jnp.issubdtype(example.dtype, jnp.inexact):
        raise TypeError(
            f"{label}: got inputs of dtype {example.dtype}; expected floats: x.astype('float32'), pixels of 0…255 "
            "divided by 255"
        )
    return example


def checked_outputs(label: str, geometry: Windows, spatial: tuple[int, ...]) -> tuple[int, ...]:
    """The spatial shape of the outputs.

    Raises:
        ValueError: for inputs smaller than the window.
    """
    outputs = geometry.outputs(spatial)
    if min(outputs) < 1:
        raise ValueError(
            f"{label}: got inputs of spatial shape {spatial}, smaller than the windows' extent {geometry.extent} with "
            f"padding {geometry.padding}; expected room for one window: pad more, or take a smaller window"
        )
    return outputs


def taps_of(x: Array, geometry: Windows, axis: int, fill: float = 0.0) -> list[Array]:
    """For each tap of spatial axis `axis`, what the outputs of that axis see through it; padded with `fill`."""
    spatial = x.shape[1:-1]
    low, high = geometry.pads(spatial)[axis]
    stride, dilation, count = geometry.stride[axis], geometry.dilation[axis], geometry.outputs(spatial)[axis]
    if low or high:
        config = [(low, high, 0) if a == axis + 1 else (0, 0, 0) for a in range(x.ndim)]
        x = jax.lax.pad(x, jnp.asarray(fill, x.dtype), config)
    starts = [tap * dilation for tap in range(geometry.size[axis])]
    return [jax.lax.slice_in_dim(x, i, i + (count - 1) * stride + 1, stride, axis + 1) for i in starts]


def unfold(x: Array, geometry: Windows, fill: float = 0.0) -> Array:
    """Every window as a row: (batch, *spatial, channels) to (batch, *outputs, taps · channels), channels fastest.

    >>> unfold(jnp.arange(4.0).reshape(1, 4, 1), windows("", (2,), 1, 1, "VALID"))[0].tolist()
    [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
    """
    pads, padding = geometry.pads(x.shape[1:-1]), geometry.padding
    explicit = geometry if padding == pads else Windows(geometry.size, geometry.stride, geometry.dilation, pads)
    for axis in reversed(range(len(geometry.size))):
        x = jnp.concatenate(taps_of(x, explicit, axis, fill), axis=-1)
    return x


def fold(rows: Array, geometry: Windows, spatial: tuple[int, ...]) -> Array:
    """The adjoint of `unfold`: each input's sum over the places it has in windows, (batch, *spatial, channels).

    >>> fold(jnp.ones((1, 3, 2)), windows("", (2,), 1, 1, "VALID"), (4,))[0, :, 0].tolist()
    [1.0, 2.0, 2.0, 1.0]
    """
    pads, outputs = geometry.pads(spatial), geometry.outputs(spatial)
    for axis, (low, _) in enumerate(pads):
        stride, span = geometry.stride[axis], (outputs[axis] - 1) * geometry.stride[axis] + 1
        placed = []
        for tap, part in enumerate(jnp.split(rows, geometry.size[axis], axis=-1)):
            first = tap * geometry.dilation[axis] - low
            config = [(0, 0, 0)] * rows.ndim
            config[axis + 1] = (first, spatial[axis] - first - span, stride - 1)
            placed.append(jax.lax.pad(part, jnp.zeros((), rows.dtype), config))
        rows = sum(placed[1:], placed[0])
    return rows
