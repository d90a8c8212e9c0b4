"""Convolutional layers over sequences and images, channels last; the number of axes is the kernel's.

They compute with the three maps of `jaxnet.layers.correlation`: c, the convolution (the kernel isn't flipped), and its
gradients h by the inputs and g by the kernel (Goodfellow eq. 9.8, 9.11, 9.13). Paddings and sizes of outputs are
those of `jaxnet.layers.windows`.

`method` says how `apply` computes, never what. "patches" is a matrix product of the windows, "direct" lax's
convolution, whose derivatives are the other two maps and not what JAX makes of it: those are 40 to 70 times slower in
loops on XLA's CPU backend. Unless given it is "direct" for one group, "patches" for several and depthwise, where lax's
convolution is slow on a CPU. Measured for forward and backward by `jax.grad`, 32 images of 14 × 14 × 16, kernel (3, 3),
32 units, two cores, per step in a scan such as `fit`'s: 1.4 ms direct and 2.7 ms patches, eight members under `vmap` 14
and 42 ms, four groups 10 and 2.8 ms. Patches take kernel-size times the inputs' memory. Under a `vmap` over inputs and
kernels "direct" takes one member after another.
"""

import jax
import jax.numpy as jnp

from jaxnet import initializers
from jaxnet.layers.correlation import (
    convolve,
    convolve_direct,
    convolve_patches,
    input_gradient,
    kernel_gradient,
    swapped,
    transpose_direct,
    transpose_patches,
)
from jaxnet.layers.layer import Layer
from jaxnet.layers.windows import Padding, checked_example, checked_outputs, windows


def _checked_settings(label, units, groups, method):
    for what, n in (("units", units), ("groups", groups)):
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ValueError(f"{label}: got {what}={n!r}; expected a positive integer")
    if units % groups:
        raise ValueError(f"{label}: got {units} units in {groups} groups; expected a multiple of the groups")
    if method not in (None, "patches", "direct"):
        raise ValueError(f'{label}: got method {method!r}; expected "patches", "direct" or None')


def _direct(method, groups):
    return method == "direct" or (method is None and groups == 1)


def _checked_groups(label, channels, groups):
    if channels % groups:
        raise ValueError(f"{label}: got {channels} channels in {groups} groups; expected a multiple of the groups")


def _checked_inputs(label, x, w, channels):
    """x as a JAX array that fits the kernel `w`, which takes that many channels."""
    x = jnp.asarray(x)
    checked_example(label, jax.ShapeDtypeStruct(x.shape[1:], x.dtype), w.ndim - 2)
    if x.shape[-1] != channels or x.dtype != w.dtype:
        raise ValueError(
            f"{label}: got inputs of shape {x.shape} and dtype {x.dtype}; expected {channels} channels, {w.dtype}, "
            f"for a kernel of shape {w.shape}: give the data and the `spec` of init the same shape and dtype"
        )
    return x


def _settings(units, geometry, *others):
    pairs = [("", units)] if units else []
    pairs += [("", geometry.size), ("stride", geometry.stride), ("dilation", geometry.dilation)]
    pairs += [("padding", geometry.padding), *others]
    plain: dict[str, object] = {
        "stride": (1,) * len(geometry.size),
        "dilation": (1,) * len(geometry.size),
        "padding": "SAME",
    }
    plain |= {"groups": 1, "multiplier": 1, "output": None, "bias": True, "method": None}
    return tuple((name, value) for name, value in pairs if not name or value != plain[name])


def _biased(z, params, bias):
    return z + params["b"].reshape((1,) * (z.ndim - 1) + (-1,)) if bias else z


def _gradients(dw, dz, bias):
    return {"w": dw, "b": jnp.sum(dz, axis=tuple(range(dz.ndim - 1)))} if bias else {"w": dw}


