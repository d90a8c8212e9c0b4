"""Successive halving and Hyperband: most configurations get few epochs, the best get all.

At each rung (a number of epochs) the members of the configurations still in the race pause; the best 1/η of the
configurations go on from where they paused. Which ones follows from the stored histories alone, never from time, so a
study resumed after a kill takes the same decisions, and a member's numbers are those it has in a plain `sweep`, to
the bit, as far as it ran. Li et al. 2018, "Hyperband: a novel bandit-based approach to hyperparameter optimization";
Jamieson & Talwalkar 2016.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from jaxnet import outcomes
from jaxnet.data.checks import positive_integer
from jaxnet.data.folds import Fold
from jaxnet.sweeps.execute import execute
from jaxnet.sweeps.lanes import Build
from jaxnet.sweeps.prepare import Prepared, prepare, works
from jaxnet.sweeps.progress import Progress
from jaxnet.sweeps.session import Session, session, stored_width
from jaxnet.sweeps.space import as_space
from jaxnet.sweeps.study import Study


class Bracket(NamedTuple):
    """Configurations that race against one another, and the epochs at which they are compared."""

    configurations: tuple[int, ...]  # places in the space
    rungs: tuple[int, ...]  # epochs, ascending; the last is the study's


def halving(
    build: Build,
    space: Any,
    *,
    data: Any,
    epochs: int,
    eta: int = 3,
    min_epochs: int = 1,
    seeds: Any = 1,
    folds: Sequence[Fold] = (),
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
    """Successive halving: ⌈n / ηᵏ⌉ configurations reach rung k, after min_epochs · ηᵏ epochs, at most `epochs`.

    Configurations are compared by their best value of `rank_by` up to the rung, averaged over seeds and folds; one
    with a diverged member comes last. In the table those that didn't go on have the outcome "dropped". After a kill
    the runs still in the race start again from their beginning, which gives the same bits.

    Args: `eta` ≥ 2 is the share that goes on, 1/η; `min_epochs` the first rung; the others as in `sweep`.

    Raises:
        TypeError, ValueError: as `sweep`; a `jn.whole` program, which can't pause.

    >>> import jaxnet as jn, numpy as np, optax
    >>> x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
    >>> def build(hp):
    ...     return jn.program(jn.mlp([1]), jn.losses.squared_error, optax.sgd(hp["lr"]), batch_size=8)
    >>> study = halving(build, {"lr": [0.001, 0.01, 0.1, 0.5]}, data=jn.Data((x, 3 * x)), epochs=4, eta=2, quiet=True)
    >>> study.columns["epochs_run"].tolist(), study.best("train_loss").configuration
    ([1, 1, 2, 4], {'lr': 0.5})
    """
    space = as_space(space)
    bracket = Bracket(tuple(range(len(space))), _rungs(epochs, eta, min_epochs))
    return _race(
        build, space, [bracket], eta, data=data, epochs=epochs, seeds=seeds, folds=folds, study_seed=study_seed,
        width=width, devices=devices, store=store, keep=keep, rank_by=rank_by, mode=mode, accept_change=accept_change,
        report=report, about=about, quiet=quiet,
    )  # fmt: skip


def hyperband(
    build: Build,
    space: Any,
    *,
    data: Any,
    epochs: int,
    eta: int = 3,
    seeds: Any = 1,
    folds: Sequence[Fold] = (),
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
    """Hyperband: successive halving in several brackets, from many configurations with few epochs to few with all.

    Bracket s = s_max … 0, with s_max = ⌊log_η(epochs)⌋, takes the next ⌈(s_max + 1) / (s + 1) · ηˢ⌉ configurations of
    the space, whose order matters therefore: give it draws. Its first rung is after epochs · η⁻ˢ epochs. The space must
    have at least as many configurations as all brackets take; what is beyond isn't run.

    Args and errors: as `halving`.

    >>> brackets(27, 3)
    [(27, (1, 3, 9, 27)), (12, (3, 9, 27)), (6, (9, 27)), (4, (27,))]
    """
    space, start, chosen = as_space(space), 0, []
    for count, rungs in brackets(epochs, eta):
        chosen.append(Bracket(tuple(range(start, start + count)), rungs))
        start += count
    if len(space) < start:
        raise ValueError(
            f"hyperband: got a space of {len(space)} configurations; expected at least {start} for epochs={epochs} and "
            f"eta={eta}: jn.random_draws({{…}}, draws={start})"
        )
    return _race(
        build, space[:start], chosen, eta, data=data, epochs=epochs, seeds=seeds, folds=folds, study_seed=study_seed,
        width=width, devices=devices, store=store, keep=keep, rank_by=rank_by, mode=mode, accept_change=accept_change,
        report=report, about=about, quiet=quiet,
    )  # fmt: skip


def brackets(epochs: int, eta: int) -> list[tuple[int, tuple[int, ...]]]:
    """Hyperband's brackets: (configurations, rungs), the widest first.

    >>> brackets(4, 2)
    [(4, (1, 2, 4)), (3, (2, 4)), (3, (4,))]
    """
    _rungs(epochs, eta, 1)
    most = 0
    while eta ** (most + 1) <= epochs:
        most += 1
    return [
        (math.ceil((most + 1) / (s + 1) * eta**s), tuple(epochs // eta ** (s - k) for k in range(s + 1)))
        for s in range(most, -1, -1)
    ]


def _rungs(epochs: int, eta: int, min_epochs: int) -> tuple[int, ...]:
    epochs, min_epochs = positive_integer("epochs", epochs), positive_integer("min_epochs", min_epochs)
    if positive_integer("eta", eta) < 2:
        raise ValueError(f"got eta={eta}; expected at least 2: 1/eta of the configurations go on at each rung")
    if min_epochs > epochs:
        raise ValueError(f"got min_epochs={min_epochs}; expected at most epochs={epochs}")
    rungs = [min_epochs]
    while rungs[-1] * eta < epochs:
        rungs.append(rungs[-1] * eta)
    return tuple(dict.fromkeys([*rungs, epochs]))


def _race(
    build, space, raced: list[Bracket], eta, *, data, epochs, seeds, folds, study_seed, width, devices, store, keep,
    rank_by, mode, accept_change, report, about, quiet,
) -> Study:  # fmt: skip
    ready = prepare(
        build, space, data=data, epochs=epochs, seeds=seeds, folds=folds, study_seed=study_seed,
        width=stored_width(store) if width is None else width, devices=devices, rank_by=rank_by, mode=mode,
    )  # fmt: skip
    if ready.programs[0].whole:
        raise ValueError("got a jn.whole program, which runs in one piece; expected jn.program(...), which can pause")
    settings = {"eta": eta, "brackets": [[len(b.configurations), *b.rungs] for b in raced]}
    with session(
        ready, store, keep=keep, accept_change=accept_change, about=about, report=report, quiet=quiet, settings=settings
    ) as under_way:
        for bracket in raced:
            _run_bracket(ready, under_way, bracket, eta)
    return under_way.study


def _run_bracket(ready: Prepared, under_way: Session, bracket: Bracket, eta: int) -> None:
    study, survivors, lanes = under_way.study, np.array(bracket.configurations), dict[int, Any]()
    for rung in bracket.rungs:
        racing = np.isin(ready.plan.configuration, survivors)
        wanted = racing & ~_has_reached(study, rung)
        study.finished[wanted] = False
        found = execute(
            works(ready, wanted, rung, lanes), ready.key, ready.data, ready.devices,
            under_way.wanted._replace(lanes=rung < bracket.rungs[-1]),
        )  # fmt: skip
        lanes = under_way.collect(found, racing)
        if rung < bracket.rungs[-1]:
            survivors = best_configurations(study, ready, survivors, rung, math.ceil(len(survivors) / eta))


def _has_reached(study: Study, rung: int) -> np.ndarray:
    """(members,) bool: those that ran to this epoch, or ended before it."""
    if "epochs_run" not in study.values:
        return np.zeros(len(study), bool)
    ended = ~np.isin(study.values["outcome"], (outcomes.EPOCHS_EXHAUSTED, outcomes.DROPPED))
    return study.finished & (ended | (study.values["epochs_run"] >= rung))


def best_configurations(study: Study, ready: Prepared, racing: np.ndarray, epoch: int, count: int) -> np.ndarray:
    """The `count` best of the racing configurations by what their members reached up to `epoch`, best first.

    A member's value is the best of its history so far, NaN if it diverged; a configuration's the mean over its
    members. NaN comes last; equals keep their order in the space.
    """
    sign = 1.0 if ready.mode == "min" else -1.0
    history = sign * study.history(ready.rank_by or "").values[:, :epoch].astype(float)
    value = np.min(np.where(np.isnan(history), np.inf, history), axis=1)
    gone = np.isin(study.values["outcome"], outcomes.LOST) & (study.values["epochs_run"] <= epoch)
    value[gone | ~np.isfinite(value)] = np.inf
    means = np.array([value[ready.plan.configuration == c].mean() for c in racing])
    return racing[np.argsort(means, kind="stable")[:count]]
