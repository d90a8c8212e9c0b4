"""jaxnet: train networks of MLP size, and whole studies of them, as pure JAX functions.

Names are imported when first used, so that `import jaxnet` and `jaxnet --help` don't wait for jax.
"""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_ROOMS = (
    "activations", "adapters", "checkpoint", "data", "gradients", "heads", "initializers", "layers", "losses",
    "metrics", "networks", "norms", "optimizers", "outcomes", "rules", "schedules", "sweeps", "testing", "training",
)  # fmt: skip
_HOMES = {
    "data": ("Data",),
    "gradients": (
        "accumulated", "adversarial", "augmented", "backprop", "loss_and_grad", "penalized", "regularized", "sam",
    ),
    "layers": (
        "Layer", "Sequence", "average_pool", "batch_norm", "branch", "conv", "dense", "dropout", "embedding",
        "flatten", "gelu", "global_average_pool", "gru", "identity", "layer_norm", "leaky_relu", "lstm", "max_pool",
        "maxout", "relu", "repeat", "residual", "rnn", "serial", "sigmoid", "silu", "softmax", "softplus", "tanh",
    ),
    "microscope": ("explain",),
    "networks": ("mlp", "transferred"),
    "optimizers.second_order": ("least_squares", "minimize"),
    "per_example": ("per_example_gradients", "per_example_norms"),
    "summaries": ("count_parameters", "summary"),
    "sweeps": (
        "Space", "Study", "grid", "halving", "hyperband", "integers", "learning_rate_finder", "lin_space", "log_space",
        "log_uniform", "population_based_training", "random_draws", "sobol_draws", "static", "sweep", "uniform",
        "when", "zipped",
    ),
    "training": (
        "Fitted", "Program", "TrainState", "evaluate", "fit", "merged", "predict", "program", "program_full_batch",
        "retrained", "run", "train_state", "train_step", "until", "whole",
    ),
}  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted((*_ROOMS, *_HOME_OF))]


def __getattr__(name: str):
    if name in _ROOMS:
        return importlib.import_module(f"jaxnet.{name}")
    if name in _HOME_OF:
        value = getattr(importlib.import_module(f"jaxnet.{_HOME_OF[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'jaxnet' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if TYPE_CHECKING:
    from jaxnet import activations as activations
    from jaxnet import adapters as adapters
    from jaxnet import checkpoint as checkpoint
    from jaxnet import data as data
    from jaxnet import gradients as gradients
    from jaxnet import heads as heads
    from jaxnet import initializers as initializers
    from jaxnet import layers as layers
    from jaxnet import losses as losses
    from jaxnet import metrics as metrics
    from jaxnet import networks as networks
    from jaxnet import norms as norms
    from jaxnet import optimizers as optimizers
    from jaxnet import outcomes as outcomes
    from jaxnet import rules as rules
    from jaxnet import schedules as schedules
    from jaxnet import sweeps as sweeps
    from jaxnet import testing as testing
    from jaxnet import training as training
    from jaxnet.data import Data as Data
    from jaxnet.gradients import accumulated as accumulated
    from jaxnet.gradients import adversarial as adversarial
    from jaxnet.gradients import augmented as augmented
    from jaxnet.gradients import backprop as backprop
    from jaxnet.gradients import loss_and_grad as loss_and_grad
    from jaxnet.gradients import penalized as penalized
    from jaxnet.gradients import regularized as regularized
    from jaxnet.gradients import sam as sam
    from jaxnet.layers import Layer as Layer
    from jaxnet.layers import Sequence as Sequence
    from jaxnet.layers import average_pool as average_pool
    from jaxnet.layers import batch_norm as batch_norm
    from jaxnet.layers import branch as branch
    from jaxnet.layers import conv as conv
    from jaxnet.layers import dropout as dropout
    from jaxnet.layers import flatten as flatten
    from jaxnet.layers import gelu as gelu
    from jaxnet.layers import global_average_pool as global_average_pool
    from jaxnet.layers import gru as gru
    from jaxnet.layers import identity as identity
    from jaxnet.layers import layer_norm as layer_norm
    from jaxnet.layers import leaky_relu as leaky_relu
    from jaxnet.layers import lstm as lstm
    from jaxnet.layers import max_pool as max_pool
    from jaxnet.layers import maxout as maxout
    from jaxnet.layers import relu as relu
    from jaxnet.layers import repeat as repeat
    from jaxnet.layers import residual as residual
    from jaxnet.layers import rnn as rnn
    from jaxnet.layers import serial as serial
    from jaxnet.layers import sigmoid as sigmoid
    from jaxnet.layers import silu as silu
    from jaxnet.layers import softmax as softmax
    from jaxnet.layers import softplus as softplus
    from jaxnet.layers import tanh as tanh
    from jaxnet.layers.dense import dense as dense
    from jaxnet.layers.embedding import embedding as embedding
    from jaxnet.microscope import explain as explain
    from jaxnet.networks import mlp as mlp
    from jaxnet.networks import transferred as transferred
    from jaxnet.optimizers.second_order import least_squares as least_squares
    from jaxnet.optimizers.second_order import minimize as minimize
    from jaxnet.per_example import per_example_gradients as per_example_gradients
    from jaxnet.per_example import per_example_norms as per_example_norms
    from jaxnet.summaries import count_parameters as count_parameters
    from jaxnet.summaries import summary as summary
    from jaxnet.sweeps import Space as Space
    from jaxnet.sweeps import Study as Study
    from jaxnet.sweeps import grid as grid
    from jaxnet.sweeps import integers as integers
    from jaxnet.sweeps import learning_rate_finder as learning_rate_finder
    from jaxnet.sweeps import lin_space as lin_space
    from jaxnet.sweeps import log_space as log_space
    from jaxnet.sweeps import log_uniform as log_uniform
    from jaxnet.sweeps import population_based_training as population_based_training
    from jaxnet.sweeps import random_draws as random_draws
    from jaxnet.sweeps import sobol_draws as sobol_draws
    from jaxnet.sweeps import static as static
    from jaxnet.sweeps import uniform as uniform
    from jaxnet.sweeps import when as when
    from jaxnet.sweeps import zipped as zipped
    from jaxnet.sweeps.halving import halving as halving
    from jaxnet.sweeps.halving import hyperband as hyperband
    from jaxnet.sweeps.sweep import sweep as sweep
    from jaxnet.training import Fitted as Fitted
    from jaxnet.training import Program as Program
    from jaxnet.training import TrainState as TrainState
    from jaxnet.training import evaluate as evaluate
    from jaxnet.training import fit as fit
    from jaxnet.training import merged as merged
    from jaxnet.training import predict as predict
    from jaxnet.training import retrained as retrained
    from jaxnet.training import run as run
    from jaxnet.training import train_state as train_state
    from jaxnet.training import train_step as train_step
    from jaxnet.training import until as until
    from jaxnet.training.program import program as program
    from jaxnet.training.whole import whole as whole
