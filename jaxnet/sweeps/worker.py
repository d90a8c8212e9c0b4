"""What a worker process does for a study: one task at a time, a chunk of members through the lanes of its first device.

    run_chunk(task) -> what has finished, or Refused

A task is small: who its members are, and the identity of the payload. The payload is a file that every worker process
reads once; it holds the function that builds programs, and the data. A worker whose versions, processor, settings or
lowered program differ from the study's refuses its tasks, so that no table holds numbers of two kinds.

The payload is a pickle: whoever can write to its folder can run code in the workers.
"""

import errno
import pickle
import threading
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnet.sweeps.execute import Finished, Job, Runner, Wanted, run_bucket
from jaxnet.sweeps.lanes import Build, LaneProgram, Resident, lane_program
from jaxnet.sweeps.session import Keeper
from jaxnet.training.identity import environment, sha256


class BucketRecipe(NamedTuple):
    """What a worker builds a bucket's program from."""

    static: Mapping[str, Any]
    traced: Mapping[str, Any]
    folds: Any  # (rows, valid_rows) or None
    program: str  # the checksum of the lowered program


class Payload(NamedTuple):
    """What all tasks of a study share."""

    build: Build
    buckets: list[BucketRecipe]
    key: np.ndarray
    data: Any
    width: int
    epochs: int
    environment: dict[str, str]


class Task(NamedTuple):
    """A chunk of a bucket's members."""

    payload: str  # its path
    identity: str  # its checksum
    bucket: int
    jobs: list[Job]
    keep: tuple[str | None, str | None, str]  # whose parameters come back, as Keeper takes it
    lanes: bool  # whether the runs themselves come back
    attempt: int = 0  # tells a task from its repetition: some engines remember results by arguments


class Refused(NamedTuple):
    """What a worker says to a task that would fail everywhere."""

    kind: type[TypeError] | type[ValueError]
    sentence: str
    trace: str


def run_chunk(task: Task) -> list[Finished] | Refused:
    """Run the members of a task on this process's first device; what comes back holds NumPy arrays only."""
    try:
        program, resident, traced = _program_of(task)
        runner, found = Runner(program, resident, jax.local_devices()[0], traced), list[Finished]()
        run_bucket(runner, partial(next, iter(task.jobs), None), found.append, Wanted(Keeper(*task.keep), task.lanes))
        return found
    except (TypeError, ValueError) as error:  # as a value: some engines don't bring exceptions back as they were
        kind = TypeError if isinstance(error, TypeError) else ValueError
        return Refused(kind, str(error), traceback.format_exc())


# A task is a call in a process that knows nothing of the call before, and module state is all that lasts between the
# two: here it saves each task reading the data and compiling. It holds one study, and no result depends on it.
_held: dict[str, tuple[Payload, Resident, dict[int, LaneProgram]]] = {}  # by identity
_holding = threading.Lock()  # a worker may have threads


def _program_of(task: Task) -> tuple[LaneProgram, Resident, Mapping[str, Any]]:
    """The program of the task's bucket, its data on the device and its inputs; built by the first task that asks."""
    with _holding:
        if task.identity not in _held:
            device = jax.local_devices()[0]
            payload = _read(task.payload, task.identity)
            _check_environment(payload.environment, environment(device))
            _held.clear()
            _held[task.identity] = payload, jax.device_put(Resident(payload.key, payload.data, None), device), {}
        payload, resident, programs = _held[task.identity]
        recipe = payload.buckets[task.bucket]
        resident = resident._replace(folds=recipe.folds)
        if task.bucket not in programs:
            program = lane_program(
                payload.build, recipe.static, recipe.traced, resident, width=payload.width, epochs=payload.epochs
            )
            if sha256(program.text) != recipe.program:
                raise ValueError(
                    f"got another program from build on a worker than in the process that asks, for {recipe.static}; "
                    "expected the same: give all workers the same source files of jaxnet and of what build imports"
                )
            programs[task.bucket] = program
        return programs[task.bucket], resident, recipe.traced


def _check_environment(asked: Mapping[str, str], here: Mapping[str, str]) -> None:
    differences = [
        f"{name}: {here.get(name)!r} on the worker, {asked.get(name)!r} in the process that asks"
        for name in sorted(asked.keys() | here.keys())
        if here.get(name) != asked.get(name)
    ]
    if differences:
        raise ValueError(
            f"got a worker that would compute other bits. {'; '.join(differences)}. Expected the same versions, kind "
            "of processor, JAX_* settings and XLA_FLAGS everywhere: set them in the environment that starts the workers"
        )


def _read(path: str, identity: str) -> Payload:
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        cure = "a worker sees no payload; expected a folder that all workers see: store= on a disk they share"
        raise FileNotFoundError(errno.ENOENT, cure, path) from error
    if sha256(content) != identity:
        raise OSError(errno.EIO, "got a payload that doesn't match its checksum", path)
    return pickle.loads(content)
