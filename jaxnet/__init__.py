"""jaxnet: train networks of MLP size, and whole studies of them, as pure JAX functions."""

__version__ = "0.1.0"

from jaxnet import activations, data, initializers, layers, losses, metrics, networks, outcomes, training
from jaxnet.data import Data
from jaxnet.gradients import backprop, loss_and_grad, penalized
from jaxnet.layers import Layer, dense, dropout, identity, relu, serial, sigmoid, softmax, softplus, tanh
from jaxnet.networks import mlp
from jaxnet.training import (
    Fitted,
    Program,
    TrainState,
    evaluate,
    fit,
    predict,
    program,
    run,
    train_state,
    train_step,
)

__all__ = [
    "Data",
    "Fitted",
    "Layer",
    "Program",
    "TrainState",
    "activations",
    "backprop",
    "data",
    "dense",
    "dropout",
    "evaluate",
    "fit",
    "identity",
    "initializers",
    "layers",
    "loss_and_grad",
    "losses",
    "metrics",
    "mlp",
    "networks",
    "outcomes",
    "penalized",
    "predict",
    "program",
    "relu",
    "run",
    "serial",
    "sigmoid",
    "softmax",
    "softplus",
    "tanh",
    "train_state",
    "train_step",
    "training",
]
