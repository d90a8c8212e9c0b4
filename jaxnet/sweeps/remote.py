"""A study on workers elsewhere: its members in chunks, through any executor.

    execute_remotely(study, work, keeper, executor)     yields what has finished, as `execute` does

An executor is any object whose `submit(function, *arguments)` returns something with `done()` and `result()`, and
perhaps `cancel()`: concurrent.futures, a Dask Client, a submitit executor, ten lines around Ray. A task is a chunk of a
bucket's members; `worker` says what becomes of it. A worker runs them through the lane program that a local device
would run, at the same width, so every member is the same to the bit.
"""

import importlib.util
import os
import pickle
import time
import uuid
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np

from jaxnet.checkpoint import write_whole
from jaxnet.data.checks import positive_integer
from jaxnet.sweeps.execute import BucketWork, Finished
from jaxnet.sweeps.prepare import Prepared
from jaxnet.sweeps.session import Keeper
from jaxnet.sweeps.worker import BucketRecipe, Payload, Refused, Task, run_chunk
from jaxnet.training.identity import environment, sha256

AGAIN = 3  # times that a task is submitted again
LOOK = 0.1  # seconds between two looks at the tasks


def execute_remotely(
    study: Prepared,
    work: Sequence[BucketWork],
    keeper: Keeper,
    executor: Any,
    *,
    folder: str | os.PathLike[str] | None = None,
    chunk: int | None = None,
    lanes: bool = False,
) -> Generator[Finished | None]:
    """Run all jobs on the executor's workers; yields what has finished, and None at every look.

    Args:
        study: what `prepare` made; `work` what `works` made of it.
        keeper: decides whose parameters are kept.
        executor: see the module. It stays open; a task runs on the first device of the process that gets it.
        folder: where the payload lies while tasks run; every worker has to see it. A temporary one unless given.
        chunk: members of a task at most, 4 × the study's width unless given.
        lanes: whether to take the runs themselves, to go on with later.

    A task that fails is submitted again, 3 times at most. Closing the iterator cancels what hasn't started.

    Raises:
        TypeError, ValueError: an executor that forks or isn't one, a build that can't be sent, a worker that differs,
            or what the program itself says. RuntimeError: a task failed 4 times, or the pool is broken.
    """
    check_executor(executor)
    size = 4 * study.width if chunk is None else positive_integer("chunk", chunk)
    content = _pickled(_payload(study))
    identity, keep = sha256(content), (keeper.keep, study.rank_by, study.mode)
    tasks = [
        Task("", identity, study.lanes.index(bucket.program), list(bucket.jobs[i : i + size]), keep, lanes)
        for bucket in work
        for i in range(0, len(bucket.jobs), size)
    ]
    return _run(tasks, content, keeper, executor, folder)


def _run(
    tasks: list[Task], content: bytes, keeper: Keeper, executor: Any, folder: str | os.PathLike[str] | None
) -> Generator[Finished | None]:
    with ExitStack() as stack:
        path = stack.enter_context(_written(content, folder))
        waiting = deque(task._replace(payload=path) for task in tasks)
        running: list[tuple[Any, Task]] = []
        stack.callback(_cancel, running)
        while waiting or running:
            began = time.perf_counter()
            failed: list[tuple[Task, Exception]] = []
            still: list[tuple[Any, Task]] = []
            while waiting and not failed and time.perf_counter() - began < LOOK:
                task = waiting.popleft()
                try:
                    running.append((executor.submit(run_chunk, task), task))
                except Exception as error:
                    failed.append((task, error))
            for future, task in running:
                if not future.done():
                    still.append((future, task))
                    continue
                try:
                    found = future.result()
                except Exception as error:
                    failed.append((task, error))
                    continue
                for finished in _accepted(found):
                    yield _with_kept(finished, keeper)
            running[:] = still
            left = [*waiting, *(task for _, task in running), *(task for task, _ in failed)] if failed else []
            for task, cause in failed:
                waiting.appendleft(_once_more(task, cause, sum(len(task.jobs) for task in left)))
            if waiting or running:
                time.sleep(max(0.0, LOOK - (time.perf_counter() - began)))
                yield None


