"""Valid files of every kind that's read, taken apart, altered and put together again: READERS.

An alteration of the bytes as they are mostly dies at the first check of a reader, so most are made inside: in a header
whose length and checksums are then made right, in a member of an archive, in a text that is then packed.
"""

import gzip
import hashlib
import io
import json
import tempfile
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from fuzzing import Choose, Reader, altered, altered_text, several

from jaxnet import checkpoint
from jaxnet.cli import studyfile, studyspace
from jaxnet.data import csvfile
from jaxnet.data.load import load, read_idx
from jaxnet.data.tables import read_csv

BOMB = 250_000_000  # zeros

# Checkpoints: as they are; the header with its length made right; the manifest with its checksums made right.

TREES = (
    {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": {"c": np.int32(3), "d": [], "e": None}},
    {"a": np.ones(2, ml_dtypes.bfloat16), "k": np.zeros(0, bool), "l": [np.arange(3), 2.5]},
)


@cache
def checkpoints() -> tuple[bytes, ...]:
    with tempfile.TemporaryDirectory() as folder:
        for i, tree in enumerate(TREES):
            tree = tree | {"key": jax.random.key(i)}
            checkpoint.save(Path(folder, str(i)), tree, {"lr": 0.1, "units": [2, 3], "é": {"deep": None}})
        return tuple(Path(folder, str(i)).read_bytes() for i in range(len(TREES)))


def made_checkpoint(choose: Choose) -> bytes:
    content = checkpoints()[choose(len(TREES))]
    start = 8 + int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8:start]), content[start:]
    words = [
        "F32",
        "U8",
        "F33",
        "BOOL",
        "uint8",
        "int4",
        "float64",
        "empty",
        "threefry2x32",
        "format",
        "leaves",
        "a/b/c",
    ]
    match choose(4):
        case 0:
            return several(altered, content, checkpoints(), choose)
        case 1:
            header = several(altered_text, content[8:start].decode(), words, choose).encode()
        case 2:
            header = several(altered, content[8:start], checkpoints(), choose)
        case _:
            text = several(altered_text, header["__metadata__"]["jaxnet"], words, choose)
            try:
                manifest = json.loads(text)
                settings = json.dumps(manifest["settings"], sort_keys=True)
                manifest["settings_sha256"] = hashlib.sha256(settings.encode()).hexdigest()
                text = json.dumps(manifest)
            except (ValueError, KeyError, TypeError, RecursionError):
                pass
            header["__metadata__"] = {"jaxnet": text, "jaxnet_sha256": hashlib.sha256(text.encode()).hexdigest()}
            header = json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + data


def read_checkpoint(path: Path) -> None:
    """By itself, and into a tree that it fits or doesn't. That no flipped bit is silent is in tests/checkpoint."""
    tree, settings = checkpoint.load(path)
    json.dumps(settings)
    assert isinstance(tree, dict)
    checkpoint.load(path, like=TREES[0] | {"key": jax.random.key(0)})


# NPZ: members altered as bytes, in the text of their header, in what the archive says of them; bombs.


@cache
def arrays() -> tuple[bytes, ...]:
    def npy(array):
        np.save(file := io.BytesIO(), array)
        return file.getvalue()

    x, y = np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3), np.array([0, 1, 1, 0])
    return tuple(map(npy, (x, y, np.ones(4), np.asfortranarray(x), x > 0.5, y.astype(">i2"))))


@cache
def zeros() -> bytes:
    return bytes(BOMB)


@cache
def bombs() -> tuple[bytes, ...]:
    """An NPZ file and two gzipped IDX files of many zeros."""
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (%d,), }" % BOMB
        header += b" " * (-(len(header) + 11) % 64) + b"\n"
        archive.writestr("x.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header + zeros())
        archive.writestr("y.npy", arrays()[1])
    told = bytes([0, 0, 8, 1]) + BOMB.to_bytes(4, "big") + zeros()
    return file.getvalue(), gzip.compress(told, 1), gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 4]) + zeros())


def made_npz(choose: Choose) -> bytes:
    if choose(200) == 0:
        return bombs()[0]
    members = [("x", arrays()[choose(2) * 3]), ("y", arrays()[1]), ("weight", arrays()[2])][: 2 + choose(2)]
    words = ["|O", "<f8", "|V8", "<U9", "|S5", "<c8", "<M8[s]", "shape", "descr", "False", "(4, 3)", "[('a', '<f4')]"]
    with zipfile.ZipFile(file := io.BytesIO(), "w", (0, 8)[choose(2)]) as archive:
        for name, npy in members:
            start = 10 + int.from_bytes(npy[8:10], "little")
            match choose(4):
                case 0:
                    npy = several(altered, npy, arrays(), choose)
                case 1:
                    header = several(altered_text, npy[10:start].decode(), words, choose).encode()
                    npy = npy[:8] + (len(header) % 2**16).to_bytes(2, "little") + header + npy[start:]
                case 2:
                    npy = arrays()[choose(len(arrays()))]
            name = (name, name, name, "x", f"../{name}", name * 100)[choose(6)]
            if f"{name}.npy" not in archive.namelist():
                archive.writestr(f"{name}.npy", npy)
    content = file.getvalue()
    return several(altered, content, arrays(), choose) if choose(3) == 0 else content


