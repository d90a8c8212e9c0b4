"""Whole networks by name."""

from collections.abc import Sequence

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
