"""How far a run is: a live bar on a terminal, a few plain lines anywhere else."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

LINES = 10  # printed over a run, besides the first and the last

Report = Callable[[int, Mapping[str, float]], None]


@contextmanager
def progress(total: int, title: str) -> Iterator[Report]:
    """Show a run of at most `total` epochs; gives the `report(epoch, row)` that `jn.run` calls.

    >>> with progress(20, "digits") as report:
    ...     for epoch in range(1, 6):
    ...         report(epoch, {"train_loss": 1 / epoch, "valid_accuracy": 0.5})
    epoch  1/20  train loss 1  valid accuracy 0.5
    epoch  2/20  train loss 0.5  valid accuracy 0.5
    epoch  4/20  train loss 0.25  valid accuracy 0.5
    epoch  5/20  train loss 0.2  valid accuracy 0.5
    """
    bar = sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    with (_live if bar else _plain)(total, title) as report:
        yield report


@contextmanager
def _plain(total: int, title: str) -> Iterator[Report]:
    every = -(-total // LINES)
    last = said = ""

    def report(epoch: int, row: Mapping[str, float]) -> None:
        nonlocal last, said
        last = f"epoch {epoch:{len(str(total))}}/{total}  {in_words(row)}"
        if epoch == 1 or epoch % every == 0:
            print(last, flush=True)
            said = last

    yield report
    if last != said:
        print(last, flush=True)


@contextmanager
def _live(total: int, title: str) -> Iterator[Report]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("epoch {task.completed}/{task.total}  {task.fields[numbers]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as shown:
        task = shown.add_task(title, total=total, numbers="")
        yield lambda epoch, row: shown.update(task, completed=epoch, numbers=in_words(row))


def losses_first(row: Mapping[str, Any]) -> dict[str, Any]:
    """The same row in the order that people read.

    >>> list(losses_first({"train_loss": 1.0, "valid_accuracy": 0.5, "valid_loss": 2.0}))
    ['train_loss', 'valid_loss', 'valid_accuracy']
    """
    return dict(sorted(row.items(), key=lambda item: not item[0].endswith("_loss")))


def in_words(row: Mapping[str, float | None]) -> str:
    """A row in one line; None, which stands for what isn't finite, is left out.

    >>> in_words({"train_loss": 1.0, "valid_accuracy": 0.5, "valid_loss": 2.0})
    'train loss 1  valid loss 2  valid accuracy 0.5'
    """
    shown = {name.replace("_", " "): value for name, value in losses_first(row).items()}
    return "  ".join(f"{name} {value:.4g}" for name, value in shown.items() if value is not None)
