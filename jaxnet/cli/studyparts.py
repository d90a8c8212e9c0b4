"""What a study file stands for: the data and their folds, the function from hyperparameters to a Program.

parts_of(file) -> Parts      reads the data, imports what the file names
importable(folder)           a context in which that folder and the current one are looked in for modules

The examples set aside and those that validate are the ones that `jaxnet train` has under the same seed and shares, so
what a study chooses can be trained and tested by it.
"""

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxnet as jn
from jaxnet.cli.examples import IMAGES, learned
from jaxnet.cli.options import Train
from jaxnet.cli.studyfile import StudyFile
from jaxnet.cli.studykeys import nearest
from jaxnet.cli.train import TEST, VALID
from jaxnet.data.folds import Fold, bootstrap, k_fold
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
    """What `jn.sweep` takes of a study file, besides its space and settings."""

    build: Callable[[Mapping[str, Any]], jn.Program]
    data: Any
    folds: tuple[Fold, ...]
    about: dict[str, Any]  # how the numbers of the data became those that the network sees
    sentence: str  # what the data are


def parts_of(file: StudyFile) -> Parts:
    """Load the data, import the functions.

    Raises:
        FileNotFoundError, ImportError, TypeError, ValueError: what the file names isn't there or doesn't fit.

    >>> from jaxnet.cli.studyfile import checked
    >>> parts_of(checked({"program": {}, "data": {"name": "iris"}}, Path("iris.toml"))).sentence
    'iris: 150 examples of 4 numbers, 3 classes; 96 to train, 24 to validate, 30 set aside'
    """
    classes: tuple[str, ...] | None = None
    about: dict[str, Any] = {}
    if "function" in file.data:
        data = imported(f"{file.path}: [data] function", file.data["function"])()
        sentence = f"data of {file.data['function']}"
    else:
        data, classes, about, sentence = _loaded(file)
    folds = _folds(file, data)
    if folds:
        sentence += f"; {len(folds)} {'folds' if 'folds' in file.data else 'bootstrap samples'}"
    if file.program is None:
        build = imported(f"{file.path}: build", str(file.build))
    else:
        build = mlp_build(file.program, *_outputs(file, data, classes))
    return Parts(build, data, folds, about, sentence)


