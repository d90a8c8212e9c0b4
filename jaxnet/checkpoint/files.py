"""One checkpoint, one file: `save` streams a tree into it, `load` gives the tree back, `opened` looks into it.

Neither holds more than the tree and, besides, one tensor: tensors go to the file one by one from where they are, and
come back each into its own array. SHA-256 runs at about the speed of a disk, so threads find those of large tensors
while the disk takes the bytes; the header, whose length doesn't depend on the checksums, is written last, into the room
left in front.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnet.checkpoint import names
from jaxnet.checkpoint.format import DTYPES, MAX_HEADER, CheckpointError, Content, Tensor, header, parsed, sha256
from jaxnet.checkpoint.whole import whole

LARGE = 1 << 20  # bytes of a tensor that's worth a thread
CURE = "take an earlier checkpoint, or a copy"


def save(
    path: str | os.PathLike[str], tree: Any, settings: Mapping[str, Any] | None = None, *, best: bool = False
) -> None:
    """Write `tree`, any pytree of arrays, and `settings`, JSON, to one file; all or nothing.

    Args:
        path: where; an older file is replaced when the new one is whole on the disk.
        tree: dicts, lists, tuples, NamedTuples, registered dataclasses, None; leaves are JAX's and NumPy's arrays of
            real numbers, typed keys, Python's numbers.
        settings: what the arrays belong to.
        best: a mark for `Checkpoints`.

    Raises:
        TypeError: a leaf that isn't an array of real numbers, a name that is neither text nor an integer.
        ValueError: a name that UTF-8 can't hold, settings that JSON can't hold, or NaN in them.
        OSError: as `write_whole`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Path(folder, "a.safetensors"), {"dense_0": {"b": np.zeros(2)}}, {"units": [2]})
    ...     load(Path(folder, "a.safetensors"))
    ({'dense_0': {'b': array([0., 0.])}}, {'units': [2]})
    """
    leaves = names.flat(tree)
    tensors = {name: leaf.array for name, leaf in leaves.items() if isinstance(leaf, names.Leaf)}
    order = sorted(tensors, key=lambda name: -np.dtype(tensors[name].dtype).itemsize)  # each is aligned
    sums = dict.fromkeys(order, "0" * 64)
    try:
        room = len(header(leaves, order, sums, settings or {}, best))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: got names or settings that can't be stored ({error}); expected JSON") from error
    with whole(path) as file, ThreadPoolExecutor(2) as threads:
        file.write(bytes(room))
        pending = {}
        for name in order:
            array = np.asarray(tensors[name])
            data = _bytes(array)
            if len(data) < LARGE:
                sums[name] = sha256(data)
            else:
                pending[name] = threads.submit(sha256, data)
            file.write(data)
            if name in pending and not np.may_share_memory(array, np.asarray(data)):
                pending[name].result()  # a copy: not one more of them
            del data
        if pending:
            file.flush()
            os.fsync(file.fileno())
            sums |= {name: checksum.result() for name, checksum in pending.items()}
        file.seek(0)
        file.write(header(leaves, order, sums, settings or {}, best))


def load(path: str | os.PathLike[str], like: Any = None) -> tuple[Any, dict[str, Any]]:
    """The (tree, settings) that `save` wrote, every checksum verified.

    Args:
        like: a pytree of arrays, ShapeDtypeStructs or numbers. Without it the tree comes as nested dicts by the parts
            of the names (a list as {"0": …}), typed keys as their uint32 data; with it in its own structure, keys as
            typed keys. Arrays are NumPy's.

    Raises:
        FileNotFoundError: no such file. OSError: it can't be read.
        CheckpointError: it's damaged or of another kind (file, tensor, what is wrong), or it doesn't fit `like`: all
            names missing or too many, shapes and dtypes that differ.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Path(folder, "a"), [np.arange(2), (3, None)])
    ...     load(Path(folder, "a"), like=[np.zeros(2, int), (0, None)])[0]
    ...     load(Path(folder, "a"), like=[np.zeros(3), (0, 0)])
    Traceback (most recent call last):
    jaxnet.checkpoint.format.CheckpointError: ...a: got another tree than expected. 0: got int64[2], expected
    float64[3]. Missing: 1/1. Take the tree that was saved, or another file
    """
    with opened(path) as file:
        if misfit := file.misfit(like):
            raise misfit
        return file.tree(like), file.content.settings


class File(NamedTuple):
    """A checkpoint whose header has been checked, open for reading."""

    path: Path
    stream: BufferedReader
    content: Content

    def read(self, name: str) -> np.ndarray:
        """The tensor of that name; CheckpointError if it isn't what was written."""
        tensor = self.content.leaves[name]
        assert isinstance(tensor, Tensor)
        try:
            array = np.empty(tensor.shape, DTYPES[tensor.dtype])
        except ValueError as error:
            raise CheckpointError(f"{self.path}: {name}: got shape {tensor.shape} ({error}); {CURE}") from error
        data = _bytes(array)
        try:
            self.stream.seek(tensor.begin)
            count = self.stream.readinto(data)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        if count < len(data):
            raise CheckpointError(f"{self.path}: {name}: got only {count:,} of {len(data):,} bytes; {CURE}")
        found = sha256(tensor.prefix + bytes(data)) if tensor.prefix else sha256(data)
        if found != tensor.sha256:
            raise CheckpointError(f"{self.path}: {name}: got bytes that don't match their checksum; {CURE}")
        if tensor.dtype == "bool" and array.view(np.uint8).max(initial=0) > 1:
            raise CheckpointError(f"{self.path}: {name}: got a truth value that is neither 0 nor 1; {CURE}")
        return array

    def misfit(self, like: Any) -> CheckpointError | None:
        """An error that lists all that differs from `like`; None if nothing does, or `like` is None."""
        if like is None:
            return None
        expected = names.spec_of(like)
        found = {name: _spec(tensor) for name, tensor in self.content.leaves.items() if isinstance(tensor, Tensor)}
        said = [
            f"{name}: got {_described(found[name])}, expected {_described(spec)}"
            for name, spec in expected.items()
            if name in found and found[name] != spec
        ]
        if missing := [name for name in expected if name not in found]:
            said.append(f"Missing: {', '.join(missing)}")
        if extra := [name for name in found if name not in expected]:
            said.append(f"Too many: {', '.join(extra)}")
        if not said:
            return None
        return CheckpointError(
            f"{self.path}: got another tree than expected. {'. '.join(said)}. Take the tree that was saved, or "
            "another file"
        )

    def tree(self, like: Any) -> Any:
        """What is stored, as `load` gives it."""
        leaves = self.content.leaves
        if like is not None:
            tensors = {name: leaf for name, leaf in leaves.items() if isinstance(leaf, Tensor)}
            return names.filled(like, {name: names.Leaf(self.read(name), leaf.key) for name, leaf in tensors.items()})
        try:
            names.nested(dict.fromkeys(leaves))
        except ValueError as error:
            raise CheckpointError(f"{self.path}: {error}; {CURE}") from error
        return names.nested(
            {name: names.EMPTY[leaf]() if isinstance(leaf, str) else self.read(name) for name, leaf in leaves.items()}
        )


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[File]:
    """The checkpoint at `path`, its header checked before anything else is read or made.

    Raises:
        FileNotFoundError: no such file. CheckpointError: the header says that it's no checkpoint, or damaged.
        OSError: it can't be read; it names `path`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: got {'a folder' if path.is_dir() else 'no such file'}; expected a checkpoint")
    with open(path, "rb") as stream:
        try:
            content = _content(stream)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}; expected a whole checkpoint: {CURE}") from error
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        yield File(path, stream, content)


def _content(stream: BufferedReader) -> Content:
    size = os.fstat(stream.fileno()).st_size
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 or length > min(size - 8, MAX_HEADER):
        raise CheckpointError(f"got {size:,} bytes, {length:,} of them header; expected at most {MAX_HEADER:,}")
    raw = stream.read(length)
    if len(raw) != length:
        raise CheckpointError(f"got only {len(raw):,} of {length:,} bytes of the header")
    return parsed(raw, size - 8 - length)


def _bytes(array: Any) -> memoryview:
    """The bytes of an array, in C order and little endian; those of the array itself where it has them so."""
    array = np.asarray(array, order="C")
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return memoryview(array.reshape(-1).view(np.uint8))


def _spec(tensor: Tensor) -> names.Spec:
    if tensor.key is None:
        return names.Spec(tensor.dtype, tensor.shape)
    return names.key_spec(tensor.key, tensor.shape)


def _described(spec: names.Spec) -> str:
    return f"{spec.dtype}[{','.join(map(str, spec.shape))}]"
