"""A study's results: one row per member, one history per member and epoch, and any member again.

study.table()                     one row per member
study.history("valid_loss")       (members, epochs)
study.best("valid_loss")          the best member, with its parameters where they were kept
study.summary("valid_accuracy")   per configuration over its seeds and folds: mean, standard deviation, interval, n
study.replay(17)                  the member's run once more, bitwise the same
Study.open("runs/digits")         read back from its store
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from jaxnet import outcomes
from jaxnet.data.folds import Fold
from jaxnet.layers import Layer
from jaxnet.sweeps.plan import Plan, plan_of
from jaxnet.sweeps.space import Space, configuration_from
from jaxnet.sweeps.store import Batch, Record, Store
from jaxnet.sweeps.table import columns_of, summary_columns, worded, write_columns
from jaxnet.training.evaluation import predict


class Best(NamedTuple):
    """One member, chosen."""

    member: int
    name: str
    value: float
    configuration: dict[str, Any]
    seed: int
    fold: int
    params: Any  # nested dicts of arrays; None where they weren't kept: study.replay(member) has them
    state: Any


class History(NamedTuple):
    """One value over the epochs, a row per member."""

    name: str
    values: np.ndarray  # (member, epoch), NaN beyond a member's end and where it wasn't run
    member: np.ndarray  # (member,) 0 …
    epoch: np.ndarray  # (epoch,) from 1


@dataclass(eq=False)
class Study:
    """Results of a plan's members, by their position; those not run yet are NaN (integers: −1)."""

    plan: Plan
    finished: np.ndarray  # (members,) bool
    values: dict[str, np.ndarray]  # metrics/…, history/…, best_epoch, epochs_run, outcome; each (members, …)
    kept: dict[int, dict[str, Any]]  # member -> {"params", "state"}
    replayer: Callable[[int], Any] | None = None  # runs one member again
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def blank(cls, plan: Plan, about: dict[str, Any] | None = None) -> "Study":
        """A study of which nothing has been run."""
        return cls(plan, np.zeros(len(plan), bool), {}, {}, None, about or {})

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> "Study":
        """The study that a store holds, whole or not; nothing in the folder changes.

        It can't replay: that takes the program and the data, so run the same `jn.sweep` again, which only reads what
        is there.

        Raises:
            FileNotFoundError: no study there. ValueError: its file is damaged.

        >>> Study.open("no/such/folder")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] no study here; expected the store of a jn.sweep: 'no/such/folder'
        """
        store = Store(folder)
        record = store.read()
        study = cls.blank(plan_from(record), record.about)
        study.read(store.batches(kept=True))
        return study

    def read(self, batches: Iterable[Batch]) -> None:
        """Take stored members into their rows; those that this plan doesn't have are passed over."""
        row_of = {self.plan.member(i): i for i in range(len(self.plan))}
        for batch in batches:
            rows = {place: row_of[m] for place, m in enumerate(batch.members) if m in row_of}
            kept = {rows[place]: tree for place, tree in batch.kept.items() if place in rows}
            self.take(list(rows.values()), {n: v[list(rows)] for n, v in batch.values.items()}, kept)

    def take(self, rows: list[int], values: dict[str, np.ndarray], kept: dict[int, dict[str, Any]]) -> None:
        """Put finished members in these rows; `kept` is by row.

        Of a member that is there already, the longer run counts. A run that paused before its last epoch and wasn't
        taken up again has been dropped.
        """
        if "epochs_run" in self.values and "epochs_run" in values:
            longer = values["epochs_run"] >= self.values["epochs_run"][rows]
            kept = {row: tree for row, tree in kept.items() if longer[rows.index(row)]}
            rows = [row for row, is_longer in zip(rows, longer, strict=True) if is_longer]
            values = {name: new[longer] for name, new in values.items()}
        if "outcome" in values:
            epochs = max((v.shape[1] for n, v in values.items() if n.startswith("history/")), default=0)
            paused = (values["outcome"] == outcomes.EPOCHS_EXHAUSTED) & (values["epochs_run"] < epochs)
            values = values | {"outcome": np.where(paused, outcomes.DROPPED, values["outcome"])}
        for name, new in values.items():
            new = new.astype(np.int64) if new.dtype.kind in "bu" else new  # they can be −1
            blank = -1 if new.dtype.kind == "i" else np.nan
            if name not in self.values:
                self.values[name] = np.full((len(self.plan), *new.shape[1:]), blank, new.dtype)
            self.values[name] = _as_long_as(new, self.values[name], blank)
            self.values[name][rows] = _as_long_as(self.values[name], new, blank)
        self.finished[rows] = True
        self.kept |= kept

    def __len__(self) -> int:
        return len(self.plan)

    def __repr__(self) -> str:
        return f"Study({int(self.finished.sum()):,} of {len(self):,} members, {', '.join(self.metrics)})"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of what members were judged by: valid_loss, valid_accuracy, …"""
        return tuple(name.removeprefix("metrics/") for name in self.values if name.startswith("metrics/"))

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The table by columns, see `jaxnet.sweeps.table`; `outcome` as its code."""
        return columns_of(self.plan, self.values)

    def table(self) -> Any:
        """One row per member, as a pandas DataFrame; `outcome` in words.

        Raises:
            ImportError: pandas isn't installed; `columns` has the same as arrays, `write_table` writes a file.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "table() needs pandas: pip install 'jaxnet-toolkit[tables]'; without it, study.columns has the same "
                "as arrays and study.write_table('table.csv') writes them"
            ) from error
        return pd.DataFrame(worded(self.columns))

    def write_table(self, path: str | os.PathLike[str]) -> None:
        """Write the table to a .csv file, or to a .parquet file where pyarrow is installed.

        Raises:
            ValueError: another ending; ImportError: no pyarrow; OSError: the file can't be written.
        """
        write_columns(path, worded(self.columns))

    def history(self, name: str) -> History:
        """One value over the epochs, (member, epoch).

        Raises:
            KeyError: no such history; it lists them.
        """
        values = self._named("history", name)
        return History(name, values, np.arange(len(self)), np.arange(1, values.shape[1] + 1))

    def best(self, name: str, mode: str | None = None) -> Best:
        """The finished member with the lowest (mode "min") or highest ("max") value of `name`; the first among equals.

        Without a mode, losses and errors are best low, accuracies and R² high.

        Raises:
            KeyError: no such metric. ValueError: no finite value, or a mode that can't be told from the name.
        """
        values = self._named("metrics", name).astype(float)
        sign = 1.0 if mode_of(name, mode) == "min" else -1.0
        usable = self.finished & np.isfinite(values)
        if not usable.any():
            raise ValueError(f"best({name!r}): got no finished member with a finite value")
        member = int(np.argmin(np.where(usable, sign * values, np.inf)))
        tree = self.kept.get(member, {})
        return Best(
            member,
            name,
            float(values[member]),
            self.configuration(member),
            int(self.plan.seed[member]),
            int(self.plan.fold[member]),
            tree.get("params"),
            tree.get("state"),
        )

    def configuration(self, member: int) -> dict[str, Any]:
        """The hyperparameters of a member.

        Raises:
            IndexError: no such member.
        """
        self._check_member(member)
        return dict(self.plan.space.configurations[self.plan.configuration[member]])

    def summary(self, name: str, level: float = 0.95) -> Any:
        """Per configuration, over its seeds: mean, standard deviation, confidence interval, n, diverged members.

        The interval is Student's t of the mean. With folds, the values of one seed are first averaged over its folds,
        since folds share examples and aren't independent. A DataFrame where pandas is, else a dict of columns.

        Raises:
            KeyError: no such metric.
        """
        by_seed = np.stack([self.values_by_seed(name, c) for c in range(len(self.plan.space))])
        diverged = None
        if "outcome" in self.values:
            diverged = self._cube(np.isin(self.values["outcome"], outcomes.LOST)).sum(axis=(0, 1))
        columns = summary_columns(self.plan.space, by_seed, diverged, level)
        try:
            import pandas as pd
        except ImportError:
            return columns
        return pd.DataFrame(columns)

    def values_by_seed(self, name: str, configuration: int) -> np.ndarray:
        """The values of one configuration, (seeds,), averaged over folds; NaN where it wasn't run or isn't finite."""
        values = np.where(self.finished, self._named("metrics", name).astype(float), np.nan)
        return self._cube(values)[:, :, configuration].mean(axis=1)

    def predict(self, net: Layer, x: Any, members: Sequence[int]) -> np.ndarray:
        """The outputs of several members on `x`, (members, n, …): an ensemble, see `jaxnet.sweeps.ensembles`.

        `net` is the network that they were trained with. Parameters that weren't kept are trained again by `replay`.

        Raises:
            IndexError, ValueError: as `replay`.
        """
        return np.stack([np.asarray(predict(net, self._fitted(member), x)) for member in members])

    def _fitted(self, member: int) -> Any:
        tree = self.kept.get(member)
        if tree is None:
            return self.replay(member)
        return SimpleNamespace(params=tree["params"], state=tree["state"])

    def _cube(self, values: np.ndarray) -> np.ndarray:
        """(members,) as (seeds, folds, configurations)."""
        return values.reshape(len(self.plan.seeds), max(len(self.plan.folds), 1), len(self.plan.space))

    def replay(self, member: int) -> Any:
        """Run one member again, at the study's width: bitwise what it was, with its parameters.

        Raises:
            IndexError: no such member. ValueError: the study was opened from its store alone.
        """
        self._check_member(member)
        if self.replayer is None:
            raise ValueError(
                "replay: got a study opened from its store, which holds neither program nor data; run the same "
                "jn.sweep again: it reads what is there and can replay"
            )
        return self.replayer(member)

    def _check_member(self, member: int) -> None:
        if not 0 <= member < len(self):
            raise IndexError(f"got member {member}; expected 0 … {len(self) - 1}")

    def _named(self, kind: str, name: str) -> np.ndarray:
        if f"{kind}/{name}" not in self.values:
            names = [n.removeprefix(f"{kind}/") for n in self.values if n.startswith(f"{kind}/")]
            raise KeyError(f"got {name!r}; expected one of {', '.join(names) or 'none: no member has finished'}")
        return self.values[f"{kind}/{name}"]


def _as_long_as(other: np.ndarray, rows: np.ndarray, blank: float) -> np.ndarray:
    """`rows` (n, epochs), filled up where `other` has more epochs, as after a change that was accepted."""
    if rows.ndim < 2 or rows.shape[1] >= other.shape[1]:
        return rows
    return np.pad(rows, [(0, 0), (0, other.shape[1] - rows.shape[1])], constant_values=blank)


def mode_of(name: str, mode: str | None) -> str:
    """Whether low or high values of a metric are good.

    Raises:
        ValueError: another mode than "min" and "max", or a name that doesn't tell.

    >>> mode_of("valid_loss", None), mode_of("valid_accuracy", None)
    ('min', 'max')
    """
    if mode in ("min", "max"):
        return mode
    if mode is None and name.endswith(("loss", "error", "divergence")):
        return "min"
    if mode is None and name.endswith(("accuracy", "r2", "score", "precision", "recall")):
        return "max"
    raise ValueError(f"got mode={mode!r} for {name!r}; expected mode='min' or mode='max'")


def plan_from(record: Record) -> Plan:
    """The plan that a store's record describes; its folds are blank, since a record doesn't hold their rows."""
    space = Space(tuple(configuration_from(text) for text in record.configurations), frozenset(record.static))
    nothing = np.zeros(0, np.int32)
    return plan_of(space, record.seeds, [Fold(nothing, nothing)] * record.folds)
