"""The units of the parameters: what the damping of a least-squares method is multiplied by, so that it needs none.

Of residuals: the diagonal of AᵀA (Marquardt 1963; Moré 1978). Of a network that would let units that saturate move
too far: their columns are small though their weights aren't. There the units are those of the layers' inputs,

    D = c E[x_i²] for the weights of an input x_i of a dense layer, c for every other parameter,

c the mean curvature of the loss by an output, 1 for squared error: plain damping for inputs of size one, and the same
steps in whatever units the inputs come.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxnet.layers import Layer, identity
from jaxnet.layers.combinators import parts
from jaxnet.losses import as_loss
from jaxnet.optimizers.second_order.factors import factor
from jaxnet.optimizers.second_order.method import NetworkBatch, Problem
from jaxnet.optimizers.second_order.rows import SIDE_BY_SIDE, shares


def units_of(problem: Problem, params: Any, diagonal: Array) -> Array:
    """D (P,) at a point where the Gauss–Newton matrix has this diagonal.

    >>> from jaxnet.optimizers.second_order.method import of_residuals
    >>> units_of(of_residuals(lambda p: p), jnp.zeros(2), jnp.array([1.0, 3.0])).tolist()
    [1.0, 3.0]
    """
    return diagonal if problem.network is None else network_scale(problem.network, params)


def network_scale(network: NetworkBatch, params: Any) -> Array:
    """D (P,) of a network on its batch, by one pass forward.

    >>> from jaxnet import layers, losses
    >>> batch = jnp.array([[1.0, 10.0], [1.0, 20.0]]), jnp.zeros((2, 1))
    >>> network = NetworkBatch(layers.dense(1), losses.squared_error, {}, batch, 0.0)
    >>> network_scale(network, {"b": jnp.zeros(1), "w": jnp.zeros((2, 1))}).round().tolist()
    [1.0, 1.0, 250.0]
    """
    net, loss, state, (x, y, *_), _ = network
    share = shares(network.batch)
    tree, output = _squares(net, params, state, x, share)
    columns, _ = factor(as_loss(loss), output, y)
    root = jnp.sqrt(share).astype(output.dtype).reshape(-1, *[1] * (output.ndim - 1))
    curvature = jnp.sum(jnp.square(columns * root)) / (output.size / output.shape[0])
    return curvature * ravel_pytree(tree)[0]


def _squares(net: Layer, params, state, x, share):
    """(E[x_i²] for the weights of an input of a dense layer, else 1, like the parameters; the output) of one layer."""
    held = tuple(part for _, part in net.settings if isinstance(part, Layer))
    if net.name == "serial" or net.name in SIDE_BY_SIDE:
        return _of_parts(net, held, params, state, x, share)
    squares = jax.tree.map(jnp.ones_like, params)
    if net.name == "dense" and x.ndim == 2:
        mean = jnp.matmul(share.astype(x.dtype), jnp.square(x), precision="highest")
        squares["w"] = jnp.broadcast_to(mean[:, None], params["w"].shape).astype(params["w"].dtype)
    return squares, net.apply(params, state, x, train=True)[0]


def _of_parts(net, held, params, state, x, share):
    if net.name == "residual":
        held = (*held, identity())[:2]
    xs = x if net.name == "parallel" else (x,) * len(held)
    squares, outputs = {}, []
    for (name, layer, own, own_state, _), given in zip(parts(held, params, state, None), xs, strict=True):
        found, output = _squares(layer, own, own_state, x if net.name == "serial" else given, share)
        x = output if net.name == "serial" else x
        outputs.append(output)
        if own:
            squares[name] = found
    if net.name == "serial":
        return squares, x
    return squares, jax.tree.map(jnp.add, *outputs) if net.name == "residual" else tuple(outputs)
