"""Tables: a CSV file as people have them, to arrays, and the encoding that reads the next file alike.

    table = read_csv(path, target)           x, y and the encoding inferred from this file
    x, y = encode(path, table.encoding)      the same encoding for another file; y is None without the target

The file: UTF-8 (with or without BOM), a header line of distinct names, then one example per line. The
delimiter is whichever of comma, semicolon and tab splits the header into most names (comma on a tie). Cells
are stripped; blank lines are skipped; missing are: empty, NA, N/A, NaN, null, None, ? (in any case).

The columns: a feature column whose values are all numbers (1, -2.5, 3e4; no thousands separators, no decimal
commas) becomes one column of x; any other becomes one 0/1 column for each of its values, sorted. One of
dates (ISO 8601) is refused: as categories they'd say nothing of dates to come.

The target: text is classified; so are whole numbers of 2 to 20 distinct values, each twice on average or
more; other numbers are regressed; `task` overrides. A label is an int32, the position in `classes`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

import numpy as np

from jaxnet.data import csvfile
from jaxnet.data.csvfile import CsvFile
from jaxnet.data.encoding import Column, Encoding
from jaxnet.data.standardize import as_float, column_statistics

__all__ = ["Column", "Encoding", "Table", "encode", "read_csv", "refilled"]

MOST_CATEGORIES = 100  # a column of text with more is probably an identifier
MOST_INTEGER_CLASSES = 20  # a target of whole numbers with more is a quantity


class Table(NamedTuple):
    """A CSV file as arrays."""

    x: np.ndarray  # (n, len(encoding.feature_names)), default float
    y: np.ndarray  # (n,), int32 labels or default float
    encoding: Encoding
    filled: np.ndarray  # bool, shape of x: numbers that were missing and are the column's mean


def read_csv(
    path: str | os.PathLike[str],
    target: str,
    *,
    task: str | None = None,
    missing: str = "refuse",
    ignore: Collection[str] = (),
) -> Table:
    """Read a CSV file into features x, target y, and the encoding that reads the next file alike.

    Args:
        path: the file.
        target: name of the column to predict.
        task: "classification", "regression", or None for the rule at the top of this module.
        missing: "refuse" raises with the places; "drop" drops those rows; "mean" puts the column's mean in
            number columns and the category "missing" in others (a missing target is refused).
        ignore: names of columns that are no features (identifiers, comments).

    Raises:
        FileNotFoundError: no such file.
        TypeError, ValueError: the file is no such table, or an argument does not fit it.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "flowers.csv")
    ...     _ = path.write_text("width,hue,kind\\n1.5,red,iris\\n2.5,blue,rose\\n3.5,red,rose\\n")
    ...     table = read_csv(path, "kind")
    >>> table.x.tolist(), table.y.tolist(), table.encoding.classes
    ([[1.5, 0.0, 1.0], [2.5, 1.0, 0.0], [3.5, 0.0, 1.0]], [0, 1, 1], ('iris', 'rose'))
    """
    if task not in (None, "classification", "regression"):
        raise ValueError(f"task: got {task!r}, expected None, 'classification' or 'regression'")
    if missing not in ("refuse", "drop", "mean"):
        raise ValueError(f"missing: got {missing!r}, expected 'refuse', 'drop' or 'mean'")
    file = csvfile.read_file(path)
    ignored = _names("ignore", ignore)
    if not isinstance(target, str):
        raise TypeError(f"target: got {target!r}, expected one of the columns {csvfile.listed(file.columns)}")
    for name in (target, *ignored):
        file.require(name)
    features = [name for name in file.columns if name not in (target, *ignored)]
    if not features or target in ignored:
        raise ValueError(
            f"{file.path}: got target {target!r} and ignore={ignored} of the columns {csvfile.listed(file.columns)}; "
            "expected at least one feature besides, and a target that is not ignored"
        )
    if missing == "drop":
        file = file.without_missing([*features, target])
    elif missing == "mean":
        file.refuse_missing([target], " or pass missing='drop'")
    else:
        file.refuse_missing([*features, target], " or pass missing='drop' or missing='mean'")
    columns = tuple(_infer_column(file, name, missing) for name in features)
    encoding = Encoding(columns, target, _infer_classes(file, target, task), ignored)
    return Table(_features(file, encoding), _targets(file, encoding), encoding, _filled(file, encoding))


def refilled(table: Table, rows: np.ndarray) -> Table:
    """The same table, its missing numbers filled with the means of these rows only.

    What fills them is learned from the file that `read_csv` was given; after a split it has to come from the training
    examples alone, or the test examples teach too. A column without a number in these rows keeps its mean.

    >>> x, filled = np.array([[1.0], [3.0], [5.0]]), np.array([[False], [True], [False]])
    >>> encoding = Encoding((Column("size", "number", fill=3.0),), "kind", ("a", "b"))
    >>> table = Table(x, np.zeros(3, "int32"), encoding, filled)
    >>> refilled(table, np.array([0, 1])).x.ravel().tolist()
    [1.0, 1.0, 5.0]
    """
    x, columns, place = table.x.copy(), [], 0
    for column in table.encoding.columns:
        if column.kind == "number":
            known = x[rows, place][~table.filled[rows, place]]
            if column.fill is not None and known.size:
                column = replace(column, fill=float(column_statistics(known).mean))
                x[table.filled[:, place], place] = column.fill
        columns.append(column)
        place += len(column.categories) or 1
    return table._replace(x=x, encoding=replace(table.encoding, columns=tuple(columns)))


def _filled(file: CsvFile, encoding: Encoding) -> np.ndarray:
    """Where x holds a fill instead of a number of the file."""
    parts = []
    for column in encoding.columns:
        absent = np.array([cell is None for cell in file.columns[column.name]])
        parts += [absent] if column.kind == "number" else [np.zeros_like(absent)] * len(column.categories)
    return np.stack(parts, axis=1)


def encode(
    path: str | os.PathLike[str], encoding: Encoding, *, ignore: Collection[str] = ()
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read another CSV file by an encoding: x, and y or None where the file has no target column.

    Columns may come in another order. A column that is neither feature nor target, nor ignored by the
    encoding or by `ignore`, is refused, as are unknown categories and classes. No row is ever dropped: a
    missing cell is filled as in the training file, or refused where that had nothing to fill it with.

    Raises:
        FileNotFoundError: no such file.
        TypeError, ValueError: the file does not fit the encoding; the sentence says where.

    >>> import tempfile
    >>> from pathlib import Path
    >>> columns = Column("width", "number"), Column("hue", "category", ("blue", "red"))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "new.csv")
    ...     _ = path.write_text("hue;width\\nred;4.5\\n")
    ...     x, y = encode(path, Encoding(columns, "kind", ("iris", "rose")))
    >>> x.tolist(), y
    ([[4.5, 0.0, 1.0]], None)
    """
    if not isinstance(encoding, Encoding):
        raise TypeError(f"encoding: got {type(encoding).__name__}, expected read_csv(...).encoding")
    file = csvfile.read_file(path)
    features = [column.name for column in encoding.columns]
    for name in features:
        file.require(name)
    known = {*features, encoding.target, *encoding.ignored, *_names("ignore", ignore)}
    extra = [name for name in file.columns if name not in known]
    if extra:
        raise ValueError(
            f"{file.path}: got columns that training did not see, {csvfile.listed(extra)}; expected the features "
            f"{csvfile.listed(features)} and perhaps the target {encoding.target!r}: name the others in ignore="
        )
    unfilled = [column.name for column in encoding.columns if column.fill is None]
    file.refuse_missing(unfilled, "; nothing to fill them with was learned in training (missing='mean')")
    x = _features(file, encoding)
    if encoding.target not in file.columns:
        return x, None
    file.refuse_missing([encoding.target], ", or delete the whole column to go without targets")
    return x, _targets(file, encoding)


