"""Layers made of layers. Each combinator returns a Layer, with a backward rule if all its parts have one."""

import jax

from jaxnet.layers.layer import Layer, as_spec, output_spec


def names(layers: tuple[Layer, ...]) -> tuple[str, ...]:
    """The parameters' names: the layer's kind and its count among that kind, in order.

    >>> from jaxnet.layers import dense, relu
    >>> names((dense(2), relu(), dense(1)))
    ('dense_0', 'relu_0', 'dense_1')
    """
    seen: dict[str, int] = {}
    result = []
    for layer in layers:
        seen[layer.name] = seen.get(layer.name, -1) + 1
        result.append(f"{layer.name}_{seen[layer.name]}")
    return tuple(result)


def serial(*layers: Layer) -> Layer:
    """Layers one after the other: y = l_n(… l_2(l_1(x))).

    Backward goes through them in reverse, each layer's dx being the dy of the one before it: back-propagation
    (MIT 6.036 eq. 8.1–8.3; Goodfellow alg. 6.4). Parameters and states are dicts by name, `dense_0`, `dense_1`;
    layers that have none don't appear. Each layer's key is the key folded with its position.

    Raises:
        TypeError: for an argument that isn't a Layer.

    >>> from jaxnet.layers import dense, relu
    >>> params, state = serial(dense(4), relu(), dense(2)).init(jax.random.key(0), (3,))
    >>> {name: leaves["w"].shape for name, leaves in params.items()}
    {'dense_0': (3, 4), 'dense_1': (4, 2)}
    """
    for position, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            cure = ": call it, relu()" if callable(layer) else ": write serial(*layers)"
            raise TypeError(f"serial: got {layer!r} at position {position}; expected a Layer{cure}")
    layer_names = names(layers)

    def parts(params, state, key):
        """(name, layer, its params, its state, its key), in order."""
        for i, (name, layer) in enumerate(zip(layer_names, layers, strict=True)):
            layer_key = None if key is None else jax.random.fold_in(key, i)
            yield name, layer, params.get(name, {}), state.get(name, {}), layer_key

    def init(key, spec):
        params, state, spec = {}, {}, as_spec(spec)
        for i, (name, layer) in enumerate(zip(layer_names, layers, strict=True)):
            layer_params, layer_state = layer.init(jax.random.fold_in(key, i), spec)
            if layer_params:
                params[name] = layer_params
            if layer_state:
                state[name] = layer_state
            spec = output_spec(layer, layer_params, layer_state, spec)
        return params, state

    def apply(params, state, x, *, key=None, train=False):
        new_state = {}
        for name, layer, layer_params, layer_state, layer_key in parts(params, state, key):
            x, layer_state = layer.apply(layer_params, layer_state, x, key=layer_key, train=train)
            if layer_state:
                new_state[name] = layer_state
        return x, new_state

    def backward(params, state, x, dy, *, key=None, train=False):
        inputs = []
        for _, layer, layer_params, layer_state, layer_key in parts(params, state, key):
            inputs.append(x)
            x, _ = layer.apply(layer_params, layer_state, x, key=layer_key, train=train)
        grads = {}
        for (name, layer, layer_params, layer_state, layer_key), x in zip(
            reversed(list(parts(params, state, key))), reversed(inputs), strict=True
        ):
            dy, layer_grads = layer.backward(layer_params, layer_state, x, dy, key=layer_key, train=train)
            if layer_params:
                grads[name] = layer_grads
        return dy, grads

    complete = all(layer.backward is not None for layer in layers)
    return Layer("serial", init, apply, backward if complete else None, tuple(("", layer) for layer in layers))
