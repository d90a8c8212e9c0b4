"""`sweep`: a study, which is thousands of runs as one program per bucket and one table.

    build(hyperparameters) -> Program          what a study maps
    space × folds × seeds                      over which members
    study = sweep(build, space, data=…)        everything before this line is a value; this line computes

The order of events: everything is checked; the programs are traced; the plan is printed; the store, if there is one,
is compared and read; what is missing is computed, each finished member on the disk before it counts.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Literal

import jax
import numpy as np

from jaxnet import outcomes
from jaxnet.data.checks import positive_integer, prepared
from jaxnet.data.folds import Fold
from jaxnet.data.sets import Data
from jaxnet.sweeps import cost as costs
from jaxnet.sweeps import progress as shows
from jaxnet.sweeps.execute import BucketWork, Finished, Job, Runner, Wanted, execute, flat_values
from jaxnet.sweeps.identity import Identity, data_checksums, environment, sha256
from jaxnet.sweeps.lanes import Build, LaneProgram, Resident, lane_program
from jaxnet.sweeps.plan import Bucket, Cost, Plan, described, plan_of, resident_bytes, seeds_from, values_of
from jaxnet.sweeps.progress import Progress
from jaxnet.sweeps.space import Space, as_space, key_of
from jaxnet.sweeps.store import Batch, Record, Store
from jaxnet.sweeps.study import Study, mode_of
from jaxnet.training.program import Program

FLUSH_SECONDS, FLUSH_MEMBERS = 1.0, 2000  # a part is written when either is reached
LIVE_COPIES = 4  # of the lanes, while a program runs: given, carried, selected from, returned
CACHE = 1 << 20  # bytes: the lanes of one device should fit in a core's cache


def sweep(
    build: Build,
    space: Any,
    *,
    data: Any,
    epochs: int | None = None,
    seeds: Any = 1,
    folds: Sequence[Fold] = (),
    study_seed: int = 0,
    width: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    store: Any = None,
    keep: Literal["best", "all"] | None = "best",
    rank_by: str | None = None,
    mode: str | None = None,
    share: tuple[int, int] | None = None,
    accept_change: Sequence[str] | bool = (),
    report: Callable[[Progress], None] | None = None,
    quiet: bool = False,
) -> Study:
    """Run every configuration of `space` on every fold with every seed; returns the Study.

    Args:
        build: hyperparameters -> Program, as `jn.program(...)` makes it, or `jn.whole(train)`. It runs inside the
            trace: what is `jn.static(...)` in the space arrives as a Python value, all else as a traced scalar.
        space: a dict of axes, {"lr": jn.log_space(1e-4, 1e-1, 16)}; a Space; a list of configurations.
        data: `jn.Data`; for `jn.whole` any tree of arrays. Resident once per device.
        epochs: of each member at most; None for `jn.whole` alone.
        seeds: how many, or a list. A member's key is fold_in(key(study_seed), seed), whatever else it has: members of
            one seed share initial weights (of equal shapes) and batches, and seeds can be added later.
        folds: `jn.data.k_fold(...)` and its like, of data without a validation set.
        width: members side by side on a device; part of the study's identity, since another width may change the last
            bit. Unless given, the store's; in a new study, as many as fit in a core's cache.
        devices: local devices, each with a worker thread of its own; all of them unless given.
        store: a folder. What is finished is kept there; run the same call again and it goes on where it was.
        keep: whose parameters are kept: the "best" (each time a member is the best so far), "all", or None.
        rank_by, mode: the metric that decides who is best, and "min" or "max"; the validation loss unless given.
        share: (i, n): do every n-th member from the i-th on, another process does the others; by default the index and
            number of processes of `jax.distributed`.
        accept_change: True, or the names of sections ("data", "program", …), to go on with a store although something
            changed; the store records it.
        report: called with a Progress about every tenth of a second; whatever it raises ends the study.
        quiet: print neither the plan nor the progress.

    Raises:
        TypeError, ValueError: for whatever doesn't fit, before anything compiles. BlockingIOError: the store is in use.

    >>> import jaxnet as jn, numpy as np, optax
    >>> x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
    >>> def build(hp):
    ...     return jn.program(jn.mlp([1]), jn.losses.squared_error, optax.sgd(hp["lr"]), batch_size=8)
    >>> study = sweep(build, {"lr": [0.01, 0.5]}, data=jn.Data((x, 3 * x)), epochs=5, seeds=2, quiet=True)
    >>> study.best("train_loss").configuration
    {'lr': 0.5}
    """
    if not callable(build):
        raise TypeError(f"sweep: got build {build!r}; expected a function from hyperparameters to a Program")
    space, seeds, folds = as_space(space), seeds_from(seeds), tuple(folds)
    data = _prepared(data, folds)
    plan = plan_of(space, seeds, folds)
    programs = [_checked_program(build, space, bucket, plan, data) for bucket in plan.buckets]
    epochs = _checked_epochs(epochs, programs)
    devices = _checked_devices(devices)
    index, count = _checked_share(share)
    key = np.asarray(jax.random.key_data(jax.random.key(study_seed, impl="threefry2x32")))

    disk = None if store is None else Store(store, index)
    width = _width(width, disk, plan, programs, data, epochs, devices)
    lanes, tables = [], []
    for bucket in plan.buckets:
        table = _fold_table(plan, bucket)
        lanes.append(
            lane_program(build, bucket.static, bucket.traced, Resident(key, data, table), width=width, epochs=epochs)
        )
        tables.append(table)
    names = {n.removeprefix("metrics/") for lane in lanes for n in flat_values(lane.report.fitted) if "metrics/" in n}
    rank_by, mode = _ranking(rank_by, mode, names)

    about = {
        "created by": "jaxnet.sweep",
        "epochs": epochs,
        "width": width,
        "study_seed": study_seed,
        "rank_by": rank_by,
        "mode": mode,
        "examples": {"train": data.size, "valid": data.valid_size} if isinstance(data, Data) else {},
        "devices": [d.device_kind for d in devices],
    }
    study = Study.blank(plan, about)
    with ExitStack() as stack:
        if disk is not None:
            stack.callback(disk.close)
            identity: Identity = {
                "settings": {"epochs": epochs, "width": width, "study_seed": study_seed},
                "data": data_checksums(data),
                "folds": {
                    str(i): sha256(f.rows.tobytes() + b"|" + f.valid_rows.tobytes()) for i, f in enumerate(folds)
                },
                "environment": environment(devices[0]),
                "program": {b.name: sha256(lane.text) for b, lane in zip(plan.buckets, lanes, strict=True)},
            }
            configurations = [key_of(c) for c in space.configurations]
            disk.open(
                Record(identity, configurations, sorted(space.static), list(seeds), len(folds), about, []),
                accept_change,
            )
            study.read(disk.batches(kept=keep is not None))
        if not quiet:
            price = _cost(plan, programs, lanes, data, epochs, width, devices)
            print(described(plan, price, int(study.finished.sum())), file=sys.stderr, flush=True)
            if report is None:
                report = stack.enter_context(shows.shown())

        mine = np.arange(len(plan)) % count == index
        work = []
        for bucket, lane, table in zip(plan.buckets, lanes, tables, strict=True):
            todo = bucket.members[mine[bucket.members] & ~study.finished[bucket.members]]
            work.append(BucketWork(lane, bucket.traced, table, _jobs(plan, bucket, todo, epochs)))
        keeper = _Keeper(keep, rank_by, mode, study)
        found = execute([one for one in work if one.jobs], key, data, devices, Wanted(keeper))
        stack.callback(found.close)
        _collect(found, study, disk, mine, keeper, report)

    def replay(member: int) -> Any:
        place = next(i for i, bucket in enumerate(plan.buckets) if member in bucket.members)
        bucket, resident = plan.buckets[place], Resident(key, data, tables[place])
        runner = Runner(lanes[place], jax.device_put(resident, devices[0]), devices[0], bucket.traced)
        return runner.alone(_jobs(plan, bucket, [member], epochs)[0])

    study.replayer = replay
    return study


class _Keeper:
    """Decides whose parameters are kept; asked by several threads."""

    def __init__(self, keep: str | None, rank_by: str | None, mode: str, study: Study) -> None:
        if keep not in ("best", "all", None):
            raise ValueError(f"got keep={keep!r}; expected 'best', 'all' or None")
        self.keep, self.rank_by, self.sign = keep, rank_by, 1.0 if mode == "min" else -1.0
        self.lowest = np.inf
        self.lock = threading.Lock()
        if rank_by is not None and f"metrics/{rank_by}" in study.values:
            known = self.sign * study.values[f"metrics/{rank_by}"][study.finished].astype(float)
            self.lowest = np.min(known[np.isfinite(known)], initial=np.inf)

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


def _collect(
    found: Iterable[Finished | None],
    study: Study,
    disk: Store | None,
    mine: np.ndarray,
    keeper: _Keeper,
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


def _prepared(data: Any, folds: tuple[Fold, ...]) -> Any:
    """The data, checked; a tree that isn't a Data as it is."""
    if not all(isinstance(fold, Fold) for fold in folds):
        raise TypeError("got folds that aren't Folds; expected jn.data.k_fold(...), holdout(...) or bootstrap(...)")
    if not isinstance(data, Data):
        if folds:
            raise TypeError(f"got folds with data of type {type(data).__name__}; expected jn.Data((x, y))")
        return jax.tree.map(lambda a: jax.device_put(np.array(a)), data)
    if folds and (data.valid is not None or data.rows is not None or data.valid_rows is not None):
        raise ValueError("got folds of data with a validation set or rows; expected jn.Data((x, y)): folds choose both")
    for fold in folds:
        prepared(Data(data.train, None, fold.rows, fold.valid_rows))
    return prepared(data)


