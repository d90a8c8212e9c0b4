"""Data-dependent initialization: weights scaled so that what every layer sends on has one standard deviation.

params = lsuv(net, *net.init(key, spec), x)
"""

from typing import Any

import jax.numpy as jnp

from jaxnet.layers.combinators import names
from jaxnet.layers.layer import Layer


def lsuv(net: Layer, params: Any, state: Any, x: Any, *, std=1.0) -> Any:
    """`params` with each layer's weights `w` scaled so that what they give its output has this `std`, first to last.

    w ← w · std / std(w's part of the output), over the batch and all units, each layer fed by those already scaled
    (layer-sequential unit variance, Mishkin & Matas 2015; the look at one minibatch of Goodfellow §8.4). Layers with a
    leaf `w` are affine in it, so once is exact. Start from `orthogonal` weights to follow the paper.
    `net` is a `serial` of layers or one layer; inside other combinators weights stay as they are. x is one batch, no
    labels; the network runs in inference, so dropout is off. Pure: it can be jitted and mapped. Where a layer's
    output doesn't vary its weights stay.

    >>> import jax
    >>> from jaxnet.layers import dense, relu, serial
    >>> net = serial(dense(8), relu(), dense(4))
    >>> params, state = net.init(jax.random.key(0), (3,))
    >>> x = jax.random.normal(jax.random.key(1), (32, 3))
    >>> round(float(net.apply(lsuv(net, params, state, x), state, x)[0].std()), 4)
    1.0
    """
    return _walk(net, params, state, x, std)[0]


def _walk(layer, params, state, x, std):
    """The scaled parameters and the output."""
    if layer.name == "serial":
        parts = tuple(part for _, part in layer.settings)
        scaled = dict(params)
        for name, part in zip(names(parts), parts, strict=True):
            part_params, x = _walk(part, params.get(name, {}), state.get(name, {}), x, std)
            if name in params:
                scaled[name] = part_params
        return scaled, x
    if isinstance(params, dict) and "w" in params:
        w = params["w"]
        with_w, without = (layer.apply({**params, "w": v}, state, x)[0] for v in (w, jnp.zeros_like(w)))
        spread = jnp.std(with_w - without).astype(w.dtype)
        varies = spread > 0
        factor = jnp.asarray(std, w.dtype) / jnp.where(varies, spread, jnp.ones_like(spread))
        params = {**params, "w": jnp.where(varies, w * factor, w)}
    return params, layer.apply(params, state, x)[0]
