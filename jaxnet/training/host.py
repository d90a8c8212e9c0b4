"""`run`: the same run as `fit`, driven from the host in segments: watched, saved, stopped by a signal, resumed."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from jaxnet.data.sets import Data
from jaxnet.training.differences import description
from jaxnet.training.identity import identity_of
from jaxnet.training.loop import checked, compiled, segment
from jaxnet.training.program import Program
from jaxnet.training.progress import shown
from jaxnet.training.saved import Saved, opened, saving
from jaxnet.training.signals import Signals, heard

SEGMENT = 0.5  # seconds between two looks from the host, where an epoch is shorter
WINDOW = 4096  # the most epochs of a segment: the rows that the compiled loop writes

Report = Callable[[int, Mapping[str, float]], Any]


def run(
    key: Array,
    program: Program,
    data: Data,
    *,
    epochs: int,
    params: Any = None,
    store: str | os.PathLike[str] | None = None,
    every: int | None = None,
    every_minutes: float | None = None,
    keep: int = 3,
    progress: bool = False,
    report: Report | Sequence[Report] | None = None,
    accept_change: Sequence[str] | bool = (),
) -> Any:
    """The first arguments and, to the bit, the result of `fit`; driven from the host, so that it can be left.

    The run goes on in segments of as many epochs as take half a second. Between two of them it is reported, saved and,
    after Ctrl-C or SIGTERM, ended: the segment under way is finished and saved, then KeyboardInterrupt or
    SystemExit(143) is raised, with the handlers that were there before. A second Ctrl-C leaves at once (while JAX
    compiles: when it has). An epoch can't be cut: one that takes a minute is what a signal waits for. In a thread that
    isn't the main one signals are left alone.

    Called again with the same arguments, a run that has a store goes on from its newest checkpoint, and its result is
    that of an undisturbed run, to the bit; a finished one is returned at once. `epochs` may be raised: the rest is
    trained. Whatever else differs is refused. A damaged checkpoint is passed over with a warning.

    Args:
        key, program, data, epochs, params: as in `fit`.
        store: the folder of the checkpoints; each has all that decides the rest of the run, and its history.
        every: save at each epoch that is a multiple of it.
        every_minutes: save when so much time has passed; 1 where neither is given. A store gets the start and the
            end too.
        keep: how many checkpoints stay.
        progress: show epochs, losses, metrics and the time left on standard error.
        report: one function or several, called as `report(epoch, row)` for each epoch in order, from 1, with
            {"train_loss": …} as floats. After a resume they aren't called for the epochs that the checkpoint has;
            those after it, trained anew, are reported again. What a report raises ends the run.
        accept_change: go on although these have changed, True for all of "start" (key and params), "data",
            "program" and "environment" (versions, device).

    A tracker is a report: `report=lambda epoch, row: wandb.log(row, step=epoch)`, or with MLflow
    `mlflow.log_metrics(row, step=epoch)`.

    A checkpoint that can't be written during training is warned of; training goes on and the next one is tried. If it
    was the last, the result is returned all the same.

    Raises:
        TypeError, ValueError: as `fit`; the store holds another run (all differences are named), or one of more
            epochs. BlockingIOError: another process has the store. OSError: the store can't be written at the start.
        KeyboardInterrupt, SystemExit: a signal ended the run.

    >>> import jaxnet as jn, optax
    >>> x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
    >>> line = jn.program(jn.mlp([1]), jn.losses.squared_error, optax.sgd(0.5), batch_size=8)
    >>> seen = []
    >>> fitted = run(jax.random.key(0), line, jn.Data((x, 3 * x)), epochs=2, report=lambda e, row: seen.append(e))
    >>> seen
    [1, 2]
    """
    reports = _reports(report)
    when = saving(store, every, every_minutes, keep, accept_change)
    with ExitStack() as stack:
        signals = stack.enter_context(heard())
        data = checked(key, program, data, epochs, params)
        pieces = _pieces(program, key, data, params)
        saved = None
        if when is not None:
            texts = pieces.texts()
            identity = identity_of(key, params, data, texts)
            about = description(program.settings, pieces.carry, texts["epochs"])
            saved = stack.enter_context(opened(when, identity, about, pieces.carry))
        title = "run" if store is None else os.path.basename(os.path.normpath(store))
        show = stack.enter_context(shown(int(epochs), title, sys.stderr)) if progress else None
        carry, rows = _driven(pieces, saved, int(epochs), reports, show, signals)
        return None if signals.asked else compiled(program, _finish)(carry, jax.device_put(rows))


class Pieces(NamedTuple):
    """What a run consists of, traced but not compiled."""

    program: Program
    start: Callable[[], Any]  # () -> carry
    advance: Callable[..., Any]  # (carry, until, first) -> carry, rows of the epochs first + 1 … until
    carry: Any  # its shapes
    rows: Any  # blank ones, (WINDOW, …), on the device
    texts: Callable[[], dict[str, str]]  # the lowered programs


def _pieces(program: Program, key: Array, data: Data, params: Any) -> Pieces:
    start, advance = compiled(program, _start), compiled(program, segment)
    carry = jax.eval_shape(start, key, data, params)
    _, row = jax.eval_shape(program.epoch, carry, data)
    rows = jax.device_put(_blank(row, WINDOW))
    scalar = jax.ShapeDtypeStruct((), np.int32)

    def texts() -> dict[str, str]:
        return {
            "initial parameters": start.lower(key, data, params).as_text(),
            "epochs": advance.lower(carry, rows, data, scalar, scalar).as_text(),
        }

    def advanced(carry: Any, until: int, first: int) -> Any:
        return advance(carry, rows, data, *jax.device_put((np.int32(until), np.int32(first))))

    return Pieces(program, lambda: start(key, data, params), advanced, carry, rows, texts)


def _driven(
    pieces: Pieces,
    saved: Saved | None,
    epochs: int,
    reports: Sequence[Report],
    show: Report | None,
    signals: Signals,
) -> tuple[Any, dict[str, np.ndarray]]:
    """The carry and the rows at the end, or where a signal ended it."""
    history = _blank(jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), pieces.rows), epochs)
    found = None if saved is None else saved.newest(epochs)
    if found is None:
        carry = pieces.start()
        signals.wait(carry.epoch)
    else:
        carry, rows = found
        for name, values in rows.items():
            history[name][: len(values)] = values
    epoch, length = int(carry.epoch), 1

    def save() -> None:
        if saved is not None:
            with signals.at_once():
                saved.save(carry, {name: values[:epoch] for name, values in history.items()}, epoch)

    if found is None:
        save()
    compiling = True
    while epoch < epochs and not bool(carry.done) and not signals.asked:
        if compiling:  # no epochs: it only compiles, so that the first look at the clock isn't of that
            pieces.advance(carry, epoch, epoch)
            compiling = False
            continue
        until = min(epoch + length, epochs, epochs if saved is None else saved.next_after(epoch))
        first, began = epoch, time.perf_counter()
        carry, rows = pieces.advance(carry, until, first)
        signals.wait(carry.epoch)
        epoch, took = int(carry.epoch), time.perf_counter() - began
        length = _length(epoch - first, took)
        for name, values in rows.items():
            history[name][first:epoch] = np.asarray(values)[: epoch - first]
        with signals.at_once():
            _tell(reports, history, first, epoch)
            if show is not None:
                _tell([show], history, epoch - 1, epoch)
        if saved is not None and saved.due(epoch):
            save()
    if saved is not None and saved.tried != epoch:
        save()
    signals.sentence = f"stopped after epoch {epoch}" + ("" if saved is None else f"; {saved.in_words()}")
    return carry, history


def _length(epochs: int, seconds: float) -> int:
    """Of the next segment, when the last one of so many epochs took so long.

    >>> _length(1, 2.0), _length(10, 0.25), _length(10, 1e-6)
    (1, 20, 80)
    """
    return min(max(int(SEGMENT * epochs / seconds), 1), 8 * max(epochs, 1), WINDOW)


def _tell(reports: Sequence[Report], history: Mapping[str, np.ndarray], first: int, last: int) -> None:
    """Call the reports for the epochs first + 1 … last."""
    for epoch in range(first, last) if reports else ():
        row = {name: float(values[epoch]) for name, values in history.items()}
        for report in reports:
            report(epoch + 1, row)


def _reports(report: Any) -> Sequence[Report]:
    reports = [] if report is None else list(report) if isinstance(report, Sequence) else [report]
    if wrong := [one for one in reports if not callable(one)]:
        raise TypeError(f"got report={wrong[0]!r}; expected a function report(epoch, row), or several in a list")
    return reports


def _blank(row: Any, epochs: int) -> dict[str, np.ndarray]:
    """Rows without numbers, (epochs, …)."""
    with np.errstate(invalid="ignore"):  # NaN as an integer
        return jax.tree.map(lambda a: np.full((epochs, *a.shape), np.nan).astype(a.dtype), row)


def _start(program: Program, key, data, params):
    return program.start(key, data, params)


def _finish(program: Program, carry, rows):
    return program.finish(carry, rows)
