"""Ctrl-C, heard at once while there's nothing to tidy up, else at the next safe place.

Python's own way, KeyboardInterrupt out of nowhere, doesn't suit: raised inside a callback of jax's it's swallowed and
the run goes on; raised inside its tracing, the process may crash when it ends.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

CODE = 130  # as shells say 128 + SIGINT


class Interrupt:
    """The handler of SIGINT: ends the process with code 130, or while `deferred` remembers that it was `asked` to.

    Asked a second time, it doesn't wait any longer.
    """

    def __init__(self) -> None:
        self.deferred = self.asked = False

    def __call__(self, number: int, frame: object) -> None:
        if self.deferred and not self.asked:
            self.asked = True
        else:
            os.write(2, b"interrupted\n")
            os._exit(CODE)


@contextmanager
def heard() -> Iterator[None]:
    """Handle SIGINT so, where it would raise KeyboardInterrupt: in the main thread, and not where it's ignored."""
    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, Interrupt())
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, Ctrl-C waits for `check` or the end; without `heard` nothing changes."""
    handler = signal.getsignal(signal.SIGINT)
    if not isinstance(handler, Interrupt):
        yield
        return
    handler.deferred = True
    try:
        yield
        check()
    finally:
        handler.deferred = False


def check() -> None:
    """A safe place: raise KeyboardInterrupt if Ctrl-C waits.

    >>> check()
    """
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, Interrupt) and handler.asked:
        raise KeyboardInterrupt
