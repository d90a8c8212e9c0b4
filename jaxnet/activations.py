"""Activation functions: the value and, beside it, its hand-derived backward rule.

    value(x)        -> y     same shape and dtype as x
    backward(x, dy) -> dx    dx = (dy/dx)ᵀ dy, written by hand, never by automatic differentiation

At a kink the derivative is the one from the left: relu′(0) = 0, leaky_relu′(0) = 0.01, selu′(0) = λα; but |x|′(0) = 0,
and 0 at both ends of the hard sigmoid and the hard tanh. Automatic differentiation gives the same.
All are finite, value and derivative, for |x| up to 1e4 and far beyond. `step` has a value only.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation: `value(x) -> y` and `backward(x, dy) -> dx`; calling it gives the value.

    `relu_like` says that the unit passes half of a centred input, so that He's initialization keeps the variance.
    Where `differentiable` is false both ways to a gradient raise a TypeError that says why.

    >>> float(tanh(jnp.float32(0.5))) == float(jnp.tanh(0.5))
    True
    """

    name: str
    value: Callable[[Array], Array]
    backward: Callable[[Array, Array], Array]
    relu_like: bool = False
    differentiable: bool = True

    def __call__(self, x: Array) -> Array:
        return self.value(x)

    def __repr__(self) -> str:
        return f"<activation {self.name}>"


def _sigmoid(x):
    return jax.nn.sigmoid(x)


def _sigmoid_backward(x, dy):
    y = jax.nn.sigmoid(x)
    return dy * (y * (1 - y))


def _tanh_backward(x, dy):
    y = jnp.tanh(x)
    return dy * ((1 + y) * (1 - y))  # not 1 − y²: no rounding error survives near |y| = 1


def _softplus(x):
    return jnp.logaddexp(x, jnp.zeros_like(x))


def _softmax(x):
    shifted = jnp.exp(x - jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True)))
    return shifted / jnp.sum(shifted, axis=-1, keepdims=True)


def _softmax_backward(x, dy):
    y = _softmax(x)
    return y * (dy - jnp.sum(dy * y, axis=-1, keepdims=True))


def _log_softmax(x):
    shifted = x - jax.lax.stop_gradient(jnp.max(x, axis=-1, keepdims=True))
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True))


def _clamped(x, bound):
    """min(bound, max(−bound, x)); its derivative is 1 strictly inside, else 0."""
    return jax.lax.clamp(jnp.asarray(-bound, x.dtype), x, jnp.asarray(bound, x.dtype))


def _inside(x, dy, bound):
    return jnp.where(jnp.abs(x) < bound, dy, jnp.zeros_like(dy))


def _scaled_elu(x, alpha, scale):
    negative = jnp.where(x > 0, jnp.zeros_like(x), x)  # no exponential of what isn't used
    return scale * jnp.where(x > 0, x, alpha * jnp.expm1(negative))


def _scaled_elu_backward(x, dy, alpha, scale):
    negative = jnp.where(x > 0, jnp.zeros_like(x), x)
    return dy * (scale * jnp.where(x > 0, jnp.ones_like(x), alpha * jnp.exp(negative)))


def _silu_backward(x, dy):
    y = jax.nn.sigmoid(x)
    return dy * (y * (1 + x * (1 - y)))


def _normal_cdf(x):
    return 0.5 * jax.lax.erfc(-(0.5**0.5) * x)  # not 1 + erf: the left tail keeps its digits


def _gelu_backward(x, dy):
    density = (2 * math.pi) ** -0.5 * jnp.exp(-0.5 * x * x)
    return dy * (_normal_cdf(x) + x * density)


def _gelu_tanh_argument(x):
    return (2 / math.pi) ** 0.5 * (x + 0.044715 * x * x * x)


def _gelu_tanh_backward(x, dy):
    t = jnp.tanh(_gelu_tanh_argument(x))
    slope = (2 / math.pi) ** 0.5 * (1 + 3 * 0.044715 * x * x)
    return dy * (0.5 * (1 + t) + 0.5 * x * ((1 + t) * (1 - t)) * slope)


