"""How far a run is: a live bar on a terminal, a few plain lines anywhere else.

with shown(epochs, "digits", sys.stderr) as show:
    show(epoch, row)            the number of epochs run and the last one's row, as often as wished
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

LINES = 10  # printed over a run, besides the first and the last

Show = Callable[[int, Mapping[str, float]], None]


@contextmanager
def shown(total: int, title: str, stream: TextIO) -> Iterator[Show]:
    """Show a run of at most `total` epochs; gives the function to call with what is known.

    The first call may be of any epoch: a resumed run doesn't begin at 1. A terminal shows the time left, as do the
    lines where it is a second or more.

    >>> import sys
    >>> with shown(20, "digits", sys.stdout) as show:
    ...     for epoch in range(1, 6):
    ...         show(epoch, {"train_loss": 1 / epoch, "valid_accuracy": 0.5})
    epoch  1/20  train loss 1  valid accuracy 0.5
    epoch  2/20  train loss 0.5  valid accuracy 0.5
    epoch  4/20  train loss 0.25  valid accuracy 0.5
    epoch  5/20  train loss 0.2  valid accuracy 0.5
    """
    bar = stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
    with (_live if bar else _plain)(total, title, stream) as show:
        yield show


@contextmanager
def _plain(total: int, title: str, stream: TextIO) -> Iterator[Show]:
    every = -(-total // LINES)
    last, told, began = "", -1, (0, 0.0)

    def show(epoch: int, row: Mapping[str, float]) -> None:
        nonlocal last, told, began
        now = time.perf_counter()
        if told < 0:
            began = epoch, now
        last = f"epoch {epoch:{len(str(total))}}/{total}  {in_words(row)}"
        if told < 0 or epoch // every > told:
            done = epoch - began[0]
            left = (now - began[1]) / done * (total - epoch) if done else 0.0
            print(last + (f"  about {left:,.0f} s left" if left >= 1 else ""), file=stream, flush=True)
            told, last = epoch // every, ""

    yield show
    if last:
        print(last, file=stream, flush=True)


@contextmanager
def _live(total: int, title: str, stream: TextIO) -> Iterator[Show]:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    name = TextColumn("{task.description}", markup=False)
    epochs = TextColumn("epoch {task.completed}/{task.total}")
    bar, numbers = Progress(name, BarColumn(), epochs, TimeRemainingColumn()), Text(f"{title}: compiling")
    tasks: list[Any] = []

    def show(epoch: int, row: Mapping[str, float]) -> None:
        if not tasks:
            tasks.append(bar.add_task(title, total=total, completed=epoch))
        bar.update(tasks[0], completed=epoch)
        numbers.plain = in_words(row)

    with Live(Group(bar, numbers), console=Console(file=stream)):
        yield show


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
