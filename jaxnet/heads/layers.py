"""Last layers that heads need beside dense: several side by side, and outputs that don't depend on x."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from jaxnet.layers import Layer, as_spec


def constant_outputs(units: int, start: float) -> Layer:
    """z = b for every example, with the learned b (units,) starting at `start`. Backward: dx = 0, db = Σ dz.

    >>> layer = constant_outputs(2, 1.0)
    >>> layer.apply(*layer.init(jax.random.key(0), (3,)), jnp.zeros((2, 3)))[0].tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """

    def init(key, spec):
        return {"b": jnp.full((units,), start, as_spec(spec).dtype)}, {}

    def apply(params, state, x, *, key=None, train=False):
        return jnp.broadcast_to(params["b"], (*x.shape[:-1], units)), state

    def backward(params, state, x, dz, *, key=None, train=False):
        return jnp.zeros_like(x), {"b": jnp.sum(dz.reshape(-1, units), axis=0)}

    return Layer("constant_outputs", init, apply, backward, (("", units),))


def beside(layers: Mapping[str, Layer]) -> Layer:
    """The outputs of several layers of the same x, joined along the last axis; params by the layers' names.

    Backward: each layer gets its part of dz, and dx is the sum of theirs. The layers keep no state.

    >>> from jaxnet.layers import dense
    >>> layer = beside({"a": dense(1), "b": dense(2)})
    >>> layer.apply(*layer.init(jax.random.key(0), (3,)), jnp.zeros((5, 3)))[0].shape
    (5, 3)
    """

    def init(key, spec):
        keys = [jax.random.fold_in(key, i) for i in range(len(layers))]
        return {name: layer.init(k, spec)[0] for k, (name, layer) in zip(keys, layers.items(), strict=True)}, {}

    def apply(params, state, x, *, key=None, train=False):
        outputs = [layer.apply(params[name], {}, x, key=key, train=train)[0] for name, layer in layers.items()]
        return jnp.concatenate(outputs, axis=-1), state

    def backward(params, state, x, dz, *, key=None, train=False):
        dx, grads, start = jnp.zeros_like(x), {}, 0
        for name, layer in layers.items():
            width = jax.eval_shape(lambda p, x, layer=layer: layer.apply(p, {}, x)[0], params[name], x).shape[-1]
            part = dz[..., start : start + width]
            assert layer.backward is not None
            by_x, grads[name] = layer.backward(params[name], {}, x, part, key=key, train=train)
            dx, start = dx + by_x, start + width
        return dx, grads

    complete = all(layer.backward is not None for layer in layers.values())
    return Layer("beside", init, apply, backward if complete else None, tuple(layers.items()))
