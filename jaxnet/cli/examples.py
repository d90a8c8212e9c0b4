"""What train and predict read: a CSV file, an NPZ file or a known data set, as x (n, inputs) and y (n,).

    learned(options)                -> Examples          classes and encoding found out from the values
    encoded(data, ignore, record)   -> x, y or None      read as the run's training data were

An example of more axes than one, such as an image, becomes flat.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnet.cli.options import Train
from jaxnet.data.encoding import Encoding
from jaxnet.data.load import NAMES, load, read_npz
from jaxnet.data.standardize import as_float
from jaxnet.data.tables import Table, encode, read_csv

IMAGES = ("digits", "fashion_mnist")  # pixels, already in [0, 1]


class Examples(NamedTuple):
    """A set as arrays, and what they mean."""

    x: np.ndarray  # (n, inputs)
    y: np.ndarray  # (n,) int32 labels, or targets in the default float
    weight: np.ndarray | None  # (n,)
    classes: tuple[str, ...] | None  # label i means classes[i]; None: regression
    table: Table | None  # of a CSV file

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        return (self.x, self.y) if self.weight is None else (self.x, self.y, self.weight)


def learned(options: Train) -> Examples:
    """The examples to learn from.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `data.load` and `data.tables.read_csv`; targets that fit no task.
    """
    if is_csv(options.data):
        table = read_csv(
            options.data,
            options.target,  # type: ignore[arg-type]  # None is refused by a sentence that lists the columns
            task=options.task,
            missing=options.missing,
            ignore=options.ignore,
        )
        return Examples(table.x, table.y, None, table.encoding.classes, table)
    if options.ignore:
        raise ValueError(f"--ignore: got columns with {options.data!r}; expected them only with a CSV file")
    x, y, *weight = load(options.data, target=options.target, missing=options.missing)
    y = _one_axis(options.data, y)
    classes = _classes(options.data, y, options.task)
    y = as_float(y, "y") if classes is None else _labels(options.data, y, classes)
    return Examples(_flat(options.data, x), y, weight[0] if weight else None, classes, None)


def encoded(data: str, ignore: Sequence[str], record: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """The examples of `data`, read as those that the run of `record` learned from; y is None without a target.

    Raises:
        FileNotFoundError, TypeError, ValueError: as `data.load` and `data.tables.encode`.
    """
    if is_csv(data):
        if record["encoding"] is None:
            raise ValueError(
                f"{data}: got a CSV file for a run trained on {record['settings']['data']}; expected an NPZ file with "
                "an array x, or the name of a data set"
            )
        return encode(data, Encoding.from_json(record["encoding"]), ignore=ignore)
    if ignore:
        raise ValueError(f"--ignore: got columns with {data!r}; expected them only with a CSV file")
    x, y = _bare_x(data), None
    if x is None:
        x, y, *_ = load(data, part="test" if data == "fashion_mnist" else "train")
    x, inputs = _flat(data, x), record["network"]["inputs"]
    if x.shape[1] != inputs:
        raise ValueError(f"{data}: got {x.shape[1]} numbers per example; expected {inputs} as in training")
    if y is None:
        return x, None
    y = _one_axis(data, y)
    return x, as_float(y, "y") if record["classes"] is None else _labels(data, y, record["classes"])


def is_csv(data: str) -> bool:
    """Whether the data are a CSV file, by name.

    >>> is_csv("flowers.CSV"), is_csv("iris")
    (True, False)
    """
    return Path(data).suffix.lower() == ".csv"


def _bare_x(data: str) -> np.ndarray | None:
    """x of an NPZ file that has nothing else; None for anything that `load` can be asked for."""
    if data in NAMES or not zipfile.is_zipfile(data):
        return None
    try:
        arrays = read_npz(data)
    except ValueError:
        return None
    return as_float(arrays["x"], f"{data}: x") if list(arrays) == ["x"] else None


def _flat(data: str, x: np.ndarray) -> np.ndarray:
    if not x.size:
        raise ValueError(f"{data}: got x of shape {x.shape}; expected at least one number of at least one example")
    return x.reshape(len(x), -1)


def _one_axis(data: str, y: np.ndarray) -> np.ndarray:
    if y.size != len(y):
        raise ValueError(f"{data}: got y of shape {y.shape}; expected one number per example, (n,)")
    return y.reshape(-1)


def _classes(data: str, y: np.ndarray, task: str | None) -> tuple[str, ...] | None:
    """Integers are classes and floats are regressed, unless the task is given."""
    whole = y.dtype.kind in "iu"
    if task == "regression" or (task is None and not whole):
        return None
    if not whole:
        raise ValueError(f"{data}: got y of {y.dtype}; expected integer labels for --task classification")
    values = np.unique(y)
    if len(values) < 2:
        raise ValueError(f"{data}: got only {values[0]} in y; expected two classes or more")
    if task is None and len(y) < 2 * len(values):
        raise ValueError(
            f"{data}: got {len(values)} different integers in y for {len(y)} examples; expected to be told what they "
            "are: --task classification or --task regression"
        )
    return tuple(str(value) for value in values)


def _labels(data: str, y: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The positions of integers among the classes."""
    position = {name: label for label, name in enumerate(classes)}
    unknown = [value for value in np.unique(y) if str(value) not in position]
    if unknown:
        raise ValueError(f"{data}: got {unknown[0]} in y; expected one of the classes {', '.join(classes)}")
    return np.array([position[str(value)] for value in y], np.int32)
