"""Activations as layers: a Layer without parameters for each function of `jaxnet.activations`."""

from jaxnet import activations
from jaxnet.layers.layer import Layer, parameterless


def activation(function: "str | activations.Activation") -> Layer:
    """The layer y = f(x), dx = f's backward rule, for a name such as "relu" or an `Activation`.

    Raises:
        ValueError: for an unknown name.

    >>> activation("tanh")
    tanh()
    """
    f = activations.get(function)
    return parameterless(f.name, lambda x, key, train: f.value(x), lambda x, dy, key, train: f.backward(x, dy))


def identity() -> Layer:
    """y = x.

    >>> identity()
    identity()
    """
    return activation(activations.identity)


def relu() -> Layer:
    """y = max(0, x); the derivative at 0 is 0 (Goodfellow §6.3.1).

    >>> relu()
    relu()
    """
    return activation(activations.relu)


def sigmoid() -> Layer:
    """y = 1 / (1 + e⁻ˣ) (Goodfellow eq. 3.30).

    >>> sigmoid()
    sigmoid()
    """
    return activation(activations.sigmoid)


def tanh() -> Layer:
    """y = tanh x (Goodfellow §6.3.2).

    >>> tanh()
    tanh()
    """
    return activation(activations.tanh)


def softplus() -> Layer:
    """y = log(1 + eˣ) (Goodfellow eq. 3.31).

    >>> softplus()
    softplus()
    """
    return activation(activations.softplus)


def softmax() -> Layer:
    """y_i = e^{x_i} / Σ_j e^{x_j} over the last axis (Goodfellow eq. 6.29).

    For a classifier's output leave it out: the losses take logits.

    >>> softmax()
    softmax()
    """
    return activation(activations.softmax)
