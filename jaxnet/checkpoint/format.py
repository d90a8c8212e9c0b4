"""The format: a safetensors file whose metadata hold a manifest, and what is checked before anything of it is used.

    header(leaves, sums, settings, best)    the bytes in front of the tensors' bytes
    parsed(raw, size)                       the Content that such bytes describe, or a CheckpointError

A safetensors file is 8 bytes, the length n of the header as a little-endian integer; n bytes, the header, JSON padded
with spaces; then the bytes of the tensors without holes. The header maps each tensor's name to its dtype, shape and
offsets, and "__metadata__" to texts. Ours are "jaxnet", the manifest, and "jaxnet_sha256", its SHA-256. The manifest:

    {"format": 2, "versions": {"jaxnet": …, "jax": …, "numpy": …}, "best": false,
     "settings": {…}, "settings_sha256": of json.dumps(settings, sort_keys=True),
     "leaves": {NAME: {"dtype": "float32", "shape": [2, 3], "sha256": of the tensor's bytes},
                NAME: {"dtype": "uint32", "shape": [2], "sha256": …, "key": "threefry2x32"},   typed keys, their data
                NAME: {"empty": "dict", "list", "tuple" or "none"}}}                           in the tree's order

A dtype that safetensors don't know (4-bit numbers, rare 8-bit ones) is stored as U8, one byte per number. Format 1 had
checksums over dtype, shape and bytes, and one of the manifest inside it; it's read, not written.
"""

import hashlib
import importlib.metadata
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxnet import __version__

FORMAT = 2
VERSIONS = {"jaxnet": __version__, "jax": importlib.metadata.version("jax"), "numpy": np.__version__}
MAX_HEADER = 100_000_000  # bytes, as safetensors have it
MAX_MARKS = 8_000_000  # brackets, commas and slashes of JSON: bounds what it takes in memory, below 1 GB
MAX_DEPTH = 100  # parts of a name: levels of a tree

