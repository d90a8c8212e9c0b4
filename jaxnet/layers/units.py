"""Units with parameters or groups of their own: parametric ReLU, maxout, radial basis functions.

A linear bottleneck needs no layer of its own: `serial(dense(q, bias=False), dense(p))` is a weight matrix of rank q
with (n + p) q entries instead of n p (Goodfellow §6.3.3).
"""

import jax
import jax.numpy as jnp

from jaxnet import initializers
from jaxnet.layers.layer import Layer, as_spec, parameterless


def _units_of(spec, name: str) -> jax.ShapeDtypeStruct:
    """The spec of one example, which is one floating array with axes."""
    example = as_spec(spec)
    if not isinstance(example, jax.ShapeDtypeStruct) or not example.shape:
        raise ValueError(f"{name}: got an example of spec {spec}; expected one array of shape (…, units)")
    if not jnp.issubdtype(example.dtype, jnp.inexact):
        raise TypeError(
            f"{name}: got inputs of dtype {example.dtype}; expected floats: convert them, x.astype('float32')"
        )
    return example


def _check_units(x, expected: int, name: str) -> None:
    if x.ndim < 2 or x.shape[-1] != expected:
        raise ValueError(
            f"{name}: got inputs of shape {x.shape}; expected (batch, …, {expected}): give the data and the `spec` of "
            "init the same width"
        )


def prelu(slope: float = 0.25, *, shared: bool = False) -> Layer:
    """Parametric ReLU, y = max(0, x) + α min(0, x), with α learned, for each unit or `shared` by all.

    Backward: dx = dy where x > 0, else α dy; dα = Σ dy min(0, x) over the batch. The derivative at 0 is α.
    x is (batch, …, units). Parameter `slope`, (units,) or (1,), starts at `slope`; give it no weight decay, which
    would pull it to ReLU (Goodfellow §6.3.1; He et al. 2015).

    Raises:
        ValueError: an input of another width than the slopes'. TypeError: inputs that aren't floating.

    >>> layer = prelu()
    >>> params, state = layer.init(jax.random.key(0), (2,))
    >>> layer.apply(params, state, jnp.array([[-2.0, 3.0]]))[0].tolist()
    [[-0.5, 3.0]]
    """

    def init(key, spec):
        example = _units_of(spec, "prelu")
        return {"slope": jnp.full((1 if shared else example.shape[-1],), slope, example.dtype)}, {}

    def slopes(params, x):
        if not shared:
            _check_units(x, params["slope"].shape[0], "prelu")
        return params["slope"].reshape((1,) * (x.ndim - 1) + (-1,))

    def apply(params, state, x, *, key=None, train=False):
        return jnp.where(x > 0, x, slopes(params, x) * x), state

    def backward(params, state, x, dy, *, key=None, train=False):
        dx = jnp.where(x > 0, dy, slopes(params, x) * dy)
        dslope = dy * jnp.minimum(x, jnp.zeros_like(x))
        rows = dslope.reshape(-1, 1) if shared else dslope.reshape(-1, x.shape[-1])
        return dx, {"slope": jnp.sum(rows, axis=0)}

    return Layer("prelu", init, apply, backward, (("", slope), ("shared", True)) if shared else (("", slope),))


@jax.custom_jvp
def _largest(groups):
    return jnp.max(groups, axis=-1)


def _is_largest(groups):
    """Whether an entry is the first largest of its group."""
    return jax.nn.one_hot(jnp.argmax(groups, axis=-1), groups.shape[-1], dtype=bool)


@_largest.defjvp
def _largest_jvp(groups, tangents):
    (groups,), (t,) = groups, tangents
    return _largest(groups), jnp.sum(jnp.where(_is_largest(groups), t, jnp.zeros_like(t)), axis=-1)


