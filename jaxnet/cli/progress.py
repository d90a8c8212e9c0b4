"""How far a run is: a live bar on a terminal, a few plain lines anywhere else."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jaxnet.cli.interrupts import check

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
        check()

    yield report
    if last != said:
        print(last, flush=True)


@contextmanager
def _live(total: int, title: str) -> Iterator[Report]:
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    name = TextColumn("{task.description}", markup=False)
    epochs = TextColumn("epoch {task.completed}/{task.total}")
    bar, numbers = Progress(name, BarColumn(), epochs, TimeRemainingColumn()), Text()
    task = bar.add_task(title, total=total)

    def report(epoch: int, row: Mapping[str, float]) -> None:
        bar.update(task, completed=epoch)
        numbers.plain = in_words(row)
        check()

    with Live(Group(bar, numbers)):
        yield report


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
