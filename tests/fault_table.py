"""What goes wrong while a checkpoint is written, made to go wrong in real processes, as a table.

    python tests/fault_table.py      writes docs/faults.md; needs root, to mount small disks, and strace

For each fault: a folder with checkpoint 1; a process that saves checkpoint 2 and meets the fault; what it says; which
checkpoints are there and intact; then, without the fault, checkpoint 3, after which nothing else may lie there. With
--save FOLDER this file is that process.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnet.checkpoint import Checkpoints

TESTS = Path(__file__).resolve().parent
PAGE = TESTS.parent / "docs" / "faults.md"
NOBODY = 65534
KILLED = "–"
STRACE = ("strace", "-f", "-qq")

HEAD = """\
# Faults

What happens when a checkpoint can't be written. Each row is what the tests see when real processes meet the fault;
written by `python tests/fault_table.py`, do not edit. The folder `RUN` holds checkpoint 1, and a process saves
checkpoint 2. After every row the next save, without the fault, succeeds, and nothing unfinished is left in the folder.
A save makes these calls: write 1 (room for the header, small tensors), write 2 (a large tensor), fsync 1 (while threads
find its checksum), write 3 (the header), fsync 2, rename 1, fsync 3 (of the folder).

| fault | how it's made | what the error says | what is there, intact |
|---|---|---|---|
"""
TAIL = """
Where the error comes after the rename (the fsync of the folder), checkpoint 2 is whole but may be gone after a power
cut: so it's an error too. `jn.run` makes a warning of each of these errors and goes on to train, once it has a first
checkpoint ([runs](runs.md)).
"""


class Row(NamedTuple):
    """One line of the table."""

    fault: str
    how: str
    said: str
    left: str


class Fault(NamedTuple):
    """A fault, and how a process that saves checkpoint 2 in a folder meets it: that gives what it says."""

    name: str
    how: str
    meet: Callable[[Path], str]
    disk: Callable[[], AbstractContextManager[Path]]  # where the folder is


def faults() -> list[Fault]:
    """All that can be made here: without root no small disks, without strace no single call that fails."""
    found = [
        Fault("file too large", "RLIMIT_FSIZE", lambda folder: saved(folder, "--limit", "600000"), folder_on_disk),
        Fault("no permission", "another user's folder", forbidden, folder_on_disk),
        Fault("two writers", "another process holds the folder", second, folder_on_disk),
    ]
    if can_mount():
        found += [
            Fault("disk full", "a tmpfs of 2 MB", partial(remounted, "size=2m", "size=8m"), small_disk),
            Fault("read-only file system", "a tmpfs, remounted", partial(remounted, "ro", "rw"), small_disk),
        ]
    if not can_trace():
        return found
    calls = [call for call, _ in traced("write,fsync,rename")]
    places = [(call, calls[: i + 1].count(call)) for i, call in enumerate(calls)]
    kinds = (
        *(("disk full", "ENOSPC", "error=ENOSPC"), ("I/O error", "EIO", "error=EIO")),
        ("killed", "SIGKILL", "signal=KILL"),
    )
    for kind, name, what in kinds:
        for call, k in places:
            if name != "ENOSPC" or call == "write":
                place = f"{kind} at {call} {k}"
                meet = partial(injected, f"{call}:{what}:when={k}")
                found.append(Fault(place, f"strace: {name}", meet, folder_on_disk))
    return found


def row(fault: Fault) -> Row:
    """Meet the fault, and look at what is left; AssertionError if anything is lost or lies about."""
    with fault.disk() as folder, Checkpoints(folder, keep=2) as checkpoints:
        checkpoints.save(1, tree(1), {"value": 1})
        before = checkpoints.path(1).read_bytes()
        checkpoints.close()
        said = fault.meet(folder)
        assert said, "the fault wasn't met"
        assert checkpoints.path(1).read_bytes() == before
        number, left, settings = checkpoints.newest()
        assert settings == {"value": number}
        assert all((left[name] == array).all() for name, array in tree(number).items())
        assert checkpoints.numbers() == list(range(1, number + 1))
        checkpoints.save(3, tree(3), {"value": 3})
        names = {"lock", *(checkpoints.path(n).name for n in (number, 3))}
        assert {path.name for path in folder.iterdir()} == names
        assert checkpoints.newest()[0] == 3
    if said != KILLED:
        said = f"`{' '.join(said.replace(str(folder), 'RUN').split())}`"
    return Row(fault.name, fault.how, said, "checkpoint 1" if number == 1 else "checkpoints 1 and 2")


def page(rows: list[Row]) -> str:
    """The text of docs/faults.md: rows that only differ by the place become one."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for fault, *cells in rows:
        kind, _, place = fault.partition(" at ")
        groups.setdefault((kind, *cells), []).append(place)
    lines = [
        f"| {kind}{' at ' * bool(places[0])}{', '.join(places)} | {' | '.join(cells)} |\n"
        for (kind, *cells), places in groups.items()
    ]
    return HEAD + "".join(lines) + TAIL


