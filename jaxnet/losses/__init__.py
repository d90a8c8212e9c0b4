"""Losses per example, on logits, each with its hand-derived gradient beside the value.

    value(output, target)    -> (batch,)             one number per example
    gradient(output, target) -> shape of output      ∂ value / ∂ output, written by hand
    check(spec, target)      -> None, or an error    what can be said of concrete targets before any compile

The batch loss that training minimizes is the weighted mean Σ wℓ / Σ w of these; it's formed in `gradients`.
Losses in nats, summed over the outputs (and time steps) of an example, never averaged over them. The squared error is
½‖ŷ − y‖²; the sources scale it in other ways (Hagan: mean over outputs; Goodfellow eq. 5.4: no ½). Likelihoods with
a learned scale, and the Poisson, are complete log-densities; squared, absolute and Huber error leave constants out.

Inside a compiled program values can't raise. A label or target out of range makes its loss and gradient NaN, so the
run ends as diverged and never with a wrong number.
"""

from jaxnet.losses.classification import (
    binary_cross_entropy,
    cross_entropy,
    hinge,
    log_softmax,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
    squared_hinge,
)
from jaxnet.losses.gaussian import gaussian, mean_and_factor, mean_and_scale, multivariate_gaussian, positive, raw_of
from jaxnet.losses.loss import Loss, as_loss
from jaxnet.losses.mixtures import mixture, mixture_parameters, responsibilities
from jaxnet.losses.regression import absolute_error, huber, poisson, quantile, squared_error
from jaxnet.losses.steps import mean_over_steps, per_step

__all__ = [
    "Loss",
    "absolute_error",
    "as_loss",
    "binary_cross_entropy",
    "cross_entropy",
    "gaussian",
    "hinge",
    "huber",
    "log_softmax",
    "mean_and_factor",
    "mean_and_scale",
    "mean_over_steps",
    "mixture",
    "mixture_parameters",
    "multivariate_gaussian",
    "per_step",
    "poisson",
    "positive",
    "quantile",
    "raw_of",
    "responsibilities",
    "sigmoid_cross_entropy",
    "softmax_cross_entropy",
    "squared_error",
    "squared_hinge",
]