def _positions(file: CsvFile, name: str, cells: list[str | None], known: tuple[str, ...]) -> np.ndarray:
    """The position of each cell among the known values."""
    index: dict[str | None, int] = {value: position for position, value in enumerate(known)}
    for row, cell in enumerate(cells):
        if cell not in index:
            raise ValueError(
                f"{csvfile.at(file, name, row)}; expected {csvfile.listed(known)}.{csvfile.nearest(str(cell), known)}"
            )
    return np.array([index[cell] for cell in cells], np.int32)


def _infer_column(file: CsvFile, name: str, missing: str) -> Column:
    cells = file.columns[name]
    present = {cell for cell in cells if cell is not None}
    if not present:
        raise ValueError(f"{file.path}: got no value in column {name!r}, expected some; see ignore=")
    numbers, row = csvfile.numbers(file, name)
    if row is None:
        values = [number for number in numbers if not math.isnan(number)]
        mean = float(column_statistics(values).mean)
        return Column(name, "number", fill=mean if missing == "mean" else None)
    if all(_is_date(cell) for cell in present):
        raise ValueError(
            f"{csvfile.at(file, name, row)}, a date like the whole column; expected numbers, such as days since a "
            "fixed day: put them there, or name the column in ignore="
        )
    fill = "missing" if None in cells else None
    categories = tuple(sorted(present | ({fill} if fill else set())))
    if len(categories) > MOST_CATEGORIES:
        raise ValueError(
            f"{csvfile.at(file, name, row)}, no number, and {len(categories)} different values; expected numbers "
            f"(no thousands separators, no decimal commas) or at most {MOST_CATEGORIES} categories; "
            "a column that identifies examples belongs in ignore="
        )
    return Column(name, "category", categories, fill)