def works(*command: str) -> bool:
    """Whether that is there and may be done: containers forbid some of it to root too."""
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@cache
def can_trace() -> bool:
    """Whether strace works here."""
    return works("strace", "-o", "/dev/null", sys.executable, "-c", "")


@cache
def can_mount() -> bool:
    """Whether a small disk can be mounted here."""
    with tempfile.TemporaryDirectory() as folder:
        return works("mount", "-t", "tmpfs", "tmpfs", folder) and works("umount", folder)


def tree(value: int) -> dict[str, np.ndarray]:
    """Small tensors, and one that's large enough for a thread and an fsync of its own."""
    return {"b": np.full(3, value, np.float32), "n": np.array(value), "w": np.full(300_000, value, np.float32)}


def saved(folder: Path, *options: str, before: tuple[str, ...] = ()) -> str:
    """What a process says that saves checkpoint 2; KILLED if it was, "" if it succeeds."""
    command = [*before, sys.executable, __file__, "--save", str(folder), *options]
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, bool(done.stdout)) in ((0, False), (3, True), (-9, False)), done
    assert done.stderr == ""
    return KILLED if done.returncode == -9 else done.stdout


def injected(what: str, folder: Path) -> str:
    return saved(folder, before=(*STRACE, "-o", "/dev/null", "-e", f"inject={what}"))


def traced(calls: str) -> list[tuple[str, str]]:
    """(call, arguments and result) of one save, in order, those in its folder RUN."""
    with folder_on_disk() as folder, tempfile.NamedTemporaryFile("r") as log:
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(1, tree(1), {"value": 1})
        assert saved(folder, before=(*STRACE, "-y", "-o", log.name, "-e", f"trace={calls}")) == ""
        lines = [line.split(maxsplit=1)[1].partition("(") for line in log.read().splitlines() if str(folder) in line]
        return [(call, rest.replace(str(folder), "RUN")) for call, _, rest in lines]


def remounted(options: str, afterwards: str, disk: Path) -> str:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)
    try:
        return saved(disk)
    finally:
        subprocess.run(["mount", "-o", f"remount,{afterwards}", str(disk)], check=True)


def forbidden(folder: Path) -> str:
    folder.chmod(0o555)
    try:
        return saved(folder, *(["--uid", str(NOBODY)] if os.geteuid() == 0 else []))
    finally:
        folder.chmod(0o755)


def second(folder: Path) -> str:
    with Checkpoints(folder):
        return saved(folder)


@contextmanager
def folder_on_disk() -> Iterator[Path]:
    """A folder that other users can look into."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@contextmanager
def small_disk() -> Iterator[Path]:
    with folder_on_disk() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True)
        try:
            yield folder
        finally:
            subprocess.run(["umount", str(folder)], check=True)


def save(folder: str, uid: int | None, limit: int | None) -> int:
    """The process: exits with 3 and prints the error if checkpoint 2 can't be saved."""
    if limit is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if uid is not None:
        os.setuid(uid)
    try:
        with Checkpoints(folder, keep=2) as checkpoints:
            checkpoints.save(2, tree(2), {"value": 2})
    except Exception as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return 3
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--save", metavar="FOLDER", help="be the process that saves")
    parser.add_argument("--uid", type=int, help="as this user")
    parser.add_argument("--limit", type=int, help="of the size of its files, in bytes")
    options = parser.parse_args()
    if options.save:
        return save(options.save, options.uid, options.limit)
    if not (can_trace() and can_mount()):
        raise SystemExit("got no strace, or no root to mount small disks; expected both, for the whole table")
    PAGE.write_text(page([row(fault) for fault in faults()]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
