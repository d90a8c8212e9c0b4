"""The rows of a Gauss–Newton matrix: A (rows, P) and s (rows,) with AᵀA the matrix and Aᵀs the value's gradient.

Of residuals r they are the Jacobian ∂r/∂θ and r. Of a network they are √(w_i/Σw) L_iᵀ J_i, one for each example and
output: the columns of L_i, the loss's curvature in the outputs (see `factors`), are back-propagated through all
examples at once, and at a dense layer the row is the outer product of the layer's input and what arrives at its output
(Hagan & Menhaj 1994). The penalty of a network is in neither.

P parameters are in the order of `ravel_pytree`: leaf by leaf as JAX sorts them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxnet.layers import Layer, identity
from jaxnet.layers.combinators import added, parts
from jaxnet.losses import as_loss
from jaxnet.optimizers.second_order.factors import factor
from jaxnet.optimizers.second_order.method import NetworkBatch

SIDE_BY_SIDE = ("branch", "parallel", "residual")


class Rows(NamedTuple):
    """AᵀA is the Gauss–Newton matrix, Aᵀs the gradient, both of the value without its penalty."""

    matrix: Array  # A (rows, P)
    residual: Array  # s (rows,)


def rows_of_residuals(residuals, params: Any) -> Rows:
    """The Jacobian of `residuals`, params -> (N,), and its value; by forward mode where N > P, else by reverse mode.

    >>> rows_of_residuals(lambda p: p["a"] * jnp.arange(3.0), {"a": jnp.array(2.0)}).matrix.tolist()
    [[0.0], [1.0], [2.0]]
    """
    flat, unravel = ravel_pytree(params)

    def function(vector):
        return residuals(unravel(vector))

    if jax.eval_shape(function, flat).shape[0] > flat.shape[0]:
        r, push = jax.linearize(function, flat)
        return Rows(jax.vmap(push, out_axes=1)(jnp.eye(flat.shape[0], dtype=flat.dtype)), r)
    r, pull = jax.vjp(function, flat)
    return Rows(jax.vmap(lambda e: pull(e)[0])(jnp.eye(r.shape[0], dtype=r.dtype)), r)


def rows_of_network(network: NetworkBatch, params: Any, share: Array | None = None) -> Rows:
    """The rows of a network's loss on its batch, (outputs · n, P), an output's examples together.

    `share` is each example's part w/Σw of the mean, (n,), unless the batch itself says it.

    Raises:
        ValueError: batch norm, whose examples mix; a loss whose curvature isn't known to be positive; outputs that
            aren't one array.

    >>> from jaxnet import layers, losses
    >>> batch = jnp.array([[2.0], [4.0]]), jnp.zeros((2, 1))
    >>> network = NetworkBatch(layers.dense(1, bias=False), losses.squared_error, {}, batch, 0.0)
    >>> rows = rows_of_network(network, {"w": jnp.array([[1.0]])})
    >>> (rows.matrix.T @ rows.residual).tolist()  # the mean of w x²
    [10.0]
    """
    net, loss, state, (x, y, *_), _ = network
    if _holds(net, "batch_norm"):
        raise ValueError(
            "got batch norm, where an example's loss depends on the others; expected a network whose examples don't "
            "mix: take layer_norm, or lbfgs"
        )
    output, _ = net.apply(params, state, x, train=True)
    if not isinstance(output, jax.Array):
        raise ValueError(f"got outputs {jax.tree.structure(output)}; expected one array, (batch, …)")
    columns, s = factor(as_loss(loss), output, y)
    root = jnp.sqrt(shares(network.batch) if share is None else share).astype(output.dtype)
    columns = columns * root.reshape(1, -1, *[1] * (output.ndim - 1))
    tree, _ = _pulled_rows(net, params, state, x, columns)
    count = s.size
    leaves = [leaf.reshape(count, -1) for leaf in jax.tree.leaves(tree)]
    return Rows(jnp.concatenate(leaves, axis=1), (s * root).reshape(count))


def shares(batch: tuple) -> Array:
    """w/Σw of each example, (n,); 0 where Σw = 0.

    >>> shares((jnp.zeros((2, 1)), jnp.zeros(2), jnp.array([1.0, 3.0]))).tolist()
    [0.25, 0.75]
    """
    x, _, *weight = batch
    n = jax.tree.leaves(x)[0].shape[0]
    if not weight:
        return jnp.full(n, 1 / n, jnp.result_type(float))
    total = jnp.sum(weight[0])
    return weight[0] / jnp.where(total == 0, jnp.ones_like(total), total)


def _pulled_rows(net: Layer, params, state, x, dy):
    """(each row's gradient by the parameters, (k, n, …) leaves; dx (k, n, …)) of one layer; `dy` is (k, n, …)."""
    held = tuple(part for _, part in net.settings if isinstance(part, Layer))
    if net.name == "serial":
        inputs, steps = [x], list(parts(held, params, state, None))
        for _, layer, own, own_state, _ in steps:
            inputs.append(layer.apply(own, own_state, inputs[-1], train=True)[0])
        rows = {}
        for (name, layer, own, own_state, _), before in reversed(list(zip(steps, inputs[:-1], strict=True))):
            found, dy = _pulled_rows(layer, own, own_state, before, dy)
            if own:
                rows[name] = found
        return rows, dy
    if net.name in SIDE_BY_SIDE:
        return _side_by_side(net, held, params, state, x, dy)
    if not params:
        return {}, jax.vmap(lambda dy: _pulled(net, params, state, x, dy)[0])(dy)
    if net.name == "dense" and x.ndim == 2:
        rows = {"w": x[None, :, :, None] * dy[:, :, None, :]}
        if "b" in params:
            rows["b"] = dy
        return rows, dy @ params["w"].T

    def alone(x, dy):
        dx, rows = _pulled(net, params, state, *jax.tree.map(lambda a: a[None], (x, dy)))
        return rows, jax.tree.map(lambda a: a[0], dx)

    return jax.vmap(jax.vmap(alone), (None, 0))(x, dy)


def _side_by_side(net, held, params, state, x, dy):
    if net.name == "residual":
        held = (*held, identity())[:2]
        dys = (dy, dy)
    else:
        dys = dy
    xs = x if net.name == "parallel" else (x,) * len(held)
    rows, dxs = {}, []
    for (name, layer, own, own_state, _), x, dy in zip(parts(held, params, state, None), xs, dys, strict=True):
        found, dx = _pulled_rows(layer, own, own_state, x, dy)
        dxs.append(dx)
        if own:
            rows[name] = found
    return rows, tuple(dxs) if net.name == "parallel" else added(*dxs)


def _pulled(layer, params, state, x, dy):
    """(dx, dparams) by the layer's own rule, or by automatic differentiation where it has none."""
    if layer.backward is not None:
        return layer.backward(params, state, x, dy, train=True)
    _, pullback = jax.vjp(lambda params, x: layer.apply(params, state, x, train=True)[0], params, x)
    dparams, dx = pullback(dy)
    return dx, dparams


def _holds(net: Layer, name: str) -> bool:
    return net.name == name or any(_holds(part, name) for _, part in net.settings if isinstance(part, Layer))
