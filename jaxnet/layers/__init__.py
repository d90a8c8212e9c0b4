"""Layers: the record `Layer`, the layers themselves, and the combinators that make networks of them."""

from jaxnet.layers.calibrated import lsuv
from jaxnet.layers.combinators import frozen, repeat, serial, tapped
from jaxnet.layers.convolution import conv, conv_transpose, depthwise_conv
from jaxnet.layers.dense import dense
from jaxnet.layers.elementwise import (
    absolute,
    activation,
    cosine,
    elu,
    gelu,
    hard_sigmoid,
    hard_tanh,
    identity,
    leaky_relu,
    log_softmax,
    relu,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    softsign,
    step,
    tanh,
)
from jaxnet.layers.embedding import embedding
from jaxnet.layers.graph import branch, concatenate, parallel, residual, select, sum
from jaxnet.layers.layer import Layer, as_spec, batch_of, output_spec, parameterless, spec_of
from jaxnet.layers.local import local, tiled_conv
from jaxnet.layers.normalization import batch_norm, layer_norm, rms_norm
from jaxnet.layers.pooling import average_pool, global_average_pool, global_max_pool, max_pool
from jaxnet.layers.recurrent import bidirectional, gru, lstm, rnn
from jaxnet.layers.reparameterized import compute_dtype, reparameterized, tied
from jaxnet.layers.reshaping import flatten
from jaxnet.layers.sequences import Sequence, pad, time_distributed
from jaxnet.layers.stochastic import dropout, gaussian_noise
from jaxnet.layers.teacher import output_rnn
from jaxnet.layers.units import maxout, prelu, rbf
from jaxnet.layers.weights import dropconnect, low_rank, weight_noise, weight_norm

__all__ = [
    "Layer",
    "Sequence",
    "absolute",
    "activation",
    "as_spec",
    "average_pool",
    "batch_norm",
    "batch_of",
    "bidirectional",
    "branch",
    "compute_dtype",
    "concatenate",
    "conv",
    "conv_transpose",
    "cosine",
    "dense",
    "depthwise_conv",
    "dropconnect",
    "dropout",
    "elu",
    "embedding",
    "flatten",
    "frozen",
    "gaussian_noise",
    "gelu",
    "global_average_pool",
    "global_max_pool",
    "gru",
    "hard_sigmoid",
    "hard_tanh",
    "identity",
    "layer_norm",
    "leaky_relu",
    "local",
    "log_softmax",
    "low_rank",
    "lstm",
    "lsuv",
    "max_pool",
    "maxout",
    "output_rnn",
    "output_spec",
    "pad",
    "parallel",
    "parameterless",
    "prelu",
    "rbf",
    "relu",
    "reparameterized",
    "repeat",
    "residual",
    "rms_norm",
    "rnn",
    "select",
    "selu",
    "serial",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "softsign",
    "spec_of",
    "step",
    "sum",
    "tanh",
    "tapped",
    "tied",
    "tiled_conv",
    "time_distributed",
    "weight_noise",
    "weight_norm",
]