def _checked_program(build: Build, space: Space, bucket: Bucket, plan: Plan, data: Any) -> Program:
    """The Program of the bucket's first member, after `build` has accepted the extremes of every axis."""
    chosen = sorted({int(plan.configuration[p]) for p in bucket.members})
    extremes = {chosen[0]}
    for name in bucket.traced:
        values: list[Any] = [space.configurations[c][name] for c in chosen]
        extremes |= {chosen[values.index(min(values))], chosen[values.index(max(values))]}
    first = None
    for c in sorted(extremes):
        configuration = dict(space.configurations[c])
        try:
            program = build(configuration)
        except KeyError as error:
            raise ValueError(
                f"build: got no hyperparameter {error} in {configuration}; expected what the space has: add an "
                "axis, or use hp.get"
            ) from error
        if not isinstance(program, Program):
            raise TypeError(f"build returned {program!r}; expected a Program: jn.program(...), or jn.whole(train)")
        first = first or program
    assert first is not None
    one = data
    if plan.folds:
        fold = plan.folds[bucket.folds[0]]
        one = Data(data.train, None, fold.rows, fold.valid_rows)
    first.check(one, None)
    return first


def _checked_epochs(epochs: Any, programs: list[Program]) -> int:
    if any(program.whole for program in programs):
        if epochs is not None:
            raise ValueError(
                f"got epochs={epochs} for jn.whole(train); expected none: `train` decides how long it runs"
            )
        if not all(program.whole for program in programs):
            raise ValueError("build made a jn.whole for some configurations only; expected all or none")
        return 1
    if epochs is None:
        raise ValueError("got no epochs; expected the most epochs of a member: epochs=20")
    return positive_integer("epochs", epochs)


