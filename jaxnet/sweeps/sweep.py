"""`sweep`: a study, which is thousands of runs as one program per bucket and one table.

    build(hyperparameters) -> Program          what a study maps
    space × folds × seeds                      over which members
    study = sweep(build, space, data=…)        everything before this line is a value; this line computes

The order of events: everything is checked; the programs are traced; the plan is printed; the store, if there is one,
is compared and read; what is missing is computed, each finished member on the disk before it counts.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from jaxnet.data.folds import Fold
from jaxnet.sweeps.execute import execute
from jaxnet.sweeps.lanes import Build
from jaxnet.sweeps.prepare import prepare, works
from jaxnet.sweeps.progress import Progress
from jaxnet.sweeps.remote import check_executor, execute_remotely
from jaxnet.sweeps.session import session, stored_width
from jaxnet.sweeps.study import Study


def sweep(
    build: Build,
    space: Any,
    *,
    data: Any,
    epochs: int | None = None,
    seeds: Any = 1,
    folds: Sequence[Fold] = (),
    study_seed: int = 0,
    width: int | Literal["measure"] | None = None,
    devices: Sequence[jax.Device] | None = None,
    store: Any = None,
    keep: Literal["best", "all"] | None = "best",
    rank_by: str | None = None,
    mode: str | None = None,
    share: tuple[int, int] | None = None,
    executor: Any = None,
    chunk: int | None = None,
    accept_change: Sequence[str] | bool = (),
    report: Callable[[Progress], None] | None = None,
    about: Mapping[str, Any] | None = None,
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
            bit. Unless given, the store's; in a new study, as many as fit in a core's cache. "measure" compiles and
            times a few widths on this machine first, worth it for a study of many minutes.
        devices: local devices, each with a worker thread of its own; all of them unless given.
        store: a folder. What is finished is kept there; run the same call again and it goes on where it was.
        keep: whose parameters are kept: the "best" (each time a member is the best so far), "all", or None.
        rank_by, mode: the metric that decides who is best, and "min" or "max"; the validation loss unless given.
        share: (i, n): do every n-th member from the i-th on, another process does the others; by default the index and
            number of processes of `jax.distributed`.
        executor: computes elsewhere what is missing: a spawning process pool, a Dask Client, a submitit executor, any
            object whose `submit` returns something with `done()` and `result()`. See docs/clusters.md.
        chunk: members of a task that the executor gets, 4 × the width unless given.
        accept_change: True, or the names of sections ("data", "program", …), to go on with a store although something
            changed; the store records it.
        report: called with a Progress about every tenth of a second; whatever it raises ends the study.
        about: anything JSON can hold that says what made the study; stored with it.
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
    index, count = _checked_share(share)
    if executor is not None:
        check_executor(executor)
    elif chunk is not None:
        raise ValueError(f"got chunk={chunk} without an executor; expected one to give the chunks to: executor=…")
    ready = prepare(
        build, space, data=data, epochs=epochs, seeds=seeds, folds=folds, study_seed=study_seed,
        width=stored_width(store) if width is None else width, devices=devices, rank_by=rank_by, mode=mode,
    )  # fmt: skip
    mine = np.arange(len(ready.plan)) % count == index
    with session(
        ready, store, share=index, keep=keep, accept_change=accept_change, about=about, report=report, quiet=quiet
    ) as under_way:
        wanted = mine & ~under_way.study.finished
        work = works(ready, wanted, ready.epochs)
        if executor is None:
            found = execute(work, ready.key, ready.data, ready.devices, under_way.wanted)
        else:
            found = execute_remotely(ready, work, under_way.keeper, executor, folder=store, chunk=chunk)
        under_way.collect(found, mine)
    return under_way.study


def _checked_share(share: tuple[int, int] | None) -> tuple[int, int]:
    if share is None:
        return jax.process_index(), jax.process_count()
    if not isinstance(share, (tuple, list)) or len(share) != 2 or not all(isinstance(i, int) for i in share):
        raise TypeError(f"got share={share!r}; expected (i, n): this process's number and how many there are")
    index, count = share
    if not 0 <= index < count:
        raise ValueError(
            f"got share={share}; expected (i, n) with 0 ≤ i < n: this process's number and how many there are"
        )
    return index, count
