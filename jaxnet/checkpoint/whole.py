"""Files that reach the disk whole or not at all, and a lock that keeps a second writer out.

    write_whole(path, content)     any bytes
    with whole(path) as file: …    the same, piece by piece
    lock(path, sentence)           held until it is closed, or its process ends

The order is: a file of another name beside the place, fsync of the file, rename, fsync of the folder. A crash or a full
disk leaves the old file alone; a killed writer leaves a file named like DRAFT, which nobody reads.
"""

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

DRAFT = re.compile(r"\.[0-9a-f]{32}\.tmp")
HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK}  # what systems say of a lock that another holds


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file that appears whole or not at all, safely on the disk when this returns; replaces an older one.

    Raises:
        OSError: no such folder, no permission, a full disk; it names `path` and leaves nothing behind.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_whole(Path(folder, "a"), b"all of it")
    ...     Path(folder, "a").read_bytes()
    b'all of it'
    """
    with whole(path) as file:
        file.write(content)


@contextlib.contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to write into, which lies at `path` when the block has ended without an error; else as `write_whole`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole(Path(folder, "a")) as file:
    ...         before = os.path.exists(Path(folder, "a"))
    ...     before, os.path.exists(Path(folder, "a"))
    (False, True)
    """
    place = Path(os.path.realpath(path))  # links stay what they are
    draft = place.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        if place.exists() and not place.is_file():  # root could replace /dev/null
            raise OSError(errno.EEXIST, "exists and is no regular file")
        with open(draft, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, place)
        if os.name == "posix":  # elsewhere a folder can't be opened
            folder = os.open(place.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def remove_drafts(folder: Path) -> None:
    """Remove what killed writers left in `folder`; for the one that holds its lock.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "." + 32 * "0" + ".tmp").write_bytes(b"")
    ...     remove_drafts(Path(folder))
    ...     os.listdir(folder)
    []
    """
    for path in folder.iterdir():
        if DRAFT.fullmatch(path.name):
            path.unlink(missing_ok=True)


def lock(path: Path, sentence: str) -> int:
    """A descriptor that holds the lock file `path` until it's closed or its process ends, however it ends.

    Raises:
        BlockingIOError: another process holds it: `sentence` and the folder. OSError: it can't be made, or the file
            system has no locks.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     os.close(lock(Path(folder, "lock"), "somebody is at work here"))
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if os.name == "posix":
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
    except OSError as error:
        os.close(descriptor)
        if error.errno in HELD:
            raise BlockingIOError(errno.EAGAIN, sentence, str(path.parent)) from error
        raise OSError(error.errno, error.strerror, str(path)) from error
    return descriptor
