"""Gradients at a perturbed place: of perturbed examples, of perturbed parameters.

augmented:  ∇L(θ; transform(batch))      sam:  ∇L(θ + ρ g/‖g‖),  g = ∇L(θ)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.gradients.roads import GradientFunction
from jaxnet.norms import squared_norm


def augmented(gradient: GradientFunction, transform: Callable[..., Any]) -> GradientFunction:
    """`gradient` of a batch transformed at random, anew in every step (Goodfellow §7.4, §7.5.1).

    Args:
        transform: (key, x, y) -> (x, y), of the same shapes; `data.augment` has shifts, rotations, noise on inputs and
            labels. Weights stay as they are.

    Only training is augmented: validation, and any call without `train=True`, sees the examples as they are. The key
    of the transformation is the step's folded with 1, the network's folded with 0.

    Raises:
        ValueError: training without a key.

    >>> def gradient(params, state, batch, *, key=None, train=False):
    ...     return (jnp.mean(batch[0] * params), state), jnp.mean(batch[0])
    >>> doubled = augmented(gradient, lambda key, x, y: (2 * x, y))
    >>> batch = jnp.ones(4), jnp.zeros(4)
    >>> float(doubled(jnp.ones(()), {}, batch, key=jax.random.key(0), train=True)[1]), float(
    ...     doubled(jnp.ones(()), {}, batch)[1])
    (2.0, 1.0)
    """

    def augmented_gradient(params, state, batch, *, key=None, train=False):
        if not train:
            return gradient(params, state, batch, key=key, train=False)
        if key is None:
            raise ValueError("augmented in training got key=None; expected a key: pass key=jax.random.key(…)")
        x, y, *weight = batch
        x, y = transform(jax.random.fold_in(key, 1), x, y)
        return gradient(params, state, (x, y, *weight), key=jax.random.fold_in(key, 0), train=True)

    return augmented_gradient


def sam(gradient: GradientFunction, radius: Any) -> GradientFunction:
    """Sharpness-aware minimization: the gradient where the loss rises most within `radius` ρ of the parameters.

    g = ∇L(θ), grads = ∇L(θ + ρ g/‖g‖) (Foret et al. 2021). Loss and state are those at θ. Two gradients a step, on the
    same dropout masks. Where g = 0, θ isn't moved.

    >>> def gradient(params, state, batch, *, key=None, train=False):
    ...     return (jnp.sum(params**2), state), 2 * params
    >>> (loss, _), grads = sam(gradient, 0.5)(jnp.array([3.0, 4.0]), {}, ())
    >>> float(loss), [round(float(g), 4) for g in grads]
    (25.0, [6.6, 8.8])
    """

    def sharpness_aware(params, state, batch, *, key=None, train=False):
        value, grads = gradient(params, state, batch, key=key, train=train)
        square = squared_norm(grads)
        length = jnp.sqrt(jnp.where(square == 0, jnp.ones_like(square), square))

        def moved(w, g):
            return w + jnp.asarray(radius, w.dtype) * (g / length.astype(g.dtype))

        return value, gradient(jax.tree.map(moved, params, grads), state, batch, key=key, train=train)[1]

    return sharpness_aware