def maxout(pieces: int = 2) -> Layer:
    """y_i = max_j x_{ik+j}, j = 0 … k − 1: the largest of each group of k `pieces` neighbours (Goodfellow eq. 6.37).

    Backward: dx = dy at the largest of the group, else 0; of equal ones the first takes all, where `jnp.max` would
    share. (batch, …, units · k) to (batch, …, units), so a maxout layer is `serial(dense(units * k), maxout(k))`.

    Raises:
        ValueError: pieces < 1; a width that isn't a multiple of it.

    >>> maxout(2).apply({}, {}, jnp.array([[1.0, 5.0, -2.0, -3.0]]))[0].tolist()
    [[5.0, -2.0]]
    """
    if isinstance(pieces, bool) or not isinstance(pieces, int) or pieces < 1:
        raise ValueError(f"got maxout({pieces!r}); expected a positive integer number of pieces")

    def grouped(x):
        if x.ndim < 2 or x.shape[-1] % pieces:
            raise ValueError(
                f"maxout({pieces}): got inputs of shape {x.shape}; expected (batch, …, units · {pieces}): put "
                f"dense(units * {pieces}) before it"
            )
        return x.reshape(*x.shape[:-1], -1, pieces)

    def backward(x, dy, key, train):
        largest = _is_largest(grouped(x))
        return jnp.where(largest, dy[..., None], jnp.zeros_like(dy)[..., None]).reshape(x.shape)

    return parameterless("maxout", lambda x, key, train: _largest(grouped(x)), backward, (("", pieces),))


def rbf(units: int, *, width: float | None = None, center_init: initializers.Initializer | None = None) -> Layer:
    """Radial basis units y_i = exp(−‖x − c_i‖² / σ_i²): 1 at the template c_i, 0 far from it (Goodfellow §6.3.3).

    There is no ½ in the exponent. With β = 1/σ and e = dy ⊙ y, backward is
    dx = −2 Σ_i e_i β_i² (x − c_i), dc_i = 2 Σ e_i β_i² (x − c_i), dβ_i = −2 β_i Σ e_i ‖x − c_i‖², over the batch.

    x is (batch, …, inputs), y (batch, …, units). Parameters `centers` (inputs, units) and `inverse_width` β (units,),
    learned as the inverse so that no step divides by 0. Centers start as N(0, 1), for standardized inputs, unless
    given; σ starts at `width`, √(2 · inputs) unless given, where y is e⁻¹ at the expected distance. All saturate to 0
    far away, so they are harder to train than ReLU.

    Raises:
        ValueError: units < 1; width ≤ 0; an input of another width. TypeError: inputs that aren't floating.

    >>> layer = rbf(2, width=1.0, center_init=initializers.zeros())
    >>> params, state = layer.init(jax.random.key(0), (3,))
    >>> layer.apply(params, state, jnp.zeros((1, 3)))[0].tolist()
    [[1.0, 1.0]]
    """
    if isinstance(units, bool) or not isinstance(units, int) or units < 1:
        raise ValueError(f"got rbf(units={units!r}); expected a positive integer number of units")
    if isinstance(width, (int, float)) and not width > 0:
        raise ValueError(f"got rbf(width={width!r}); expected a width σ > 0")
    center_init = center_init or initializers.normal(1.0)

    def init(key, spec):
        example = _units_of(spec, "rbf")
        inputs, dtype = example.shape[-1], example.dtype
        sigma = jnp.asarray((2 * inputs) ** 0.5 if width is None else width, dtype)
        return {
            "centers": center_init(key, (inputs, units), dtype),
            "inverse_width": jnp.full((units,), 1 / sigma, dtype),
        }, {}

    def parts(params, x):
        """x − c_i (batch, …, inputs, units), β_i and ‖x − c_i‖² (batch, …, units)."""
        centers, beta = params["centers"], params["inverse_width"]
        _check_units(x, centers.shape[0], "rbf")
        difference = x[..., None] - centers.reshape((1,) * (x.ndim - 1) + centers.shape)
        return difference, beta.reshape((1,) * (x.ndim - 1) + (-1,)), jnp.sum(jnp.square(difference), axis=-2)

    def apply(params, state, x, *, key=None, train=False):
        _, beta, distance = parts(params, x)
        return jnp.exp(-jnp.square(beta) * distance), state

    def backward(params, state, x, dy, *, key=None, train=False):
        difference, beta, distance = parts(params, x)
        e = dy * jnp.exp(-jnp.square(beta) * distance)
        pull = 2 * (e * jnp.square(beta))[..., None, :] * difference
        dbeta = -2 * beta * e * distance
        return -jnp.sum(pull, axis=-1), {
            "centers": jnp.sum(pull.reshape(-1, *difference.shape[-2:]), axis=0),
            "inverse_width": jnp.sum(dbeta.reshape(-1, units), axis=0),
        }

    return Layer("rbf", init, apply, backward, (("", units),))
