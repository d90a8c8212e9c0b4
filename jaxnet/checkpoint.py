"""Arrays that reach the disk whole, and come back exactly as they were or not at all.

    save(path, tree, settings)          a nested dict of arrays and, as JSON can hold it, what they belong to: one file
    tree, settings = load(path)         NumPy arrays of the same dtypes, shapes and bits
    write_whole(path, content)          any bytes, by the same road to the disk

A safetensors file; its tensors are named by their paths, `params/dense_0/w`. Its metadata hold one JSON text: settings,
the SHA-256 of every tensor (safetensors doesn't notice a flipped bit) and its own. It's written beside its place and
moved there when it's on the disk: a crash or a full disk leaves the old file alone.
"""

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

FORMAT = 1


def save(path: str | os.PathLike[str], tree: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Write `tree`, a nested dict of arrays (JAX's, NumPy's, numbers), and `settings` to one file; all or nothing.

    Raises:
        TypeError: a leaf that isn't an array of real numbers, a name that isn't text. OSError: as `write_whole`.
        ValueError: a name with "/" or that UTF-8 can't hold, settings that JSON can't hold, or NaN.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(Path(folder, "a.safetensors"), {"dense_0": {"b": np.zeros(2)}}, {"units": [2]})
    ...     load(Path(folder, "a.safetensors"))
    ({'dense_0': {'b': array([0., 0.])}}, {'units': [2]})
    """
    leaves = dict(_leaves("", tree))  # an empty dict has no tensor to stand for it: None among the sums
    tensors = {name: array for name, array in leaves.items() if array is not None}
    sums = {name: None if array is None else _sum(array) for name, array in leaves.items()}
    content = {"format": FORMAT, "settings": settings, "tensors": sums}
    try:
        text = json.dumps(content | {"sha256": _sum(json.dumps(content, allow_nan=False))})
        data = to_bytes(tensors, {"jaxnet": text})
    except (TypeError, ValueError, SafetensorError) as error:
        raise ValueError(f"{path}: got names or settings that can't be stored ({error}); expected JSON") from error
    write_whole(path, data)


def load(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `save` wrote, checked: (tree, settings). FileNotFoundError; ValueError for a foreign or damaged file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: got {'a folder' if path.is_dir() else 'no such file'}; expected a checkpoint")
    try:
        with safe_open(path, framework="np") as file:
            content = json.loads((file.metadata() or {}).get("jaxnet", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: got no whole safetensors file ({error}); expected one that save wrote") from error
    if not isinstance(content, dict) or content.pop("sha256", None) != _sum(json.dumps(content)):
        raise ValueError(f"{path}: got no metadata of jaxnet's, or damaged ones; expected a file that save wrote")
    if content["format"] != FORMAT:
        raise ValueError(f"{path}: got format {content['format']}; expected {FORMAT}: another jaxnet wrote it")
    if found := tensors.keys() ^ {name for name, checksum in content["tensors"].items() if checksum is not None}:
        raise ValueError(f"{path}: got tensors {sorted(found)} too many or missing; the file is damaged")
    tree: dict[str, Any] = {}
    for name, checksum in content["tensors"].items():
        if checksum is not None and checksum != _sum(tensors[name]):
            raise ValueError(f"{path}: tensor {name!r} doesn't match its checksum; the file is damaged")
        *above, last = name.split("/")
        branch = reduce(lambda tree, key: tree.setdefault(key, {}), above, tree)
        branch[last] = {} if checksum is None else tensors[name]
    return tree, content["settings"]


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file that appears whole or not at all, safely on the disk when this returns; replaces an older one.

    OSError: no such folder, no permission, a full disk; it names `path` and leaves nothing behind.
    """
    place = Path(os.path.realpath(path))  # links stay what they are
    draft = place.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        if place.exists() and not place.is_file():  # root could replace /dev/null
            raise OSError(errno.EEXIST, "exists and is no regular file")
        with open(draft, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, place)
        if os.name == "posix":  # elsewhere a folder can't be opened
            folder = os.open(place.parent, os.O_RDONLY)
            os.fsync(folder)
            os.close(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


def _leaves(name: str, tree: Any) -> Iterator[tuple[str, np.ndarray | None]]:
    """(path name, array) of every leaf, (path name, None) of every empty dict below the top."""
    if not isinstance(tree, Mapping):
        raise TypeError(f"tree: got {type(tree).__name__}; expected a nested dict of arrays")
    for key, value in tree.items():
        if not isinstance(key, str) or "/" in key or key == "__metadata__":
            kind = ValueError if isinstance(key, str) else TypeError
            raise kind(f"tree: got the name {key!r} below {name!r}; expected text without '/', not '__metadata__'")
        if isinstance(value, Mapping):
            yield from _leaves(f"{name}{key}/", value) if value else [(f"{name}{key}", None)]
        else:
            array = np.asarray(value)
            if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
                raise TypeError(f"{name}{key}: got an array of dtype {array.dtype}; expected real numbers of ≤ 64 bits")
            yield f"{name}{key}", np.array(array, array.dtype.newbyteorder("="), order="C")


def _sum(value: np.ndarray | str) -> str:
    """SHA-256 of a text, or of an array's dtype, shape and bytes."""
    if not isinstance(value, str):
        return hashlib.sha256(f"{value.dtype.name}{value.shape}".encode() + value.tobytes()).hexdigest()
    return hashlib.sha256(value.encode()).hexdigest()
