"""A study under way: its store open, what is there already read, what finishes taken to the disk before it counts.

with session(ready, store, …) as under_way:
    under_way.study                        what is known so far
    under_way.collect(found, mine)         takes what `execute` yields until nothing is left
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from jaxnet import outcomes
from jaxnet.data.sets import Data
from jaxnet.sweeps.execute import Finished, Wanted
from jaxnet.sweeps.plan import described
from jaxnet.sweeps.prepare import Prepared, identity_of, price, replay
from jaxnet.sweeps.progress import Progress, shown
from jaxnet.sweeps.store import SECTIONS, Batch, Record, Store
from jaxnet.sweeps.study import Study

FLUSH_SECONDS, FLUSH_MEMBERS = 1.0, 2000  # a part is written when either is reached


@contextmanager
def session(
    ready: Prepared,
    store: Any,
    *,
    share: int = 0,
    keep: str | None,
    accept_change: Sequence[str] | bool,
    about: Mapping[str, Any] | None,
    report: Callable[[Progress], None] | None,
    quiet: bool,
    settings: Mapping[str, Any] | None = None,
) -> Iterator["Session"]:
    """Open the store, read what it has, print the plan; the lock is given back at the end.

    Raises:
        ValueError: the store holds another study. BlockingIOError: it's in use. OSError: it can't be written.
    """
    keeper = Keeper(keep, ready.rank_by, ready.mode)
    _check(report, accept_change, about)
    study = Study.blank(ready.plan, _about(ready, about))
    study.replayer = partial(replay, ready)
    disk = None if store is None else Store(store, share)
    with ExitStack() as stack:
        if disk is not None:
            stack.callback(disk.close)
            static, seeds = sorted(ready.plan.space.static), list(ready.plan.seeds)
            identity = identity_of(ready, settings or {})
            record = Record(identity, ready.plan.texts, static, seeds, len(ready.plan.folds), study.about, [])
            disk.open(record, accept_change)
            study.read(disk.batches(kept=keep is not None))
            keeper.know(study)
        if not quiet:
            print(described(ready.plan, price(ready), int(study.finished.sum())), file=sys.stderr, flush=True)
            report = report or stack.enter_context(shown())
        yield Session(study, disk, keeper, report)


def stored_width(store: Any) -> int | None:
    """The width of the study in this folder, None if there is none."""
    if store is None or not Store(store).exists():
        return None
    return int(Store(store).read().identity["settings"]["width"])


class Keeper:
    """Decides whose parameters are kept; asked by several threads.

    "all" keeps everyone's, "best" those of each member that is the best so far when it finishes, None nobody's.
    """

    def __init__(self, keep: str | None, rank_by: str | None, mode: str) -> None:
        if keep not in ("best", "all", None):
            raise ValueError(f"got keep={keep!r}; expected 'best', 'all' or None")
        self.keep, self.rank_by, self.sign = keep, rank_by, 1.0 if mode == "min" else -1.0
        self.lowest = np.inf
        self.lock = threading.Lock()

    def know(self, study: Study) -> None:
        """Count the members that have finished already."""
        if f"metrics/{self.rank_by}" in study.values:
            known = self.sign * study.values[f"metrics/{self.rank_by}"][study.finished].astype(float)
            self.lowest = min(self.lowest, np.min(known[np.isfinite(known)], initial=np.inf))

    @property
    def best(self) -> float | None:
        return float(self.sign * self.lowest) if np.isfinite(self.lowest) else None

    def __call__(self, values: dict[str, Any]) -> bool:
        if self.rank_by is None:
            return self.keep == "all"
        value = self.sign * float(values[f"metrics/{self.rank_by}"])
        with self.lock:
            best = value <= self.lowest  # never NaN; of equals all, since the first in the plan may finish last
            if best:
                self.lowest = value
        return self.keep == "all" or (self.keep == "best" and best)


@dataclass
class Session:
    """See the module."""

    study: Study
    disk: Store | None
    keeper: Keeper
    report: Callable[[Progress], None] | None

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.keeper)

    def collect(self, found: Generator[Finished | None], mine: np.ndarray) -> dict[int, Any]:
        """Take what finishes to the disk, then into the study, until nothing is left; returns the runs by position.

        `mine` (members,) bool are the members that this process is to finish; they are what progress counts.
        """
        study, began = self.study, time.perf_counter()
        flushed, first = began, None  # first: when members first counted; what came before was compiling
        pending: list[Finished] = []
        lanes: dict[int, Any] = {}
        goal, before = int(mine.sum()), int(study.finished[mine].sum())

        def tell() -> None:
            done, now = int(study.finished[mine].sum()), time.perf_counter()
            left = None if first is None or done == first[1] else (now - first[0]) / (done - first[1]) * (goal - done)
            self.tell(done, goal, now - began, left)

        try:
            with closing(found):
                for item in found:
                    if item is not None:
                        pending.append(item)
                        lanes |= item.lanes
                    late = time.perf_counter() - flushed > FLUSH_SECONDS
                    if pending and (
                        late or self.disk is None or sum(len(f.positions) for f in pending) > FLUSH_MEMBERS
                    ):
                        self._flush(pending)
                        flushed = time.perf_counter()
                        if first is None and (done := int(study.finished[mine].sum())) > before:
                            first = flushed, done
                    if item is None or late:
                        tell()
        finally:
            self._flush(pending)
        tell()
        return lanes

    def tell(self, done: int, goal: int, seconds: float, seconds_left: float | None) -> None:
        """Report how far the study is."""
        if self.report is not None:
            outcome = self.study.values.get("outcome", np.zeros(0))
            diverged = int(np.isin(outcome, outcomes.LOST).sum())
            best, name = self.keeper.best, self.keeper.rank_by
            self.report(Progress(done, goal, diverged, best, name, seconds, seconds_left))

    def _flush(self, pending: list[Finished]) -> None:
        """Everything pending to the disk, then into the study."""
        for one in _joined(pending):
            if self.disk is not None:
                members = [self.study.plan.member(p) for p in one.positions]
                place = {p: i for i, p in enumerate(one.positions)}
                self.disk.add(Batch(members, one.values, {place[p]: as_dicts(t) for p, t in one.kept.items()}))
            self.study.take(one.positions, one.values, one.kept)
        pending.clear()


def _joined(pending: list[Finished]) -> list[Finished]:
    """Those that have the same values together, as one each."""
    groups: dict[Any, list[Finished]] = {}
    for one in pending:
        groups.setdefault(tuple((n, v.shape[1:], v.dtype) for n, v in sorted(one.values.items())), []).append(one)
    return [
        Finished(
            [p for one in group for p in one.positions],
            {name: np.concatenate([one.values[name] for one in group]) for name in group[0].values},
            {p: tree for one in group for p, tree in one.kept.items()},
            {},
        )
        for group in groups.values()
    ]


def as_dicts(tree: Any) -> Any:
    """Tuples, lists and records as dicts of their items by index or field; dicts and arrays as they are.

    >>> as_dicts({"a": (1, 2)})
    {'a': {'0': 1, '1': 2}}
    """
    if isinstance(tree, dict):
        return {str(name): as_dicts(value) for name, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_asdict"):
        return {name: as_dicts(value) for name, value in tree._asdict().items()}
    if isinstance(tree, (tuple, list)):
        return {str(i): as_dicts(value) for i, value in enumerate(tree)}
    return tree


def _check(report: Any, accept_change: Any, about: Any) -> None:
    """What can be said before the store has a file."""
    if report is not None and not callable(report):
        raise TypeError(f"got report={report!r}; expected a function that takes a Progress")
    if not isinstance(accept_change, bool) and (
        isinstance(accept_change, str) or not set(accept_change) <= set(SECTIONS)
    ):
        raise ValueError(
            f"got accept_change={accept_change!r}; expected True, or a list of what may have changed, among "
            f"{', '.join(SECTIONS)}"
        )
    try:
        json.dumps(dict(about or {}), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"got about={about!r}; expected a dict that JSON can hold ({error})") from error


def _about(ready: Prepared, about: Mapping[str, Any] | None) -> dict[str, Any]:
    data = ready.data
    return {
        "epochs": None if ready.programs[0].whole else ready.epochs,
        "rank_by": ready.rank_by,
        "mode": ready.mode,
        "examples": {"train": data.size, "valid": data.valid_size} if isinstance(data, Data) else {},
        "devices": [device.device_kind for device in ready.devices],
        **(about or {}),
    }
