"""Population-based training: members that fall behind take over the run of one that leads, with altered rates.

All members train for a generation of `every` epochs; then each of the worst `share` copies the state (parameters,
optimizer, everything a run carries) of one of the best `share`, drawn at random, and its hyperparameters, each altered.
Decisions follow from the stored rows and the study's seed alone, never from time; a generation is on the disk before
the next begins, so a study resumed after a kill gives the same bits. Jaderberg et al. 2017, "Population based training
of neural networks" (truncation selection).
"""

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxnet import checkpoint
from jaxnet.data.checks import positive_integer
from jaxnet.sweeps.execute import Finished, Wanted, execute
from jaxnet.sweeps.lanes import Build, Lanes
from jaxnet.sweeps.prepare import Prepared, prepare, works
from jaxnet.sweeps.progress import Progress
from jaxnet.sweeps.session import session, stored_width
from jaxnet.sweeps.study import Study

FACTORS = (0.8, 1.25)  # what an altered hyperparameter is multiplied by, each with probability ½
RESAMPLED = 0.25  # the probability that it is drawn anew from the space instead


class Generation(NamedTuple):
    """The population between two generations."""

    epoch: int
    lanes: list[Any]  # per member, its run; [] before the first generation
    hp: dict[str, np.ndarray]  # name -> (members,), what each trains with next
    history: dict[str, np.ndarray]  # hyperparameter, or "parent" -> (members, epochs)
    found: Finished | None  # what each member would leave now


