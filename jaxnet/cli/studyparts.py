"""What a study file stands for: the data and their folds, the function from hyperparameters to a Program.

parts_of(file) -> Parts      reads the data, imports what the file names
importable(folder)           a context in which that folder and the current one are looked in for modules

The examples set aside and those that validate are the ones that `jaxnet train` has under the same seed and shares, so
what a study chooses can be trained and tested by it.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxnet as jn
from jaxnet.cli.examples import IMAGES, Examples, learned
from jaxnet.cli.options import Train
from jaxnet.cli.studyfile import StudyFile
from jaxnet.cli.studykeys import nearest
from jaxnet.cli.train import TEST, VALID
from jaxnet.data.standardize import apply_statistics, column_statistics
from jaxnet.data.tables import refilled
from jaxnet.training.program import program as program_of

OPTIMIZERS: dict[str, Callable[[Mapping[str, Any]], optax.GradientTransformation]] = {
    "adam": lambda hp: optax.adam(hp["lr"]),
    "adamw": lambda hp: optax.adamw(hp["lr"], weight_decay=hp["weight_decay"]),
    "sgd": lambda hp: optax.sgd(hp["lr"]),
    "momentum": lambda hp: optax.sgd(hp["lr"], momentum=hp["momentum"]),
    "nesterov": lambda hp: optax.sgd(hp["lr"], momentum=hp["momentum"], nesterov=True),
    "rmsprop": lambda hp: optax.rmsprop(hp["lr"]),
}


class Parts(NamedTuple):
    """What `jn.sweep` takes."""

    build: Callable
    data: Any
    folds: tuple[jn.data.Fold, ...]
    about: dict[str, Any]  # how the numbers of the data became those that the network sees
    sentence: str  # what the data are


def parts_of(file: StudyFile) -> Parts:
    """Load the data, import the functions.

    Raises:
        FileNotFoundError, ImportError, TypeError, ValueError: what the file names isn't there or doesn't fit.
    """
    table = file.data
    if "function" in table:
        data, about, task = imported(file, "[data] function", table["function"])(), {}, None
        sentence = f"data of {table['function']}"
        rest = data.train if isinstance(data, jn.Data) else None
    else:
        data, about, sentence = _loaded(file)
    folds = _folds(table, data)
    build = imported(file, "build", file.build) if file.build else mlp_build(file.program, *_outputs(file, data))
    return Parts(build, data, folds, about, sentence)
