"""The dense (fully connected) layer: z = x w + b."""

import jax
import jax.numpy as jnp

from jaxnet import initializers
from jaxnet.layers.layer import Layer, as_spec


def dense(
    units: int,
    *,
    bias: bool = True,
    weight_init: initializers.Initializer | None = None,
    bias_init: initializers.Initializer | None = None,
) -> Layer:
    """z = x w + b with w (inputs, units) and b (units,).

    Backward, from dz: dx = dz wᵀ, dw = xᵀ dz summed over the batch, db = Σ dz (Goodfellow §6.5.6, alg. 6.4).

    x is (batch, …, inputs), z (batch, …, units). Parameters `w` and, with `bias`, `b`. The initial weights are
    Glorot's uniform and the biases 0 unless given (`mlp` picks He's for ReLU).

    Raises:
        ValueError: units < 1; an input of another width than the weights'; an example of rank 0.
        TypeError: inputs that aren't floating.

    >>> params, state = dense(2).init(jax.random.key(0), (3,))
    >>> dense(2).apply(params, state, jnp.zeros((5, 3)))[0].shape
    (5, 2)
    """
    if not isinstance(units, int) or units < 1:
        raise ValueError(f"got dense(units={units!r}); expected a positive integer number of units")
    weight_init = weight_init or initializers.glorot_uniform()
    bias_init = bias_init or initializers.zeros()

    def check_floating(dtype):
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(
                f"dense({units}): got inputs of dtype {dtype}; expected floats: convert them, x.astype('float32'), and "
                "divide pixels of 0…255 by 255"
            )

    def init(key, spec):
        example = as_spec(spec)
        if not isinstance(example, jax.ShapeDtypeStruct) or not example.shape:
            raise ValueError(f"dense({units}): got an example of spec {spec}; expected one array of shape (…, inputs)")
        check_floating(example.dtype)
        key_w, key_b = jax.random.split(key)
        params = {"w": weight_init(key_w, (example.shape[-1], units), example.dtype)}
        if bias:
            params["b"] = bias_init(key_b, (units,), example.dtype)
        return params, {}

    def apply(params, state, x, *, key=None, train=False):
        w = params["w"]
        check_floating(x.dtype)
        if x.ndim < 2 or x.shape[-1] != w.shape[0]:
            raise ValueError(
                f"dense({units}): got inputs of shape {x.shape}; expected (batch, …, {w.shape[0]}) for weights of "
                f"shape {w.shape}: give the data and the `spec` of init the same width"
            )
        z = x @ w
        return (z + params["b"].reshape((1,) * (z.ndim - 1) + (units,)) if bias else z), state

    def backward(params, state, x, dz, *, key=None, train=False):
        w = params["w"]
        rows, dz_rows = x.reshape(-1, x.shape[-1]), dz.reshape(-1, units)
        grads = {"w": rows.T @ dz_rows}
        if bias:
            grads["b"] = jnp.sum(dz_rows, axis=0)
        return dz @ w.T, grads

    return Layer("dense", init, apply, backward, (("", units),) if bias else (("", units), ("bias", False)))
