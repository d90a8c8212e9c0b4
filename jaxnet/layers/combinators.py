"""Layers made of layers, one after the other. A combinator returns a Layer, with a backward rule if all parts have one.

serial, repeat, tapped, frozen; what stands side by side is in `graph`
"""

from typing import Any

import jax
import jax.numpy as jnp

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


def check_layers(combinator: str, layers: tuple[Layer, ...]) -> None:
    """Refuse arguments of `combinator` that aren't Layers.

    Raises:
        TypeError: naming the position.

    >>> from jaxnet.layers import relu
    >>> check_layers("serial", (relu(),))
    """
    for position, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            cure = ": call it, relu()" if callable(layer) else f": write {combinator}(*layers)"
            raise TypeError(f"{combinator}: got {layer!r} at position {position}; expected a Layer{cure}")


def parts(layers: tuple[Layer, ...], params, state, key):
    """(name, layer, its params, its state, its key) in order; a part's key is `key` folded with its position.

    >>> from jaxnet.layers import relu
    >>> [name for name, *_ in parts((relu(), relu()), {}, {}, None)]
    ['relu_0', 'relu_1']
    """
    for i, (name, layer) in enumerate(zip(names(layers), layers, strict=True)):
        part_key = None if key is None else jax.random.fold_in(key, i)
        yield name, layer, params.get(name, {}), state.get(name, {}), part_key


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
    check_layers("serial", layers)

    def init(key, spec):
        params, state, spec = {}, {}, as_spec(spec)
        for i, (name, layer) in enumerate(zip(names(layers), layers, strict=True)):
            layer_params, layer_state = layer.init(jax.random.fold_in(key, i), spec)
            if layer_params:
                params[name] = layer_params
            if layer_state:
                state[name] = layer_state
            spec = output_spec(layer, layer_params, layer_state, spec)
        return params, state

    def apply(params, state, x, *, key=None, train=False):
        outputs, state = _forward(layers, params, state, x, key, train)
        return outputs[-1], state

    def backward(params, state, x, dy, *, key=None, train=False):
        return _backward(layers, params, state, x, dy, {}, key, train)

    complete = all(layer.backward is not None for layer in layers)
    return Layer("serial", init, apply, backward if complete else None, tuple(("", layer) for layer in layers))


def _forward(layers, params, state, x, key, train):
    """[x, l_1(x), l_2(l_1(x)), …] and the new state."""
    values, new_state = [x], {}
    for name, layer, layer_params, layer_state, layer_key in parts(layers, params, state, key):
        with jax.named_scope(name):  # what `explain` and profilers say
            x, layer_state = layer.apply(layer_params, layer_state, x, key=layer_key, train=train)
        values.append(x)
        if layer_state:
            new_state[name] = layer_state
    return values, new_state


def _backward(layers, params, state, x, dy, taps, key, train):
    """dx, dparams; `taps` adds a gradient to the output of the layers it names."""
    values, _ = _forward(layers, params, state, x, key, train)
    grads = {}
    steps = zip(parts(layers, params, state, key), values[:-1], strict=True)
    for (name, layer, layer_params, layer_state, layer_key), x in reversed(list(steps)):
        dy = added(dy, taps[name]) if name in taps else dy
        with jax.named_scope(name):
            dy, layer_grads = layer.backward(layer_params, layer_state, x, dy, key=layer_key, train=train)
        if layer_params:
            grads[name] = layer_grads
    return dy, grads


def added(*gradients):
    """The sum of gradients of one value that is used several times; None, of integers, stays None.

    >>> added({"a": 1.0, "n": None}, {"a": 2.0, "n": None})
    {'a': 3.0, 'n': None}
    """

    def leaf(*values):
        known = [value for value in values if value is not None]
        return sum(known[1:], known[0]) if known else None

    return jax.tree.map(leaf, *gradients, is_leaf=lambda value: value is None)