def population_based_training(
    build: Build,
    space: Any,
    *,
    data: Any,
    epochs: int,
    every: int = 1,
    share: float = 0.2,
    seeds: Any = 1,
    study_seed: int = 0,
    width: int | Literal["measure"] | None = None,
    devices: Sequence[jax.Device] | None = None,
    store: Any = None,
    keep: Literal["best", "all"] | None = "best",
    rank_by: str | None = None,
    mode: str | None = None,
    accept_change: Sequence[str] | bool = (),
    report: Callable[[Progress], None] | None = None,
    about: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Study:
    """Train the members (configurations × seeds) of `space` as one population for `epochs` epochs.

    A copied hyperparameter is multiplied by 0.8 or 1.25, or with probability ¼ drawn anew from the values of the space;
    it stays within the space's smallest and largest value, and integers stay integers. Beside the usual results,
    `study.history("lr")` holds what each member trained with in each epoch, and `study.history("parent")` the member
    whose run it went on with (itself unless it copied). The table shows the hyperparameters that each began with.

    Args: `every`, the epochs of a generation; `share`, in (0, ½], of members that copy; the others as in `sweep`.

    Raises:
        TypeError, ValueError: as `sweep`; static values that differ (one population is one program), a program with
            patience or a `jn.whole`, fewer than 2 members.

    >>> import jaxnet as jn, numpy as np, optax
    >>> x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
    >>> def build(hp):
    ...     return jn.program(jn.mlp([1]), jn.losses.squared_error, optax.sgd(hp["lr"]), batch_size=8)
    >>> study = population_based_training(
    ...     build, {"lr": [0.001, 0.01, 0.1, 0.5]}, data=jn.Data((x, 3 * x)), epochs=3, share=0.25, quiet=True)
    >>> study.history("parent").values[0].tolist()
    [0.0, 3.0, 0.0]
    """
    every = positive_integer("every", every)
    if isinstance(share, bool) or not 0 < share <= 0.5:
        raise ValueError(f"got share={share!r}; expected the share of members that copy, in (0, ½]")
    ready = prepare(
        build, space, data=data, epochs=epochs, seeds=seeds, folds=(), study_seed=study_seed,
        width=stored_width(store) if width is None else width, devices=devices, rank_by=rank_by, mode=mode,
    )  # fmt: skip
    _check(ready)
    members = np.ones(len(ready.plan), bool)
    settings = {"every": every, "share": share}
    with session(
        ready, store, keep=keep, accept_change=accept_change, about=about, report=report, quiet=quiet, settings=settings
    ) as under_way:
        if under_way.study.finished.all():
            return under_way.study
        under_way.study.replayer = None
        now, began = _stored(ready, store) or _first(ready), time.perf_counter()
        while now.epoch < epochs:
            now = _next(ready, now, min(now.epoch + every, epochs), share, under_way.wanted._replace(lanes=True))
            if store is not None and now.epoch < epochs:
                _store(now, store)
            under_way.tell(len(members) * now.epoch // epochs, len(members), time.perf_counter() - began, None)
        assert now.found is not None
        values = now.found.values | {f"history/{name}": values for name, values in now.history.items()}
        under_way.collect((one for one in [now.found._replace(values=values, lanes={})]), members)
    for path in _files(store):
        path.unlink()
    return under_way.study


def _check(ready: Prepared) -> None:
    if len(ready.plan.buckets) > 1:
        raise ValueError(
            f"got {len(ready.plan.buckets)} buckets; expected one: a population is one program, so static values must "
            "not differ"
        )
    if ready.programs[0].whole or ready.programs[0].patience is not None:
        raise ValueError(
            "got a program that may end by itself (patience, or jn.whole); expected one that trains on: patience=None"
        )
    if len(ready.plan) < 2:
        raise ValueError(f"got {len(ready.plan)} member; expected at least 2")


def _first(ready: Prepared) -> Generation:
    """The population before any epoch."""
    (work,) = works(ready, np.ones(len(ready.plan), bool), 0)
    hp = {name: np.array([job.hp[name] for job in work.jobs], dtype) for name, dtype in work.traced.items()}
    history = {name: np.full((len(ready.plan), ready.epochs), np.nan) for name in (*hp, "parent")}
    return Generation(0, [], hp, history, None)


def _next(ready: Prepared, now: Generation, epoch: int, share: float, wanted: Wanted) -> Generation:
    """Train to `epoch`, then copy and alter."""
    count = len(ready.plan)
    lanes = dict(enumerate(now.lanes))
    (work,) = works(ready, np.ones(count, bool), epoch, lanes)
    jobs = [job._replace(hp={name: values[job.position] for name, values in now.hp.items()}) for job in work.jobs]
    if epoch < ready.epochs:
        wanted = wanted._replace(keep=lambda values: False)
    found = _in_order(execute([work._replace(jobs=jobs)], ready.key, ready.data, ready.devices, wanted))
    history = {name: values.copy() for name, values in now.history.items()}
    for name, values in now.hp.items():
        history[name][:, now.epoch : epoch] = values[:, None]
    blank = np.isnan(history["parent"])
    blank[:, epoch:] = False
    history["parent"] = np.where(blank, np.arange(count)[:, None], history["parent"])
    runs = [found.lanes[p] for p in range(count)]
    hp = {name: values.copy() for name, values in now.hp.items()}
    if epoch < ready.epochs:
        for loser, leader in copies(found.values[f"history/{ready.rank_by}"][:, epoch - 1], ready, epoch, share):
            runs[loser] = Lanes(runs[leader].carry, runs[loser].rows)
            history["parent"][loser, epoch] = leader
            for name, value in altered({n: v[leader] for n, v in now.hp.items()}, ready, epoch, loser).items():
                hp[name][loser] = value
    return Generation(epoch, runs, hp, history, found)


def copies(values: np.ndarray, ready: Prepared, epoch: int, share: float) -> list[tuple[int, int]]:
    """(member that copies, member that it copies), from the values (members,) at this epoch; NaN is worst."""
    sign = 1.0 if ready.mode == "min" else -1.0
    score = np.where(np.isnan(values), np.inf, sign * values.astype(float))
    order = np.argsort(score, kind="stable")
    many = max(1, int(share * len(order)))
    draws = np.random.PCG64([ready.study_seed, epoch, 0]).random_raw(many) % many
    return [(int(loser), int(order[draw])) for loser, draw in zip(order[-many:], draws, strict=True)]


def altered(hp: Mapping[str, Any], ready: Prepared, epoch: int, member: int) -> dict[str, Any]:
    """The hyperparameters that a member goes on with after copying these."""
    words = iter(np.random.PCG64([ready.study_seed, epoch, 1 + member]).random_raw(3 * max(len(hp), 1)))
    result = {}
    for name in sorted(hp):
        resample, factor, choice = (int(next(words)) >> 11 for _ in range(3))
        values: list[Any] = [c[name] for c in ready.plan.space.configurations]
        if resample / 2**53 < RESAMPLED or isinstance(values[0], bool):
            result[name] = values[choice % len(values)]
        else:
            value = float(hp[name]) * FACTORS[factor % 2]
            value = min(max(value, float(min(values))), float(max(values)))
            result[name] = round(value) if isinstance(values[0], int) else value
    return result


def _in_order(found: Iterable[Finished | None]) -> Finished:
    """All that was found, as one, by position."""
    parts = [one for one in found if one is not None]
    positions = np.concatenate([one.positions for one in parts])
    order = np.argsort(positions)
    values = {n: np.concatenate([one.values[n] for one in parts])[order] for n in parts[0].values}
    kept = {p: tree for one in parts for p, tree in one.kept.items()}
    return Finished(
        positions[order].tolist(), values, kept, {p: lane for one in parts for p, lane in one.lanes.items()}
    )


def _files(store: Any) -> list[Path]:
    """The stored generations, the latest first."""
    return [] if store is None else sorted(Path(store).glob("generation-*.safetensors"), reverse=True)


def _store(now: Generation, store: Any) -> None:
    """Write a generation; the one before it stays until the next."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *now.lanes)
    lanes = {f"{i:04d}": leaf for i, leaf in enumerate(jax.tree.leaves(stacked))}
    older = _files(store)
    path = Path(store) / f"generation-{now.epoch:06d}.safetensors"
    checkpoint.save(path, {"lanes": lanes, "hp": now.hp, "history": now.history}, {"epoch": now.epoch})
    for old in older[1:]:
        old.unlink()


def _stored(ready: Prepared, store: Any) -> Generation | None:
    """The latest whole generation on the disk."""
    for path in _files(store):
        try:
            tree, settings = checkpoint.load(path)
        except ValueError as error:
            warnings.warn(f"{error}; the generation before it is taken up again", stacklevel=2)
            continue
        leaves = [tree["lanes"][name] for name in sorted(tree["lanes"])]
        structure = jax.tree.structure(ready.lanes[0].lanes)
        lanes = [jax.tree.unflatten(structure, [leaf[i] for leaf in leaves]) for i in range(len(ready.plan))]
        return Generation(settings["epoch"], lanes, tree["hp"], tree["history"], None)
    return None
