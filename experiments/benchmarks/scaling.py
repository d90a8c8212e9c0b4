"""How the cost of a member grows with members, width and batch; what early leaving, the store and memory cost.

    .venv/bin/python experiments/benchmarks/scaling.py [--out docs/scaling.svg]

Studies of 64-32-10 on digits (1,408 examples), Adam, two host devices; programs compiled before the clock starts; what
is compared takes turns in one process, medians over the rounds. The floor drawn in is what the machine's arithmetic and
memory allow, both measured in the same run: FLOPs of the matrix products / matmul peak + bytes of parameters,
gradients, optimizer state and batch, each touched as often as the step must / bandwidth.

Result (2 cores, not always quiet; matmul peak 216 GFLOP/s, memory 35 GB/s), µs per member-step:

    members       16   7.4 · 64   7.5 · 256   6.6 · 1,024   7.8 · 10,000   within 15 % of each other in one run
    width          1  11.5 · 2   9.6 · 4   8.9 · 8   7.5 · 16   7.9 · 32   7.2 · 64   6.9 · 128   6.9
    batch          4   3.6 · 16   5.1 · 32   8.2 · 64  15.6 · 128  28.3 · 352  79.6
    floor at batch 32  4.8

Early leaving: 7,329 own epochs of 15,360, at 1.05 times the cost of as many epochs without leaving. Store: the thread
that writes takes 1 to 2 % of the study's seconds, beside the computing ones; the difference of whole runs was lost in
the noise. Memory, planned and by XLA's analysis: 2.2 and 2.3 MB, 96 and 97 MB, 157 and 152 MB.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import jax
import numpy as np
import optax
from population import flops, prepared, run
from rivals import Case, matmul_peak, memory_bandwidth

import jaxnet as jn
from jaxnet.sweeps.execute import execute
from jaxnet.sweeps.lanes import Resident, blank_orders
from jaxnet.sweeps.prepare import prepare, price, works
from jaxnet.sweeps.session import session

DIGITS = Case((64, 32, 10), batch=32, examples=1408, members=256, epochs=3, width=0, rounds=3)


def floor(case: Case, peak: float, bandwidth: float) -> float:
    """Seconds per member-step below which no implementation on this machine can go; GFLOP/s and GB/s."""
    parameters = sum(m * n + n for m, n in zip(case.units, case.units[1:], strict=False))
    # Parameters are read by forward and backward, the gradient written and read, Adam reads and writes three arrays.
    numbers = 10 * parameters + 2 * case.batch * case.units[0]
    return flops(case) / peak / 1e9 + 4 * numbers / bandwidth / 1e9


def curve(cases: dict[int, tuple[Case, int | None]]) -> dict[int, float]:
    """Median seconds per member-step of each case at its width, taking turns."""
    ready = {x: prepared(case, width) for x, (case, width) in cases.items()}
    times: dict[int, list[float]] = {x: [] for x in cases}
    for x, (case, _) in cases.items():
        run(ready[x], case)
    for _ in range(DIGITS.rounds):
        for x, (case, _) in cases.items():
            times[x].append(run(ready[x], case)[0])
    return {x: statistics.median(seconds) for x, seconds in times.items()}


def early_leaving() -> tuple[float, int, int]:
    """(seconds / those of the members' own epochs, own epochs, epochs if nobody left) of a study with patience."""
    train, valid = jn.data.split(jn.data.load("digits"), 0.2, key=jax.random.key(0))
    rates = np.geomspace(1e-4, 1.0, 128).tolist()

    def ready(patience, epochs):
        def build(hp):
            net = jn.mlp([32, 10])
            optimizer = optax.adam(hp["lr"])
            return jn.program(net, jn.losses.softmax_cross_entropy, optimizer, batch_size=32, patience=patience)

        return prepare(
            build, {"lr": rates}, data=jn.Data(train, valid), epochs=epochs, seeds=2, folds=(), study_seed=0,
            width=None, devices=None, rank_by=None, mode=None,
        )  # fmt: skip

    leaving, staying = ready(3, 60), ready(None, 10)
    found: dict[bool, list[float]] = {True: [], False: []}
    own = 0
    for turn in range(4):  # the first compiles
        for leave, one in ((True, leaving), (False, staying)):
            with session(
                one, None, keep=None, accept_change=(), about=None, report=lambda progress: None, quiet=True
            ) as under_way:
                began = time.perf_counter()
                everyone = np.ones(len(one.plan), bool)
                under_way.collect(
                    execute(works(one, everyone, one.epochs), one.key, one.data, one.devices, under_way.wanted),
                    everyone,
                )
                if turn:
                    found[leave].append((time.perf_counter() - began) / under_way.study.values["epochs_run"].sum())
            if leave:
                own = int(under_way.study.values["epochs_run"].sum())
    ratio = statistics.median(found[True]) / statistics.median(found[False])
    return ratio, own, 60 * len(leaving.plan)


def store_overhead() -> float:
    """Seconds with a store / without, of the same 1,024 members, taking turns."""
    case = DIGITS._replace(members=1024, epochs=20)
    ready = prepared(case)
    times: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(4):
        for stored in (True, False):
            with tempfile.TemporaryDirectory(dir=".") as folder:
                began = time.perf_counter()
                with session(
                    ready,
                    folder if stored else None,
                    keep="best",
                    accept_change=(),
                    about=None,
                    report=None,
                    quiet=True,
                ) as under_way:
                    everyone = np.ones(len(ready.plan), bool)
                    work = works(ready, everyone, ready.epochs)
                    under_way.collect(execute(work, ready.key, ready.data, ready.devices, under_way.wanted), everyone)
                if turn:
                    times[stored].append(time.perf_counter() - began)
    return statistics.median(a / b for a, b in zip(times[True], times[False], strict=True))


def memory() -> dict[str, tuple[float, ...]]:
    """Name -> (planned, XLA's own analysis of the compiled programs) in MB, a process each."""
    found = {}
    for name in ("64-32-10", "784-128-64-10", "784-512-256-10"):
        done = subprocess.run(
            [sys.executable, __file__, "--memory-of", name], capture_output=True, text=True, check=True
        )
        found[name] = tuple(float(word) for word in done.stdout.split())
    return found


def memory_of(name: str) -> None:
    """Print the numbers of `memory` for a study of this network."""
    units = tuple(int(n) for n in name.split("-"))
    examples = 1408 if units[0] == 64 else 12800
    case = Case(units, batch=32 if units[0] == 64 else 128, examples=examples, members=64, epochs=1, width=0, rounds=1)
    ready = prepared(case)
    lanes, devices = ready.lanes[0], len(ready.devices)
    work = works(ready, np.ones(len(ready.plan), bool), 1)[0]
    resident = Resident(ready.key, ready.data, None)
    compiled = lanes.advance.lower(lanes.lanes, blank_orders(work.traced, ready.width), resident).compile()
    one = compiled.memory_analysis()
    kinds = one.argument_size_in_bytes, one.output_size_in_bytes, one.temp_size_in_bytes, -one.alias_size_in_bytes
    print(price(ready).memory / 1e6, devices * sum(kinds) / 1e6)


def draw(path: Path, curves: dict[str, dict[int, float]], floors: dict[str, dict[int, float]]) -> None:
    """One panel per curve, µs per member-step, the floor dashed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(curves), figsize=(11, 3.2), layout="constrained")
    for panel, (name, points) in zip(panels, curves.items(), strict=True):
        panel.loglog(list(points), [1e6 * s for s in points.values()], "o-", label="measured")
        panel.loglog(list(floors[name]), [1e6 * s for s in floors[name].values()], "--", label="floor")
        panel.set(xlabel=name, ylabel="µs per member-step", ylim=(0.3, None))
        panel.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=None, help="write the curves here as SVG")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_of:
        memory_of(options.memory_of)
        return
    peak, bandwidth = matmul_peak()[1], memory_bandwidth()
    print(f"matmul peak {peak:.0f} GFLOP/s, memory {bandwidth:.0f} GB/s")
    members = {n: (DIGITS._replace(members=n, epochs=3 if n > 100 else 30), 8) for n in (16, 64, 256, 1024, 10_000)}
    widths = {w: (DIGITS._replace(members=max(64, 4 * w)), w) for w in (1, 2, 4, 8, 16, 32, 64, 128)}
    batches = {b: (DIGITS._replace(batch=b, members=64), None) for b in (4, 16, 32, 64, 128, 352)}
    curves, floors = {}, {}
    for name, cases in (("members", members), ("width (lanes per device)", widths), ("batch", batches)):
        curves[name] = curve(cases)
        floors[name] = {x: floor(case, peak, bandwidth) for x, (case, _) in cases.items()}
        print(f"{name:<26}" + "".join(f"{x:>9,}" for x in cases))
        print("  µs a member-step        " + "".join(f"{1e6 * s:9.2f}" for s in curves[name].values()))
        print("  floor                   " + "".join(f"{1e6 * s:9.2f}" for s in floors[name].values()), flush=True)
    ratio, own, all_epochs = early_leaving()
    print(
        f"early leaving: {own:,} own epochs of {all_epochs:,}; {ratio:.2f} × the cost of as many epochs without leaving"
    )
    print(f"store: {100 * (store_overhead() - 1):+.1f} %", flush=True)
    for name, (planned, analysed) in memory().items():
        print(f"memory {name:<16} planned {planned:.1f} MB, XLA's analysis {analysed:.1f} MB", flush=True)
    if options.out:
        draw(options.out, curves, floors)


if __name__ == "__main__":
    main()
