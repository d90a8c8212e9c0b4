"""A million members on 1 … 1,000 workers: where the time goes. Costs are measured here, the workers are simulated.

    .venv/bin/python experiments/benchmarks/scale_out.py

Measured on this machine: a worker's start (import, data, tracing, compiling), its seconds per member of a small real
study (digits, 64-32-10, Adam, batch 32, 20 epochs, 64 members a task), what a task costs the process that asks (its own
processor time from submit to result, through a spawned pool), what a member costs it (to the disk, into the study,
through the code that `sweep` runs), `Store.add` of one part, and reading a store.

Simulated: each worker starts, then computes tasks one after another; task and members are then served by the process
that asks, one task at a time, first come, first served, and the worker waits for its next task until that is done (no
engine queues ahead, which is the worst case). Task times vary by ± 10 %. Nothing is assumed about the network.

Result (2 cores of a machine shared with other work: the middle of three runs; jax 0.10.2): a worker starts in 15 s and
computes a member in 18 ms. A task costs the asking process 1.2 ms, a member 12 µs (stored) and 12 µs once (planned):
32,000 members/s, what 580 workers compute. A million members, time by workers; with 1,000 of them the speed-up over one
and how busy the asking process is:

                                            1           10          100        1,000
    64 members a task                18,145 s      1,839 s        209 s         59 s    304 ×    72 %
    512 members a task               18,131 s      1,842 s        213 s         53 s    344 ×    50 %
    64, ten shares                                 1,839 s        207 s         44 s    414 ×    29 %
    64, members 100 × as costly   1,808,687 s    180,929 s     18,179 s      1,895 s    954 ×     2 %

Up to 100 workers, 86 % and more of the time is computing. 1,000 workers compute a million short members in about the
time that one takes to start, and the bottleneck is what precedes computing (27 s: planning, then starting and compiling
on each worker) and the asking process (31 s), which dispatches tasks longer than it stores: a part of the store holds
up to 2,000 members, so few writes wait for the disk. Shares divide dispatching and storing; larger tasks divide
dispatching, but leave workers idle at the end. Where a member takes seconds, 1,000 workers are used to 95 %. Reading a
store takes 9 µs a member.
"""

import contextlib
import heapq
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optax

import jaxnet as jn
from jaxnet.sweeps import Study
from jaxnet.sweeps.execute import Finished
from jaxnet.sweeps.prepare import Prepared, prepare, works
from jaxnet.sweeps.remote import execute_remotely
from jaxnet.sweeps.session import FLUSH_MEMBERS, Keeper, Session, session
from jaxnet.sweeps.store import Batch, Store
from jaxnet.sweeps.worker import Task

MEMBERS, CHUNK, WIDTH, EPOCHS, STORED = 1_000_000, 64, 16, 20, 20_000
WORKERS = (1, 10, 100, 1000)


def build(hp):
    """64-32-10 on digits."""
    net = jn.mlp([32, 10])
    return jn.program(net, jn.losses.softmax_cross_entropy, optax.adam(hp["lr"]), batch_size=32)


def ready_for(members: int) -> Prepared:
    """A study of so many members, nothing compiled."""
    import jax

    train, valid = jn.data.split(jn.data.load("digits"), 0.2, key=jax.random.key(0))
    return prepare(
        build, {"lr": jn.log_space(1e-4, 1e-2, 16)}, data=jn.Data(train, valid), epochs=EPOCHS, seeds=members // 16,
        folds=(), study_seed=0, width=WIDTH, devices=None, rank_by=None, mode=None,
    )  # fmt: skip


class Pool:
    """One spawned worker; notes how long a task takes there, and what came back."""

    def __init__(self) -> None:
        self.processes = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        self.tasks: list[Task] = []
        self.seconds: list[float] = []
        self.began = time.perf_counter()

    def submit(self, function, task) -> Future:
        future = self.processes.submit(timed, function, task)
        bare: Future = Future()

        def hand_on(done: Future) -> None:
            found, seconds = done.result()
            self.seconds.append(seconds)
            bare.set_result(found)

        future.add_done_callback(hand_on)
        self.tasks.append(task)
        return bare


def timed(function, task):
    """What the function returns, and its seconds."""
    began = time.perf_counter()
    found = function(task)
    return found, time.perf_counter() - began


def echo(task, found):
    """A task that costs only its way there and back."""
    return found


