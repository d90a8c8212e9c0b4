"""Everything of a study that comes before computing: arguments checked, members planned, programs traced.

prepared = prepare(build, space, data=…, …)      raises before anything compiles
works(prepared, wanted, limit), replay(prepared, member), price(prepared), identity_of(prepared)
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxnet.data.arrays import is_sparse
from jaxnet.data.checks import positive_integer, prepared, prepared_array
from jaxnet.data.folds import Fold
from jaxnet.data.sets import Data
from jaxnet.sweeps import cost as costs
from jaxnet.sweeps.execute import BucketWork, Job, Runner, flat_values
from jaxnet.sweeps.lanes import Build, LaneProgram, Resident, lane_program
from jaxnet.sweeps.plan import Bucket, Cost, Plan, plan_of, resident_bytes, seeds_from, values_of
from jaxnet.sweeps.space import Space, as_space
from jaxnet.sweeps.study import mode_of
from jaxnet.sweeps.width import fitting_width, measured_width
from jaxnet.training.identity import Identity, data_checksums, environment, sha256
from jaxnet.training.program import Program

# What a compiled program needs beside its data, fitted to XLA's own analysis of eight programs, each within 10 %: the
# lanes and what they would leave, and half of the intermediate results, the others being fused away.
LANES, FUSED = 1.25, 0.5


class Prepared(NamedTuple):
    """A study ready to compute."""

    build: Build
    plan: Plan
    programs: tuple[Program, ...]  # per bucket, of its first member
    lanes: tuple[LaneProgram, ...]  # per bucket
    tables: tuple[Any, ...]  # per bucket: (rows, valid_rows) of its folds, or None
    key: np.ndarray  # the words of the study's key
    data: Any
    epochs: int
    width: int
    study_seed: int
    devices: tuple[jax.Device, ...]
    rank_by: str | None
    mode: str


def prepare(
    build: Build,
    space: Any,
    *,
    data: Any,
    epochs: int | None,
    seeds: Any,
    folds: Sequence[Fold],
    study_seed: int,
    width: int | Literal["measure"] | None,
    devices: Sequence[jax.Device] | None,
    rank_by: str | None,
    mode: str | None,
) -> Prepared:
    """Check the arguments of a study and trace its programs; compiles nothing. See `sweep` for what they mean.

    Raises:
        TypeError, ValueError: for whatever doesn't fit.
    """
    if not callable(build):
        raise TypeError(f"got build {build!r}; expected a function from hyperparameters to a Program")
    space, folds = as_space(space), _checked_folds(folds)
    _check_seed(study_seed)
    data = _prepared_data(data, folds)
    plan = plan_of(space, seeds_from(seeds), folds)
    programs = tuple(_checked_program(build, space, bucket, plan, data) for bucket in plan.buckets)
    whole_epochs = _checked_epochs(epochs, programs)
    chosen = _checked_devices(devices)
    key = np.asarray(jax.random.key_data(jax.random.key(study_seed, impl="threefry2x32")))
    tables = tuple(_fold_table(plan, bucket) for bucket in plan.buckets)

    def traced(i: int, width: int) -> LaneProgram:
        bucket, resident = plan.buckets[i], Resident(key, data, tables[i])
        return lane_program(build, bucket.static, bucket.traced, resident, width=width, epochs=whole_epochs)

    if not isinstance(width, int) or isinstance(width, bool):
        if width not in (None, "measure"):
            raise TypeError(f"got width={width!r}; expected a positive integer, None or 'measure'")
        largest = max(range(len(plan.buckets)), key=lambda i: len(plan.buckets[i].members))
        bucket = plan.buckets[largest]
        carry = jax.eval_shape(programs[largest].start, jax.random.key(0), _data_of(bucket, plan, data))
        guess = fitting_width(carry, len(bucket.members), chosen)
        if width == "measure":
            job = _jobs(plan, bucket, bucket.members[:1].tolist(), whole_epochs)[0]
            resident = Resident(key, data, tables[largest])
            guess = measured_width(partial(traced, largest), resident, job, guess, chosen[0], bucket.traced)
        width = guess
    width = positive_integer("width", width)
    lanes = tuple(traced(i, width) for i in range(len(plan.buckets)))
    names = {n.removeprefix("metrics/") for lane in lanes for n in flat_values(lane.report.fitted) if "metrics/" in n}
    if shared := names & set(space.names):
        raise ValueError(f"got the hyperparameter {min(shared)!r}, which is a metric's name too; expected another name")
    rank_by, mode = _ranking(rank_by, mode, names)
    return Prepared(
        build, plan, programs, lanes, tables, key, data, whole_epochs, width, study_seed, chosen, rank_by, mode
    )


def _jobs(plan: Plan, bucket: Bucket, positions: Sequence[int], limit: int) -> list[Job]:
    """The members at these positions, all of this bucket, as lanes need them."""
    values = values_of(plan, bucket, positions)
    row = {fold: i for i, fold in enumerate(bucket.folds)}
    return [
        Job(
            int(p),
            int(plan.seed[p]),
            row.get(int(plan.fold[p]), 0),
            {name: column[i] for name, column in values.items()},
            limit,
        )
        for i, p in enumerate(positions)
    ]


def works(study: Prepared, wanted: np.ndarray, limit: int, lanes: Mapping[int, Any] | None = None) -> list[BucketWork]:
    """The wanted (members,) bool of each bucket, to be carried on up to epoch `limit`.

    `lanes` holds runs to go on with, by position; the others start anew.
    """
    lanes, found = lanes or {}, []
    for i, bucket in enumerate(study.plan.buckets):
        todo = [
            job._replace(lane=lanes.get(job.position))
            for job in _jobs(study.plan, bucket, bucket.members[wanted[bucket.members]].tolist(), limit)
        ]
        if todo:
            found.append(BucketWork(study.lanes[i], bucket.traced, study.tables[i], todo))
    return found


def replay(study: Prepared, member: int) -> Any:
    """One member's run again, on the first device: bitwise what it is in the study."""
    i = next(i for i, bucket in enumerate(study.plan.buckets) if member in bucket.members)
    resident = jax.device_put(Resident(study.key, study.data, study.tables[i]), study.devices[0])
    runner = Runner(study.lanes[i], resident, study.devices[0], study.plan.buckets[i].traced)
    return runner.alone(_jobs(study.plan, study.plan.buckets[i], [member], study.epochs)[0])


