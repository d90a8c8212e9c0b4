"""Gaussian likelihoods whose variance is learned: one per output, or the full covariance of the outputs.

Both are complete negative log-densities (½ log 2π included), so they may be negative (Goodfellow §5.5). Scales are
made positive by s = 10⁻⁶ + softplus(a): the floor keeps value and gradient finite at any output.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnet import activations
from jaxnet.losses.loss import Loss, aligned, check_targets_like, per_example

FLOOR = 1e-6  # the least precision, variance or diagonal entry of a Cholesky factor
LOG_2PI = math.log(2 * math.pi)
SCALES = ("precision", "variance", "deviation")


def positive(raw: Array) -> Array:
    """s = 10⁻⁶ + log(1 + eᵃ) > 0, elementwise; ds/da = σ(a) (Goodfellow §6.2.2.4).

    >>> round(float(positive(jnp.array(0.5413))), 4)
    1.0
    """
    return FLOOR + activations.softplus(raw)


def raw_of(scale: float) -> float:
    """The a of `positive(a) = scale`: the inverse softplus, log(eˢ − 1) (Goodfellow eq. 3.39).

    Raises:
        ValueError: unless scale > 10⁻⁶.

    >>> round(raw_of(1.0), 4)
    0.5413
    """
    if not FLOOR < scale < math.inf:
        raise ValueError(f"got scale {scale}; expected a finite number above the floor {FLOOR}")
    return scale - FLOOR + math.log(-math.expm1(FLOOR - scale))


def mean_and_scale(output: Array) -> tuple[Array, Array]:
    """(means, scales), each (n, …, k), of the outputs (n, …, 2k) of `gaussian`: the means come first.

    Raises:
        ValueError: for an odd number of outputs.

    >>> [a.shape for a in mean_and_scale(jnp.zeros((5, 6)))]
    [(5, 3), (5, 3)]
    """
    k = _half("gaussian", output.shape)
    return output[..., :k], positive(output[..., k:])


def _half(name, shape) -> int:
    if len(shape) < 2 or shape[-1] % 2:
        raise ValueError(
            f"{name}: got outputs of shape {shape}; expected (batch, 2k), k means and k scales: end the network with "
            "two units per target"
        )
    return shape[-1] // 2


def gaussian(scale: str = "precision") -> Loss:
    """−log N(y; μ, s), summed over k targets, for outputs (n, 2k): μ, then a with s = 10⁻⁶ + softplus(a).

    As precision β = s: ½ Σ β (μ − y)² − log β + log 2π; gradient β (μ − y) and ½ ((μ − y)² − 1/β) σ(a).
    As variance v = s: ½ Σ (μ − y)²/v + log v + log 2π; gradient (μ − y)/v and ½ (1/v − (μ − y)²/v²) σ(a).
    As standard deviation s: ½ Σ (μ − y)²/s² + 2 log s + log 2π; gradient (μ − y)/s² and (1/s − (μ − y)²/s³) σ(a).
    The precision needs no division by what may be small. Targets (n, k), or (n,) for k = 1.

    Raises:
        ValueError: for another scale than "precision", "variance" or "deviation".
    Source: Goodfellow eq. 3.21–3.24, 6.34.

    >>> round(float(gaussian()(jnp.array([[2.0, 0.5413]]), jnp.array([2.0]))[0]), 4)
    0.9189
    """
    if scale not in SCALES:
        raise ValueError(f'got gaussian(scale={scale!r}); expected "precision", "variance" or "deviation"')

    def parts(output, target):
        mean, s = mean_and_scale(output)
        return s, mean - aligned("gaussian, means", mean, target)

    def value(output, target):
        s, r = parts(output, target)
        if scale == "precision":
            return 0.5 * per_example(s * jnp.square(r) - jnp.log(s) + LOG_2PI)
        if scale == "variance":
            return 0.5 * per_example(jnp.square(r) / s + jnp.log(s) + LOG_2PI)
        return per_example(0.5 * jnp.square(r / s) + jnp.log(s) + LOG_2PI / 2)

    def gradient(output, target):
        s, r = parts(output, target)
        slope = activations.sigmoid(output[..., s.shape[-1] :])
        if scale == "precision":
            by_mean, by_scale = s * r, 0.5 * (jnp.square(r) - 1 / s)
        elif scale == "variance":
            by_mean, by_scale = r / s, 0.5 * (1 / s - jnp.square(r / s))
        else:
            by_mean, by_scale = r / jnp.square(s), (1 - jnp.square(r / s)) / s
        return jnp.concatenate([by_mean, by_scale * slope], axis=-1)

    def check(spec, target):
        means = jax.ShapeDtypeStruct((*spec.shape[:-1], _half("gaussian", spec.shape)), spec.dtype)
        check_targets_like("gaussian, means", means, target)

    return Loss("gaussian", value, gradient, check)


# ── full covariance ─────────────────────────────────────────────────────────────────────────────────────────────


def _dimensions(shape) -> int:
    """d of the d + d (d + 1) / 2 outputs."""
    width = shape[-1] if len(shape) > 1 else 0
    d = (math.isqrt(9 + 8 * width) - 3) // 2
    if d < 1 or d * (d + 3) // 2 != width:
        raise ValueError(
            f"multivariate_gaussian: got outputs of shape {shape}; expected (batch, d + d(d + 1)/2), 2, 5, 9, 14, … "
            "units for d = 1, 2, 3, 4, … targets"
        )
    return d


def mean_and_factor(output: Array) -> tuple[Array, Array]:
    """(means (n, d), L (n, d, d)) of the outputs of `multivariate_gaussian`; the precision of y is L Lᵀ.

    L is lower triangular, given row by row after the means, its diagonal through `positive`.

    Raises:
        ValueError: for a number of outputs that isn't d + d (d + 1) / 2.

    >>> [a.shape for a in mean_and_factor(jnp.zeros((7, 5)))]
    [(7, 2), (7, 2, 2)]
    """
    d = _dimensions(output.shape)
    rows, columns = np.tril_indices(d)
    raw = output[..., d:]
    entries = jnp.where(jnp.asarray(rows == columns).reshape((1,) * (raw.ndim - 1) + (-1,)), positive(raw), raw)
    factor = jnp.zeros((*output.shape[:-1], d, d), output.dtype).at[..., rows, columns].set(entries)
    return output[..., :d], factor


def _whitened(output, target):
    """(L, r = μ − y, u = Lᵀ r)"""
    mean, factor = mean_and_factor(output)
    r = mean - aligned("multivariate_gaussian, means", mean, target)
    return factor, r, jnp.sum(factor * r[..., :, None], axis=-2)


def _multivariate_gaussian(output, target):
    factor, _, u = _whitened(output, target)
    log_diagonal = jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1))
    return per_example(0.5 * jnp.square(u) - log_diagonal + LOG_2PI / 2)


def _multivariate_gaussian_gradient(output, target):
    factor, r, u = _whitened(output, target)
    d = r.shape[-1]
    rows, columns = np.tril_indices(d)
    diagonal = jnp.asarray(rows == columns).reshape((1,) * (r.ndim - 1) + (-1,))
    by_entry = r[..., rows] * u[..., columns]
    on_diagonal = (by_entry - 1 / jnp.diagonal(factor, axis1=-2, axis2=-1)[..., rows]) * activations.sigmoid(
        output[..., d:]
    )
    by_mean = jnp.sum(factor * u[..., None, :], axis=-1)
    return jnp.concatenate([by_mean, jnp.where(diagonal, on_diagonal, by_entry)], axis=-1)


def _check_multivariate_gaussian(spec, target):
    means = jax.ShapeDtypeStruct((*spec.shape[:-1], _dimensions(spec.shape)), spec.dtype)
    check_targets_like("multivariate_gaussian, means", means, target)


multivariate_gaussian = Loss(
    "multivariate_gaussian",
    _multivariate_gaussian,
    _multivariate_gaussian_gradient,
    _check_multivariate_gaussian,
)
"""−log N(y; μ, (L Lᵀ)⁻¹) = ½ ‖Lᵀ r‖² − Σ log L_ii + ½ d log 2π, r = μ − y, for outputs (n, d + d(d + 1)/2): μ, then
the lower triangle of L row by row, its diagonal through softplus. Gradient with u = Lᵀ r: L u by μ, r_i u_j by L_ij,
less 1/L_ii on the diagonal. In the precision's factor nothing is inverted, divided or decomposed (Goodfellow eq. 3.24,
§6.2.2.4, which parametrizes the covariance, Σ = B Bᵀ)."""
