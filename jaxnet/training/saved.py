"""The store of a run: checkpoints of all that decides its rest, each with the identity of the run it belongs to.

    when = saving(store, every, every_minutes, keep, accept_change)      the arguments checked; None without a store
    with opened(when, identity, about, carry) as saved:                  locked
        saved.newest(epochs)                                             -> (carry, rows) to go on from | None
        if saved.due(epoch): saved.save(carry, rows, epoch)

A checkpoint holds {"carry": …, "rows": {name: (epochs run,)}}; its settings are the identity, what is known of the
program for people to read, and the changes that were accepted.
"""

import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnet import checkpoint
from jaxnet.checkpoint import names
from jaxnet.data.checks import positive_integer
from jaxnet.training.differences import in_words
from jaxnet.training.identity import Identity, changes

SECTIONS = ("start", "data", "program", "environment")  # what can change


class When(NamedTuple):
    """Where and how often to save."""

    folder: Path
    every: int | None  # epochs
    seconds: float | None
    keep: int
    accept: frozenset[str]  # the sections that may have changed


def saving(store: Any, every: Any, every_minutes: Any, keep: Any, accept_change: Any) -> When | None:
    """The arguments of `run` that are about its store, checked.

    Raises:
        TypeError, ValueError: for what doesn't fit, or has no meaning without a store.

    >>> saving("runs/a", None, None, 3, ()).seconds
    60.0
    """
    for name, value in (("every", every), ("every_minutes", every_minutes)):
        if store is None and value is not None:
            raise ValueError(f'got {name}={value} without a store; expected one to save in: store="runs/a"')
    if store is not None and not isinstance(store, (str, os.PathLike)):
        raise TypeError(f'got store={store!r}; expected a folder: store="runs/a"')
    every = None if every is None else positive_integer("every", every)
    if every_minutes is not None:
        if isinstance(every_minutes, bool) or not isinstance(every_minutes, (int, float, np.integer, np.floating)):
            raise TypeError(f"got every_minutes={every_minutes!r}; expected a number of minutes")
        if not 0 < every_minutes < math.inf:
            raise ValueError(f"got every_minutes={every_minutes}; expected a number above 0")
    keep = positive_integer("keep", keep)
    if not isinstance(accept_change, bool) and (
        isinstance(accept_change, str) or not set(accept_change) <= set(SECTIONS)
    ):
        raise ValueError(
            f"got accept_change={accept_change!r}; expected True, or a list of what may have changed, among "
            f"{', '.join(SECTIONS)}"
        )
    if store is None:
        return None
    accept = frozenset(SECTIONS if accept_change is True else accept_change or ())
    minutes = 1.0 if every is None and every_minutes is None else every_minutes
    return When(Path(store), every, None if minutes is None else 60.0 * float(minutes), keep, accept)


