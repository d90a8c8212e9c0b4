"""Layers: the record `Layer`, the layers themselves, and the combinators that make networks of them."""

from jaxnet.layers.combinators import serial
from jaxnet.layers.dense import dense
from jaxnet.layers.elementwise import activation, identity, relu, sigmoid, softmax, softplus, tanh
from jaxnet.layers.layer import Layer, as_spec, batch_of, output_spec, parameterless, spec_of
from jaxnet.layers.stochastic import dropout

__all__ = [
    "Layer",
    "activation",
    "as_spec",
    "batch_of",
    "dense",
    "dropout",
    "identity",
    "output_spec",
    "parameterless",
    "relu",
    "serial",
    "sigmoid",
    "softmax",
    "softplus",
    "spec_of",
    "tanh",
]
