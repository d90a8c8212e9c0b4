"""`jaxnet inspect FILE`: what is in a checkpoint, or in a folder of them, and whether it's intact.

inspect(path) -> whether everything is intact; the findings are printed
"""

import errno
import json
from pathlib import Path
from typing import NamedTuple

from jaxnet.checkpoint import CheckpointError, Checkpoints
from jaxnet.checkpoint.files import opened
from jaxnet.checkpoint.format import Content, Tensor, settings_sha256
from jaxnet.tables import table


class Finding(NamedTuple):
    """What came of reading a file."""

    content: Content | None  # None: its header is damaged
    damage: dict[str, str]  # name of a tensor, "" for the file itself -> what is wrong


def inspect(path: Path) -> bool:
    """Print what is in the file, or one line for each file of the folder; whether everything is intact.

    Raises:
        FileNotFoundError: no such file or folder, or nothing in it. OSError: it can't be read.

    >>> import tempfile, numpy as np
    >>> from jaxnet import checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoint.save(Path(folder, "a.safetensors"), {"w": np.zeros((2, 3), "float32")})
    ...     inspect(Path(folder))
    file           state   tensors  bytes  about
    a.safetensors  intact        1     24
    True
    """
    return folder(path) if path.is_dir() else file(path)


def file(path: Path) -> bool:
    """Print where a checkpoint comes from, its settings and its tensors; whether it's intact."""
    content, damage = examined(path)
    if content is None:
        print(printable(damage[""]))
        return False
    versions = [f"{name} {version}" for name, version in content.versions.items()]
    best = ["the best when it was saved"] if content.best else []
    print(printable(f"{path}: {', '.join([f'format {content.format}', *versions, *best])}"))
    print(f"settings, SHA-256 {settings_sha256(content.settings)}:")
    print(printable(json.dumps(content.settings, indent=2, ensure_ascii=False)) + "\n")
    rows = []
    for name, leaf in content.leaves.items():
        if isinstance(leaf, Tensor):
            dtype = leaf.dtype if leaf.key is None else f"{leaf.dtype}, keys of {leaf.key}"
            shape = ",".join(map(str, leaf.shape)) or "()"
            rows.append(
                (printable(name), printable(dtype), shape, f"{leaf.size:,}", "damaged" if name in damage else "ok")
            )
        else:
            rows.append((printable(name), f"empty {leaf}", "", "", ""))
    print(table(("name", "dtype", "shape", "bytes", "checksum"), rows, right=(3,)))
    tensors = [leaf for leaf in content.leaves.values() if isinstance(leaf, Tensor)]
    said = f"{len(damage)} damaged" if damage else "all intact"
    print(f"\n{len(tensors)} tensors, {sum(tensor.size for tensor in tensors):,} bytes, {said}")
    for sentence in damage.values():
        print(printable(sentence))
    return not damage


def folder(path: Path) -> bool:
    """Print a line for each checkpoint of a folder: intact or damaged, which is the newest and the best."""
    paths = sorted(path.glob("*.safetensors"))
    if not paths:
        raise FileNotFoundError(errno.ENOENT, "no .safetensors file in this folder", str(path))
    findings = {one: examined(one) for one in paths}
    checkpoints = Checkpoints(path)
    intact = [
        one for one in map(checkpoints.path, checkpoints.numbers()) if one in findings and not findings[one].damage
    ]
    marked = [one for one in intact if (content := findings[one].content) and content.best]
    rows = []
    for one, (content, damage) in findings.items():
        about = [word for word, those in (("newest", intact[-1:]), ("best", marked[-1:])) if one in those]
        tensors = [leaf for leaf in content.leaves.values() if isinstance(leaf, Tensor)] if content else []
        sizes = (f"{len(tensors)}", f"{sum(tensor.size for tensor in tensors):,}") if content else ("", "")
        rows.append((printable(one.name), "damaged" if damage else "intact", *sizes, ", ".join(about)))
    print(table(("file", "state", "tensors", "bytes", "about"), rows, right=(2, 3)))
    for _, damage in findings.values():
        for sentence in damage.values():
            print(printable(sentence))
    return not any(damage for _, damage in findings.values())


def examined(path: Path) -> Finding:
    """Read the whole of a file, one tensor at a time."""
    content, damage = None, {}
    try:
        with opened(path) as found:
            content = found.content
            for name, leaf in content.leaves.items():
                try:
                    if isinstance(leaf, Tensor):
                        found.read(name)
                except CheckpointError as error:
                    damage[name] = str(error)
    except CheckpointError as error:
        damage[""] = str(error)
    return Finding(content, damage)


def printable(text: str) -> str:
    r"""The text without what a terminal would obey.

    >>> printable("größe\x1b[2J")
    'größe\\x1b[2J'
    """
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