# IDX, gzipped or not.


def made_idx(choose: Choose) -> bytes:
    if choose(200) == 0:
        return bombs()[1 + choose(2)]
    shape = [(4,), (2, 3), (3, 2, 2), ()][choose(4)]
    code, size = [(8, 1), (9, 1), (11, 2), (12, 4), (13, 4), (14, 8), (7, 1)][choose(7)]
    header = bytes([0, 0, code, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)
    content = header + bytes(range(int(np.prod(shape)) * size))
    content = several(altered, content, [header], choose)
    packed = gzip.compress(content, 1) if choose(2) else content
    return several(altered, packed, [header], choose) if choose(3) == 0 else packed


# Texts: CSV files and study files.

TABLES = (
    "width,hue,kind\n1.5,red,iris\n2.5,blue,rose\n3.5,red,rose\n0,,iris\n",
    'width;kind;note\n1;0;"a; b"\n2;1;"say ""no"""\n3;0;NA\n4;1;?\n',
    "\ufeffkind\twidth\r\n1.0\t-3e4\r\n2\t5\r\n\r\n1\t7\r\n2\t8\r\n",
)
STUDIES = (
    'name = "a"\n[program]\nhidden = [64, 32]\nlr = 1e-3\n[data]\nname = "iris"\nfolds = 5\n[space]\n'
    "lr = { log = [1e-4, 1e-1], n = 4 }\ndropout = [0.0, 0.3]\n[study]\nepochs = 3\nseeds = [1, 2]\n",
    'build = "mine:build"\ndata = "mine:data"\n[space]\ndepth = { static = [1, 2] }\nrate.uniform = [0, 1]\n[study]\n'
    'method = "random"\ndraws = 8\nrank_by = "valid_loss"\nmode = "min"\n',
    '[program]\noptimizer = "momentum"\n[data]\nfile = "a.csv"\ntarget = "kind"\n[space]\nhidden = [[32], []]\n'
    'activation = ["relu", "tanh"]\nmomentum = { lin = [0, 0.9], n = 3 }\n[study]\nmethod = "zipped"\nwidth = 4\n',
)


def made_text(texts: Sequence[str], words: Sequence[str], choose: Choose) -> bytes:
    content = several(altered_text, texts[choose(len(texts))], words, choose).encode()
    return several(altered, content, [text.encode() for text in texts], choose) if choose(5) == 0 else content


def made_csv(choose: Choose) -> bytes:
    words = ["kind", "width", "hue", "missing", '""', "\r\n", "\n\n", "2020-01-01\n", "1,2,3\n"]
    return made_text(TABLES, words, choose)


def made_toml(choose: Choose) -> bytes:
    words = ["static", "log", "lin", "integers", "n = 999999999", "[data]", "[[study]]", "lr", "epochs", "a.b.c"]
    return made_text(STUDIES, words, choose)


def read_table(path: Path) -> None:
    """With each way to treat what is missing; the first error is raised if all are errors."""
    csvfile.read_file(path)
    found = []
    for missing in ("refuse", "drop", "mean"):
        try:
            table = read_csv(path, "kind", missing=missing)
        except (ValueError, TypeError) as error:
            found.append(error)
            continue
        assert np.isfinite(table.x).all()
        assert len(table.x) == len(table.y) > 0
    if len(found) == 3:
        raise found[0]


def read_study(path: Path) -> None:
    """A study that is read is written so that it reads the same."""
    file = studyfile.read(path)
    again = path.with_suffix(".again.toml")
    again.write_text(studyfile.written(file), encoding="utf-8")
    assert str(studyfile.read(again)._replace(path=path)) == str(file)
    studyspace.space_of(file)


READERS = {
    reader.name: reader
    for reader in (
        Reader("checkpoint", made_checkpoint, read_checkpoint, (checkpoint.CheckpointError,)),
        Reader("toml", made_toml, read_study),
        Reader("csv", made_csv, read_table),
        Reader("npz", made_npz, load),
        Reader("idx", made_idx, read_idx),
    )
}