def conv(
    units: int,
    kernel: tuple[int, ...],
    *,
    stride: int | tuple[int, ...] = 1,
    dilation: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    groups: int = 1,
    bias: bool = True,
    method: str | None = None,
    weight_init: initializers.Initializer | None = None,
    bias_init: initializers.Initializer | None = None,
) -> Layer:
    """z = c(w, x) + b: each output sees a window of the inputs, all through one kernel (Goodfellow eq. 9.7, 9.8).

    x is (batch, length, inputs) for a kernel (k,), (batch, height, width, inputs) for (kh, kw); parameters are `w`
    (*kernel, inputs / groups, units) and, with `bias`, `b` (units,), one for all places. `padding` is "SAME", "VALID",
    "FULL" or a pair (low, high) per axis; see `jaxnet.layers.windows` for the outputs' sizes. Backward, from dz:
    dx = h(w, dz), dw = g(dz, x), db = Σ dz over examples and places (Goodfellow eq. 9.11–9.13).

    `method` is "patches", "direct" or None, see the top of this module.

    Raises:
        TypeError: a kernel that isn't a tuple; inputs that aren't floating.
        ValueError: settings out of range; inputs of another rank, dtype or number of channels, or without room for
            one window; channels that the groups don't divide.

    >>> layer = conv(8, (5, 5), stride=2)
    >>> params, state = layer.init(jax.random.key(0), (28, 28, 1))
    >>> params["w"].shape, layer.apply(params, state, jnp.zeros((2, 28, 28, 1)))[0].shape
    ((5, 5, 1, 8), (2, 14, 14, 8))
    """
    label = f"conv({units}, {kernel})"
    geometry = windows(label, kernel, stride, dilation, padding)
    _checked_settings(label, units, groups, method)
    settings = _settings(units, geometry, ("groups", groups), ("bias", bias), ("method", method))
    return _convolution("conv", label, geometry, groups, units, bias, method, weight_init, bias_init, settings)


def depthwise_conv(
    kernel: tuple[int, ...],
    *,
    multiplier: int = 1,
    stride: int | tuple[int, ...] = 1,
    dilation: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    bias: bool = True,
    method: str | None = None,
    weight_init: initializers.Initializer | None = None,
    bias_init: initializers.Initializer | None = None,
) -> Layer:
    """`conv` in as many groups as channels: each channel by itself through `multiplier` kernels.

    `w` is (*kernel, 1, channels · multiplier); the units of one channel are neighbours. Then conv(units, (1, 1)) mixes
    the channels. Everything else, errors too, is as in `conv`.

    >>> params, _ = depthwise_conv((3, 3), multiplier=2).init(jax.random.key(0), (8, 8, 4))
    >>> params["w"].shape
    (3, 3, 1, 8)
    """
    label = f"depthwise_conv({kernel})"
    geometry = windows(label, kernel, stride, dilation, padding)
    _checked_settings(label, multiplier, 1, method)
    settings = _settings(None, geometry, ("multiplier", multiplier), ("bias", bias), ("method", method))
    return _convolution(
        "depthwise_conv", label, geometry, None, multiplier, bias, method, weight_init, bias_init, settings
    )


