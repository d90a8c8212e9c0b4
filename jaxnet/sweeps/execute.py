"""Members through lanes: one worker thread per local device, each feeding the lanes of its own device.

    Runner(program, resident, device)          the lanes of one bucket on one device
    run_bucket(runner, members, …)             fills free lanes, advances, hands on who has finished, until none is left
    execute(buckets, devices, …)               a thread per device; yields batches as they come

A lane whose member has finished is given to the next member at the next look, so that a member that stops early costs
what its own epochs cost. How far the lanes run between two looks follows from how long that takes; it doesn't change
a bit of any result.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnet.sweeps.lanes import LaneProgram, Lanes, Orders, Report, Resident, blank_orders
from jaxnet.training.program import Fitted

LOOK = 0.02  # seconds between two looks at the lanes, roughly


class Job(NamedTuple):
    """A member as lanes need it."""

    position: int  # in the plan
    seed: int
    fold: int  # the row of the bucket's table
    hp: Mapping[str, Any]  # traced hyperparameters
    limit: int  # the epoch at which it pauses at the latest
    lane: Any = None  # a run to go on with, as `Runner.lane` gave it; None starts anew


class Finished(NamedTuple):
    """Members that have finished, in the order in which they were found."""

    positions: list[int]
    values: dict[str, np.ndarray]  # name -> (members, …)
    kept: dict[int, dict[str, Any]]  # position -> {"params": …, "state": …}
    lanes: dict[int, Any]  # position -> the run itself, where asked for


class Wanted(NamedTuple):
    """What is taken of a member that has finished, besides its values."""

    keep: Callable[[dict[str, Any]], bool]  # (its values) -> whether to keep its parameters
    lanes: bool = False  # whether to take the run itself, to go on with later


class Runner:
    """The lanes of one bucket on one device."""

    def __init__(self, program: LaneProgram, resident: Resident, device: jax.Device, traced: Mapping[str, Any]) -> None:
        self.program, self.device = program, device
        self.resident = resident
        self.lanes: Lanes = jax.device_put(program.blank(), device)
        self.orders = blank_orders(traced, program.width)
        self.jobs: list[Job | None] = [None] * program.width

    @property
    def busy(self) -> bool:
        return any(job is not None for job in self.jobs)

    def fill(self, jobs: Callable[[], Job | None]) -> None:
        """Give free lanes to the next jobs."""
        resumed = {}
        for i, occupant in enumerate(self.jobs):
            if occupant is not None or (job := jobs()) is None:
                continue
            self.jobs[i] = job
            self.orders.active[i], self.orders.limit[i] = True, job.limit
            self.orders.seed[i], self.orders.fold[i] = job.seed, job.fold
            for name, values in self.orders.hp.items():
                values[i] = job.hp[name]
            self.orders.fresh[i] = job.lane is None
            if job.lane is not None:
                resumed[i] = job.lane
        if resumed:
            host = jax.tree.map(np.array, self.lanes)  # copies that can be written to
            for i, lane in resumed.items():
                jax.tree.map(lambda all_lanes, one, i=i: all_lanes.__setitem__(i, one), host, lane)
            self.lanes = jax.device_put(host, self.device)

    def advance(self, length: int) -> Report:
        """Carry every member on by at most `length` epochs; waits until that is done."""
        orders: Orders = self.orders._replace(length=np.int32(length))
        self.lanes, report = self.program.advance(self.lanes, jax.tree.map(np.copy, orders), self.resident)
        jax.block_until_ready(report.finished)
        self.orders.fresh[:] = False
        return report

    def harvest(self, report: Report, wanted: Wanted) -> Finished | None:
        """Take out the members that have finished, and free their lanes."""
        done = np.asarray(report.finished)
        places = [i for i, job in enumerate(self.jobs) if job is not None and done[i]]
        if not places:
            return None
        values = {name: np.asarray(leaf)[places] for name, leaf in flat_values(report.fitted).items()}
        positions, kept, lanes = [], {}, {}
        for row, i in enumerate(places):
            position = self.jobs[i].position  # type: ignore[union-attr]
            positions.append(position)
            if isinstance(report.fitted, Fitted) and wanted.keep({name: v[row] for name, v in values.items()}):
                tree = {"params": report.fitted.params, "state": report.fitted.state}
                kept[position] = jax.tree.map(lambda a, i=i: np.array(np.asarray(a)[i]), tree)
            if wanted.lanes:
                lanes[position] = self.lane(i)
            self.jobs[i] = None
            self.orders.active[i] = False
        return Finished(positions, values, kept, lanes)

    def alone(self, job: Job) -> Any:
        """Run one member and return what it leaves, on the host; the other lanes are empty."""
        self.fill(iter([job, *[None] * self.program.width]).__next__)
        report = self.advance(job.limit)
        self.jobs[0], self.orders.active[0] = None, False
        return jax.tree.map(lambda a: np.array(np.asarray(a)[0]), report.fitted)

    def lane(self, i: int) -> Any:
        """The run in lane i, on the host."""
        return jax.tree.map(lambda a: np.array(np.asarray(a)[i]), self.lanes)


def flat_values(fitted: Any) -> dict[str, Any]:
    """What a member leaves by name, without its parameters; leaves may have a leading lane axis.

    >>> flat_values({"loss": np.zeros(4)}).keys()
    dict_keys(['metrics/loss'])
    """
    if isinstance(fitted, Fitted):
        return {name: _storable(name, leaf) for name, leaf in _of_fitted(fitted).items()}
    if not isinstance(fitted, Mapping) or not all(isinstance(name, str) for name in fitted):
        raise TypeError(
            f"got {type(fitted).__name__} from a member; expected a Fitted (jn.fit makes one) or a dict of scalars and "
            "vectors by name"
        )
    found = {}
    for name, leaf in fitted.items():
        rank = getattr(leaf, "ndim", 99) - 1
        if rank not in (0, 1):
            raise TypeError(f"got {name!r} of shape {getattr(leaf, 'shape', '?')[1:]}; expected scalars and vectors")
        found[f"{'metrics' if rank == 0 else 'history'}/{name}"] = _storable(name, leaf)
    return found


def _of_fitted(fitted: Fitted) -> dict[str, Any]:
    return (
        {f"history/{name}": values for name, values in fitted.history.items()}
        | {f"metrics/{name}": values for name, values in fitted.metrics.items()}
        | {"best_epoch": fitted.best_epoch, "epochs_run": fitted.epochs_run, "outcome": fitted.outcome}
    )


def _storable(name: str, leaf: Any) -> Any:
    """The leaf, if a file can hold its dtype."""
    if np.dtype(leaf.dtype).kind not in "biuf" or leaf.dtype == "bfloat16":
        raise TypeError(f"got {name!r} of dtype {leaf.dtype} from a member; expected real numbers of 16, 32 or 64 bits")
    return leaf


def run_bucket(
    runner: Runner,
    jobs: Callable[[], Job | None],
    hand_on: Callable[[Finished], None],
    wanted: Wanted,
    stopped: Callable[[], bool] = lambda: False,
) -> None:
    """Run jobs until there is none left, or `stopped()`."""
    length, first = 1, True
    while not stopped():
        runner.fill(jobs)
        if not runner.busy:
            return
        began = time.perf_counter()
        finished = runner.harvest(runner.advance(length), wanted)
        took = time.perf_counter() - began
        if not first:  # the first call compiles
            if took < LOOK / 2:
                length = min(2 * length, max(runner.program.epochs, 1))
            elif took > 2 * LOOK and length > 1:
                length //= 2
        first = False
        if finished is not None:
            hand_on(finished)


class BucketWork(NamedTuple):
    """A bucket ready to run."""

    program: LaneProgram
    traced: Mapping[str, Any]
    folds: Any  # (rows, valid_rows) or None
    jobs: Sequence[Job]


def execute(
    work: Sequence[BucketWork], key: np.ndarray, data: Any, devices: Sequence[jax.Device], wanted: Wanted
) -> Generator[Finished | None]:
    """Run all jobs; yields what has finished as it comes, and None about ten times a second while nothing comes.

    Closing the iterator, or an error in any worker, ends all workers at their next look; the error is raised here.
    """
    results: queue.Queue[Finished | BaseException | None] = queue.Queue()
    stop = threading.Event()
    waiting = [deque(bucket.jobs) for bucket in work]

    def next_job(jobs: deque[Job]) -> Job | None:
        try:
            return jobs.popleft()
        except IndexError:
            return None

    def worker(device: jax.Device) -> None:
        try:
            resident = jax.device_put(Resident(key, data, None), device)
            for bucket, jobs in zip(work, waiting, strict=True):
                if not jobs or stop.is_set():
                    continue
                folds = jax.device_put(bucket.folds, device)
                runner = Runner(bucket.program, resident._replace(folds=folds), device, bucket.traced)
                run_bucket(runner, partial(next_job, jobs), results.put, wanted, stop.is_set)
        except BaseException as error:
            results.put(error)
        else:
            results.put(None)

    threads = [threading.Thread(target=worker, args=(d,), daemon=True, name=f"jaxnet {d}") for d in devices]
    try:
        for thread in threads:
            thread.start()
        left = len(threads)
        while left:
            try:
                item = results.get(timeout=0.1)
            except queue.Empty:
                yield None
                continue
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        stop.set()
        for thread in threads:
            thread.join()