def tapped(net: Layer, taps: tuple[str, ...]) -> Layer:
    """A `serial` net that shows what is inside: y becomes (y, {name: h}), with h the output of the layer `name`.

    `dy` is likewise (dy, {name: dh}): each dh is added where the backward pass reaches that layer. Parameters, state
    and keys are those of `net`. For penalties on hidden activations and heads on hidden layers (Goodfellow §7.10,
    §8.7.5).

    Raises:
        ValueError: a net that isn't `serial`, or a name that isn't one of its layers'.

    >>> from jaxnet.layers import dense, relu
    >>> net = tapped(serial(dense(4), relu(), dense(2)), ("relu_0",))
    >>> (y, h), _ = net.apply(*net.init(jax.random.key(0), (3,)), jnp.ones((5, 3)))
    >>> y.shape, h["relu_0"].shape
    ((5, 2), (5, 4))
    """
    layers = tuple(part for _, part in net.settings if isinstance(part, Layer)) if net.name == "serial" else ()
    known = names(layers)
    unknown = [name for name in taps if name not in known]
    if isinstance(taps, str) or unknown or not layers:
        raise ValueError(f"tapped: got {taps!r} of {net!r}; expected a tuple of names of a serial's layers, {known}")

    def apply(params, state, x, *, key=None, train=False):
        values, state = _forward(layers, params, state, x, key, train)
        return (values[-1], {name: values[1 + known.index(name)] for name in taps}), state

    def backward(params, state, x, dy, *, key=None, train=False):
        return _backward(layers, params, state, x, dy[0], dy[1], key, train)

    return Layer("tapped", net.init, apply, backward if net.backward else None, (("", net), ("taps", tuple(taps))))


def frozen(layer: Layer) -> Layer:
    """`layer` with its parameters kept in the state: gradients, optimizers and weight decay never see them.

    The state is {"params": …, "state": …} and the parameters are {}; dx passes through as before. To freeze trained
    values give a layer that starts with them: `dataclasses.replace(layer, init=lambda key, spec: (params, state))`.

    >>> from jaxnet.layers import dense
    >>> params, state = frozen(dense(2)).init(jax.random.key(0), (3,))
    >>> params, state["params"]["w"].shape
    ({}, (3, 2))
    """
    check_layers("frozen", (layer,))
    rule: Any = layer.backward

    def kept(params, state):
        return {name: tree for name, tree in (("params", params), ("state", state)) if tree}

    def init(key, spec):
        return {}, kept(*layer.init(key, spec))

    def apply(params, state, x, *, key=None, train=False):
        inner = state.get("params", {})
        y, inner_state = layer.apply(inner, state.get("state", {}), x, key=key, train=train)
        return y, kept(inner, inner_state)

    def backward(params, state, x, dy, *, key=None, train=False):
        dx, _ = rule(state.get("params", {}), state.get("state", {}), x, dy, key=key, train=train)
        return dx, {}

    return Layer("frozen", init, apply, backward if rule else None, (("", layer),))


def repeat(layer: Layer, times: int) -> Layer:
    """`times` copies of `layer` one after the other, each with parameters of its own: one compiled body, scanned.

    The same network as `serial(*[layer] * times)`, bit for bit in its initial values and keys, but the parameters are
    stacked: each leaf of `layer`'s tree has a leading axis of `times`. It compiles once, whatever the depth. Backward
    scans the copies in reverse, over the inputs that the forward scan has kept.

    Raises:
        ValueError: times < 1; at init, a layer whose output isn't like its input.

    >>> from jaxnet.layers import dense
    >>> repeat(dense(3), 5).init(jax.random.key(0), (3,))[0]["w"].shape
    (5, 3, 3)
    """
    check_layers("repeat", (layer,))
    if isinstance(times, bool) or not isinstance(times, int) or times < 1:
        raise ValueError(f"got repeat(times={times!r}); expected a positive integer")
    rule: Any = layer.backward

    def keys(key):
        return None if key is None else jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(times))

    def init(key, spec):
        params, state = jax.vmap(lambda key: layer.init(key, spec))(keys(key))
        first, first_state = jax.tree.map(lambda a: a[0], (params, state))
        got, want = output_spec(layer, first, first_state, spec), as_spec(spec)
        if got != want:
            raise ValueError(f"repeat({layer!r}): got an output like {got} from inputs like {want}; expected the same")
        return params, state

    def body(x, part, train):
        params, state, key = part
        y, state = layer.apply(params, state, x, key=key, train=train)
        return y, (x, state)

    def apply(params, state, x, *, key=None, train=False):
        copies = params, state, keys(key)
        x, (_, state) = jax.lax.scan(lambda x, part: body(x, part, train), x, copies, times)
        return x, state

    def backward(params, state, x, dy, *, key=None, train=False):
        copies = params, state, keys(key)
        _, (inputs, _) = jax.lax.scan(lambda x, part: body(x, part, train), x, copies, times)

        def back(dy, part):
            (params, state, key), x = part
            return rule(params, state, x, dy, key=key, train=train)

        return jax.lax.scan(back, dy, (copies, inputs), times, reverse=True)

    return Layer("repeat", init, apply, backward if rule else None, (("", layer), ("times", times)))
