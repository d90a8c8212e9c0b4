"""A folder of numbered checkpoints, of which the last few and the best stay, and of which the newest intact is found.

    FOLDER/checkpoint-00000012.safetensors    one of them; whether it was the best when it was saved stands in it
    FOLDER/lock                               held by the one process that saves here

The best is the latest that was marked: it's one with its mark, so there's no moment in which it's gone or nobody knows.
"""

import contextlib
import os
import re
import warnings
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jaxnet.checkpoint import files
from jaxnet.checkpoint.format import CheckpointError
from jaxnet.checkpoint.whole import lock, remove_drafts

NAME = re.compile(r"checkpoint-(\d{8,})\.safetensors")
Found = tuple[int, Any, dict[str, Any]]  # number, tree, settings


class Checkpoints:
    """The numbered checkpoints of one run. Reading needs no lock; saving takes it and holds it until `close`.

    >>> import tempfile, numpy as np
    >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder, keep=2) as checkpoints:
    ...     for number in range(1, 5):
    ...         checkpoints.save(number, {"w": np.arange(number)}, {"lr": 0.1}, best=number == 1)
    ...     checkpoints.numbers(), checkpoints.newest(), checkpoints.best()[0]
    ([1, 3, 4], (4, {'w': array([0, 1, 2, 3])}, {'lr': 0.1}), 1)
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 3) -> None:
        if isinstance(keep, bool) or not isinstance(keep, int) or keep < 1:
            raise ValueError(f"got keep={keep!r}; expected how many checkpoints stay, at least 1")
        self.folder, self.keep = Path(folder), keep
        self._unlock: Callable[[], object] | None = None

    def open(self) -> "Checkpoints":
        """Make the folder, take its lock, and remove what killed writers left. `with` does it too.

        Raises:
            BlockingIOError: another process saves here. OSError: the folder can't be made or written.
        """
        if self._unlock is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            sentence = "another process saves its checkpoints in this folder; wait for it, or take another folder"
            self._unlock = weakref.finalize(self, os.close, lock(self.folder / "lock", sentence))
            remove_drafts(self.folder)
        return self

    def close(self) -> None:
        """Give the lock back."""
        if self._unlock is not None:
            self._unlock()
            self._unlock = None

    def __enter__(self) -> "Checkpoints":
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(self, number: int, tree: Any, settings: Mapping[str, Any] | None = None, best: bool = False) -> None:
        """Write checkpoint `number`; when it's on the disk, remove those that are neither best nor of the last `keep`.

        Saved again under its number, the best stays the best. A damaged one of a higher number is renamed to ….damaged,
        so that a run that took up an earlier one can go on; so is one of which nobody can tell any more whether it's
        the best. A warning says so.

        Raises:
            ValueError: there's an intact one of a higher number. BlockingIOError, OSError: as `open` and
                `write_whole`; all that was there is there still. TypeError, ValueError: as `save`.
        """
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise ValueError(f"got number={number!r}; expected an integer, at least 0")
        self.open()
        for later in (n for n in self.numbers() if n > number):
            try:
                files.load(self.path(later))
            except CheckpointError as error:
                self._set_aside(later, error)
                continue
            raise ValueError(
                f"{self.folder}: got number {number}, and {later} is there; expected a higher one: go on from "
                "newest(), or take another folder"
            )
        if number in self.numbers():
            with contextlib.suppress(CheckpointError):  # it's replaced
                best = best or self._is_marked(number)
        files.save(self.path(number), tree, settings, best=best)
        numbers = self.numbers()
        if len(numbers) > self.keep:
            self._remove(numbers)

    def newest(self, like: Any = None) -> Found | None:
        """(number, tree, settings) of the newest intact checkpoint; None without any. `like` as in `load`.

        Each damaged one is passed over with a warning that names it and says why.

        Raises:
            CheckpointError: all are damaged, or the newest intact doesn't fit `like`. OSError: one can't be read.
        """
        return self._first(False, like)

    def best(self, like: Any = None) -> Found | None:
        """As `newest`, of those saved with `best=True`."""
        return self._first(True, like)

    def numbers(self) -> list[int]:
        """The numbers that are there, in order; damaged ones too."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        return sorted(int(match[1]) for match in map(NAME.fullmatch, names) if match)

    def path(self, number: int) -> Path:
        """Where that checkpoint is.

        >>> Checkpoints("runs/a").path(12).name
        'checkpoint-00000012.safetensors'
        """
        return self.folder / f"checkpoint-{number:08d}.safetensors"

    def _first(self, marked: bool, like: Any) -> Found | None:
        """The newest that is intact, of all or of those `marked` as best."""
        damaged: list[str] = []
        for number in reversed(self.numbers()):
            path = self.path(number)
            try:
                with files.opened(path) as file:
                    if marked and not file.content.best:
                        continue
                    misfit = file.misfit(like)
                    found = None if misfit else (number, file.tree(like), file.content.settings)
            except FileNotFoundError:
                if not path.exists():  # a writer replaced it by a newer one since
                    return self._first(marked, like)
                raise
            except CheckpointError as error:
                damaged.append(str(error))
                continue
            for said in damaged:
                warnings.warn(f"{said}. {path.name} is taken instead", stacklevel=3)
            if misfit:
                raise misfit
            return found
        if damaged:
            raise CheckpointError(
                f"{self.folder}: got no intact checkpoint; {len(damaged)} damaged: {'. '.join(damaged)}"
            )
        return None

    def _remove(self, numbers: list[int]) -> None:
        """Remove all but the last few and the latest that's marked as best."""
        best = None
        for number in reversed(numbers):
            try:
                if self._is_marked(number):
                    best = number
                    break
            except CheckpointError as error:
                self._set_aside(number, error)
        for number in numbers[: -self.keep]:
            if number != best:
                self.path(number).unlink(missing_ok=True)

    def _is_marked(self, number: int) -> bool:
        with files.opened(self.path(number)) as file:
            return file.content.best

    def _set_aside(self, number: int, error: CheckpointError) -> None:
        path = self.path(number)
        path.rename(path.with_suffix(".damaged"))
        warnings.warn(f"{error}. It's renamed to {path.stem}.damaged", stacklevel=4)