def identity_of(study: Prepared, settings: Mapping[str, Any]) -> Identity:
    """What the study's numbers depend on; `settings` are those of its method beside epochs, width and seed."""
    return {
        "settings": {"epochs": study.epochs, "width": study.width, "study_seed": study.study_seed, **settings},
        "data": data_checksums(study.data),
        "folds": {
            str(i): sha256(fold.rows.tobytes() + b"|" + fold.valid_rows.tobytes())
            for i, fold in enumerate(study.plan.folds)
        },
        "environment": environment(study.devices[0]),
        "program": {b.name: sha256(lane.text) for b, lane in zip(study.plan.buckets, study.lanes, strict=True)},
    }


def price(study: Prepared) -> Cost:
    """What the plan will take, before anything is compiled."""
    plan, devices, seconds, memory = study.plan, len(study.devices), 0.0, 0.0
    for bucket, program, lanes in zip(plan.buckets, study.programs, study.lanes, strict=True):
        data = _data_of(bucket, plan, study.data)
        carry = jax.eval_shape(program.start, jax.random.key(0), data)
        epoch = costs.operations(program.epoch, carry, data)
        seconds += costs.seconds(epoch) * len(bucket.members) * study.epochs
        between = study.width * costs.live_bytes(program.epoch, carry, data)
        memory = max(memory, LANES * resident_bytes(lanes.lanes) + FUSED * between)
    results = len(plan) * resident_bytes(list(flat_values(study.lanes[0].report.fitted).values())) // study.width
    memory = devices * (memory + resident_bytes(study.data)) + results
    return Cost(study.width, devices, len(plan.buckets) * devices, int(memory), seconds / devices)


