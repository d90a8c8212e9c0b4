"""How far a study is: done, the best so far, the time left; a live bar on a terminal, a few plain lines elsewhere."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TextIO

LINES = 10  # printed over a study where there is no terminal


class Progress(NamedTuple):
    """What is known of a study under way."""

    done: int  # members that count
    total: int
    diverged: int
    best: float | None  # of the value that the study is judged by
    best_name: str | None  # its name, valid_loss
    seconds: float  # since it began
    seconds_left: float | None


def in_words(progress: Progress) -> str:
    """One line.

    >>> in_words(Progress(40, 100, 1, 0.25, "valid_loss", 20.0, 30.4))
    '40 of 100, best valid loss 0.25, 1 diverged, about 30 s left'
    """
    words = [f"{progress.done:,} of {progress.total:,}"]
    if progress.best is not None and progress.best_name is not None:
        words.append(f"best {progress.best_name.replace('_', ' ')} {progress.best:.4g}")
    if progress.diverged:
        words.append(f"{progress.diverged:,} diverged")
    if progress.done == progress.total:
        words.append(f"{progress.seconds:.1f} s")
    elif progress.seconds_left is not None:
        words.append(f"about {progress.seconds_left:,.0f} s left")
    return ", ".join(words)


@contextmanager
def shown(stream: TextIO | None = None) -> Iterator[Callable[[Progress], None]]:
    """A function that shows each Progress it is given, on standard error unless told otherwise."""
    stream = sys.stderr if stream is None else stream
    if stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb"):
        with _live(stream) as live:
            yield live
        return
    said = -1

    def plain(progress: Progress) -> None:
        nonlocal said
        tenth = progress.done * LINES // max(progress.total, 1)
        if tenth > said:
            said = tenth
            print(in_words(progress), file=stream, flush=True)

    yield plain


@contextmanager
def _live(stream: TextIO) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    words = TextColumn("{task.fields[words]}", markup=False)
    with Bar(BarColumn(), words, console=Console(file=stream)) as bar:
        task = bar.add_task("", total=None, words="compiling")

        def report(progress: Progress) -> None:
            bar.update(task, total=progress.total, completed=progress.done, words=in_words(progress))

        yield report
