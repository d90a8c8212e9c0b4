"""jaxnet: train networks of MLP size, and whole studies of them, as pure JAX functions."""

__version__ = "0.1.0"

from jaxnet import activations, initializers, layers, losses, metrics, outcomes
from jaxnet.gradients import backprop, loss_and_grad, penalized
from jaxnet.layers import Layer, dense, dropout, identity, relu, serial, sigmoid, softmax, softplus, tanh
from jaxnet.networks import mlp
