"""Data: sets of examples, how they are loaded, split and scaled, and what is checked before they're used."""

from jaxnet.data import augment
from jaxnet.data.folds import Fold, bootstrap, holdout, k_fold
from jaxnet.data.load import load
from jaxnet.data.sets import Data
from jaxnet.data.split import split
from jaxnet.data.standardize import standardize

__all__ = ["Data", "Fold", "augment", "bootstrap", "holdout", "k_fold", "load", "split", "standardize"]