@jax.custom_jvp
def _softsign(x):
    return x / (1 + jnp.abs(x))


def _softsign_slope(x):
    return 1 / jnp.square(1 + jnp.abs(x))


# the quotient's own rule subtracts two numbers that are close for large |x|
_softsign.defjvp(lambda x, t: (_softsign(*x), t[0] * _softsign_slope(*x)))


@jax.custom_jvp
def _step(x):
    return jnp.where(x >= 0, jnp.ones_like(x), jnp.where(x < 0, jnp.zeros_like(x), x))  # NaN stays NaN


def _step_has_no_slope(*_):
    raise TypeError(
        "step: got asked for its derivative, which is 0 everywhere but at 0, where there is none: descent learns "
        "nothing from it; expected a forward use only: train with sigmoid or relu, or pass jax.lax.stop_gradient(x)"
    )


_step.defjvp(_step_has_no_slope)


def rectifier(slope, *, name: str = "rectifier") -> Activation:
    """The rectifier with slope α for negative inputs: y = max(0, x) + α min(0, x); dx = dy where x > 0, else α dy.

    α = 0 gives ReLU, 0.01 leaky ReLU, 1 the identity, −1 the absolute value (Goodfellow §6.3.1). The derivative at 0
    is α. α may be traced.

    >>> rectifier(-1.0)(jnp.array([-2.0, 3.0])).tolist()
    [2.0, 3.0]
    """
    return Activation(
        name,
        lambda x: jnp.where(x > 0, x, jnp.asarray(slope, x.dtype) * x),
        lambda x, dy: jnp.where(x > 0, dy, jnp.asarray(slope, dy.dtype) * dy),
        relu_like=True,
    )


identity = Activation("identity", lambda x: x, lambda x, dy: dy)
"""y = x; dx = dy. A hidden layer of it collapses with its neighbour into one linear map (MIT 6.036 §3)."""

relu = Activation("relu", jax.nn.relu, lambda x, dy: jnp.where(x > 0, dy, jnp.zeros_like(dy)), relu_like=True)
"""y = max(0, x); dx = dy where x > 0, else 0: the derivative at 0 is 0 (Goodfellow §6.3.1)."""

sigmoid = Activation("sigmoid", _sigmoid, _sigmoid_backward)
"""y = 1 / (1 + e⁻ˣ); dx = dy · y (1 − y) (Goodfellow eq. 3.30, 3.33)."""

tanh = Activation("tanh", jnp.tanh, _tanh_backward)
"""y = tanh x = 2σ(2x) − 1; dx = dy · (1 − y²) (Goodfellow eq. 6.39)."""

softplus = Activation("softplus", _softplus, lambda x, dy: dy * jax.nn.sigmoid(x), relu_like=True)
"""y = log(1 + eˣ), computed without overflow; dx = dy · σ(x), 0.5 at 0 (Goodfellow eq. 3.31)."""

softmax = Activation("softmax", _softmax, _softmax_backward)
"""y_i = e^{x_i} / Σ_j e^{x_j} over the last axis; dx = y ⊙ (dy − Σ_j dy_j y_j): a full Jacobian, not elementwise.

The largest input is subtracted first, so no exponential overflows (Goodfellow eq. 6.29, 6.33)."""

log_softmax = Activation(
    "log_softmax", _log_softmax, lambda x, dy: dy - _softmax(x) * jnp.sum(dy, axis=-1, keepdims=True)
)
"""y_i = x_i − log Σ_j e^{x_j} over the last axis, never log(softmax); dx = dy − softmax(x) Σ_j dy_j."""

step = Activation("step", _step, lambda x, dy: _step_has_no_slope(), differentiable=False)
"""y = 1 where x ≥ 0, else 0 (MIT 6.036 §3). Forward only: its derivative is useless for descent and is refused."""

