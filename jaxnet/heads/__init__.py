"""Heads: the last layer, the loss and the predictions for one kind of target, in one object."""

from jaxnet.heads.head import Head, attached
from jaxnet.heads.multitask import multitask
from jaxnet.heads.single import (
    binary,
    gaussian,
    margin,
    mixture,
    multiclass,
    multivariate_gaussian,
    poisson,
    quantile,
    regression,
)

__all__ = [
    "Head",
    "attached",
    "binary",
    "gaussian",
    "margin",
    "mixture",
    "multiclass",
    "multitask",
    "multivariate_gaussian",
    "poisson",
    "quantile",
    "regression",
]
