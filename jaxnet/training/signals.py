"""Ctrl-C and SIGTERM while a run is under way: heard at once, obeyed where nothing can break.

    with heard() as signals:
        signals.asked                       True once the run should end: finish the segment, save, leave the block,
                                            whose end raises KeyboardInterrupt or SystemExit(143)
        with signals.at_once(): …           Python that a second Ctrl-C may interrupt anywhere
        signals.wait(array)                 until it's computed, likewise

Python's own KeyboardInterrupt out of nowhere doesn't suit while JAX is at work: raised inside a callback it's swallowed
and the run goes on; raised inside tracing, the process may crash when it ends. So the first signal is remembered; a
second Ctrl-C raises KeyboardInterrupt at once where no frame of JAX is below, else as soon as JAX has returned.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax

TERMINATED = 143  # as shells say 128 + SIGTERM
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHORTEST, LONGEST = 5e-5, 5e-3  # seconds from one look at an array to the next


class Signals:
    """The handler of both signals while a run is under way."""

    def __init__(self) -> None:
        self.first: int | None = None  # the signal that asked the run to end
        self.again = False  # a Ctrl-C after it
        self.sentence = "interrupted"  # of the KeyboardInterrupt at the end
        self._at_once = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.first is None:
            self.first = number
        elif number == signal.SIGINT:
            self.again = True
            if self._at_once:
                raise KeyboardInterrupt("interrupted again: left at once")

    @property
    def asked(self) -> bool:
        """Whether the run should end."""
        return self.first is not None

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a second Ctrl-C raises KeyboardInterrupt where it is heard; one that waits is raised on entry."""
        try:
            self._at_once = True
            if self.again:
                raise KeyboardInterrupt("interrupted again: left at once")
            yield
        finally:
            self._at_once = False

    def wait(self, array: Any) -> None:
        """Until the array is computed. Asked again and again, for a thread that waits for it breaks Python's end."""
        pause = SHORTEST
        with self.at_once():
            while not array.is_ready():
                time.sleep(pause)
                pause = min(2 * pause, LONGEST)
        jax.block_until_ready(array)


@contextmanager
def heard() -> Iterator[Signals]:
    """Handle both signals inside; outside everything is as it was, whichever way the block is left.

    After a signal the end of the block raises what was asked for, once the handlers are back. A signal that is ignored
    (`nohup`) stays so, and in another thread than the main one no handler can be set: the block then runs without. A
    handler of the caller's own is called too.

    Raises:
        KeyboardInterrupt, SystemExit(143): at the end, after Ctrl-C or SIGTERM.

    >>> with heard() as signals:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     print(signals.asked)
    Traceback (most recent call last):
    SystemExit: 143
    """
    signals, before = Signals(), _handlers()
    try:
        try:
            for number in before:
                signal.signal(number, signals)
            yield signals
        finally:
            signals._at_once = False
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        own = None if signals.first is None else before[signals.first]
        if callable(own) and own is not signal.default_int_handler:
            own(signals.first, None)
    if signals.first == signal.SIGTERM:
        raise SystemExit(TERMINATED)
    if signals.first is not None:
        raise KeyboardInterrupt(signals.sentence)


def _handlers() -> dict[int, Callable | int]:
    """The handlers to replace: none outside of the main thread, none of a signal that is ignored or not Python's."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    found = {number: signal.getsignal(number) for number in SIGNALS}
    return {number: handler for number, handler in found.items() if handler not in (None, signal.SIG_IGN)}
