"""The embedding layer: a learned vector for each id."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import initializers
from jaxnet.layers.layer import Layer, as_spec


def embedding(ids: int, units: int, *, weight_init: initializers.Initializer | None = None) -> Layer:
    """y = w[x]: row x of w (ids, units), which is a dense layer without bias on the one-hot code of x.

    x is an integer array (batch, …), y (batch, …, units). Backward: dx is None, and row r of dw is the sum of dy over
    the places where x = r. The initial rows are N(0, 1) unless given.

    Ids are in [0, ids). Others are refused where values can be seen; inside a compiled function their outputs and the
    gradients of the row that is nearest are NaN, so a run ends as diverged and never with a wrong number.

    Raises:
        ValueError: ids or units < 1; an id out of range, outside of a trace; weights of another shape.
        TypeError: inputs that aren't integers. A shape alone stands for floats: the spec of init is
            `jax.ShapeDtypeStruct(shape, "int32")`.

    >>> layer = embedding(10, 3)
    >>> params, state = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((5,), "int32"))
    >>> params["w"].shape, layer.apply(params, state, jnp.zeros((2, 5), int))[0].shape
    ((10, 3), (2, 5, 3))
    """
    label = f"embedding({ids}, {units})"
    if not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in (ids, units)):
        raise ValueError(f"got {label}; expected a positive number of ids and of units")
    weight_init = weight_init or initializers.normal(1.0)

    def check_integers(dtype):
        if not jnp.issubdtype(dtype, jnp.integer):
            raise TypeError(
                f"{label}: got inputs of dtype {dtype}; expected integer ids: x.astype('int32'), and for init the "
                "spec jax.ShapeDtypeStruct(shape, 'int32')"
            )

    def placed(x):
        """Ids inside the range, and 1, or NaN where an id isn't in it."""
        x = x if x.dtype.itemsize >= 4 else x.astype(jnp.int32)
        inside = (x >= 0) & (x < ids)
        return jnp.clip(x, 0, ids - 1), inside[..., None]

    def valid(inside, dtype):
        return jnp.where(inside, 1.0, jnp.nan).astype(dtype)

    def init(key, spec):
        example = as_spec(spec)
        if not isinstance(example, jax.ShapeDtypeStruct):
            raise ValueError(f"{label}: got an example of spec {spec}; expected one array of integers")
        check_integers(example.dtype)
        return {"w": weight_init(key, (ids, units), jnp.dtype(jnp.result_type(float)))}, {}

    def apply(params, state, x, *, key=None, train=False):
        w = params["w"]
        check_integers(x.dtype)
        if w.shape != (ids, units):
            raise ValueError(f"{label}: got weights of shape {w.shape}; expected {(ids, units)}")
        _check_range(label, x, ids)
        rows, inside = placed(jnp.asarray(x))
        return w.at[rows].get(mode="promise_in_bounds") * valid(inside, w.dtype), state

    def backward(params, state, x, dy, *, key=None, train=False):
        rows, inside = placed(jnp.asarray(x))
        return None, {"w": jnp.zeros((ids, units), dy.dtype).at[rows].add(dy * valid(inside, dy.dtype))}

    return Layer("embedding", init, apply, backward, (("", ids), ("", units)))


def _check_range(label, x, ids):
    try:
        values = np.asarray(x)
    except jax.errors.TracerArrayConversionError:
        return
    if values.size and (values.min() < 0 or values.max() >= ids):
        raise ValueError(
            f"{label}: got ids from {values.min()} to {values.max()}; expected 0 to {ids - 1}: number the ids from 0, "
            "or make the layer larger"
        )