def _is_date(cell: str) -> bool:
    try:
        return bool(datetime.fromisoformat(cell))
    except ValueError:
        return False


def _infer_classes(file: CsvFile, target: str, task: str | None) -> tuple[str, ...] | None:
    numbers, row = csvfile.numbers(file, target)
    if row is None:
        distinct = sorted(set(numbers))
        whole = all(number.is_integer() for number in distinct)
        few = 2 <= len(distinct) <= MOST_INTEGER_CLASSES and len(numbers) >= 2 * len(distinct)
        if task == "regression" or (task is None and not (whole and few)):
            return None
        classes = tuple(map(_class_name, distinct))
    elif task == "regression":
        raise ValueError(f"{csvfile.at(file, target, row)}; expected numbers only, for task='regression'")
    else:
        classes = tuple(sorted({cell for cell in file.columns[target] if cell is not None}))
        if task is None and len(classes) > MOST_CATEGORIES:
            raise ValueError(
                f"{csvfile.at(file, target, row)}, no number, and {len(classes)} different values; expected numbers "
                f"or at most {MOST_CATEGORIES} classes; if they are classes, pass task='classification'"
            )
    if len(classes) < 2:
        raise ValueError(
            f"{file.path}: got only {csvfile.shown(classes[0])} in target {target!r}, expected two classes or more"
        )
    return classes


def _class_name(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


def _features(file: CsvFile, encoding: Encoding) -> np.ndarray:
    parts = []
    for column in encoding.columns:
        if column.kind == "number":
            numbers, row = csvfile.numbers(file, column.name)
            if row is not None:
                raise ValueError(f"{csvfile.at(file, column.name, row)}; expected a number, as in training")
            values = np.array(numbers)
            values[np.isnan(values)] = column.fill
            parts.append(as_float(values, f"{file.path}: column {column.name!r}")[:, None])
        else:
            fill = None if column.fill is None else str(column.fill)
            cells = [fill if cell is None else cell for cell in file.columns[column.name]]
            positions = _positions(file, column.name, cells, column.categories)
            parts.append(as_float(np.eye(len(column.categories)), column.name)[positions])
    return np.concatenate(parts, axis=1)


def _targets(file: CsvFile, encoding: Encoding) -> np.ndarray:
    name, classes = encoding.target, encoding.classes
    if classes is None:
        numbers, row = csvfile.numbers(file, name)
        if row is not None:
            raise ValueError(f"{csvfile.at(file, name, row)}; expected a number, as in training")
        return as_float(numbers, f"{file.path}: column {name!r}")
    cells = file.columns[name]
    if all(csvfile.number(c) is not None for c in classes):  # written 1 or 1.0: the same class
        numbers_or_none = [csvfile.number(cell or "") for cell in cells]
        cells = [c if n is None else _class_name(n) for c, n in zip(cells, numbers_or_none, strict=True)]
    return _positions(file, name, cells, classes)


def _names(what: str, names: Collection[str]) -> tuple[str, ...]:
    if isinstance(names, str) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"{what}: got {names!r}, expected a list of column names")
    return tuple(names)
