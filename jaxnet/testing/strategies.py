"""Hypothesis strategies: networks, their parameters, batches for them, and any trees of arrays.

    networks()    -> Layer                        parameters(net, in_shape) -> (params, state)
    batches()     -> (x, y) or (x, y, weight)     cases()   -> Case: all that a gradient function needs
    pytrees()     -> nested dicts, lists and tuples of arrays

Shapes come from a grid so small that compiled operations repeat. What a strategy draws is one seed and a few choices,
so examples are quick to draw and small to report.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError(
        "jaxnet.testing: networks(), parameters(), batches(), cases() and pytrees() need Hypothesis, which isn't "
        "installed: pip install hypothesis"
    ) from error

import jaxnet.activations
from jaxnet import layers, losses
from jaxnet.layers import Layer
from jaxnet.testing.roads import drawn_inputs

ACTIVATIONS = tuple(name for name, f in jaxnet.activations.named.items() if f.differentiable)
TARGETS = {
    "values": losses.squared_error,
    "bits": losses.sigmoid_cross_entropy,
    "labels": losses.softmax_cross_entropy,
    "one-hot": losses.softmax_cross_entropy,
    "soft": losses.softmax_cross_entropy,
}
"""What targets may be, and a loss that takes them."""
KINDS = ("dense", "dropout", "norm", "residual")
OF_SERIES = ("conv", "pool", "rnn")
_KNOWN = (*KINDS, *OF_SERIES, "batch_norm")
WIDTHS = (1, 3, 8)
SIZES = (1, 2, 7)


@st.composite
def networks(
    draw,
    in_shape: tuple[int, ...] = (3,),
    outputs: int = 2,
    *,
    max_depth: int = 4,
    widths: tuple[int, ...] = WIDTHS,
    kinds: tuple[str, ...] = KINDS,
    activations: tuple[str, ...] = ACTIVATIONS,
) -> Layer:
    """A `serial` network: 0 to `max_depth` blocks and a dense layer with `outputs` units.

    A block is a dense layer, with or without a bias, and an activation. Where `kinds` has them it may go on with
    "dropout", "norm" (layer or RMS norm, of three units or more), "batch_norm", or be "residual"; on examples of shape
    (time, features) it may also be a "conv", "pool" or "rnn", and the array is flattened in the end.

    "batch_norm" isn't among the kinds unless asked for. What it subtracts cancels out of the gradients before it, so in
    float32 one network in a hundred has a gradient that both roads compute to a few digits only: ask in float64.

    Raises:
        ValueError: a kind that isn't one of these.

    >>> from hypothesis import find
    >>> find(networks(max_depth=0), lambda net: True)
    serial(dense(2))
    """
    unknown = set(kinds) - set(_KNOWN)
    if unknown:
        raise ValueError(f"networks: got kinds {sorted(unknown)}; expected some of {_KNOWN}")
    first: list[str] = [kind for kind in ("dense", "residual") if kind in kinds]
    first += [kind for kind in OF_SERIES if kind in kinds and len(in_shape) == 2]
    after = [kind for kind in ("dropout", "norm", "batch_norm") if kind in kinds]
    parts: list[Layer] = []
    width = in_shape[-1]
    for _ in range(draw(st.integers(0, max_depth), label="depth")):
        kind = draw(st.sampled_from(first), label="block")
        f = layers.activation(draw(st.sampled_from(activations)))
        units = width if kind in ("residual", "pool") else draw(st.sampled_from(widths))
        if kind == "residual":
            parts.append(
                layers.residual(layers.serial(layers.dense(draw(st.sampled_from(widths))), f, layers.dense(width)))
            )
        elif kind == "pool":
            pool = draw(st.sampled_from((layers.average_pool, layers.max_pool)))
            parts.append(pool((2,), stride=1, padding="SAME"))
        elif kind == "rnn":
            parts.append(layers.rnn(units))
        else:
            with_bias = draw(st.integers(0, 4)) > 0
            parts.append(
                layers.conv(units, (3,), bias=with_bias) if kind == "conv" else layers.dense(units, bias=with_bias)
            )
            parts.append(f)
        width = units
        if after and draw(st.integers(0, 2)) == 0:
            follower = draw(st.sampled_from(after))
            if follower != "norm" or units > 2:  # of one or two units nothing is left but signs
                parts.append(_after(draw, follower))
    flat = [layers.flatten()] if len(in_shape) > 1 else []
    return layers.serial(*parts, *flat, layers.dense(outputs))


def _after(draw, kind):
    if kind == "dropout":
        return layers.dropout(draw(st.sampled_from((0.0, 0.25, 0.5))))
    return (
        layers.batch_norm() if kind == "batch_norm" else draw(st.sampled_from((layers.layer_norm, layers.rms_norm)))()
    )


def seeds() -> st.SearchStrategy[np.random.Generator]:
    """A NumPy generator from a drawn seed.

    >>> from hypothesis import find
    >>> isinstance(find(seeds(), lambda rng: True), np.random.Generator)
    True
    """
    return st.integers(0, 2**32 - 1).map(np.random.default_rng)


def parameters(net: Layer, in_shape: Any) -> st.SearchStrategy[tuple[Any, Any]]:
    """(params, state) of a network: parameters, biases too, normal over the square root of the first axis's length.

    The state is the one that `init` gives.

    >>> from hypothesis import find
    >>> params, state = find(parameters(layers.dense(2), (3,)), lambda drawn: True)
    >>> params["w"].shape, state
    ((3, 2), {})
    """

    return seeds().map(lambda rng: parameters_from(rng, net, in_shape))


def parameters_from(rng: np.random.Generator, net: Layer, in_shape: Any) -> tuple[Any, Any]:
    """What `parameters` draws, from a generator.

    >>> parameters_from(np.random.default_rng(0), layers.tanh(), (3,))
    ({}, {})
    """
    key = jax.random.key(int(rng.integers(2**31)))
    params, state = jax.eval_shape(lambda key: net.init(key, in_shape), key)
    if jax.tree.leaves(state):
        _, state = net.init(key, in_shape)

    def leaf(s):
        return jnp.asarray(rng.normal(size=s.shape) / max(1, *s.shape[:1]) ** 0.5, s.dtype)

    return jax.tree.map(leaf, params), state


@st.composite
def batches(
    draw,
    in_shape: Any = (3,),
    outputs: int = 2,
    *,
    targets: str = "values",
    sizes: tuple[int, ...] = SIZES,
    weights: bool = True,
) -> tuple:
    """A batch (x, y), or (x, y, weight) with some weights zero: x normal, y what `TARGETS[targets]` takes.

    >>> from hypothesis import find
    >>> x, y = find(batches((3,), 4, targets="labels", weights=False), lambda batch: True)
    >>> x.shape, y.dtype
    ((1, 3), dtype('int32'))
    """
    n, rng = draw(st.sampled_from(sizes), label="batch"), draw(seeds())
    kind = draw(st.sampled_from(("none", "random", "zeros")), label="weights") if weights else "none"
    return batch_from(rng, in_shape, outputs, targets, n, kind)


def batch_from(
    rng: np.random.Generator, in_shape: Any, outputs: int, targets: str, size: int, weights: str = "none"
) -> tuple:
    """What `batches` draws, from a generator; weights are "none", "random" or "zeros" (half of them).

    >>> len(batch_from(np.random.default_rng(0), (3,), 2, "soft", 5, "zeros"))
    3
    """
    dtype = jnp.result_type(float)
    y: np.ndarray
    if targets == "values":
        y = rng.normal(size=(size, outputs))
    elif targets == "bits":
        y = rng.random((size, outputs)).round(int(rng.integers(0, 3)))
    elif targets == "soft":
        y = rng.dirichlet(np.ones(outputs), size)
    else:
        labels = rng.integers(0, outputs, size)
        y = labels if targets == "labels" else np.eye(outputs)[labels]
    x = jax.tree.map(jnp.asarray, drawn_inputs(rng, in_shape, size))
    batch = (x, jnp.asarray(y, jnp.int32 if targets == "labels" else dtype))
    if weights == "none":
        return batch
    w = rng.random(size) + 0.1
    if weights == "zeros":
        w[rng.random(size) < 0.5] = 0
    return (*batch, jnp.asarray(w, dtype))


@dataclass(frozen=True)
class Case:
    """A network with parameters and state, a loss and a batch for it, and a key: what a gradient function takes."""

    net: Layer
    loss: losses.Loss
    params: Any
    state: Any
    batch: tuple
    key: jax.Array

    def __repr__(self) -> str:
        shapes = [tuple(a.shape) for a in jax.tree.leaves(self.batch)]
        return f"Case({self.net}, {self.loss.name}, batch {shapes})"


@st.composite
def cases(
    draw,
    *,
    max_depth: int = 4,
    widths: tuple[int, ...] = WIDTHS,
    sizes: tuple[int, ...] = SIZES,
    kinds: tuple[str, ...] = KINDS,
    activations: tuple[str, ...] = ACTIVATIONS,
    targets: tuple[str, ...] = tuple(TARGETS),
    weights: bool = True,
) -> Case:
    """A `Case` with a network of `networks`, its `parameters` and one of its `batches`.

    With "conv", "pool" or "rnn" among the `kinds` some examples are of shape (5, features). Batch norm gets more than
    two examples where `sizes` has them: two are mapped to ±1, whatever they are.

    >>> from hypothesis import find
    >>> find(cases(targets=("values",), max_depth=0, weights=False), lambda case: True)
    Case(serial(dense(1)), squared_error, batch [(1, 1), (1, 1)])
    """
    target = draw(st.sampled_from(targets), label="targets")
    outputs = draw(st.sampled_from([k for k in widths if k > 1 or target in ("values", "bits")]), label="outputs")
    in_shape: tuple[int, ...] = (draw(st.sampled_from(widths), label="inputs"),)
    if set(kinds) & set(OF_SERIES) and draw(st.booleans(), label="series"):
        in_shape = (5, *in_shape)
    net = draw(networks(in_shape, outputs, max_depth=max_depth, widths=widths, kinds=kinds, activations=activations))
    params, state = draw(parameters(net, in_shape))
    if "batch_norm" in str(net):
        sizes = tuple(n for n in sizes if n > 2) or sizes
    batch = draw(batches(in_shape, outputs, targets=target, sizes=sizes, weights=weights))
    key = jax.random.key(draw(st.integers(0, 2**31 - 1), label="key"))
    return Case(net, TARGETS[target], params, state, batch, key)


def pytrees(max_leaves: int = 6) -> st.SearchStrategy[Any]:
    """Nested dicts, lists and tuples, empty ones too, of arrays: floats and integers, of rank 0 to 2, empty ones too.

    >>> from hypothesis import find
    >>> find(pytrees(), lambda tree: isinstance(tree, dict))
    {}
    """
    shapes, dtypes = ((), (1,), (3,), (0,), (2, 3)), ("float32", "bfloat16", "int32", "bool")

    def array(shape, dtype, rng):
        return jnp.asarray(rng.normal(size=shape) * 3, dtype)

    leaves = st.builds(array, st.sampled_from(shapes), st.sampled_from(dtypes), seeds())
    names = st.sampled_from(("a", "b", "w", "dense_0", "dense_10"))

    def nested(inner):
        some = st.lists(inner, max_size=3)
        return st.dictionaries(names, inner, max_size=3) | some | some.map(tuple)

    return st.recursive(leaves, nested, max_leaves=max_leaves)
