"""Normalization: batch norm over the examples, layer norm and RMS norm over the units of each example.

With x̂ = (x − μ) / s, s = √(σ² + ε), and mean and variance over a set of entries, the backward of all rests on one rule:

    dx = (g − mean(g) − x̂ mean(g x̂)) / s,    g = dx̂

so dx sums to 0 over the set and, up to ε, is orthogonal to x̂: no gradient merely shifts or scales the set. Variances
are biased, 1/n. Statistics are computed in float32 at least, and of x less its first entry of the set, so that
sets far from 0 lose no digits and a constant set gives exactly 0.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.layers.layer import Layer, as_spec


def _wide(dtype):
    """The dtype of the statistics: float32 at least."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def _checked(x, params, name: str):
    """x in the dtype of the statistics."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise TypeError(f"{name}: got inputs of dtype {x.dtype}; expected floats: convert them, x.astype('float32')")
    units = params["scale"].shape[0]
    if x.ndim < 2 or x.shape[-1] != units:
        raise ValueError(
            f"{name}: got inputs of shape {x.shape}; expected (batch, …, {units}): give the data and the `spec` of "
            "init the same width"
        )
    return x.astype(_wide(x.dtype))


def _row(v, like):
    """A vector over units in the rank and dtype of `like`."""
    return v.astype(like.dtype).reshape((1,) * (like.ndim - 1) + (-1,))


def _over_rows(a):
    """The sum over all axes but the last."""
    return jnp.sum(a.reshape(-1, a.shape[-1]), axis=0)


def _moments(x, axes):
    """Mean and biased variance over `axes`, which stay as axes of length 1, and x less the mean."""
    first = x[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))]
    first = jax.lax.stop_gradient(first)  # a mere shift of origin
    shifted = x - first
    mean = jnp.mean(shifted, axis=axes, keepdims=True)
    deviation = shifted - mean
    return first + mean, jnp.mean(jnp.square(deviation), axis=axes, keepdims=True), deviation


def _through_moments(g, normalized, inverse, axes):
    """dx = (g − mean(g) − x̂ mean(g x̂)) / s."""
    mean_g = jnp.mean(g, axis=axes, keepdims=True)
    return (g - mean_g - normalized * jnp.mean(g * normalized, axis=axes, keepdims=True)) * inverse


def _initial(spec, name: str) -> dict:
    """γ = 1 and β = 0 for each unit of one example."""
    example = as_spec(spec)
    if not isinstance(example, jax.ShapeDtypeStruct) or not example.shape:
        raise ValueError(f"{name}: got an example of spec {spec}; expected one array of shape (…, units)")
    if not jnp.issubdtype(example.dtype, jnp.inexact):
        raise TypeError(
            f"{name}: got inputs of dtype {example.dtype}; expected floats: convert them, x.astype('float32')"
        )
    units = example.shape[-1:]
    return {"scale": jnp.ones(units, example.dtype), "shift": jnp.zeros(units, example.dtype)}


def _check_epsilon(epsilon, name: str) -> None:
    if isinstance(epsilon, (int, float, np.number)) and not epsilon > 0:
        raise ValueError(f"got {name}(epsilon={epsilon!r}); expected ε > 0: it keeps a constant input from 0/0")


def _settings(epsilon, *more) -> tuple:
    return (*more, ("epsilon", epsilon)) if epsilon != 1e-5 else more


def batch_norm(*, momentum=0.9, epsilon: float = 1e-5) -> Layer:
    """y = γ x̂ + β, x̂ = (x − μ) / √(σ² + ε), with each unit's mean and biased variance over the batch.

    Backward in training: with g = γ dy, dx = (g − mean(g) − x̂ mean(g x̂)) / s; dγ = Σ dy x̂, dβ = Σ dy. In inference μ
    and σ² are running averages, dx = γ dy / s, and one example is enough (Ioffe & Szegedy 2015;
    Goodfellow eq. 8.41–8.43; Bishop eq. 7.52–7.57; MIT 6.036 §8.3).

    x is (batch, …, units); all axes but the last are averaged over, of an image its positions too. Parameters `scale`
    γ = 1 and `shift` β = 0; state `mean` and `variance`, in training m · running + (1 − m) · batch with m = `momentum`,
    which may be traced; they start at 0 and 1. Put it between `dense(units, bias=False)`, whose bias β replaces, and
    the activation. Bishop's 7.57 averages σ, this σ²; the course notes divide by σ + ε; torch averages the unbiased
    variance and calls 1 − m the momentum. Weights of examples don't enter.

    Raises:
        ValueError: momentum outside [0, 1]; ε ≤ 0; training on one row, which equals its own mean; another width.
        TypeError: inputs that aren't floating.

    >>> layer = batch_norm()
    >>> params, state = layer.init(jax.random.key(0), (1,))
    >>> y, state = layer.apply(params, state, jnp.array([[1.0], [3.0]]), train=True)
    >>> y.round(3).tolist(), round(float(state["mean"][0]), 3)
    ([[-1.0], [1.0]], 0.2)
    """
    if isinstance(momentum, (int, float, np.number)) and not 0 <= momentum <= 1:
        raise ValueError(f"got batch_norm(momentum={momentum!r}); expected the share the old average keeps, in [0, 1]")
    _check_epsilon(epsilon, "batch_norm")

    def init(key, spec):
        params = _initial(spec, "batch_norm")
        scale = params["scale"]
        wide = _wide(scale.dtype)
        return params, {"mean": jnp.zeros(scale.shape, wide), "variance": jnp.ones(scale.shape, wide)}

    def normalized(params, state, x, train):
        """x̂, 1/s and the new state."""
        x = _checked(x, params, "batch_norm")
        if not train:
            inverse = jax.lax.rsqrt(_row(state["variance"], x) + epsilon)
            return (x - _row(state["mean"], x)) * inverse, inverse, state
        if x.size == x.shape[-1]:
            raise ValueError(
                f"batch_norm in training got inputs of shape {x.shape}; expected at least 2 rows to average over: "
                "take larger batches, or layer_norm"
            )
        mean, variance, deviation = _moments(x, tuple(range(x.ndim - 1)))
        inverse = jax.lax.rsqrt(variance + epsilon)

        def averaged(old, new):
            m = jnp.asarray(momentum, old.dtype)
            return m * old + (1 - m) * new.reshape(-1).astype(old.dtype)

        new_state = {"mean": averaged(state["mean"], mean), "variance": averaged(state["variance"], variance)}
        return deviation * inverse, inverse, new_state

    def apply(params, state, x, *, key=None, train=False):
        x_hat, _, new_state = normalized(params, state, x, train)
        y = x_hat * _row(params["scale"], x_hat) + _row(params["shift"], x_hat)
        return y.astype(x.dtype), new_state

    def backward(params, state, x, dy, *, key=None, train=False):
        x_hat, inverse, _ = normalized(params, state, x, train)
        dy = dy.astype(x_hat.dtype)
        g = dy * _row(params["scale"], x_hat)
        dx = _through_moments(g, x_hat, inverse, tuple(range(x.ndim - 1))) if train else g * inverse
        grads = {"scale": _over_rows(dy * x_hat), "shift": _over_rows(dy)}
        return dx.astype(x.dtype), {name: grad.astype(params[name].dtype) for name, grad in grads.items()}

    settings = () if isinstance(momentum, float) and momentum == 0.9 else (("momentum", momentum),)
    return Layer("batch_norm", init, apply, backward, _settings(epsilon, *settings))


def layer_norm(*, epsilon: float = 1e-5) -> Layer:
    """y = γ x̂ + β, x̂ = (x − μ_n) / √(σ_n² + ε), with the mean and biased variance over the units of example n.

    Backward: with g = γ dy, dx = (g − mean(g) − x̂ mean(g x̂)) / s over the units; dγ = Σ dy x̂, dβ = Σ dy over the batch.
    The same in training and inference, whatever the batch (Ba et al. 2016; Bishop eq. 7.58–7.60, whose 7.59 prints
    μ_i for μ_n). x is (batch, …, units). Parameters `scale` γ = 1 and `shift` β = 0, (units,).

    Raises:
        ValueError: ε ≤ 0; an input of another width. TypeError: inputs that aren't floating.

    >>> layer = layer_norm()
    >>> params, state = layer.init(jax.random.key(0), (2,))
    >>> layer.apply(params, state, jnp.array([[1.0, 3.0]]))[0].round(3).tolist()
    [[-1.0, 1.0]]
    """
    _check_epsilon(epsilon, "layer_norm")

    def normalized(params, x):
        _, variance, deviation = _moments(_checked(x, params, "layer_norm"), (x.ndim - 1,))
        inverse = jax.lax.rsqrt(variance + epsilon)
        return deviation * inverse, inverse

    def apply(params, state, x, *, key=None, train=False):
        x_hat, _ = normalized(params, x)
        y = x_hat * _row(params["scale"], x_hat) + _row(params["shift"], x_hat)
        return y.astype(x.dtype), state

    def backward(params, state, x, dy, *, key=None, train=False):
        x_hat, inverse = normalized(params, x)
        dy = dy.astype(x_hat.dtype)
        dx = _through_moments(dy * _row(params["scale"], x_hat), x_hat, inverse, (x.ndim - 1,))
        grads = {"scale": _over_rows(dy * x_hat), "shift": _over_rows(dy)}
        return dx.astype(x.dtype), {name: grad.astype(params[name].dtype) for name, grad in grads.items()}

    def init(key, spec):
        return _initial(spec, "layer_norm"), {}

    return Layer("layer_norm", init, apply, backward, _settings(epsilon))


def rms_norm(*, epsilon: float = 1e-5) -> Layer:
    """y = γ x̂, x̂ = x / √(mean(x²) + ε) over the units of each example: layer norm without its mean and shift.

    Backward: with g = γ dy, dx = (g − x̂ mean(g x̂)) / s over the units; dγ = Σ dy x̂ over the batch.
    x is (batch, …, units). Parameter `scale` γ = 1, (units,) (Zhang & Sennrich 2019).

    Raises:
        ValueError: ε ≤ 0; an input of another width. TypeError: inputs that aren't floating.

    >>> layer = rms_norm()
    >>> params, state = layer.init(jax.random.key(0), (2,))
    >>> [round(float(v), 3) for v in layer.apply(params, state, jnp.array([[1.0, 7.0]]))[0][0]]
    [0.2, 1.4]
    """
    _check_epsilon(epsilon, "rms_norm")

    def normalized(params, x):
        x = _checked(x, params, "rms_norm")
        inverse = jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)
        return x * inverse, inverse

    def apply(params, state, x, *, key=None, train=False):
        x_hat, _ = normalized(params, x)
        return (x_hat * _row(params["scale"], x_hat)).astype(x.dtype), state

    def backward(params, state, x, dy, *, key=None, train=False):
        x_hat, inverse = normalized(params, x)
        dy = dy.astype(x_hat.dtype)
        g = dy * _row(params["scale"], x_hat)
        dx = (g - x_hat * jnp.mean(g * x_hat, axis=-1, keepdims=True)) * inverse
        return dx.astype(x.dtype), {"scale": _over_rows(dy * x_hat).astype(params["scale"].dtype)}

    def init(key, spec):
        return {"scale": _initial(spec, "rms_norm")["scale"]}, {}

    return Layer("rms_norm", init, apply, backward, _settings(epsilon))
