"""What a member-step of a study costs, beside plain `jax.vmap`, torch.func's ensembles, torch's loop and scikit-learn.

    .venv/bin/python experiments/benchmarks/population.py [1] [2] [3]

The job and the contenders are those of rivals.py: M members, each with its own initialization, its own shuffling each
epoch and its own learning rate, Adam, no validation. jaxnet runs them as a study does, on two host devices, each lane
refilled when its member has finished, results taken to the host; compiled before the clock starts, as for the others.
All take turns in one process, ABAB…; a ratio is the median over the rounds of (contender / jaxnet in that round).

Result (2 cores, jax 0.10.2, torch 2.13.0; × how long jaxnet takes). What is left of a member-step of 64-32-10 on one
device, 12.5 µs: 7.1 in the five matrix products (of which the two by the weights, whose layout XLA hands to another
library, 4.1), 1.2 in Adam, 0.6 in gathering and shuffling, the rest in some thirty small operations and their starting.

                                 64-32-10   784-128-64-10     2-16-2
    jaxnet, µs                       6.78             404       1.16
    share of the matmul peak         24 %            66 %        1 %
    plain vmap                       2.12            1.43       1.77
    torch.func, 1 thread             2.76            2.92       2.96
    torch.func, 2 threads            2.24            1.74      (16.7)
    torch.func compiled, 1 thread    1.59            2.09       1.30
    torch.func compiled, 2 threads   1.00            1.30       2.45
    torch loop, 1 thread               42             3.5        238
    scikit-learn                       28             3.2        170

jaxnet's mean losses differ by up to 8 %, since its networks start from its own initialization.
"""

import os
import statistics
import sys
import time

os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=2")

import numpy as np
import optax
from rivals import CASES, Case, contenders, learnable, matmul_peak

import jaxnet as jn
from jaxnet.sweeps.execute import Wanted, execute
from jaxnet.sweeps.prepare import Prepared, prepare, works


def prepared(case: Case, width: int | None = None) -> Prepared:
    """The study of a case, ready to run."""

    def build(hp):
        net = jn.mlp(case.units[1:])
        return jn.program(net, jn.losses.softmax_cross_entropy, optax.adam(hp["lr"]), batch_size=case.batch)

    rates = np.geomspace(1e-3, 3e-3, case.members).tolist()
    return prepare(
        build, {"lr": rates}, data=jn.Data(learnable(case.units, case.examples)), epochs=case.epochs, seeds=1, folds=(),
        study_seed=0, width=width, devices=None, rank_by=None, mode=None,
    )  # fmt: skip


def run(ready: Prepared, case: Case) -> tuple[float, np.ndarray]:
    """(seconds per member-step, mean losses of the last epoch) of the whole study."""
    everyone, nobody = np.ones(len(ready.plan), bool), Wanted(keep=lambda values: False)
    began = time.perf_counter()
    found = [
        one
        for one in execute(works(ready, everyone, ready.epochs), ready.key, ready.data, ready.devices, nobody)
        if one
    ]
    took = time.perf_counter() - began
    losses = np.concatenate([one.values["history/train_loss"][:, -1] for one in found])
    return took / (len(ready.plan) * case.epochs * case.examples // case.batch), losses


def flops(case: Case) -> float:
    """Of the matrix products of one member-step; no gradient by the inputs."""
    pairs = list(zip(case.units, case.units[1:], strict=False))
    return 2 * case.batch * (3 * sum(m * n for m, n in pairs) - pairs[0][0] * pairs[0][1])


def main() -> None:
    peak = matmul_peak()[1]
    print(f"matmul peak {peak:.0f} GFLOP/s, measured now")
    for name in sys.argv[1:] or CASES:
        case = CASES[name]
        ready, rivals = prepared(case), contenders(case)
        run(ready, case)
        ours: list[tuple[float, np.ndarray]] = []
        theirs: dict[str, list[tuple[float, np.ndarray]]] = {rival: [] for rival in rivals}
        for _ in range(case.rounds):
            ours.append(run(ready, case))
            for rival, contender in rivals.items():
                theirs[rival].append(contender())
        cost = statistics.median(seconds for seconds, _ in ours)
        share = flops(case) / cost / 1e9 / peak
        shape = "-".join(map(str, case.units))
        print(f"{shape}, batch {case.batch}, {case.members} members, {ready.width} lanes on each device")
        loss = np.mean([losses.mean() for _, losses in ours])
        print(f"  {'jaxnet':<32}{cost * 1e6:9.2f} µs a member-step  {share:4.0%} of the peak     loss {loss:.4f}")
        for rival, rounds in theirs.items():
            middle = statistics.median(seconds for seconds, _ in rounds)
            ratio = statistics.median(a[0] / b[0] for a, b in zip(rounds, ours, strict=True))
            loss = np.mean([losses.mean() for _, losses in rounds])
            print(
                f"  {rival:<32}{middle * 1e6:9.2f} µs             {ratio:6.2f} × jaxnet    loss {loss:.4f}", flush=True
            )


if __name__ == "__main__":
    main()