def _checked_folds(folds: Any) -> tuple[Fold, ...]:
    if not isinstance(folds, (tuple, list)) or not all(isinstance(fold, Fold) for fold in folds):
        raise TypeError(f"got folds={folds!r}; expected jn.data.k_fold(...), holdout(...) or bootstrap(...)")
    return tuple(folds)


def _check_seed(study_seed: Any) -> None:
    if isinstance(study_seed, bool) or not isinstance(study_seed, (int, np.integer)):
        raise TypeError(f"got study_seed={study_seed!r}; expected an integer")
    if not 0 <= study_seed < 2**32:
        raise ValueError(f"got study_seed={study_seed}; expected 0 … 2³² − 1, beyond which keys repeat")


def _prepared_data(data: Any, folds: tuple[Fold, ...]) -> Any:
    """The data, checked; a tree that isn't a Data as it is."""
    if not isinstance(data, Data):
        if folds:
            raise TypeError(f"got folds with data of type {type(data).__name__}; expected jn.Data((x, y))")
        return jax.tree_util.tree_map_with_path(_prepared_leaf, data, is_leaf=is_sparse)
    if folds and (data.valid is not None or data.rows is not None or data.valid_rows is not None):
        raise ValueError("got folds of data with a validation set or rows; expected jn.Data((x, y)): folds choose both")
    ready = prepared(data)
    for fold in folds:
        prepared(Data(ready.train, None, fold.rows, fold.valid_rows))
    return ready


def _prepared_leaf(path: Any, leaf: Any) -> Any:
    """An array of a `jn.whole`'s data, for which NaN may mean something; a number alone becomes an array."""
    leaf = np.asarray(leaf) if isinstance(leaf, (int, float)) else leaf
    return prepared_array(f"data{jax.tree_util.keystr(path)}", leaf, finite=False)


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
    if not first.whole and not isinstance(data, Data):
        raise TypeError(f"got data of type {type(data).__name__}; expected jn.Data((x, y)) or jn.Data(train, valid)")
    first.check(_data_of(bucket, plan, data), None)
    return first


def _checked_epochs(epochs: Any, programs: Sequence[Program]) -> int:
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


def _checked_devices(devices: Sequence[jax.Device] | None) -> tuple[jax.Device, ...]:
    local = jax.local_devices()
    if devices is not None and not isinstance(devices, (tuple, list)):
        raise TypeError(f"got devices={devices!r}; expected a list of some of jax.local_devices(): {local}")
    chosen = tuple(local if devices is None else devices)
    if not chosen or len(set(chosen)) < len(chosen) or not all(device in local for device in chosen):
        raise ValueError(f"got devices={devices}; expected some of jax.local_devices(), each once: {local}")
    if len({(d.platform, d.device_kind) for d in chosen}) > 1:
        raise ValueError(f"got devices of several kinds: {chosen}; expected one kind, whose numbers agree")
    return chosen


def _data_of(bucket: Bucket, plan: Plan, data: Any) -> Any:
    """The data of the bucket's first fold."""
    if not bucket.folds:
        return data
    fold = plan.folds[bucket.folds[0]]
    return Data(data.train, None, fold.rows, fold.valid_rows)


def _fold_table(plan: Plan, bucket: Bucket) -> Any:
    """(rows, valid_rows) of the bucket's folds, stacked; None without folds."""
    if bucket.sizes is None:
        return None
    chosen = [plan.folds[i] for i in bucket.folds]
    return tuple(np.stack([getattr(f, part) for f in chosen]).astype(np.int32) for part in ("rows", "valid_rows"))


def _ranking(rank_by: str | None, mode: str | None, names: set[str]) -> tuple[str | None, str]:
    if rank_by is None:
        rank_by = next((name for name in ("valid_loss", "train_loss") if name in names), None)
        return (None, "min") if rank_by is None else (rank_by, mode_of(rank_by, mode))
    if rank_by not in names:
        raise ValueError(f"got rank_by={rank_by!r}; expected one of {', '.join(sorted(names)) or 'no metrics at all'}")
    return rank_by, mode_of(rank_by, mode)
