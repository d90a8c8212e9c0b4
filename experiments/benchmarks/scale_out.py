"""A million members on 1 … 1,000 workers: where the time goes. Costs are measured here, the workers are simulated.

    .venv/bin/python experiments/benchmarks/scale_out.py

Measured on this machine: a worker's start (import, data, tracing, compiling), its seconds per member of a small real
study (digits, 64-32-10, Adam, batch 32, 20 epochs, 64 members a task), what a task costs the process that asks (submit
to result through a pool of spawned processes), what a member costs it (to the disk, into the study, through the code
that `sweep` runs), `Store.add` of one part, and reading a store.

Simulated: each worker starts, then computes tasks one after another; task and members are then served by the process
that asks, one task at a time, first come, first served, and the worker waits for its next task until that is done (no
engine queues ahead, which is the worst case). Task times vary by ± 10 %. Nothing is assumed about the network.

Result: see the end of this file's output; (not yet measured)
"""

import contextlib
import heapq
import multiprocessing
import statistics
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

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
        begun = time.perf_counter() - pool.began - sum(pool.seconds)  # about: the process starts, imports come with it
        bring = found[: len(found) // 6 + 1]
        trips = []
        for _ in range(5):
            began = time.process_time()
            for future in [pool.processes.submit(echo, pool.tasks[0], bring) for _ in range(100)]:
                future.result()
            trips.append((time.process_time() - began) / 100)
    return {"start": begun + first - chunk, "chunk": chunk, "trip": statistics.median(trips)}, found


def opened(study: Prepared, folder: str) -> contextlib.AbstractContextManager[Session]:
    return session(study, folder, keep=None, accept_change=(), about=None, report=None, quiet=True)


def asking_costs(like: list[Finished]) -> dict[str, float]:
    """Seconds of the process that asks: per member planned, taken in and read again, and of one part of a store."""
    example, took = like[0], []
    for members in (16, STORED):  # the difference is what grows
        began = time.perf_counter()
        study = ready_for(members)
        with tempfile.TemporaryDirectory() as folder, opened(study, folder):
            took.append(time.perf_counter() - began)
    began = time.perf_counter()
    work = works(study, np.ones(STORED, bool), EPOCHS)
    asked = time.perf_counter() - began
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
    stored = len(batches) * CHUNK
    return {
        "plan": (took[1] - took[0]) / STORED,
        "ask": asked / STORED,
        "take": taken / stored,
        "read": read / stored,
        "add": add,
    }


def simulate(workers: int, costs: dict[str, float], heavier: float = 1.0, shares: int = 1) -> tuple[float, float]:
    """(seconds until a million members are in the store, the share of it that the asking process is busy).

    `heavier` multiplies a member's cost; `shares` deals members and workers to so many asking processes.
    """
    members, workers = MEMBERS // shares, max(workers // shares, 1)
    rng = np.random.default_rng(0)
    serve = costs["trip"] + CHUNK * costs["take"]
    free_at = busy = MEMBERS * costs["plan"] + members * costs["ask"]  # each plans the whole study, asks for its share
    left = -(-members // CHUNK)
    events = []  # (when a worker brings its task back, worker)
    start = free_at + costs["start"]
    for worker in range(min(workers, left)):
        heapq.heappush(events, (start + costs["chunk"] * heavier * rng.uniform(0.9, 1.1), worker))
        left -= 1
    while events:
        when, worker = heapq.heappop(events)
        free_at = max(free_at, when) + serve
        busy += serve
        if left:
            left -= 1
            heapq.heappush(events, (free_at + costs["chunk"] * heavier * rng.uniform(0.9, 1.1), worker))
    return free_at, busy / free_at


def main() -> None:
    worker, found = worker_costs()
    costs = worker | asking_costs(found)
    print("measured on this machine, medians:")
    print(f"  a worker starts in {costs['start']:.1f} s, computes a member in {costs['chunk'] / CHUNK * 1e3:.2f} ms")
    print(
        f"  the asking process: {costs['trip'] * 1e3:.2f} ms a task; a member is planned in {costs['plan'] * 1e6:.1f} µs,"
    )
    print(f"    stored and taken in {costs['take'] * 1e6:.1f} µs, read again in {costs['read'] * 1e6:.1f} µs")
    print(f"  Store.add of a part: {costs['add'] * 1e3:.1f} ms ({FLUSH_MEMBERS:,} members a part, or a second's)")
    serve = costs["trip"] / CHUNK + costs["take"]
    print(f"  so one asking process serves {1 / serve:,.0f} members/s: {costs['chunk'] / CHUNK / serve:.0f} workers")
    print(f"\nsimulated, {MEMBERS:,} members in tasks of {CHUNK}: time (speed-up; asking process busy)")
    cases = {"as measured": (1.0, 1), "as measured, 10 shares": (1.0, 10), "a member 100 × dearer": (100.0, 1)}
    for name, (heavier, shares) in cases.items():
        print(f"  {name}")
        alone = MEMBERS / CHUNK * costs["chunk"] * heavier
        for workers in WORKERS:
            if workers < shares:
                continue
            seconds, busy = simulate(workers, costs, heavier, shares)
            compute = alone / workers / seconds
            parts = {
                "computing": compute,
                "start of the workers": costs["start"] / seconds,
                "planning": MEMBERS * (costs["plan"] + costs["ask"] / shares) / seconds,
                "tasks": MEMBERS / shares / CHUNK * costs["trip"] / seconds,
                "store and study": MEMBERS / shares * costs["take"] / seconds,
            }
            shown = ", ".join(f"{part} {share:.0%}" for part, share in sorted(parts.items(), key=lambda p: -p[1]))
            print(f"    {workers:5,} workers: {seconds:9,.0f} s ({alone / seconds:5,.0f} ×; {busy:4.0%})  {shown}")


if __name__ == "__main__":
    main()