def _checked_devices(devices: Sequence[jax.Device] | None) -> list[jax.Device]:
    chosen = list(jax.local_devices() if devices is None else devices)
    if not chosen or not all(device in jax.local_devices() for device in chosen):
        raise ValueError(f"got devices={devices}; expected some of jax.local_devices(): {jax.local_devices()}")
    if len({(d.platform, d.device_kind) for d in chosen}) > 1:
        raise ValueError(f"got devices of several kinds: {chosen}; expected one kind, whose numbers agree")
    return chosen


def _checked_share(share: tuple[int, int] | None) -> tuple[int, int]:
    index, count = (jax.process_index(), jax.process_count()) if share is None else share
    if not 0 <= index < count:
        raise ValueError(
            f"got share={share}; expected (i, n) with 0 ≤ i < n: this process's number and how many there are"
        )
    return index, count


def _width(width, disk, plan, programs, data, epochs, devices) -> int:
    """As asked; else the store's; else as many lanes as fit in a core's cache, a power of 2."""
    if width is not None:
        return positive_integer("width", width)
    if disk is not None and (disk.folder / "study.json").is_file():
        return int(disk.read().identity["settings"]["width"])
    shapes = jax.eval_shape(programs[0].start, jax.random.key(0), _of_first(plan, data))
    lane = max(resident_bytes(jax.tree.map(lambda a: np.zeros(a.shape, np.float32), shapes)), 1)
    most = 256 if devices[0].platform == "cpu" else 1024
    room = CACHE // lane if devices[0].platform == "cpu" else most
    fits = 1 << max(room, 1).bit_length() - 1
    needed = 1 << max(-(-max(len(b.members) for b in plan.buckets) // len(devices)) - 1, 0).bit_length()
    return max(1, min(max(fits, 4), needed, most))


def _of_first(plan: Plan, data: Any) -> Any:
    """The data of the first member."""
    return Data(data.train, None, plan.folds[0].rows, plan.folds[0].valid_rows) if plan.folds else data


def _fold_table(plan: Plan, bucket: Bucket) -> Any:
    """(rows, valid_rows) of the bucket's folds, stacked; None without folds."""
    if bucket.sizes is None:
        return None
    chosen = [plan.folds[i] for i in bucket.folds]
    return tuple(np.stack([getattr(f, part) for f in chosen]).astype(np.int32) for part in ("rows", "valid_rows"))


def _jobs(plan: Plan, bucket: Bucket, positions: Sequence[int], epochs: int) -> list[Job]:
    values = values_of(plan, bucket, positions)
    row = {fold: i for i, fold in enumerate(bucket.folds)}
    return [
        Job(int(p), int(plan.seed[p]), row.get(int(plan.fold[p]), 0), {n: v[i] for n, v in values.items()}, epochs)
        for i, p in enumerate(positions)
    ]


def _ranking(rank_by: str | None, mode: str | None, names: set[str]) -> tuple[str | None, str]:
    if rank_by is None:
        rank_by = next((name for name in ("valid_loss", "train_loss") if name in names), None)
        return (None, "min") if rank_by is None else (rank_by, mode_of(rank_by, mode))
    if rank_by not in names:
        raise ValueError(f"got rank_by={rank_by!r}; expected one of {', '.join(sorted(names)) or 'no metrics at all'}")
    return rank_by, mode_of(rank_by, mode)


def _cost(plan, programs, lanes: list[LaneProgram], data, epochs, width, devices) -> Cost:
    """What the plan will take, before anything is compiled."""
    seconds = 0.0
    for bucket, program in zip(plan.buckets, programs, strict=True):
        one = _of_first(plan, data)
        if plan.folds:
            fold = plan.folds[bucket.folds[0]]
            one = Data(data.train, None, fold.rows, fold.valid_rows)
        carry = jax.eval_shape(program.start, jax.random.key(0), one)
        seconds += costs.seconds(costs.operations(program.epoch, carry, one)) * len(bucket.members) * epochs
    memory = len(devices) * (resident_bytes(data) + max(LIVE_COPIES * resident_bytes(lane.lanes) for lane in lanes))
    values = flat_values(lanes[0].report.fitted)
    memory += len(plan) * resident_bytes(list(values.values())) // width
    return Cost(width, len(devices), len(plan.buckets) * len(devices), memory, seconds / len(devices))