hard_sigmoid = Activation("hard_sigmoid", lambda x: (_clamped(x, 3) + 3) / 6, lambda x, dy: _inside(x, dy, 3) / 6)
"""y = min(1, max(0, x/6 + ½)); dx = dy/6 for |x| < 3, else 0."""

hard_tanh = Activation("hard_tanh", lambda x: _clamped(x, 1), lambda x, dy: _inside(x, dy, 1))
"""y = min(1, max(−1, x)); dx = dy for |x| < 1, else 0 (Goodfellow §6.3.3)."""

absolute = Activation("absolute", lambda x: jax.nn.relu(x) + jax.nn.relu(-x), lambda x, dy: dy * jnp.sign(x))
"""y = |x|; dx = dy · sign x, 0 at 0, where `jnp.abs` has 1 (Goodfellow §6.3.1)."""

leaky_relu = rectifier(0.01, name="leaky_relu")
"""y = max(0, x) + 0.01 min(0, x); the derivative at 0 is 0.01 (Goodfellow §6.3.1)."""

elu = Activation("elu", lambda x: _scaled_elu(x, 1, 1), lambda x, dy: _scaled_elu_backward(x, dy, 1, 1), relu_like=True)
"""y = x where x > 0, else eˣ − 1; dx = dy · min(1, eˣ) (Clevert et al. 2015)."""

selu = Activation(
    "selu",
    lambda x: _scaled_elu(x, 1.6732632423543772, 1.0507009873554805),
    lambda x, dy: _scaled_elu_backward(x, dy, 1.6732632423543772, 1.0507009873554805),
)
"""y = λ x where x > 0, else λα (eˣ − 1), λ = 1.0507…, α = 1.6732…: mean 0 and variance 1 are a fixed point for weights
of variance 1 / fan-in, `lecun_normal` (Klambauer et al. 2017). The derivative at 0 is λα."""

silu = Activation("silu", lambda x: x * jax.nn.sigmoid(x), _silu_backward, relu_like=True)
"""y = x σ(x), also called swish; dx = dy · σ(x) (1 + x (1 − σ(x))) (Elfwing et al. 2018)."""

gelu = Activation("gelu", lambda x: x * _normal_cdf(x), _gelu_backward, relu_like=True)
"""y = x Φ(x) with the normal distribution's Φ, by erf; dx = dy · (Φ(x) + x φ(x)) (Hendrycks & Gimpel 2016)."""

gelu_tanh = Activation(
    "gelu_tanh", lambda x: 0.5 * x * (1 + jnp.tanh(_gelu_tanh_argument(x))), _gelu_tanh_backward, relu_like=True
)
"""GELU by y = ½ x (1 + tanh(√(2/π) (x + 0.044715 x³))), within 5e-4 of it (Hendrycks & Gimpel 2016)."""

softsign = Activation("softsign", _softsign, lambda x, dy: dy * _softsign_slope(x))
"""y = x / (1 + |x|); dx = dy / (1 + |x|)²."""

cosine = Activation("cosine", jnp.cos, lambda x, dy: -dy * jnp.sin(x))
"""y = cos x; dx = −dy · sin x (Goodfellow §6.3.3)."""

named: dict[str, Activation] = {
    a.name: a
    for a in (
        identity, relu, sigmoid, tanh, softplus, softmax, log_softmax, step, hard_sigmoid, hard_tanh, absolute,
        leaky_relu, elu, selu, silu, gelu, gelu_tanh, softsign, cosine,
    )
}  # fmt: skip
"""Every activation by its name, as `mlp(activation="relu")` looks it up."""


def get(activation: "str | Activation") -> Activation:
    """The activation of that name; an `Activation` is returned as it is.

    Raises:
        ValueError: for an unknown name; the message lists the known ones.

    >>> get("relu") is relu
    True
    """
    if isinstance(activation, Activation):
        return activation
    if activation not in named:
        raise ValueError(f"got activation {activation!r}; expected one of {', '.join(named)}, or an Activation")
    return named[activation]