class Saved:
    """The store of one run, open: see `opened`."""

    def __init__(self, when: When, identity: Identity, about: Mapping[str, Any], carry: Any) -> None:
        self.when, self.identity, self.about, self.carry = when, identity, dict(about), carry
        self.checkpoints = checkpoint.Checkpoints(when.folder, when.keep)
        self.accepted: list[dict[str, list[str]]] = []  # changes, oldest first
        self.epoch: int | None = None  # of the newest checkpoint
        self.tried: int | None = None  # of the last one that was written, or couldn't be
        self.failed: str | None = None  # why it couldn't
        self._at = time.perf_counter()  # when that was

    def newest(self, epochs: int) -> tuple[Any, dict[str, np.ndarray]] | None:
        """The (carry, rows) to go on from, for at most `epochs` epochs; None in a new store.

        Raises:
            ValueError: it holds another run, with all differences; more epochs; nothing that is intact.
        """
        found = self.checkpoints.newest()
        if found is None:
            return None
        epoch, tree, settings = found
        if not {"identity", "about", "accepted"} <= settings.keys() or not {"carry", "rows"} <= tree.keys():
            raise ValueError(f"{self.when.folder}: got a checkpoint of something else; expected those of a jn.run")
        self._accept(settings)
        if epoch > epochs:
            raise ValueError(
                f"{self.when.folder}: got epochs={epochs} for a run that has come to {epoch} there; expected at least "
                "as many, or another folder"
            )
        self.epoch = self.tried = epoch
        return self._placed(tree["carry"]), tree["rows"]

    def next_after(self, epoch: int) -> int:
        """The epoch that a segment mustn't pass."""
        every = self.when.every or 2**31
        return epoch + every - epoch % every

    def due(self, epoch: int) -> bool:
        """Whether it's time to save."""
        late = self.when.seconds is not None and time.perf_counter() - self._at >= self.when.seconds
        return late or (self.when.every is not None and epoch % self.when.every == 0)

    def save(self, carry: Any, rows: Mapping[str, np.ndarray], epoch: int) -> None:
        """Write a checkpoint; where that fails and there is an earlier one, it's a warning.

        Raises:
            OSError: the first one can't be written.
        """
        settings = {"identity": self.identity, "about": self.about, "accepted": self.accepted}
        self.tried, self.failed = epoch, None
        try:
            self.checkpoints.save(epoch, {"carry": carry, "rows": dict(rows)}, settings)
            self.epoch = epoch
        except OSError as error:
            if self.epoch is None:
                raise
            self.failed = f"{error.filename or self.when.folder}: {error.strerror or error}"
            warnings.warn(
                f"the checkpoint of epoch {epoch} can't be written ({self.failed}); the run goes on, and the store "
                f"has epoch {self.epoch}",
                stacklevel=2,
            )
        self._at = time.perf_counter()

    def in_words(self) -> str:
        """What a run that is left says of its store.

        >>> when, nothing = When(Path("runs/a"), 1, None, 3, frozenset()), {}
        >>> Saved(when, nothing, nothing, nothing).in_words()
        'runs/a has epoch None: the same call goes on from there'
        """
        said = f"{self.when.folder} has epoch {self.epoch}: the same call goes on from there"
        return said if self.failed is None else f"it can't be saved ({self.failed}); {said}"

    def _accept(self, settings: Mapping[str, Any]) -> None:
        """Compare the identities; ValueError unless every section that differs may."""
        found = changes(settings["identity"], self.identity)
        if "program" in found:
            found["program"] = in_words(settings["about"], self.about) or found["program"]
        if found.keys() - self.when.accept:
            listing = ". ".join(f"{section}: {'; '.join(sentences)}" for section, sentences in found.items())
            raise ValueError(
                f"{self.when.folder}: got another run than the one stored there. {listing}. Expected the same "
                "(epochs may be raised): take another folder, or go on with the stored one all the same by "
                f"accept_change={sorted(found)}"
            )
        self.accepted = [*settings["accepted"], *([found] if found else [])]

    def _placed(self, tree: Any) -> Any:
        """The stored carry in the structure of this run's."""
        wanted = names.spec_of(self.carry)
        stored = {name: leaf for name, leaf in names.flat(tree).items() if isinstance(leaf, names.Leaf)}
        keys = {name for name, leaf in wanted.items() if leaf.dtype.startswith("key<")}
        leaves = {name: leaf._replace(key="threefry2x32") if name in keys else leaf for name, leaf in stored.items()}
        fits = wanted.keys() == leaves.keys()
        carry = names.filled(self.carry, leaves) if fits else None
        if not fits or names.spec_of(carry) != wanted:
            raise ValueError(
                f"{self.when.folder}: got arrays of other names, shapes or dtypes than this program's; expected "
                "the same: an accepted change can't alter them"
            )
        return jax.device_put(carry)


@contextmanager
def opened(when: When, identity: Identity, about: Mapping[str, Any], carry: Any) -> Iterator[Saved]:
    """The store, locked; `carry` has the shapes of the run's, `about` is the description of its program.

    Raises:
        BlockingIOError: another process has it. OSError: it can't be made or written.
    """
    saved = Saved(when, identity, about, carry)
    with saved.checkpoints:
        yield saved
