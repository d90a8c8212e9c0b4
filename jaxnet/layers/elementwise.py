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


def log_softmax() -> Layer:
    """y_i = x_i − log Σ_j e^{x_j} over the last axis.

    For a classifier's output leave it out: the losses take logits.

    >>> log_softmax()
    log_softmax()
    """
    return activation(activations.log_softmax)


def step() -> Layer:
    """y = 1 where x ≥ 0, else 0 (MIT 6.036 §3). Forward only.

    Raises:
        TypeError: where its derivative is asked for, on either road.

    >>> step()
    step()
    """
    return activation(activations.step)


def hard_sigmoid() -> Layer:
    """y = min(1, max(0, x/6 + ½)); the derivative at ±3 is 0.

    >>> hard_sigmoid()
    hard_sigmoid()
    """
    return activation(activations.hard_sigmoid)


def hard_tanh() -> Layer:
    """y = min(1, max(−1, x)); the derivative at ±1 is 0 (Goodfellow §6.3.3).

    >>> hard_tanh()
    hard_tanh()
    """
    return activation(activations.hard_tanh)


def absolute() -> Layer:
    """y = |x|; the derivative at 0 is 0 (Goodfellow §6.3.1).

    >>> absolute()
    absolute()
    """
    return activation(activations.absolute)


def leaky_relu(slope=0.01) -> Layer:
    """y = max(0, x) + slope · min(0, x); the derivative at 0 is the slope, which may be traced (Goodfellow §6.3.1).

    `prelu` learns the slope.

    >>> leaky_relu(0.2)
    leaky_relu(0.2)
    """
    f = activations.rectifier(slope)
    return parameterless(
        "leaky_relu",
        lambda x, key, train: f.value(x),
        lambda x, dy, key, train: f.backward(x, dy),
        (("", slope),),
    )


def elu() -> Layer:
    """y = x where x > 0, else eˣ − 1 (Clevert et al. 2015).

    >>> elu()
    elu()
    """
    return activation(activations.elu)


def selu() -> Layer:
    """y = λ x where x > 0, else λα (eˣ − 1); give the weights `initializers.lecun_normal()` (Klambauer et al. 2017).

    >>> selu()
    selu()
    """
    return activation(activations.selu)


def silu() -> Layer:
    """y = x / (1 + e⁻ˣ), also called swish (Elfwing et al. 2018).

    >>> silu()
    silu()
    """
    return activation(activations.silu)


def gelu(*, approximate: bool = False) -> Layer:
    """y = x Φ(x), by erf or, `approximate`, by a tanh within 5e-4 of it (Hendrycks & Gimpel 2016).

    >>> gelu(), gelu(approximate=True)
    (gelu(), gelu_tanh())
    """
    return activation(activations.gelu_tanh if approximate else activations.gelu)


def softsign() -> Layer:
    """y = x / (1 + |x|).

    >>> softsign()
    softsign()
    """
    return activation(activations.softsign)


def cosine() -> Layer:
    """y = cos x (Goodfellow §6.3.3).

    >>> cosine()
    cosine()
    """
    return activation(activations.cosine)
