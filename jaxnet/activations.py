"""Activation functions: the value and, beside it, its hand-derived backward rule.

    value(x)        -> y     same shape and dtype as x
    backward(x, dy) -> dx    dx = (dy/dx)ᵀ dy, written by hand, never by automatic differentiation

Where a function has a kink the side is stated and both roads agree on it: relu′(0) = 0.
All are finite, value and derivative, for |x| up to 1e4 and far beyond.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True, eq=False)
class Activation:
    """An activation: `value(x) -> y` and `backward(x, dy) -> dx`; calling it gives the value.

    `relu_like` says that the unit passes half of a centred input, so that He's initialization keeps the variance.

    >>> float(tanh(jnp.float32(0.5))) == float(jnp.tanh(0.5))
    True
    """

    name: str
    value: Callable[[Array], Array]
    backward: Callable[[Array, Array], Array]
    relu_like: bool = False

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

named: dict[str, Activation] = {a.name: a for a in (identity, relu, sigmoid, tanh, softplus, softmax)}
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