def check_executor(executor: Any) -> None:
    """Refuse what isn't an executor, and pools that fork: JAX has threads, which a forked process lacks.

    Raises:
        TypeError: no `submit`. ValueError: it forks.

    >>> from concurrent.futures import ThreadPoolExecutor
    >>> check_executor(ThreadPoolExecutor(2))
    """
    cure = 'concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn"))'
    if not callable(getattr(executor, "submit", None)):
        raise TypeError(
            f"got executor of type {type(executor).__module__}.{type(executor).__qualname__}, which has no submit; "
            f"expected one whose submit(function, *arguments) returns something with done() and result(): {cure}"
        )
    context = getattr(executor, "_mp_context", None)  # of a ProcessPoolExecutor
    if context is not None and context.get_start_method() == "fork":
        raise ValueError(
            f"got a pool that forks its processes; expected one that spawns them, since JAX has threads, and a forked "
            f"process hangs on their locks: {cure}"
        )


def _payload(study: Prepared) -> Payload:
    return Payload(
        study.build,
        [
            BucketRecipe(bucket.static, bucket.traced, table, sha256(lane.text))
            for bucket, table, lane in zip(study.plan.buckets, study.tables, study.lanes, strict=True)
        ],
        study.key,
        jax.tree.map(np.asarray, study.data),
        study.width,
        study.epochs,
        environment(study.devices[0]),
    )


def _pickled(payload: Payload) -> bytes:
    """By cloudpickle, which takes any function, where it's installed; by pickle, which takes those with an address."""
    try:
        if importlib.util.find_spec("cloudpickle"):
            import cloudpickle  # type: ignore[import-untyped]

            return cloudpickle.dumps(payload)
        return pickle.dumps(payload)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"got a build that can't be sent to workers ({error}); expected a function at the top of an importable "
            "module, or any function that holds no locks and open files, with cloudpickle installed: pip install "
            "'jaxnet-toolkit[cluster]'"
        ) from error


@contextmanager
def _written(content: bytes, folder: str | os.PathLike[str] | None) -> Iterator[str]:
    """The payload's absolute path, while it's there."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(TemporaryDirectory(prefix="jaxnet-")) if folder is None else folder)
        path = place.resolve() / f"payload-{sha256(content)[:16]}-{uuid.uuid4().hex[:8]}.pkl"  # each its own to remove
        write_whole(path, content)
        stack.callback(path.unlink, missing_ok=True)
        yield str(path)


def _cancel(running: list[tuple[Any, Task]]) -> None:
    for future, _ in running:
        if hasattr(future, "cancel"):
            with suppress(Exception):  # the engine may be what failed
                future.cancel()


def _accepted(found: list[Finished] | Refused) -> list[Finished]:
    if isinstance(found, Refused):
        error = found.kind(found.sentence)
        error.add_note(f"On a worker:\n{found.trace}")
        raise error
    return found


def _with_kept(one: Finished, keeper: Keeper) -> Finished:
    """Without the parameters that nobody wants after all: a worker knows who is the best of its chunk only."""
    kept = {}
    for row, position in enumerate(one.positions):
        if position in one.kept and keeper({name: values[row] for name, values in one.values.items()}):
            kept[position] = one.kept[position]
    return one._replace(kept=kept)


def _once_more(task: Task, error: Exception, left: int) -> Task:
    """The task to submit again, or the error that ends the study."""
    cure = f"{left} members are unfinished. What has finished counts: with a store, the same command goes on there"
    if isinstance(error, BrokenExecutor):
        raise RuntimeError(
            f"a worker process died ({error}) and its pool takes no more tasks. {cure}, with a new pool"
        ) from error
    if task.attempt == AGAIN:
        raise RuntimeError(
            f"a task of {len(task.jobs)} members, from position {task.jobs[0].position} on, failed "
            f"{1 + AGAIN} times, at last with {type(error).__name__}: {error}. {cure}"
        ) from error
    return task._replace(attempt=task.attempt + 1)
