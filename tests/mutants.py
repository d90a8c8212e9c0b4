"""Ten planted defects of back-propagation, each a gradient function for a dense network with one kind of activation.

A comparator that lets one of them through proves nothing. `defects(case)` builds them from the case's own layers.
"""

import jax
import jax.numpy as jnp
from drawing import Case

import jaxnet as jn
from jaxnet import activations, layers


def reference(case: Case, l2: float):
    """What the mutants start from: back-propagation with a penalty on the weights."""
    return jn.penalized(jn.backprop(case.net, case.loss), l2=l2)


def defects(case: Case, l2: float) -> dict:
    """Name -> wrong gradient function. The case has at least one hidden tanh layer with a bias and a batch above 1."""
    right = reference(case, l2)
    plain = jn.backprop(case.net, case.loss)

    def of_grads(change):
        def gradient(params, state, batch, *, key=None, train=False):
            value, grads = right(params, state, batch, key=key, train=train)
            return value, change(grads, params, batch)

        return gradient

    def each(grads, name, change):
        """The leaves of that role changed."""
        return {layer: {k: change(v) if k == name else v for k, v in leaves.items()} for layer, leaves in grads.items()}

    def scaled_loss(factor):
        def gradient(params, state, batch, *, key=None, train=False):
            value, grads = plain(params, state, batch, key=key, train=train)
            n = batch[0].shape[0]
            grads = jax.tree.map(lambda g: g * factor(n), grads)
            return right(params, state, batch, key=key, train=train)[0], jn.penalized(
                lambda *a, **k: (value, grads), l2=l2
            )(params, state, batch)[1]

        return gradient

    def with_layer(kind, change):
        """The network with the first layer of that kind replaced by `change(layer)`."""
        at = next(i for i, part in enumerate(case.parts) if part.name == kind)
        parts = [change(part) if i == at else part for i, part in enumerate(case.parts)]
        return jn.penalized(jn.backprop(jn.serial(*parts), case.loss), l2=l2)

    def wrong_backward(change):
        def make(layer):
            def backward(params, state, x, dy, *, key=None, train=False):
                return change(*layer.backward(params, state, x, dy, key=key, train=train), x, dy)

            return layers.Layer(layer.name, layer.init, layer.apply, backward, layer.settings)

        return make

    power = 1.98  # close to the right exponent, 2
    return {
        "sum for mean": scaled_loss(lambda n: n),
        "mean over n - 1": scaled_loss(lambda n: n / (n - 1)),
        "penalty on biases": of_grads(
            lambda g, p, b: {k: {r: v + l2 * p[k][r] * (r == "b") for r, v in v.items()} for k, v in g.items()}
        ),
        "penalty twice": of_grads(
            lambda g, p, b: {k: {r: v + l2 * p[k][r] * (r == "w") for r, v in v.items()} for k, v in g.items()}
        ),
        "mean for sum in the bias gradient": of_grads(lambda g, p, b: each(g, "b", lambda v: v / b[0].shape[0])),
        "first bias gradient zero": of_grads(
            lambda g, p, b: g | {"dense_0": g["dense_0"] | {"b": jnp.zeros_like(g["dense_0"]["b"])}}
        ),
        "derivative omitted in one layer": with_layer("tanh", wrong_backward(lambda dx, dp, x, dy: (dy, dp))),
        "1 - |h|^1.98 for tanh'": with_layer(
            "tanh",
            wrong_backward(lambda dx, dp, x, dy: (dy * (1 - jnp.abs(activations.tanh(x)) ** power), dp)),
        ),
        "one unit times 1.01": with_layer(
            "tanh", wrong_backward(lambda dx, dp, x, dy: (dx.at[:, 0].multiply(1.01), dp))
        ),
        "one weight times 1.05": of_grads(
            lambda g, p, b: g | {"dense_0": g["dense_0"] | {"w": g["dense_0"]["w"].at[0, 0].multiply(1.05)}}
        ),
    }  # fmt: skip
