"""Mixture density networks: −log Σ_i π_i N(y; μ_i, 1/β_i), everything but y given by the network."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet import activations
from jaxnet.losses.classification import log_softmax
from jaxnet.losses.gaussian import LOG_2PI, positive
from jaxnet.losses.loss import Loss, check_real, lacks_last_axis, per_example


def _dimensions(shape, components: int) -> int:
    d, rest = divmod(shape[-1] - components, 2 * components) if len(shape) > 1 else (0, 0)
    if d < 1 or rest:
        raise ValueError(
            f"mixture: got outputs of shape {shape} for {components} components; expected (batch, {components}·"
            f"(1 + 2d)) for d targets, {3 * components} for one: a weight, d means and d scales per component"
        )
    return d


def mixture_parameters(output: Array, components: int) -> tuple[Array, Array, Array]:
    """(logits of the weights (n, m), means (n, m, d), precisions (n, m, d)) of outputs (n, m (1 + 2d)), in this order.

    Means and raw precisions come component by component; a precision is 10⁻⁶ + softplus of its output.

    Raises:
        ValueError: for a number of outputs that doesn't divide so.

    >>> [a.shape for a in mixture_parameters(jnp.zeros((7, 15)), 3)]
    [(7, 3), (7, 3, 2), (7, 3, 2)]
    """
    d = _dimensions(output.shape, components)
    shape = (*output.shape[:-1], components, d)
    logits, means, raw = jnp.split(output, [components, components * (1 + d)], axis=-1)
    return logits, means.reshape(shape), positive(raw.reshape(shape))


def _log_joint(output, target, components):
    """(log π_i N_i (n, m), precisions, residuals μ − y)"""
    logits, means, precision = mixture_parameters(output, components)
    if lacks_last_axis("mixture, means", (*means.shape[:-2], means.shape[-1]), target.shape):
        target = target[..., None]
    r = means - target.astype(output.dtype)[..., None, :]
    log_density = 0.5 * jnp.sum(jnp.log(precision) - precision * jnp.square(r) - LOG_2PI, axis=-1)
    return log_softmax(logits) + log_density, precision, r


def responsibilities(output: Array, target: Array, components: int) -> Array:
    """P(component i | y, x) = π_i N_i / Σ_j π_j N_j, (n, m): the share of each component in the loss's gradient.

    Source: Goodfellow eq. 3.29, §6.2.2.4; Bishop eq. 6.42.

    >>> output = jnp.array([[0.0, 0.0, -4.0, 4.0, 0.0, 0.0]])  # two components at ∓4
    >>> responsibilities(output, jnp.array([4.0]), 2).round(3).tolist()
    [[0.0, 1.0]]
    """
    return activations.softmax(_log_joint(output, target, components)[0])


def mixture(components: int) -> Loss:
    """−log Σ_i π_i Π_j N(y_j; μ_ij, 1/β_ij) for outputs (n, m (1 + 2d)): m logits of π, m·d means, m·d raw precisions.

    By log-sum-exp, so it's finite where every density underflows. With the responsibilities ρ_i the gradient is
    π_i − ρ_i by the logits, ρ_i β_ij (μ_ij − y_j) by the means, ½ ρ_i ((μ_ij − y_j)² − 1/β_ij) σ(a_ij) by the raw
    precisions a, β = 10⁻⁶ + softplus(a). Targets (n, d), or (n,) for d = 1. A component that narrows onto one example
    makes steep gradients: train with `optax.clip_by_global_norm`.

    Raises:
        ValueError: for fewer than one component.
    Source: Goodfellow eq. 6.35; Bishop 1994.

    >>> mixture(2)(jnp.zeros((5, 6)), jnp.zeros(5)).shape
    (5,)
    """
    if isinstance(components, bool) or not isinstance(components, int) or components < 1:
        raise ValueError(f"got mixture(components={components!r}); expected a positive integer")

    def value(output, target):
        joint, _, _ = _log_joint(output, target, components)
        largest = jax.lax.stop_gradient(jnp.max(joint, axis=-1, keepdims=True))
        return per_example(-largest[..., 0] - jnp.log(jnp.sum(jnp.exp(joint - largest), axis=-1)))

    def gradient(output, target):
        joint, precision, r = _log_joint(output, target, components)
        share = activations.softmax(joint)
        weights = activations.softmax(output[..., :components])
        slope = activations.sigmoid(output[..., components * (1 + r.shape[-1]) :]).reshape(r.shape)
        by_mean = share[..., None] * (precision * r)
        by_raw = 0.5 * share[..., None] * ((jnp.square(r) - 1 / precision) * slope)
        flat = (*output.shape[:-1], -1)
        return jnp.concatenate([weights - share, by_mean.reshape(flat), by_raw.reshape(flat)], axis=-1)

    def check(spec, target):
        check_real("mixture", target)
        d = _dimensions(spec.shape, components)
        lacks_last_axis("mixture, means", (*spec.shape[:-1], d), target.shape)

    return Loss("mixture", value, gradient, check)
