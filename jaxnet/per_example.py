"""Gradients of single examples: the arrays, or their norms without the arrays.

    per_example_gradients(net, loss)(params, state, batch)  -> (n,) losses, gradients with a leading axis of examples
    per_example_norms(net, loss)(params, state, batch)      -> (n,) ‖∂ℓ_i/∂θ‖₂

Batch weights don't count, each example's own loss is differentiated. A layer that mixes examples (batch norm in
training) has no gradient of one example, and is refused.

For a dense layer with inputs x_i and output gradients δ_i the example's gradient is the outer product x_i δ_iᵀ, so its
squared norm is ‖x_i‖² ‖δ_i‖², and ‖δ_i‖² for the bias (Goodfellow 2015): one pass of back-propagation and no arrays
beyond it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.gradients import loss_and_grad
from jaxnet.layers import Layer, identity
from jaxnet.layers.combinators import added, parts
from jaxnet.losses import Loss, as_loss

SIDE_BY_SIDE = ("branch", "parallel", "residual")


def per_example_gradients(net: Layer, loss: "Loss | Callable") -> Callable[..., tuple[Any, Any]]:
    """(losses (n,), gradients like the parameters with a leading axis n), by `vmap` of the gradient of one example.

    With a key, example i draws from the key folded with i.

    Raises:
        ValueError: batch norm in training.

    >>> from jaxnet import layers, losses
    >>> params = {"w": jnp.array([[2.0]])}
    >>> gradients = per_example_gradients(layers.dense(1, bias=False), losses.squared_error)
    >>> gradients(params, {}, (jnp.array([[1.0], [3.0]]), jnp.zeros((2, 1))))[1]["w"][:, 0, 0].tolist()
    [2.0, 18.0]
    """
    gradient = loss_and_grad(net, loss)

    def gradients(params, state, batch, *, key=None, train=False):
        _refuse_mixing(net, train)
        x, y = batch[:2]

        def one(i, x, y):
            alone = jax.tree.map(lambda a: a[None], (x, y))
            own = None if key is None else jax.random.fold_in(key, i)
            (value, _), grads = gradient(params, state, alone, key=own, train=train)
            return value, grads

        return jax.vmap(one)(jnp.arange(jax.tree.leaves(x)[0].shape[0]), x, y)

    return gradients


def per_example_norms(net: Layer, loss: "Loss | Callable") -> Callable[..., jax.Array]:
    """(n,) Euclidean norms of each example's gradient by all parameters, without the gradients.

    Dense layers on plain rows cost a multiplication more than back-propagation; `serial`, `branch`, `parallel`
    and `residual` are entered. Any other layer with parameters gets its examples' gradients by `vmap` of its own
    backward rule, one layer at a time; there it must not draw from a key. Layers without parameters may, and draw as in
    the step with this key.

    Raises:
        ValueError: batch norm in training; a layer with parameters that needs a key.

    >>> from jaxnet import layers, losses
    >>> params = {"w": jnp.array([[2.0]])}
    >>> norms = per_example_norms(layers.dense(1, bias=False), losses.squared_error)
    >>> norms(params, {}, (jnp.array([[1.0], [3.0]]), jnp.zeros((2, 1)))).tolist()
    [2.0, 18.0]
    """
    loss = as_loss(loss)

    def norms(params, state, batch, *, key=None, train=False):
        _refuse_mixing(net, train)
        x, y = batch[:2]
        output, _ = net.apply(params, state, x, key=key, train=train)
        if loss.gradient is None:
            dy = jax.grad(lambda output: jnp.sum(loss.value(output, y)))(output)
        else:
            dy = loss.gradient(output, y)
        squares, _ = _squares(net, params, state, x, dy, key, train)
        return jnp.sqrt(squares)

    return norms


def _squares(net, params, state, x, dy, key, train):
    """(squared norms (n,), dx) of one layer, entering those that hold others."""
    held = tuple(part for _, part in net.settings if isinstance(part, Layer))
    if net.name == "serial":
        inputs, steps = [x], list(parts(held, params, state, key))
        for _, layer, own, own_state, own_key in steps:
            inputs.append(layer.apply(own, own_state, inputs[-1], key=own_key, train=train)[0])
        total: Any = 0.0
        for (_, layer, own, own_state, own_key), before in reversed(list(zip(steps, inputs[:-1], strict=True))):
            squares, dy = _squares(layer, own, own_state, before, dy, own_key, train)
            total = total + squares
        return total, dy
    if net.name in SIDE_BY_SIDE:
        return _side_by_side(net, held, params, state, x, dy, key, train)
    if not params:
        return jnp.zeros(jax.tree.leaves(dy)[0].shape[0]), _pulled(net, params, state, x, dy, key, train)[0]
    if net.name == "dense" and x.ndim == 2:
        by_units = jnp.sum(jnp.square(dy), axis=1)
        squares = by_units * (jnp.sum(jnp.square(x), axis=1) + (1 if "b" in params else 0))
        return squares, _pulled(net, params, state, x, dy, key, train)[0]

    def alone(x, dy):
        x, dy = jax.tree.map(lambda a: a[None], (x, dy))
        grads = _pulled(net, params, state, x, dy, None, train)[1]
        return sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(grads))

    return jax.vmap(alone)(x, dy), _pulled(net, params, state, x, dy, None, train)[0]


def _side_by_side(net, held, params, state, x, dy, key, train):
    if net.name == "residual":
        held = (*held, identity())[:2]
        dys = (dy, dy)
    else:
        dys = dy
    xs = x if net.name == "parallel" else (x,) * len(held)
    found = [
        _squares(layer, own, own_state, x, dy, own_key, train)
        for (_, layer, own, own_state, own_key), x, dy in zip(parts(held, params, state, key), xs, dys, strict=True)
    ]
    squares, dxs = zip(*found, strict=True)
    return sum(squares), tuple(dxs) if net.name == "parallel" else added(*dxs)


def _pulled(layer, params, state, x, dy, key, train):
    """(dx, dparams) by the layer's own rule, or by automatic differentiation where it has none."""
    if layer.backward is not None:
        return layer.backward(params, state, x, dy, key=key, train=train)
    _, pullback = jax.vjp(lambda params, x: layer.apply(params, state, x, key=key, train=train)[0], params, x)
    dparams, dx = pullback(dy)
    return dx, dparams


def _refuse_mixing(net: Layer, train: bool) -> None:
    if train and _holds(net, "batch_norm"):
        raise ValueError(
            "got batch norm in training, where an example's loss depends on the others; expected a network whose "
            "examples don't mix: pass train=False, or use layer_norm"
        )


def _holds(net: Layer, name: str) -> bool:
    return net.name == name or any(_holds(part, name) for _, part in net.settings if isinstance(part, Layer))
