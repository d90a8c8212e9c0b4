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


def role(path) -> str:
    """The role of a parameter: the last name of its path, "w", "b", "scale", ….

    >>> [role(path) for path, _ in jax.tree_util.tree_leaves_with_path({"dense_0": {"b": 0, "w": 1}})]
    ['b', 'w']
    """
    last = path[-1] if path else ""
    return str(getattr(last, "key", getattr(last, "name", getattr(last, "idx", last))))


def penalized(gradient: GradientFunction, *, l2) -> GradientFunction:
    """`gradient` of the loss plus ½ α ‖w‖² over the weights (leaves named `w`), never the biases; `l2` is α.

    The penalty's gradient is α w. α may be traced. Conventions without the ½ use λ = α/2 (Goodfellow eq. 7.1–7.5).

    Raises:
        ValueError: for α < 0.

    >>> params = {"w": jnp.array([3.0]), "b": jnp.array([9.0])}
    >>> def zero(params, state, batch, *, key=None, train=False):
    ...     return (0.0, state), jax.tree.map(jnp.zeros_like, params)
    >>> (loss, _), grads = penalized(zero, l2=2.0)(params, {}, ())
    >>> float(loss), float(grads["w"][0]), float(grads["b"][0])
    (9.0, 6.0, 0.0)
    """
    if isinstance(l2, (int, float)) and not l2 >= 0:
        raise ValueError(f"penalized: got l2={l2}; expected a penalty α ≥ 0")

    def penalized_gradient(params, state, batch, *, key=None, train=False):
        (loss, state), grads = gradient(params, state, batch, key=key, train=train)
        squares = [
            jnp.asarray(l2, w.dtype) / 2 * jnp.sum(jnp.square(w))
            for path, w in jax.tree_util.tree_leaves_with_path(params)
            if role(path) == "w"
        ]
        grads = jax.tree_util.tree_map_with_path(
            lambda path, g, w: g + jnp.asarray(l2, w.dtype) * w if role(path) == "w" else g, grads, params
        )
        return (loss + sum(squares), state), grads

    return penalized_gradient
