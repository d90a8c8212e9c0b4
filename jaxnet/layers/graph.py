"""Layers side by side: with `serial` they build every feed-forward graph.

    branch(f, g)        x       -> (f(x), g(x))
    parallel(f, g)      (a, b)  -> (f(a), g(b))
    select(i)           (a, b)  -> the i-th
    sum()               (a, b)  -> a + b
    concatenate()       (a, b)  -> [a b]
    residual(f)         x       -> x + f(x)

A node that feeds several others is a `branch`, one that is fed by several a merge, and an edge that skips layers is
an `identity()` in parallel to them. Backward adds up the gradients of all uses (Goodfellow §6.5.6; Hagan P3.2, E3.4).
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.layers.combinators import added, check_layers, names, parts
from jaxnet.layers.elementwise import identity
from jaxnet.layers.layer import Layer, as_spec, parameterless


def branch(*layers: Layer) -> Layer:
    """One input goes to every layer: y = (l_1(x), …, l_n(x)); dx = Σ_i dx_i.

    Parameters, states and keys are by name and position, as in `serial`.

    Raises:
        TypeError: for an argument that isn't a Layer; ValueError: for none.

    >>> from jaxnet.layers import dense
    >>> net = branch(dense(4), dense(2))
    >>> [y.shape for y in net.apply(*net.init(jax.random.key(0), (3,)), jnp.ones((5, 3)))[0]]
    [(5, 4), (5, 2)]
    """
    return _side_by_side("branch", layers, lambda x: (x,) * len(layers), lambda dxs: added(*dxs))


def parallel(*layers: Layer) -> Layer:
    """A tuple of inputs, one for each layer: y = (l_1(x_1), …, l_n(x_n)); dx = (dx_1, …, dx_n).

    Raises:
        TypeError: for an argument that isn't a Layer; ValueError: for none; a tuple of another length.

    >>> from jaxnet.layers import dense, identity
    >>> net = parallel(dense(4), identity())
    >>> x = jnp.ones((5, 3)), jnp.ones((5, 2))
    >>> spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)
    >>> [y.shape for y in net.apply(*net.init(jax.random.key(0), spec), x)[0]]
    [(5, 4), (5, 2)]
    """

    def split(x):
        if not isinstance(x, (tuple, list)) or len(x) != len(layers):
            got = f"{len(x)} inputs" if isinstance(x, (tuple, list)) else f"one input of type {type(x).__name__}"
            raise ValueError(f"parallel: got {got}; expected a tuple of {len(layers)}, one for each layer: use branch")
        return x

    return _side_by_side("parallel", layers, split, tuple)


def _side_by_side(kind: str, layers: tuple[Layer, ...], split, join) -> Layer:
    """Layers on the parts that `split` makes of x; `join` makes dx of their dx."""
    check_layers(kind, layers)
    if not layers:
        raise ValueError(f"{kind}: got no layers; expected at least one: use identity() to pass x on")

    def init(key, spec):
        params: dict[str, Any] = {}
        state: dict[str, Any] = {}
        for i, (name, layer, part) in enumerate(zip(names(layers), layers, split(as_spec(spec)), strict=True)):
            layer_params, layer_state = layer.init(jax.random.fold_in(key, i), part)
            params |= {name: layer_params} if layer_params else {}
            state |= {name: layer_state} if layer_state else {}
        return params, state

    def apply(params, state, x, *, key=None, train=False):
        ys = []
        new_state: dict[str, Any] = {}
        for (name, layer, part_params, part_state, part_key), part in zip(
            parts(layers, params, state, key), split(x), strict=True
        ):
            with jax.named_scope(name):
                y, part_state = layer.apply(part_params, part_state, part, key=part_key, train=train)
            ys.append(y)
            new_state |= {name: part_state} if part_state else {}
        return tuple(ys), new_state

    def backward(params, state, x, dy, *, key=None, train=False):
        dxs = []
        grads: dict[str, Any] = {}
        for (name, layer, part_params, part_state, part_key), part, part_dy in zip(
            parts(layers, params, state, key), split(x), dy, strict=True
        ):
            with jax.named_scope(name):
                dx, part_grads = layer.backward(part_params, part_state, part, part_dy, key=part_key, train=train)
            dxs.append(dx)
            grads |= {name: part_grads} if part_params else {}
        return join(dxs), grads

    complete = all(layer.backward is not None for layer in layers)
    return Layer(kind, init, apply, backward if complete else None, tuple(("", layer) for layer in layers))


def select(position: int) -> Layer:
    """y = x_position of a tuple x; the gradient by the others is zero.

    With `branch` it routes a tuple: branch(serial(select(0), f), sum()) makes (f(a), a + b) of (a, b).

    Raises:
        ValueError: a position that the tuple doesn't have.

    >>> select(1).apply({}, {}, (jnp.zeros(1), jnp.ones(1)))[0].tolist()
    [1.0]
    """

    def apply(x, key, train):
        if not isinstance(x, (tuple, list)) or not 0 <= position < len(x):
            got = f"{len(x)} inputs" if isinstance(x, (tuple, list)) else type(x).__name__
            raise ValueError(f"select({position}): got {got}; expected a tuple of more than {position} inputs")
        return x[position]

    def zeros(a):
        return jnp.zeros_like(a) if jnp.issubdtype(a.dtype, jnp.inexact) else None

    def backward(x, dy, key, train):
        return tuple(dy if i == position else jax.tree.map(zeros, part) for i, part in enumerate(x))

    return parameterless("select", apply, backward, (("", position),))


def sum() -> Layer:
    """y = x_1 + … + x_n of a tuple; dx_i = dy. Integers in it (a `Sequence`'s lengths) are those of x_1.

    Raises:
        ValueError: parts of different shapes (no broadcasting).

    >>> sum().apply({}, {}, (jnp.ones(2), jnp.ones(2)))[0].tolist()
    [2.0, 2.0]
    """

    def leaf(*parts):
        shapes = [part.shape for part in parts]
        if len(set(shapes)) > 1:
            raise ValueError(f"sum: got parts of shapes {shapes}; expected equal ones: a dense layer changes the width")
        total = parts[0]
        if jnp.issubdtype(total.dtype, jnp.inexact):
            for part in parts[1:]:
                total = total + part
        return total

    return parameterless(
        "sum", lambda x, key, train: jax.tree.map(leaf, *x), lambda x, dy, key, train: tuple(dy for _ in x)
    )


def concatenate() -> Layer:
    """y = [x_1 … x_n] along the last axis of a tuple; dx_i is dy's part. Integers are those of x_1.

    Raises:
        ValueError: parts whose other axes differ.

    >>> concatenate().apply({}, {}, (jnp.ones((1, 2)), jnp.zeros((1, 1))))[0].tolist()
    [[1.0, 1.0, 0.0]]
    """

    def leaf(*parts):
        shapes = [part.shape for part in parts]
        if len({shape[:-1] for shape in shapes}) > 1:
            raise ValueError(
                f"concatenate: got parts of shapes {shapes}; expected them to differ in the last axis only"
            )
        return jnp.concatenate(parts, axis=-1) if jnp.issubdtype(parts[0].dtype, jnp.inexact) else parts[0]

    def backward(x, dy, key, train):
        leaves = [jax.tree.leaves(part) for part in x]  # [part][leaf]
        columns: list[Any] = []
        for i, d in enumerate(jax.tree.leaves(dy, is_leaf=lambda a: a is None)):
            if d is None:
                columns.append([None] * len(x))
            else:
                ends = list(itertools.accumulate(part[i].shape[-1] for part in leaves))
                columns.append(jnp.split(d, ends[:-1], axis=-1))
        return tuple(
            jax.tree.unflatten(jax.tree.structure(part), [column[j] for column in columns]) for j, part in enumerate(x)
        )

    return parameterless("concatenate", lambda x, key, train: jax.tree.map(leaf, *x), backward)


def residual(layer: Layer, shortcut: Layer | None = None) -> Layer:
    """y = x + f(x), or s(x) + f(x) with a shortcut s that changes the width; dx = dy + f's dx (Goodfellow §8.7.5).

    Parameters are by name, as in `branch(layer, shortcut)`.

    Raises:
        ValueError: f(x) of another shape than x (or s(x)).

    >>> from jaxnet.layers import dense
    >>> net = residual(dense(3))
    >>> params, state = net.init(jax.random.key(0), (3,))
    >>> x = jnp.ones((1, 3))
    >>> bool(jnp.allclose(net.apply(params, state, x)[0], x + x @ params["dense_0"]["w"]))
    True
    """
    paths, merge = branch(layer, shortcut or identity()), sum()
    rule: Any = paths.backward

    def apply(params, state, x, *, key=None, train=False):
        ys, state = paths.apply(params, state, x, key=key, train=train)
        return merge.apply({}, {}, ys)[0], state

    def backward(params, state, x, dy, *, key=None, train=False):
        return rule(params, state, x, (dy, dy), key=key, train=train)

    settings = (("", layer),) if shortcut is None else (("", layer), ("shortcut", shortcut))
    return Layer("residual", paths.init, apply, backward if rule else None, settings)
