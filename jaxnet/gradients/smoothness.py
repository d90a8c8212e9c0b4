"""Penalties on what a network computes, for `regularized`: on hidden activations, on derivatives by the inputs.

    penalty(params, state, batch, *, key=None, train=False) -> scalar

Each is a weighted mean over the batch's examples, so that a strength means the same for every batch size.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet import activations
from jaxnet.gradients.roads import weighted_mean
from jaxnet.layers import Layer, tapped
from jaxnet.losses import Loss, as_loss

Penalty = Callable[..., Any]


def _per_example(values):
    """Sums over all but the first axis."""
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))


def activation_penalty(net: Layer, taps: tuple[str, ...], measure: Callable[[Any], Any] | None = None) -> Penalty:
    """Ω = mean over examples of Σ over units of measure(h), for sparse representations (Goodfellow eq. 7.48).

    Args:
        net: a `serial` network.
        taps: names of the layers whose outputs h count, as for `layers.tapped`.
        measure: elementwise; None for |h|. `lambda h: jnp.log1p(h**2)` is the Student-t penalty.

    >>> from jaxnet import layers
    >>> net = layers.serial(layers.dense(2), layers.relu(), layers.dense(1))
    >>> params, state = net.init(jax.random.key(0), (2,))
    >>> params["dense_0"] = {"w": jnp.eye(2), "b": jnp.zeros(2)}
    >>> float(activation_penalty(net, ("relu_0",))(params, state, (jnp.array([[1.0, -5.0], [2.0, 3.0]]), None)))
    3.0
    """
    seen = tapped(net, taps)
    measured: Callable = activations.absolute if measure is None else measure

    def penalty(params, state, batch, *, key=None, train=False):
        x, _, *weight = batch
        (_, hidden), _ = seen.apply(params, state, x, key=key, train=train)
        return sum(weighted_mean(_per_example(measured(h)), *weight) for h in jax.tree.leaves(hidden))

    return penalty


def tangent_propagation(net: Layer, tangents: Callable[[Any], Any]) -> Penalty:
    """Ω = mean over examples of Σ_k ‖J v_k‖², J = ∂f/∂x, v_k known directions that shouldn't matter (Goodfellow
    eq. 7.67, summed over outputs; Simard et al. 1992).

    Args:
        net: f.
        tangents: x (batch, …) -> (directions, batch, …), the v_k at each example.

    >>> from jaxnet import layers
    >>> params = {"w": jnp.array([[2.0], [-3.0]]), "b": jnp.zeros(1)}
    >>> sideways = lambda x: jnp.zeros((1, *x.shape)).at[..., 0].set(1)
    >>> float(tangent_propagation(layers.dense(1), sideways)(params, {}, (jnp.ones((5, 2)), None)))
    4.0
    """

    def penalty(params, state, batch, *, key=None, train=False):
        x, _, *weight = batch

        def f(x):
            return net.apply(params, state, x, key=key, train=train)[0]

        changes = jax.vmap(lambda v: jax.jvp(f, (x,), (v,))[1])(tangents(x))
        return jnp.sum(jax.vmap(lambda c: weighted_mean(_per_example(jnp.square(c)), *weight))(changes))

    return penalty


def double_backprop(net: Layer, loss: "Loss | Callable") -> Penalty:
    """Ω = mean over examples of ‖∂ℓ/∂x‖²: the loss should change little in any direction (Goodfellow §7.14; Drucker &
    LeCun 1992). Its gradient is a derivative of a derivative.

    Not for networks with batch statistics, where an example's loss depends on the other examples.

    >>> from jaxnet import layers, losses
    >>> params = {"w": jnp.array([[2.0], [-3.0]]), "b": jnp.zeros(1)}
    >>> batch = jnp.ones((5, 2)), jnp.zeros((5, 1))
    >>> float(double_backprop(layers.dense(1), losses.squared_error)(params, {}, batch))
    13.0
    """
    loss = as_loss(loss)

    def penalty(params, state, batch, *, key=None, train=False):
        x, y, *weight = batch

        def total(x):
            return jnp.sum(loss.value(net.apply(params, state, x, key=key, train=train)[0], y))

        return weighted_mean(_per_example(jnp.square(jax.grad(total)(x))), *weight)

    return penalty


def virtual_adversarial(net: Layer, epsilon: Any, *, iterations: int = 1) -> Penalty:
    """Ω = mean over examples of KL(p(x) ‖ p(x + r)), p = softmax of the logits, r the worst move of length ε.

    r is the top eigenvector of the Fisher matrix Jᵀ(diag p − p pᵀ)J of each example, by power iteration with exact
    products from a random start (the key folded with 3), so no step size is needed. No derivative goes through p(x)
    or r. Labels don't enter: examples without one may carry the label that the loss ignores (Goodfellow §7.13;
    Miyato et al. 2019).

    Args:
        net: ends in logits (batch, classes).
        epsilon: the length ε ‖r‖₂ in the inputs' units, traced or not.
        iterations: of the power method.

    Raises:
        ValueError: without a key.

    >>> from jaxnet import layers
    >>> net = layers.dense(3)
    >>> params, state = net.init(jax.random.key(0), (2,))
    >>> penalty = virtual_adversarial(net, 0.1)
    >>> float(penalty(params, state, (jnp.ones((4, 2)), None), key=jax.random.key(1))) > 0
    True
    """

    def penalty(params, state, batch, *, key=None, train=False):
        if key is None:
            raise ValueError("virtual_adversarial got key=None; expected a key: it starts in a random direction")
        x, _, *weight = batch

        def logits(x):
            return net.apply(params, state, x, key=key, train=train)[0]

        z, forward = jax.linearize(logits, jax.lax.stop_gradient(x))
        pullback = jax.linear_transpose(forward, x)
        p = jax.lax.stop_gradient(jax.nn.softmax(z))

        def turned(d, _):
            change = forward(_unit(d))
            (d,) = pullback(p * change - p * jnp.sum(p * change, axis=-1, keepdims=True))
            return d, None

        start = jax.random.normal(jax.random.fold_in(key, 3), x.shape, x.dtype)
        d, _ = jax.lax.scan(turned, start, None, length=iterations)
        r = jax.lax.stop_gradient(jnp.asarray(epsilon, x.dtype) * _unit(d))
        log_p = jax.lax.stop_gradient(jax.nn.log_softmax(z))
        divergence = jnp.sum(p * (log_p - jax.nn.log_softmax(logits(x + r))), axis=-1)
        return weighted_mean(divergence, *weight)

    return penalty


def _unit(d):
    """Each example's direction with length 1; zeros stay zeros."""
    square = jnp.sum(jnp.square(d), axis=tuple(range(1, d.ndim)), keepdims=True)
    return d / jnp.sqrt(jnp.where(square == 0, jnp.ones_like(square), square))
