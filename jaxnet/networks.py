"""Whole networks by name."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxnet import activations, initializers
from jaxnet.layers import Layer, dense, serial
from jaxnet.layers import activation as activation_layer
from jaxnet.layers import dropout as dropout_layer


def mlp(
    units: Sequence[int],
    *,
    activation: "str | activations.Activation" = "relu",
    dropout=0.0,
    weight_init: initializers.Initializer | None = None,
) -> Layer:
    """A multilayer perceptron: dense layers of these units with `activation`, then `dropout`, after all but the last.

    h_k = f(h_{k−1} w_k + b_k), and the last layer without f: its outputs are logits or predicted means (Goodfellow
    eq. 6.40–6.41). `[10]` is a linear model. The input size comes from `init`'s spec. Hidden weights start as He's
    normal for ReLU and softplus and Glorot's uniform for the others, the last layer's as Glorot's uniform,
    unless `weight_init` is given; biases start at 0. `dropout`, the probability to drop a hidden unit, may be traced.

    Raises:
        ValueError: no units, or units < 1; an unknown activation; a rate outside [0, 1].

    >>> mlp([256, 10], dropout=0.5)
    serial(dense(256), relu(), dropout(0.5), dense(10))
    """
    sizes = [int(n) if isinstance(n, np.integer) else n for n in units]
    if not sizes:
        raise ValueError("mlp: got no units; expected at least the number of outputs, mlp([10])")
    f = activations.get(activation)
    hidden_init = weight_init or (initializers.he_normal() if f.relu_like else initializers.glorot_uniform())
    layers: list[Layer] = []
    for size in sizes[:-1]:
        layers += [dense(size, weight_init=hidden_init), activation_layer(f)]
        if not (isinstance(dropout, (int, float)) and dropout == 0):
            layers.append(dropout_layer(dropout))
    return serial(*layers, dense(sizes[-1], weight_init=weight_init))


def transferred(params: Any, source: Any, paths: Mapping[str, str] | Sequence[str]) -> Any:
    """`params` with the parts named by `paths` taken from `source`, another network's parameters.

    For pretraining and transfer: `fit(…, params=transferred(fresh, trained, ["dense_0", "dense_1"]))` starts a new
    task, a deeper network or a fine-tuning run from trained layers (Goodfellow §8.7.4).

    Args:
        params: what the new network's `init` gave.
        paths: paths here -> paths in `source`, or a list of those that are the same in both. A path is names joined by
            dots and stands for everything below it: "dense_0", "dense_0.w".

    Raises:
        ValueError: a path that isn't there, or arrays of other shapes.

    >>> fresh, trained = ({"dense_0": {"w": np.full((2, 2), v), "b": np.full(2, v)}} for v in (0.0, 1.0))
    >>> transferred(fresh, trained, ["dense_0.w"])["dense_0"]["b"].tolist()
    [0.0, 0.0]
    """
    pairs = dict(paths) if isinstance(paths, Mapping) else {path: path for path in paths}
    here, there = (
        {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
        for leaves in (jax.tree_util.tree_leaves_with_path(tree) for tree in (params, source))
    )
    taken = {}
    for ours, theirs in pairs.items():
        below = [name for name in here if name == ours or name.startswith(f"{ours}.")]
        if not below:
            raise ValueError(f"transferred: got {ours!r}, which no parameter begins with; expected one of {list(here)}")
        for name in below:
            origin = theirs + name[len(ours) :]
            if origin not in there:
                raise ValueError(f"transferred: got {origin!r}, not in the source; expected one of {list(there)}")
            if np.shape(here[name]) != np.shape(there[origin]):
                raise ValueError(
                    f"transferred: got {origin} of shape {np.shape(there[origin])}; expected {np.shape(here[name])}, "
                    f"the shape of {name}"
                )
            taken[name] = there[origin]
    leaves = [taken.get(name, leaf) for name, leaf in here.items()]
    return jax.tree.unflatten(jax.tree.structure(params), leaves)
