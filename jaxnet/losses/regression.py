"""Losses on predicted values: squared and absolute error, Huber, quantiles, and counts by their log rate."""

import jax
import jax.numpy as jnp

from jaxnet.losses.loss import (
    Loss,
    aligned,
    check_real,
    check_targets_like,
    lacks_last_axis,
    per_example,
    refuse,
    where_valid,
)

# ── squared error ───────────────────────────────────────────────────────────────────────────────────────────────


def _squared_error(output, target):
    return 0.5 * per_example(jnp.square(output - aligned("squared_error", output, target)))


def _squared_error_gradient(output, target):
    return output - aligned("squared_error", output, target)


squared_error = Loss(
    "squared_error",
    _squared_error,
    _squared_error_gradient,
    lambda spec, target: check_targets_like("squared_error", spec, target),
    "values",
)
"""½ Σ_k (ŷ_k − y_k)²; gradient ŷ − y. The negative log-likelihood of a unit Gaussian but for the constant
½ k log 2π (Goodfellow eq. 6.13). Its minimizer is the conditional mean (eq. 6.14)."""


# ── absolute error ──────────────────────────────────────────────────────────────────────────────────────────────


def _absolute_error(output, target):
    residual = output - aligned("absolute_error", output, target)
    return per_example(residual * jax.lax.stop_gradient(jnp.sign(residual)))


def _absolute_error_gradient(output, target):
    return jnp.sign(output - aligned("absolute_error", output, target))


absolute_error = Loss(
    "absolute_error",
    _absolute_error,
    _absolute_error_gradient,
    lambda spec, target: check_targets_like("absolute_error", spec, target),
    "values",
)
"""Σ_k |ŷ_k − y_k|; gradient sign(ŷ − y), 0 where ŷ = y (`jnp.abs` would give 1 there). Its minimizer is the
conditional median (Goodfellow eq. 6.16); the negative log-likelihood of a Laplace distribution with γ = 1 but for
the constant k log 2 (eq. 3.26)."""


# ── Huber ───────────────────────────────────────────────────────────────────────────────────────────────────────


def huber(delta: float = 1.0) -> Loss:
    """½ r² where |r| ≤ δ, else δ (|r| − ½ δ), summed over outputs, r = ŷ − y; gradient: r clipped to ±δ.

    Equal to the squared error near the target and as robust as the absolute error far from it; smooth everywhere.

    Raises:
        ValueError: unless δ > 0 and finite.
    Source: Huber 1964.

    >>> huber(1.0)(jnp.array([[0.5], [3.0]]), jnp.zeros((2, 1))).tolist()
    [0.125, 2.5]
    """
    if not 0 < delta < float("inf"):
        raise ValueError(f"got huber(delta={delta}); expected a finite δ > 0, in the units of the targets")

    def value(output, target):
        residual = output - aligned("huber", output, target)
        clipped = jnp.clip(residual, -delta, delta)
        return per_example(clipped * (residual - clipped / 2))

    def gradient(output, target):
        return jnp.clip(output - aligned("huber", output, target), -delta, delta)

    return Loss("huber", value, gradient, lambda spec, target: check_targets_like("huber", spec, target), "values")


# ── quantiles ───────────────────────────────────────────────────────────────────────────────────────────────────


def quantile(*levels: float) -> Loss:
    """Σ_q max(q u, (q − 1) u), u = y − ŷ_q: the pinball loss, whose minimizers are the conditional quantiles.

    Outputs (n, levels), one per level in order; targets (n,) or (n, 1). Gradient by ŷ_q: −q where y > ŷ_q, 1 − q where
    y < ŷ_q, 0 where equal. At the level ½ it's half the absolute error.

    Raises:
        ValueError: unless 0 < levels < 1, increasing.
    Source: Koenker & Bassett 1978.

    >>> quantile(0.25, 0.75)(jnp.array([[1.0, 3.0]]), jnp.array([2.0])).tolist()
    [0.5]
    """
    if not levels or not all(0 < q < 1 for q in levels) or sorted(set(levels)) != list(levels):
        raise ValueError(f"got quantile{levels}; expected increasing levels between 0 and 1, quantile(0.05, 0.5, 0.95)")

    def check_shape(output_shape, target_shape):
        if output_shape[-1:] != (len(levels),):
            raise ValueError(
                f"quantile: got outputs of shape {output_shape} for the levels {levels}; expected (batch, "
                f"{len(levels)}): give the last layer one unit per level"
            )
        return lacks_last_axis("quantile, per level", (*output_shape[:-1], 1), target_shape)

    def parts(output, target):
        """u = y − ŷ, and the slope of the loss by u, 0 at the kink."""
        if check_shape(output.shape, target.shape):
            target = target[..., None]
        u = jnp.broadcast_to(target.astype(output.dtype), output.shape) - output
        q = jnp.broadcast_to(jnp.asarray(levels, output.dtype), output.shape)
        slope = jnp.where(u == 0, jnp.zeros_like(u), q - (u < 0).astype(u.dtype))
        return u, where_valid(~jnp.isnan(u), slope)

    def value(output, target):
        u, slope = parts(output, target)
        return per_example(u * jax.lax.stop_gradient(slope))

    def gradient(output, target):
        return -parts(output, target)[1]

    def check(spec, target):
        check_real("quantile", target)
        check_shape(spec.shape, target.shape)

    return Loss("quantile", value, gradient, check)


# ── counts ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _poisson(output, target):
    y = aligned("poisson", output, target)
    return per_example(where_valid(y >= 0, jnp.exp(output) - y * output + jax.lax.lgamma(y + 1)))


def _poisson_gradient(output, target):
    y = aligned("poisson", output, target)
    return where_valid(y >= 0, jnp.exp(output) - y)


def _check_poisson(spec, target):
    check_targets_like("poisson", spec, target)
    refuse("poisson", "target", target, ~(target >= 0), "counts ≥ 0: the outputs are logarithms of rates, y isn't")


poisson = Loss("poisson", _poisson, _poisson_gradient, _check_poisson)
"""Σ_k e^{z_k} − y_k z_k + log y_k! for log rates z; gradient e^z − y: prediction minus target, as for every natural
parameter. The rate itself overflows above z = 88 (float32), where the loss is infinite indeed."""
