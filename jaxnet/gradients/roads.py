"""Gradient functions: the noun between networks and training.

    gradient(params, state, batch, *, key=None, train=False) -> ((loss, state), grads)

`batch` is (x, y) or (x, y, weight); the loss is the weighted mean Σ wℓ / Σ w over the batch (0 where Σ w = 0) and
`grads` has the tree of `params`. Two roads make one, with the same signature: `loss_and_grad` by `jax.grad` and
`backprop` by the hand-written backward rules. Wrappers such as `penalized` take one and return one.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.layers import Layer
from jaxnet.losses import Loss, as_loss

GradientFunction = Callable[..., tuple[tuple[Any, Any], Any]]


def weighted_mean(values, weight=None):
    """Σ wv / Σ w over the first axis, the plain mean without weights; 0 where Σ w = 0.

    >>> float(weighted_mean(jnp.array([1.0, 5.0]), jnp.array([3.0, 1.0])))
    2.0
    """
    if weight is None:
        return jnp.mean(values, axis=0)
    w, total = _weights(values, weight)
    return jnp.sum(w * values, axis=0) / total


def _weights(values, weight):
    """The weights in the rank and dtype of `values`, and their sum made safe to divide by."""
    if weight.shape != values.shape[:1]:
        raise ValueError(
            f"got weights of shape {weight.shape} for {values.shape[0]} examples; expected one per example"
        )
    w = weight.astype(values.dtype)
    total = jnp.sum(w)
    return w.reshape(-1, *[1] * (values.ndim - 1)), jnp.where(total == 0, jnp.ones_like(total), total)


def _shared(dy, weight):
    """Each example's share of the weights times its gradient."""
    w, total = _weights(dy, weight)
    return dy * (w / total)


def _per_example_loss(loss: Loss, output, target):
    values = loss.value(output, target)
    if values.ndim != 1:
        raise ValueError(
            f"loss {loss.name}: got a result of shape {values.shape}; expected one number per example, (batch,): "
            "leave the mean over the batch to the gradient function"
        )
    return values


def loss_and_grad(net: Layer, loss: "Loss | Callable") -> GradientFunction:
    """The gradient function of `net` and `loss` by `jax.value_and_grad` (Goodfellow §6.5).

    >>> from jaxnet import layers, losses
    >>> net = layers.serial(layers.dense(1))
    >>> params, state = net.init(jax.random.key(0), (2,))
    >>> gradient = loss_and_grad(net, losses.squared_error)
    >>> (value, state), grads = gradient(params, state, (jnp.ones((4, 2)), jnp.zeros((4, 1))))
    >>> grads["dense_0"]["w"].shape
    (2, 1)
    """
    loss = as_loss(loss)

    def objective(params, state, batch, key, train):
        x, y, *weight = batch
        output, state = net.apply(params, state, x, key=key, train=train)
        return weighted_mean(_per_example_loss(loss, output, y), *weight), state

    def gradient(params, state, batch, *, key=None, train=False):
        return jax.value_and_grad(objective, has_aux=True)(params, state, batch, key, train)

    return gradient


def backprop(net: Layer, loss: "Loss | Callable") -> GradientFunction:
    """The same gradient by the hand-written rules: the loss's gradient, then each layer's `backward`, last to first.

    No automatic differentiation takes part (Goodfellow alg. 6.3 and 6.4; MIT 6.036 §4; Hagan eq. 3.36–3.53).

    Raises:
        TypeError: for a loss or a network without hand-written rules.

    >>> from jaxnet import layers, losses
    >>> net = layers.serial(layers.dense(1))
    >>> params, state = net.init(jax.random.key(0), (2,))
    >>> batch = jnp.ones((4, 2)), jnp.zeros((4, 1))
    >>> _, grads = backprop(net, losses.squared_error)(params, state, batch)
    >>> _, expected = loss_and_grad(net, losses.squared_error)(params, state, batch)
    >>> bool(jnp.allclose(grads["dense_0"]["w"], expected["dense_0"]["w"]))
    True
    """
    loss = as_loss(loss)
    loss_gradient, net_backward = loss.gradient, net.backward
    if loss_gradient is None:
        raise TypeError(
            f"backprop: loss {loss.name} has no hand-written gradient; expected a jaxnet Loss with one: use "
            "loss_and_grad, or Loss(name, value, gradient)"
        )
    if net_backward is None:
        raise TypeError(
            f"backprop: {net!r} has a layer without a hand-written backward; expected one in every layer: use "
            "loss_and_grad, or give the layer a backward rule"
        )

    def gradient(params, state, batch, *, key=None, train=False):
        x, y, *weight = batch
        output, new_state = net.apply(params, state, x, key=key, train=train)
        values = _per_example_loss(loss, output, y)
        dy = loss_gradient(output, y)
        count = values.shape[0]
        dy = jax.tree.map(lambda d: _shared(d, *weight) if weight else d / count, dy)
        _, grads = net_backward(params, state, x, dy, key=key, train=train)
        return (weighted_mean(values, *weight), new_state), grads

    return gradient
