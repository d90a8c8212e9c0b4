"""A loss at each step of a sequence, averaged over the steps that are there.

    ℓ(output, target) = 1/T Σ_{t < T} ℓ₁(output_t, target_t)      T: the sequence's length

The other losses sum over an example's time steps; this one makes a long and a short sequence count alike. What stands
in the padding, NaN too, changes neither value nor gradient.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet.losses.loss import Loss, as_loss


def per_step(loss: "Loss | Callable[[Array, Array], Array]") -> Loss:
    """`loss` at each step, and its mean over an example's true steps, (batch,); 0 for a sequence of length 0.

    output: a `Sequence` with values (batch, time, …), or an array of that shape, all of whose steps count. target:
    (batch, time, …), at each step what `loss` takes, such as labels (batch, time). Padded targets must be valid ones
    all the same (zeros, say): they are checked with the others. The gradient is the loss's own by hand, times 1/T,
    and exactly 0 in the padding.

    Raises:
        ValueError: outputs and targets of another batch or time.

    >>> squares = per_step(Loss("square", lambda z, y: (z - y)[:, 0] ** 2, lambda z, y: 2 * (z - y)))
    >>> squares(jnp.array([[[1.0], [3.0]]]), jnp.zeros((1, 2, 1))).tolist()
    [5.0]
    """
    loss = as_loss(loss)
    slope_at: Any = loss.gradient
    filler = 1 if loss.outputs == "margins" else 0  # a target that every such loss takes

    def value(output, target):
        return mean_over_steps(loss.value, output, target, filler)

    def gradient(output, target):
        z, y, there = _steps(output, target, filler)
        count = jnp.maximum(jnp.sum(there, axis=1), 1)
        slope = slope_at(_flat(z), _flat(y)).reshape(z.shape)
        each = there.reshape(*there.shape, *[1] * (z.ndim - 2))
        share = 1 / count.astype(z.dtype).reshape(-1, *[1] * (z.ndim - 1))
        slope = jnp.where(each, slope * share, jnp.zeros_like(slope))
        return dataclasses.replace(output, values=slope, lengths=None) if hasattr(output, "mask") else slope

    def check(spec, target):
        values = spec.values if hasattr(spec, "mask") else spec
        shape = (values.shape[0] * values.shape[1], *values.shape[2:])
        loss.check(jax.ShapeDtypeStruct(shape, values.dtype), _flat(target))

    return Loss(f"per_step({loss.name})", value, gradient if loss.gradient else None, check, ignore=loss.ignore)


def mean_over_steps(function: Callable[[Array, Array], Array], output: Any, target: Array, filler: int = 0) -> Array:
    """function(output_t, target_t) at each step, and its mean over an example's true steps, (batch,).

    >>> mean_over_steps(lambda z, y: z[:, 0] * y, jnp.array([[[1.0], [3.0]]]), jnp.array([[1.0, 1.0]])).tolist()
    [2.0]
    """
    z, y, there = _steps(output, target, filler)
    values = function(_flat(z), _flat(y)).reshape(there.shape)
    if not jnp.issubdtype(values.dtype, jnp.floating):  # such as right or wrong
        values = values.astype(jnp.result_type(float))
    count = jnp.maximum(jnp.sum(there, axis=1), 1).astype(values.dtype)
    return jnp.sum(jnp.where(there, values, jnp.zeros_like(values)), axis=1) / count


def _steps(output, target, filler):
    """Outputs and targets with the padding overwritten, and where there is none: (batch, time)."""
    padded = hasattr(output, "mask")
    z, y = (output.values if padded else output), jnp.asarray(target)
    if z.ndim < 2 or y.shape[:2] != z.shape[:2]:
        raise ValueError(
            f"per_step: got targets of shape {y.shape} for outputs of shape {z.shape}; expected both (batch, time, …)"
        )
    there = output.mask() if padded else jnp.ones(z.shape[:2], bool)

    def kept(a, other):
        return jnp.where(there.reshape(*there.shape, *[1] * (a.ndim - 2)), a, jnp.full_like(a, other))

    return kept(z, 0), kept(y, filler), there


def _flat(a):
    """(batch · time, …)"""
    return a.reshape(a.shape[0] * a.shape[1], *a.shape[2:])
