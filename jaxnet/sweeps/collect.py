"""What finishes goes to the disk, then it counts: between the workers and the study.

collect(found, study, disk, mine, keeper, report)     takes what `execute` yields until nothing is left
Keeper                                                decides whose parameters are kept, while members finish
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from jaxnet import outcomes
from jaxnet.sweeps.execute import Finished
from jaxnet.sweeps.progress import Progress
from jaxnet.sweeps.store import Batch, Store
from jaxnet.sweeps.study import Study

FLUSH_SECONDS, FLUSH_MEMBERS = 1.0, 2000  # a part is written when either is reached


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
            best = value < self.lowest  # never NaN
            if best:
                self.lowest = value
        return self.keep == "all" or (self.keep == "best" and best)


def collect(
    found: Iterable[Finished | None],
    study: Study,
    disk: Store | None,
    mine: np.ndarray,
    keeper: Keeper,
    report: Callable[[Progress], None] | None,
) -> None:
    """Take what finishes into the store, then into the study; report."""
    began = flushed = time.perf_counter()
    before, total = int(study.finished[mine].sum()), int(mine.sum())
    first: tuple[float, int] | None = None  # when the first members had finished; before it, programs compile
    pending: list[Finished] = []

    def flush() -> None:
        nonlocal flushed
        for one in _joined(pending):
            if disk is not None:
                members = [study.plan.member(p) for p in one.positions]
                place = {p: i for i, p in enumerate(one.positions)}
                disk.add(Batch(members, one.values, {place[p]: as_dicts(tree) for p, tree in one.kept.items()}))
            study.take(one.positions, one.values, one.kept)
        pending.clear()
        flushed = time.perf_counter()

    def tell() -> None:
        done, now = int(study.finished[mine].sum()), time.perf_counter()
        left = None
        if first is not None and done > first[1]:
            left = (now - first[0]) / (done - first[1]) * (total - done)
        if report is not None:
            diverged = int((study.values["outcome"] == outcomes.DIVERGED).sum()) if "outcome" in study.values else 0
            report(Progress(done, total, diverged, keeper.best, keeper.rank_by, now - began, left))

    try:
        for item in found:
            if item is not None:
                pending.append(item)
            due = (
                time.perf_counter() - flushed > FLUSH_SECONDS or sum(len(f.positions) for f in pending) >= FLUSH_MEMBERS
            )
            if pending and (disk is None or due):
                flush()
                if first is None and int(study.finished[mine].sum()) > before:
                    first = time.perf_counter(), int(study.finished[mine].sum())
            if item is None or due:
                tell()
    finally:
        flush()
    tell()


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
