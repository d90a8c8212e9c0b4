"""How many members run side by side on a device: by rule, or by measurement.

Too few, and the cost of starting each operation isn't shared; too many, and their parameters, gradients and optimizer
states fall out of the core's cache between two steps. `experiments/benchmarks/scaling.py` shows the curve.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxnet.sweeps.execute import Job, Runner
from jaxnet.sweeps.lanes import LaneProgram, Resident
from jaxnet.sweeps.plan import resident_bytes

CACHE = 1 << 19  # bytes that the lanes of one CPU device may take: half of a core's second-level cache
LEAST, MOST = 2, 64  # lanes on a CPU device
GPU = 1024  # lanes where a step costs the same for one as for many
SECONDS = 0.3  # each candidate is run for about as long


def fitting_width(carry: Any, members: int, devices: Sequence[jax.Device]) -> int:
    """By rule: a power of 2, as many lanes as fit in a core's cache, and no more than a device has members.

    `carry` is one member's run, as shapes; `members` those of the largest bucket.

    >>> fitting_width({"w": jax.ShapeDtypeStruct((100, 100), np.float32)}, 1000, jax.devices("cpu")[:1])
    8
    """
    lane = max(resident_bytes(jax.tree.map(lambda a: np.zeros(a.shape, np.float32), carry)), 1)
    on_cpu = devices[0].platform == "cpu"
    fits = min(max(1 << (max(CACHE // lane, 1).bit_length() - 1), LEAST), MOST) if on_cpu else GPU
    each = -(-members // len(devices))
    return min(fits, 1 << (each - 1).bit_length())


def measured_width(
    trace: Callable[[int], LaneProgram], resident: Resident, job: Job, guess: int, device: jax.Device, traced: Any
) -> int:
    """By measurement: of half the guess, the guess and twice and four times as many, the one whose members cost least.

    `trace(width)` gives the program, which is compiled and run for real, with `job` in every lane.
    """
    found: dict[float, int] = {}
    on_device = jax.device_put(resident, device)
    for width in sorted({max(guess // 2, 1), guess, 2 * guess, 4 * guess}):
        runner = Runner(trace(width), on_device, device, traced)
        runner.fill(itertools.repeat(job).__next__)
        runner.advance(1)  # compiles
        began, epochs = time.perf_counter(), 0
        while time.perf_counter() - began < SECONDS or not epochs:
            runner.orders.fresh[:] = True  # no member may end while it is measured
            runner.advance(1)
            epochs += 1
        found[(time.perf_counter() - began) / (epochs * width)] = width
    return found[min(found)]