def seconds_of(function) -> float:
    """The median of five."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def worker_costs() -> tuple[dict[str, float], list[Finished]]:
    """Seconds of a worker's start, of a task there, of a round trip; and what tasks bring back."""
    study, pool = ready_for(CHUNK * 6), Pool()
    keeper = Keeper("best", study.rank_by, study.mode)
    work = works(study, np.ones(len(study.plan), bool), EPOCHS)
    with pool.processes:
        found = [one for one in execute_remotely(study, work, keeper, pool, chunk=CHUNK) if one is not None]
        first = pool.seconds[0]
        chunk = statistics.median(pool.seconds[1:])
        begun = time.perf_counter() - pool.began - sum(pool.seconds)  # the process starts and imports
        bring = found[: len(found) // 6 + 1]
        trips = []
        for _ in range(5):
            began = time.process_time()
            for future in [pool.processes.submit(echo, pool.tasks[0], bring) for _ in range(100)]:
                future.result()
            trips.append((time.process_time() - began) / 100)
    return {"start": begun + first - chunk, "member": chunk / CHUNK, "trip": statistics.median(trips)}, found


def opened(study: Prepared, folder: str) -> contextlib.AbstractContextManager[Session]:
    return session(study, folder, keep=None, accept_change=(), about=None, report=None, quiet=True)


def asking_costs(like: list[Finished]) -> dict[str, float]:
    """Seconds of the process that asks: per member planned, taken in and read again, and of one part of a store."""
    example, took = like[0], []
    for members in (16, 16, STORED):  # what the last takes longer than the second grows with the members
        began = time.process_time()
        study = ready_for(members)
        with tempfile.TemporaryDirectory() as folder, opened(study, folder):
            took.append(time.process_time() - began)
    began = time.process_time()
    work = works(study, np.ones(STORED, bool), EPOCHS)
    asked = time.process_time() - began
    assert sum(len(bucket.jobs) for bucket in work) == STORED

    def batch(first: int) -> Finished:
        row = np.zeros(CHUNK, int)
        values = {name: column[row] for name, column in example.values.items()}
        values["metrics/valid_loss"] = 1 + np.arange(first, first + CHUNK, dtype=np.float32)  # the first is the best
        return Finished(list(range(first, min(first + CHUNK, STORED))), values, {}, {})

    batches = [batch(i) for i in range(0, STORED - STORED % CHUNK, CHUNK)]
    with tempfile.TemporaryDirectory() as folder:
        with opened(study, folder) as under_way:
            began = time.perf_counter()
            under_way.collect((one for one in batches), np.ones(STORED, bool))
            taken = time.perf_counter() - began
        began = time.perf_counter()
        Study.open(folder)
        read = time.perf_counter() - began
        store = Store(Path(folder, "t"))
        store.parts.mkdir(parents=True)
        with contextlib.closing(store):
            part = Batch([study.plan.member(p) for p in batches[0].positions], batches[0].values, {})
            add = seconds_of(lambda: store.add(part))
    stored = len(batches) * CHUNK  # all but a few
    return {
        "plan": (took[2] - took[1]) / STORED,
        "ask": asked / STORED,
        "take": taken / stored,
        "read": read / stored,
        "add": add,
    }


class Case(NamedTuple):
    """A way to run the million."""

    name: str
    chunk: int = CHUNK
    heavier: float = 1.0  # a member costs so many times what was measured
    shares: int = 1  # members and workers are dealt to so many asking processes


CASES = (
    Case("as measured"),
    Case("512 members a task", chunk=512),
    Case("10 shares, share=(i, 10)", shares=10),
    Case("members 100 times as costly", heavier=100.0),
)


def simulate(workers: int, costs: dict[str, float], case: Case) -> tuple[float, float]:
    """(seconds until a million members are in the store, the part of them that the asking process is busy)."""
    members, workers = MEMBERS // case.shares, workers // case.shares
    rng = np.random.default_rng(0)
    serve = costs["trip"] + case.chunk * costs["take"]
    task = costs["member"] * case.chunk * case.heavier
    free_at = busy = MEMBERS * costs["plan"] + members * costs["ask"]  # plans all of them, asks for its share
    left = -(-members // case.chunk)
    back: list[float] = []  # when workers bring their tasks back
    start = free_at + costs["start"]
    for _ in range(min(workers, left)):
        heapq.heappush(back, start + task * rng.uniform(0.9, 1.1))
        left -= 1
    while back:
        free_at = max(free_at, heapq.heappop(back)) + serve
        busy += serve
        if left:
            left -= 1
            heapq.heappush(back, free_at + task * rng.uniform(0.9, 1.1))
    return free_at, busy / free_at


def main() -> None:
    found_costs, found = worker_costs()
    asking = [asking_costs(found) for _ in range(5)]
    costs = found_costs | {name: statistics.median(costs[name] for costs in asking) for name in asking[0]}
    micro = {name: f"{seconds * 1e6:,.1f} µs" for name, seconds in costs.items()}
    print("measured on this machine, medians:")
    print(f"  a worker: starts in {costs['start']:.1f} s, computes a member in {costs['member'] * 1e3:.1f} ms")
    print(f"  the asking process: a task {micro['trip']}; a member planned {micro['plan']}, put into a task")
    print(f"    {micro['ask']}, stored and taken in {micro['take']}, read from the store {micro['read']}")
    print(f"  Store.add of {CHUNK} members: {micro['add']} ({FLUSH_MEMBERS:,} members a part, or those of a second)")
    serve = costs["trip"] / CHUNK + costs["take"]
    print(
        f"  one asking process serves {1 / serve:,.0f} members/s, what {costs['member'] / serve:,.0f} workers compute"
    )
    print(f"\nsimulated, {MEMBERS:,} members: time (speed-up; how busy the asking process is), and what takes how long")
    for case in CASES:
        print(f"  {case.name}")
        members, alone = MEMBERS / case.shares, MEMBERS * costs["member"] * case.heavier
        for workers in WORKERS:
            if workers < case.shares:
                continue
            seconds, busy = simulate(workers, costs, case)
            parts = {
                "computing": alone / workers,
                "starting": costs["start"],
                "planning": MEMBERS * costs["plan"] + members * costs["ask"],
                "tasks": members / case.chunk * costs["trip"],
                "storing": members * costs["take"],
            }
            shown = ", ".join(f"{name} {part:,.0f}" for name, part in sorted(parts.items(), key=lambda p: -p[1]))
            print(f"    {workers:5,} workers: {seconds:9,.0f} s ({alone / seconds:5,.0f} ×; {busy:4.0%})  {shown} s")


if __name__ == "__main__":
    main()
