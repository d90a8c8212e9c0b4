"""Adversarial examples: inputs moved within a small box so that the loss rises, and training on them.

    attack(params, state, batch, *, key=None, train=False) -> x',  |x'_i − x_i| ≤ ε

`fgsm` and `pgd` make an attack of a network and a loss; `adversarial` trains on any attack.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.gradients.roads import GradientFunction
from jaxnet.layers import Layer
from jaxnet.losses import Loss, as_loss

Attack = Callable[..., Any]


def _input_gradient(net: Layer, loss, params, state, x, y, key, train):
    """∂ Σ_i ℓ_i / ∂x, the gradient of each example's own loss."""

    def total(x):
        return jnp.sum(loss.value(net.apply(params, state, x, key=key, train=train)[0], y))

    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"an attack got inputs of dtype {x.dtype}; expected floats: integers can't be moved a little")
    return jax.grad(total)(x)


def _within(x, bounds):
    return x if bounds is None else jnp.clip(x, *(jnp.asarray(b, x.dtype) for b in bounds))


def fgsm(net: Layer, loss: "Loss | Callable", epsilon: Any, *, bounds: tuple[float, float] | None = None) -> Attack:
    """The fast gradient sign attack, x' = x + ε sign(∂ℓ/∂x) (Goodfellow §7.13; Goodfellow et al. 2015).

    Args:
        epsilon: ε, in the inputs' units, traced or not.
        bounds: (lowest, highest) value of an input, kept to; None for no bounds.

    On a linear model it is the worst of all moves within the box.

    Raises:
        TypeError: inputs that aren't floats.

    >>> from jaxnet import layers, losses
    >>> net = layers.dense(1)
    >>> params = {"w": jnp.array([[2.0], [-3.0]]), "b": jnp.zeros(1)}
    >>> x = jnp.array([[1.0, 1.0]])
    >>> fgsm(net, losses.squared_error, 0.25)(params, {}, (x, jnp.array([[9.0]]))).tolist()
    [[0.75, 1.25]]
    """
    loss = as_loss(loss)

    def attack(params, state, batch, *, key=None, train=False):
        x, y, *_ = batch
        slope = _input_gradient(net, loss, params, state, x, y, key, train)
        return _within(x + jnp.asarray(epsilon, x.dtype) * jnp.sign(slope), bounds)

    return attack


def pgd(
    net: Layer,
    loss: "Loss | Callable",
    epsilon: Any,
    *,
    steps: int,
    rate: Any,
    bounds: tuple[float, float] | None = None,
) -> Attack:
    """Projected gradient ascent in the box: x ← clip(x + rate · sign(∂ℓ/∂x), x₀ ± ε), `steps` times (Madry 2018).

    With a key it starts at a uniformly random place of the box (from the key folded with 2), without one at x₀. One
    step from x₀ with rate = ε is `fgsm`.

    Args:
        epsilon, bounds: as for `fgsm`.
        steps: how many.
        rate: the length of a step in each input, in the inputs' units.

    Raises:
        ValueError: for fewer than one step.
        TypeError: inputs that aren't floats.

    >>> from jaxnet import layers, losses
    >>> params = {"w": jnp.array([[2.0], [-3.0]]), "b": jnp.zeros(1)}
    >>> attack = pgd(layers.dense(1), losses.squared_error, 0.25, steps=3, rate=0.125)
    >>> attack(params, {}, (jnp.array([[1.0, 1.0]]), jnp.array([[9.0]]))).tolist()
    [[0.75, 1.25]]
    """
    loss = as_loss(loss)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"pgd: got steps={steps!r}; expected a whole number ≥ 1")

    def attack(params, state, batch, *, key=None, train=False):
        x0, y, *_ = batch
        size, step = jnp.asarray(epsilon, x0.dtype), jnp.asarray(rate, x0.dtype)

        def body(x, _):
            slope = _input_gradient(net, loss, params, state, x, y, key, train)
            return _within(jnp.clip(x + step * jnp.sign(slope), x0 - size, x0 + size), bounds), None

        start = x0
        if key is not None:
            own = jax.random.fold_in(key, 2)
            start = _within(x0 + size * jax.random.uniform(own, x0.shape, x0.dtype, -1, 1), bounds)
        return jax.lax.scan(body, start, None, length=steps)[0]

    return attack


def adversarial(gradient: GradientFunction, attack: Attack, *, share: Any = 0.5) -> GradientFunction:
    """Adversarial training: the gradient of (1 − share) · L(x) + share · L(x'), x' from `attack` (Goodfellow §7.13).

    No derivative goes through the attack. State is what the clean examples leave. Two gradients a step beside the
    attack's own.

    Args:
        attack: `fgsm(…)`, `pgd(…)` or any function like them.
        share: weight of the adversarial half, from 0 to 1, traced or not.

    Raises:
        ValueError: a share outside [0, 1].

    >>> def gradient(params, state, batch, *, key=None, train=False):
    ...     return (jnp.mean(batch[0]) * params, state), jnp.mean(batch[0])
    >>> def attack(params, state, batch, *, key=None, train=False):
    ...     return batch[0] + 1
    >>> float(adversarial(gradient, attack)(jnp.ones(()), {}, (jnp.zeros(2), jnp.zeros(2)))[1])
    0.5
    """
    if isinstance(share, (int, float)) and not 0 <= share <= 1:
        raise ValueError(f"adversarial: got share={share}; expected a number from 0 to 1")

    def adversarial_gradient(params, state, batch, *, key=None, train=False):
        (clean, after), grads = gradient(params, state, batch, key=key, train=train)
        moved = jax.lax.stop_gradient(attack(params, state, batch, key=key, train=train))
        (attacked, _), slopes = gradient(params, state, (moved, *batch[1:]), key=key, train=train)

        def mixed(a, b):
            part = jnp.asarray(share, a.dtype)
            return (1 - part) * a + part * b

        return (mixed(clean, attacked), after), jax.tree.map(mixed, grads, slopes)

    return adversarial_gradient