def mlp_build(program: Mapping[str, Any], outputs: int, loss: jn.losses.Loss) -> Callable:
    """The function hyperparameters -> Program of a [program] table, whose keys they replace.

    >>> build = mlp_build({"hidden": [8], "activation": "relu", "dropout": 0.0, "optimizer": "sgd", "batch_size": 4,
    ...                    "patience": 0}, 3, jn.losses.softmax_cross_entropy)
    >>> build({"lr": 0.1}).patience is None
    True
    """

    def build(hyperparameters: Mapping[str, Any]) -> jn.Program:
        hp = {**program, **hyperparameters}
        net = jn.mlp([*hp["hidden"], outputs], activation=hp["activation"], dropout=hp["dropout"])
        optimizer = OPTIMIZERS[hp["optimizer"]](hp)
        return program_of(net, loss, optimizer, batch_size=hp["batch_size"], patience=hp["patience"] or None)

    return build


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Inside, modules are looked for in this folder and in the current one first."""
    places = [str(folder.absolute()), os.getcwd()]
    sys.path[:0] = places
    try:
        yield
    finally:
        for place in places:
            sys.path.remove(place)


def imported(where: str, text: str) -> Callable:
    """The function that "module:function" names.

    Raises:
        ImportError: no such module. ValueError: no such function in it.

    >>> imported("study.toml: build", "math:sqrt")(4.0)
    2.0
    """
    place, name = text.split(":")
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name not in (place, place.split(".")[0]):
            raise  # a module that it imports
        raise ImportError(
            f"{where}: got {text!r} and no module {place}; expected {place.replace('.', '/')}.py beside "
            "the study file, in the current folder, or installed"
        ) from error
    if not callable(getattr(module, name, None)):
        raise ValueError(f"{where}: got no function {name} in {place}; {nearest(name, vars(module))}")
    return getattr(module, name)


def _loaded(file: StudyFile) -> tuple[jn.Data, tuple[str, ...] | None, dict[str, Any], str]:
    """The data of [data] name or file, split and scaled; classes, what was done, a sentence."""
    table = file.data
    source = table["name"] if "name" in table else str(file.path.parent / table["file"])
    options = {name: table[name] for name in ("target", "task", "missing") if name in table}
    examples = learned(Train(source, ignore=tuple(table.get("ignore", ())), **options))
    key, y, rows, valid_rows = jax.random.key(table["split_seed"]), examples.y, np.arange(len(examples.y)), None
    if share := table.get("test_share", 0):
        (rows, _), _ = jn.data.split((rows, y), share, key=jax.random.fold_in(key, TEST))
    if "valid_share" in table:
        key = jax.random.fold_in(key, VALID)
        (rows, _), (valid_rows, _) = jn.data.split((rows, y[rows]), table["valid_share"], key=key)
    aside = len(y) - len(rows) - (0 if valid_rows is None else len(valid_rows))

    x, encoding = examples.x, None
    if examples.table is not None:  # what fills a missing number is learned from these rows alone
        x, _, encoding, _ = refilled(examples.table, rows)
    about: dict[str, Any] = {"classes": examples.classes, "encoding": encoding.to_json() if encoding else None}
    if source not in IMAGES:
        of_x = column_statistics(x[rows])
        x = apply_statistics(x, of_x)
        about["standardization"] = {"mean": of_x.mean.tolist(), "scale": of_x.scale.tolist()}
    if examples.classes is None:
        of_y = column_statistics(y[rows])
        y = apply_statistics(y, of_y)
        about["target"] = {"mean": float(of_y.mean), "scale": float(of_y.scale)}
    arrays = (x, y) if examples.weight is None else (x, y, examples.weight)
    data = jn.Data(*(None if r is None else tuple(a[r] for a in arrays) for r in (rows, valid_rows)))

    kind = "regression" if examples.classes is None else f"{len(examples.classes)} classes"
    parts = [f"{len(rows):,} to train"] + ([] if valid_rows is None else [f"{len(valid_rows):,} to validate"])
    parts += [f"{aside:,} set aside"] if aside else []
    sentence = f"{table.get('name', table.get('file'))}: {len(y):,} examples of {x.shape[1]:,} numbers, {kind}; "
    return data, examples.classes, about, sentence + ", ".join(parts)


def _folds(file: StudyFile, data: Any) -> tuple[Fold, ...]:
    """The folds that [data] asks for."""
    table = file.data
    if not {"folds", "bootstrap"} & table.keys():
        return ()
    if not isinstance(data, jn.Data):
        raise TypeError(f"{file.path}: [data] function: got {type(data).__name__} with folds; expected jn.Data((x, y))")
    key = jax.random.fold_in(jax.random.key(table["split_seed"]), VALID)
    if "bootstrap" in table:
        return bootstrap(data, table["bootstrap"], key=key)
    return k_fold(data, table["folds"], key=key, stratified=table.get("stratified"), repeats=table["repeats"])


def _outputs(file: StudyFile, data: Any, classes: Sequence[str] | None) -> tuple[int, jn.losses.Loss]:
    """How many outputs the mlp has, and its loss: whole numbers are classes, others are regressed."""
    if not isinstance(data, jn.Data):
        raise TypeError(f"{file.path}: [data] function: got {type(data).__name__}; expected jn.Data with [program]")
    y = [np.asarray(part[1]) for part in (data.train, data.valid) if part is not None]
    if y[0].dtype.kind in "iub":
        return (len(classes) if classes else 1 + max(int(part.max()) for part in y)), jn.losses.softmax_cross_entropy
    return (y[0].shape[1] if y[0].ndim > 1 else 1), jn.losses.squared_error