_RARE = (
    *("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "int1", "int2", "int4", "uint1", "uint2", "uint4"),
)
CODES = {f"{kind}{8 * size}": f"{kind[0].upper()}{8 * size}" for kind in ("int", "uint") for size in (1, 2, 4, 8)}
CODES |= {"float16": "F16", "float32": "F32", "float64": "F64", "bool": "BOOL", "bfloat16": "BF16"}
CODES |= {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}
CODES |= {name: "U8" for name in _RARE if hasattr(ml_dtypes, name)}  # name of a dtype -> safetensors' name
DTYPES = {name: np.dtype(getattr(ml_dtypes, name, name)) for name in CODES}
SIZES = {code: DTYPES[name].itemsize for name, code in CODES.items()}


class CheckpointError(ValueError):
    """A file that isn't a whole, undamaged checkpoint of what was expected; it says which file, what and where."""


class Tensor(NamedTuple):
    """What the manifest says of a tensor, and where it lies."""

    dtype: str
    shape: tuple[int, ...]
    sha256: str
    key: str | None  # of typed keys, whose data these are: the generator
    begin: int  # from the file's start
    prefix: bytes  # what the checksum covers before the tensor's bytes

    @property
    def size(self) -> int:
        """In bytes."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


class Content(NamedTuple):
    """What a header says, checked."""

    leaves: dict[str, "Tensor | str"]  # a str: what kind of empty container
    settings: dict[str, Any]
    versions: dict[str, str]
    format: int
    best: bool


def sha256(value: str | bytes | memoryview) -> str:
    """SHA-256 as 64 hexadecimal digits.

    >>> sha256("")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()


def settings_sha256(settings: Mapping[str, Any]) -> str:
    """The checksum that identifies settings, whatever the order of their names.

    >>> settings_sha256({"a": 1, "b": 2}) == settings_sha256({"b": 2, "a": 1})
    True
    """
    return sha256(json.dumps(settings, sort_keys=True, allow_nan=False))


def header(
    leaves: Mapping[str, Any], order: list[str], sums: Mapping[str, str], settings: Mapping[str, Any], best: bool
) -> bytes:
    """The bytes in front of the tensors': `leaves` as names.flat gives them, of which those in `order` have a tensor.

    Its length doesn't depend on the checksums.

    Raises:
        ValueError, TypeError: what JSON or UTF-8 can't hold, or too much of it.
    """
    entries: dict[str, Any] = {}
    slots: dict[str, Any] = {}
    for name, leaf in leaves.items():
        if name not in sums:
            entries[name] = {"empty": leaf.kind}
            continue
        dtype = np.dtype(leaf.array.dtype).name
        entries[name] = {"dtype": dtype, "shape": list(leaf.array.shape), "sha256": sums[name]}
        entries[name] |= {} if leaf.key is None else {"key": leaf.key}
    at = 0
    for name in order:
        dtype, shape = entries[name]["dtype"], entries[name]["shape"]
        size = math.prod(shape) * DTYPES[dtype].itemsize
        slots[name] = {"dtype": CODES[dtype], "shape": shape, "data_offsets": [at, at + size]}
        at += size
    manifest = json.dumps(
        {"format": FORMAT, "versions": VERSIONS, "best": best, "settings": settings,
         "settings_sha256": settings_sha256(settings), "leaves": entries}, allow_nan=False,
    )  # fmt: skip
    metadata = {"__metadata__": {"jaxnet": manifest, "jaxnet_sha256": sha256(manifest)}}
    raw = json.dumps(metadata | slots, ensure_ascii=False, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    if len(raw) > MAX_HEADER or _marks(raw.decode()) > MAX_MARKS:
        raise ValueError(f"{len(raw):,} bytes of names and settings are too many")
    return len(raw).to_bytes(8, "little") + raw


def parsed(raw: bytes, size: int) -> Content:
    """The content that a header `raw` describes, in front of `size` bytes of tensors.

    Raises:
        CheckpointError: what is wrong with it.
    """
    try:
        outer = _json(raw.decode())
        metadata = outer.pop("__metadata__", None) or {}
        slots = {name: _slot(entry, len(raw) + 8) for name, entry in outer.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"got no header of safetensors ({_short(error)})") from error
    at = len(raw) + 8
    for name, (_, _, begin, end) in sorted(slots.items(), key=lambda item: item[1][2:]):
        if begin != at:
            raise CheckpointError(f"{_short(name)}: got bytes from {begin}; expected from {at}: an overlap or a hole")
        at = end
    if at != len(raw) + 8 + size:
        raise CheckpointError(f"got {len(raw) + 8 + size:,} bytes; expected {at:,}: cut off, or with something behind")
    text = metadata.get("jaxnet") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise CheckpointError("got safetensors without jaxnet's manifest")
    try:
        manifest = _json(text)
        if manifest["format"] not in (1, FORMAT):
            raise CheckpointError(f"got format {_short(manifest['format'])}; expected 1 or {FORMAT}: another jaxnet's")
        return (_first if manifest["format"] == 1 else _second)(manifest, text, metadata, slots)
    except CheckpointError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"got a manifest that makes no sense ({_short(error)})") from error


def _second(manifest: Any, text: str, metadata: Mapping[str, Any], slots: dict[str, Any]) -> Content:
    if metadata.get("jaxnet_sha256") != sha256(text):
        raise CheckpointError("got a manifest that doesn't match its checksum")
    settings = _of(dict, manifest["settings"])
    if settings_sha256(settings) != manifest["settings_sha256"]:
        raise CheckpointError("settings: got others than their checksum says")
    leaves: dict[str, Tensor | str] = {}
    for name, entry in manifest["leaves"].items():
        if name.count("/") >= MAX_DEPTH:
            raise CheckpointError(f"{name:.40}…: got more than {MAX_DEPTH} parts")
        if "empty" in entry:
            leaves[name] = _of(str, entry["empty"])
            if leaves[name] not in ("dict", "list", "tuple", "none"):
                raise CheckpointError(f"{name}: got an empty {leaves[name]!r:.20}; expected dict, list, tuple or none")
            continue
        code, shape, begin, _ = _taken(slots, name)
        dtype, key = _of(str, entry["dtype"]), entry.get("key")
        if CODES.get(dtype) != code or _of(list, entry["shape"]) != list(shape):
            raise CheckpointError(f"{name}: got {code}{list(shape)}; expected {dtype:.20}{_short(entry['shape'])}")
        if key is not None and (not isinstance(key, str) or dtype != "uint32" or not shape):
            raise CheckpointError(f"{name}: got keys as {dtype}{list(shape)}; expected uint32[…, n]")
        leaves[name] = Tensor(dtype, shape, _of(str, entry["sha256"]), key, begin, b"")
    _all_taken(slots)
    versions = {str(name): str(version) for name, version in manifest["versions"].items()}
    return Content(leaves, settings, versions, FORMAT, manifest["best"] is True)


def _first(manifest: Any, text: str, metadata: Mapping[str, Any], slots: dict[str, Any]) -> Content:
    if manifest.pop("sha256", None) != sha256(json.dumps(manifest)):
        raise CheckpointError("got a manifest that doesn't match its checksum")
    names = {code: name for name, code in reversed(CODES.items()) if name not in _RARE}
    leaves: dict[str, Tensor | str] = {}
    for old, checksum in manifest["tensors"].items():
        name = old.replace("~", "~0")
        if checksum is None:
            leaves[name] = "dict"
            continue
        code, shape, begin, _ = _taken(slots, old)
        leaves[name] = Tensor(names[code], shape, _of(str, checksum), None, begin, f"{names[code]}{shape}".encode())
    _all_taken(slots)
    return Content(leaves, _of(dict, manifest["settings"]), {}, 1, False)


def _slot(entry: Any, start: int) -> tuple[str, tuple[int, ...], int, int]:
    """(code, shape, begin, end in the file) of a tensor."""
    shape, (begin, end) = _of(list, entry["shape"]), _of(list, entry["data_offsets"])
    if any(type(n) is not int or not 0 <= n < 2**63 for n in (*shape, begin, end)) or len(shape) > 32:
        raise ValueError(f"got shape {shape} and offsets {begin}, {end}; expected integers that arrays can have")
    code = _of(str, entry["dtype"])
    if code not in SIZES or end - begin != math.prod(shape) * SIZES[code]:
        raise ValueError(f"got {end - begin} bytes for {code}{shape}")
    return code, tuple(shape), start + begin, start + end


def _taken(slots: dict[str, Any], name: str) -> Any:
    if name not in slots:
        raise CheckpointError(f"{_short(name)}: got no tensor; expected one: it's missing")
    return slots.pop(name)


def _all_taken(slots: Mapping[str, Any]) -> None:
    if slots:
        raise CheckpointError(f"{_short(', '.join(sorted(slots)))}: got tensors that the manifest doesn't know")


def _json(text: str) -> Any:
    """JSON, of bounded size in memory, without duplicate names and infinite numbers."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(found := dict(pairs)) != len(pairs):
            raise ValueError("a name that is there twice")
        return found

    def finite(word: str) -> None:
        raise ValueError(f"the number {word}")

    if _marks(text) > MAX_MARKS:
        raise ValueError("more brackets, commas and slashes than memory should hold")
    return json.loads(text, object_pairs_hook=unique, parse_constant=finite)


def _marks(text: str) -> int:
    return sum(map(text.count, "[]{},/"))


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"got a {type(value).__name__}; expected a {kind.__name__}")
    return value


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 100 else f"{text[:99]}…"
