"""A study's members as a table of plain columns, and the files they can be written to.

member, seed[, fold], the hyperparameters, the metrics, best_epoch, epochs_run, outcome
"""

import csv
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxnet import outcomes
from jaxnet.sweeps.plan import Plan
from jaxnet.sweeps.space import Space
from jaxnet.sweeps.statistics import interval


def columns_of(plan: Plan, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The table by columns, (members,) each.

    A hyperparameter that a configuration doesn't have is NaN (None where the others aren't numbers). `values` are by
    the names of `Study.values`; histories are left out.

    >>> from jaxnet.sweeps.plan import plan_of
    >>> from jaxnet.sweeps.space import grid
    >>> columns_of(plan_of(grid({"lr": [0.5, 1.0]}), seeds=(0,)), {"metrics/loss": np.zeros(2)}).keys()
    dict_keys(['member', 'seed', 'lr', 'loss'])
    """
    columns: dict[str, np.ndarray] = {"member": np.arange(len(plan)), "seed": plan.seed}
    if plan.folds:
        columns["fold"] = plan.fold
    for name in plan.space.names:
        chosen: list[Any] = [c.get(name) for c in plan.space.configurations]
        numbers = all(v is None or (isinstance(v, (int, float)) and not isinstance(v, bool)) for v in chosen)
        if numbers and any(v is None for v in chosen):
            chosen = [np.nan if v is None else v for v in chosen]
        column = np.array(chosen) if numbers else np.array([cell(v) for v in chosen], object)
        columns[name] = column[plan.configuration]
    for name, column in values.items():
        if column.ndim == 1:
            columns[name.removeprefix("metrics/")] = column
    return columns


def worded(columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns with the outcome in words; "not run" where there is none."""
    columns = dict(columns)
    if "outcome" in columns:
        codes = columns["outcome"].tolist()
        words = {code: "not run" if code == outcomes.RUNNING else outcomes.word(code) for code in set(codes)}
        columns["outcome"] = np.array([words[code] for code in codes], object)
    return columns


def write_columns(path: str | os.PathLike[str], columns: Mapping[str, np.ndarray]) -> None:
    """Write columns to a .csv file, or to a .parquet file where pyarrow is installed.

    Raises:
        ValueError: another ending; ImportError: no pyarrow; OSError: the file can't be written.
    """
    path = Path(path)
    if path.suffix.lower() == ".csv":
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))
    elif path.suffix.lower() == ".parquet":
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({name: pyarrow.array(_of_one_type(values.tolist())) for name, values in columns.items()})
        pyarrow.parquet.write_table(table, path)
    else:
        raise ValueError(f"got {path}; expected a file that ends in .csv or .parquet")


def _of_one_type(values: list[Any]) -> list[Any]:
    """A column of a Parquet file has one type: text where static values of several types meet."""
    one = len({type(v) for v in values if v is not None}) <= 1
    return values if one else [None if v is None else str(v) for v in values]


def summary_columns(
    space: Space, values: np.ndarray, diverged: np.ndarray | None, level: float
) -> dict[str, np.ndarray]:
    """One row per configuration from its values (configurations, seeds): hyperparameters, mean, std, low, high, n.

    >>> from jaxnet.sweeps.space import grid
    >>> summary_columns(grid({"lr": [0.5, 1.0]}), np.array([[1.0, 3.0], [2.0, np.nan]]), None, 0.95)["mean"].tolist()
    [2.0, 2.0]
    """
    intervals = [interval(row, level) for row in values]
    columns = {name: np.array([cell(c.get(name)) for c in space.configurations]) for name in space.names}
    columns |= {
        part: np.array([getattr(one, part) for one in intervals]) for part in ("mean", "std", "low", "high", "n")
    }
    return columns if diverged is None else columns | {"diverged": diverged}


def cell(value: Any) -> Any:
    """A value as a table can hold it: tuples as text.

    >>> cell((32, 32)), cell(0.5)
    ('[32, 32]', 0.5)
    """
    return json.dumps(value) if isinstance(value, (tuple, list)) else value