def _convolution(name, label, geometry, groups, units, bias, method, weight_init, bias_init, settings) -> Layer:
    """The Layer of `conv`, and with groups=None and `units` per channel that of `depthwise_conv`."""
    weight_init = weight_init or initializers.glorot_uniform()
    bias_init = bias_init or initializers.zeros()

    def init(key, spec):
        example = checked_example(label, spec, len(geometry.size))
        checked_outputs(label, geometry, example.shape[:-1])
        channels = example.shape[-1]
        _checked_groups(label, channels, groups or channels)
        inputs, outputs = (channels // groups, units) if groups else (1, units * channels)
        key_w, key_b = jax.random.split(key)
        params = {"w": weight_init(key_w, (*geometry.size, inputs, outputs), example.dtype)}
        if bias:
            params["b"] = bias_init(key_b, (outputs,), example.dtype)
        return params, {}

    def apply(params, state, x, *, key=None, train=False):
        w = params["w"]
        x = _checked_inputs(label, x, w, w.shape[-2] * groups if groups else w.shape[-1] // units)
        checked_outputs(label, geometry, x.shape[1:-1])
        blocks = groups or x.shape[-1]
        z = (convolve_direct if _direct(method, blocks) else convolve_patches)(x, w, geometry, blocks)
        return _biased(z, params, bias), state

    def backward(params, state, x, dz, *, key=None, train=False):
        blocks = groups or x.shape[-1]
        dx = input_gradient(params["w"], dz, geometry, x.shape[1:-1], blocks)
        return dx, _gradients(kernel_gradient(x, dz, geometry, blocks), dz, bias)

    return Layer(name, init, apply, backward, settings)


def conv_transpose(
    units: int,
    kernel: tuple[int, ...],
    *,
    stride: int | tuple[int, ...] = 1,
    dilation: int | tuple[int, ...] = 1,
    padding: Padding = "SAME",
    groups: int = 1,
    output: tuple[int, ...] | None = None,
    bias: bool = True,
    method: str | None = None,
    weight_init: initializers.Initializer | None = None,
    bias_init: initializers.Initializer | None = None,
) -> Layer:
    """z = h(w, x) + b: the transpose of the convolution with these settings, from its outputs back to its inputs.

    `w` is the kernel of that convolution, (*kernel, units / groups, inputs), so that an autoencoder can share it with
    its encoder (Goodfellow eq. 9.14). Outputs of several sizes lead there to the inputs' size n; unless `output` says
    which, z has n · stride places with "SAME", else the least, (n − 1) · stride + extent − low − high.
    Backward: dx = c(w, dz), dw = g(x, dz), db = Σ dz. `weight_init` sees the shape (*kernel, inputs / groups, units).

    Raises:
        TypeError, ValueError: as in `conv`; an `output` whose convolution hasn't the inputs' size.

    >>> layer = conv_transpose(3, (4, 4), stride=2)
    >>> params, state = layer.init(jax.random.key(0), (7, 7, 8))
    >>> params["w"].shape, layer.apply(params, state, jnp.zeros((2, 7, 7, 8)))[0].shape
    ((4, 4, 3, 8), (2, 14, 14, 3))
    """
    label = f"conv_transpose({units}, {kernel})"
    geometry = windows(label, kernel, stride, dilation, padding)
    _checked_settings(label, units, groups, method)
    weight_init = weight_init or initializers.glorot_uniform()
    bias_init = bias_init or initializers.zeros()

    if output is not None and not (isinstance(output, tuple) and all(isinstance(n, int) and n > 0 for n in output)):
        raise ValueError(f"{label}: got output={output!r}; expected the outputs' spatial shape, such as (28, 28)")

    def sizes(spatial):
        """The outputs' spatial shape."""
        if output is not None:
            result = output
        elif geometry.padding == "SAME":
            result = tuple(n * s for n, s in zip(spatial, geometry.stride, strict=True))
        else:
            axes = zip(spatial, geometry.stride, geometry.extent, geometry.pads(spatial), strict=True)
            result = tuple((n - 1) * s + k - low - high for n, s, k, (low, high) in axes)
        if len(result) != len(spatial) or min(result) < 1 or geometry.outputs(result) != spatial:
            raise ValueError(
                f"{label}: got inputs of spatial shape {spatial} for outputs of {result}; expected outputs whose "
                f"convolution has the inputs' shape: change `output` or `padding`"
            )
        return result

    def init(key, spec):
        example = checked_example(label, spec, len(geometry.size))
        sizes(example.shape[:-1])
        _checked_groups(label, example.shape[-1], groups)
        key_w, key_b = jax.random.split(key)
        w = weight_init(key_w, (*geometry.size, example.shape[-1] // groups, units), example.dtype)
        params = {"w": swapped(w, groups)}
        if bias:
            params["b"] = bias_init(key_b, (units,), example.dtype)
        return params, {}

    def apply(params, state, x, *, key=None, train=False):
        w = params["w"]
        x = _checked_inputs(label, x, w, w.shape[-1])
        transpose = transpose_direct if _direct(method, groups) else transpose_patches
        return _biased(transpose(w, x, geometry, sizes(x.shape[1:-1]), groups), params, bias), state

    def backward(params, state, x, dz, *, key=None, train=False):
        return convolve(dz, params["w"], geometry, groups), _gradients(
            kernel_gradient(dz, x, geometry, groups), dz, bias
        )

    others = ("groups", groups), ("output", output), ("bias", bias), ("method", method)
    return Layer("conv_transpose", init, apply, backward, _settings(units, geometry, *others))
