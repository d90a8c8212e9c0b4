"""A file that isn't what was written is refused with one kind of error that names it; never a wrong number."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxnet import checkpoint
from jaxnet.checkpoint import CheckpointError

FORMAT_1 = Path(__file__).with_name("format1.safetensors")
TREE = {"params": {"w": np.array([[1.0, -2.0]], np.float32), "b": np.zeros(2)}, "state": {}, "n": np.int32(7)}
SETTINGS = {"lr": 0.1, "units": [2], "name": "größe"}


@pytest.fixture
def small(tmp_path):
    checkpoint.save(tmp_path / "a", TREE, SETTINGS)
    return tmp_path / "a"


def refused(path, content=None):
    """What the error says that this content raises; it's of the one kind and begins with the path."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 1000
    return str(caught.value)


@contextmanager
def flipped(path, at, bit):
    """The file with one bit flipped, in its place: much faster than writing it anew."""
    with open(path, "r+b", buffering=0) as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit]))
        yield
        file.seek(at)
        file.write(bytes([byte]))


def test_a_flipped_bit_is_noticed_wherever_it_is(small):
    """Every bit of every seventh byte, and one bit of every other; there's no byte that doesn't matter."""
    for at in range(small.stat().st_size):
        for bit in range(8) if at % 7 == 0 else [at % 8]:
            with flipped(small, at, bit):
                refused(small)
    checkpoint.load(small)


def test_a_flipped_bit_of_a_file_of_format_1_never_gives_wrong_numbers(tmp_path):
    shutil.copy(FORMAT_1, tmp_path / "a")
    expected = checkpoint.load(FORMAT_1)
    unnoticed = 0
    for at in range(FORMAT_1.stat().st_size):
        with flipped(tmp_path / "a", at, at % 8):
            try:
                loaded = checkpoint.load(tmp_path / "a")
            except CheckpointError:
                continue
        unnoticed += 1
        assert str(loaded) == str(expected)
    assert unnoticed < 10  # capitals of an escape


def test_a_truncated_file_is_refused(small):
    size = small.stat().st_size
    os.truncate(small, size + 1)
    assert "cut off, or with something behind" in refused(small)
    for length in reversed(range(size)):
        os.truncate(small, length)
        refused(small)


def test_the_error_says_where(small):
    good = small.read_bytes()
    start = 8 + int.from_bytes(good[:8], "little")
    header = json.loads(good[8:start])
    for name in ("params/w", "params/b", "n"):
        at = start + header[name]["data_offsets"][0]
        said = refused(small, good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :])
        assert f"{name}: got bytes that don't match their checksum; take an earlier checkpoint" in said


def made(header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def manifest(leaves, *, settings=None, **changes):
    """Metadata with valid checksums around `leaves`."""
    settings = {} if settings is None else settings
    content = {
        "format": 2, "versions": {}, "best": False, "settings": settings, "leaves": leaves,
        "settings_sha256": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
    } | changes  # fmt: skip
    text = json.dumps(content)
    return {"jaxnet": text, "jaxnet_sha256": hashlib.sha256(text.encode()).hexdigest()}


def entry(dtype="float32", shape=(1,), data=bytes(4), **more):
    return {"dtype": dtype, "shape": list(shape), "sha256": hashlib.sha256(data).hexdigest(), **more}


def slot(dtype="F32", shape=(1,), begin=0, end=4):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


GOOD = made({"w": slot(), "__metadata__": manifest({"w": entry()})}, bytes(4))
HUGE = 2**62
HOSTILE = {
    "nothing": b"",
    "a longer header than file": (2**63).to_bytes(8, "little") + b"{}",
    "a header of 100 MB and more": (100_000_001).to_bytes(8, "little") + b"{}" * 50,
    "not UTF-8": made(b'{"\xff": 1}'),
    "UTF-16": made('{"a": 1}'.encode("utf-16")),
    "no JSON": made(b"{"),
    "no object": made(b"[]"),
    "NaN": made(b'{"w": NaN}'),
    "deep": made(b'{"w":' + b"[" * 100_000),
    "deep objects": made(b'{"w":' * 100_000),
    "a tensor twice": made(b'{"w":%b,"w":%b}' % ((json.dumps(slot()).encode(),) * 2), bytes(4)),
    "metadata twice": made(b'{"__metadata__":{},"__metadata__":{}}'),
    "metadata of numbers": made({"__metadata__": {"jaxnet": 3}}),
    "metadata that are a list": made({"__metadata__": [1]}),
    "no slot": made({"w": 3}),
    "negative offsets": made({"w": slot(begin=-4, end=0)}),
    "true for 1": made({"w": slot(shape=(True,))}, bytes(4)),
    "offsets that are numbers with a point": made({"w": slot(begin=0.0, end=4.0)}, bytes(4)),
    "three offsets": made({"w": slot() | {"data_offsets": [0, 4, 8]}}, bytes(4)),
    "a size that isn't the shape's": made({"w": slot(shape=(2,))}, bytes(4)),
    "a size beyond the file": made({"w": slot("U8", (HUGE,), 0, HUGE)}, bytes(4)),
    "a product that overflows": made({"w": slot("U8", (HUGE, 4), 0, 0)}),
    "33 dimensions": made({"w": slot("U8", (1,) * 33, 0, 1)}, bytes(1)),
    "an unknown dtype": made({"w": slot("F33")}, bytes(4)),
    "an overlap": made({"w": slot(), "v": slot(begin=2, end=6)}, bytes(6)),
    "a hole": made({"w": slot(), "v": slot(begin=8, end=12)}, bytes(12)),
    "a manifest of another file": made({"__metadata__": manifest({"w": entry()})}),
    "a tensor too many": made({"w": slot(), "__metadata__": manifest({})}, bytes(4)),
    "another dtype than said": made({"w": slot("I32"), "__metadata__": manifest({"w": entry()})}, bytes(4)),
    "another shape than said": made({"w": slot(shape=(1, 1)), "__metadata__": manifest({"w": entry()})}, bytes(4)),
    "an object for a dtype": made({"w": slot(), "__metadata__": manifest({"w": entry("object")})}, bytes(4)),
    "settings that are none": made({"__metadata__": manifest({}, settings=[1])}),
    "another checksum of the settings": made({"__metadata__": manifest({}, settings_sha256="0")}),
    "leaves that are none": made({"__metadata__": manifest([])}),
    "versions that are none": made({"__metadata__": manifest({}, versions=3)}),
    "a format that is a list": made({"__metadata__": manifest({}, format=[2])}),
    "a manifest that's no object": made({"__metadata__": {"jaxnet": "3", "jaxnet_sha256": "0"}}),
    "a deep manifest": made({"__metadata__": {"jaxnet": '{"format": 2, "leaves":' + "[" * 100_000}}),
    "a surrogate": made({"__metadata__": {"jaxnet": "\ud800"}}),
    "an unknown kind of nothing": made({"__metadata__": manifest({"w": {"empty": "set"}})}),
    "a name below a leaf": made(
        {"w": slot(), "w/v": slot(begin=4, end=8), "__metadata__": manifest({"w": entry(), "w/v": entry()})}, bytes(8)
    ),
    "a name of 200 parts": made({"a/" * 200: slot(), "__metadata__": manifest({"a/" * 200: entry()})}, bytes(4)),
    "a name of 200 parts without a tensor": made({"__metadata__": manifest({"a/" * 200: {"empty": "dict"}})}),
    "a truth value of 2": made(
        {"w": slot("BOOL", (1,), 0, 1), "__metadata__": manifest({"w": entry("bool", data=b"\2")})}, b"\2"
    ),
    "keys of floats": made({"w": slot(), "__metadata__": manifest({"w": entry(key="threefry2x32")})}, bytes(4)),
    "an array that can't be": made(
        {"w": slot("U8", (0, HUGE, HUGE), 0, 0), "__metadata__": manifest({"w": entry("uint8", (0, HUGE, HUGE), b"")})}
    ),
    "brackets without end": made(b'{"a":[' + b"[]," * 3_000_000 + b"[]]}"),
    "format 1 without sums": made({"__metadata__": {"jaxnet": '{"format": 1}'}}),
}


SAID = {
    "a header of 100 MB and more": "expected at most 100,000,000",
    "a tensor twice": "a name that is there twice",
    "metadata twice": "a name that is there twice",
    "NaN": "the number NaN",
    "true for 1": "expected integers that arrays can have",
    "offsets that are numbers with a point": "expected integers that arrays can have",
    "negative offsets": "expected integers that arrays can have",
    "33 dimensions": "got shape [1, 1, 1",
    "a size that isn't the shape's": "got 4 bytes for F32[2]",
    "an unknown dtype": "got 4 bytes for F33[1]",
    "an overlap": "expected from",
    "a hole": "expected from",
    "a tensor too many": "w: got tensors that the manifest doesn't know",
    "a manifest of another file": "w: got no tensor; expected one: it's missing",
    "another checksum of the settings": "settings: got others than their checksum says",
    "an unknown kind of nothing": "w: got an empty",
    "a name below a leaf": "'w/v' goes on below a leaf",
    "a name of 200 parts": "got more than 100 parts",
    "a truth value of 2": "w: got a truth value",
    "keys of floats": "w: got keys as float32",
    "brackets without end": "more brackets, commas and slashes",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_files_are_refused(tmp_path, what):
    assert SAID.get(what, "got") in refused(tmp_path / "a", HOSTILE[what])


def test_what_the_hostile_files_are_made_of_is_read(tmp_path):
    (tmp_path / "a").write_bytes(GOOD)
    assert checkpoint.load(tmp_path / "a")[0]["w"].tolist() == [0]


@pytest.mark.parametrize(("generator", "shape"), [("threefry2x32", (1,)), ("dice", (2,)), ("__import__", (2,))])
def test_keys_that_no_generator_has(tmp_path, generator, shape):
    import jax

    data = bytes(4 * shape[0])
    leaves = manifest({"k": entry("uint32", shape, data, key=generator)})
    (tmp_path / "a").write_bytes(made({"k": slot("U32", shape, 0, len(data)), "__metadata__": leaves}, data))
    with pytest.raises(CheckpointError, match=rf"k: got data of '{generator}'\[\d\], expected key<fry>\[\]"):
        checkpoint.load(tmp_path / "a", like={"k": jax.random.key(0)})


def test_pickles_and_objects_never_run(tmp_path):
    """Neither a pickle nor anything else than JSON and numbers is looked at."""
    np.save(tmp_path / "a", np.array([print], object), allow_pickle=True)
    assert "got" in refused(tmp_path / "a.npy")
    save_file({"w": np.zeros(3)}, tmp_path / "b", {"jaxnet": "__import__('os').abort()"})
    assert "manifest" in refused(tmp_path / "b")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory otherwise")
def test_memory_stays_bounded(tmp_path):
    """Hostile headers of 30 MB take less than 200 MB in all; one that says it's larger than it may be, nothing."""
    raw = b'{"a":[' + b"{}," * 9_900_000 + b"{}]}"
    (tmp_path / "lists").write_bytes(made(raw + b" " * (30_000_000 - len(raw))))
    (tmp_path / "slashes").write_bytes(made(b'{"' + b"/" * 15_000_000 + b'": 3, "' + b"a" * 14_000_000 + b'": 3}'))
    (tmp_path / "large").write_bytes(made(b"{}", b"\0" * 1000))
    with open(tmp_path / "large", "r+b") as file:
        file.write((2_000_000_000).to_bytes(8, "little"))
        file.truncate(3_000_000_000)  # sparse
    script = """
        import re, sys
        from jaxnet import checkpoint
        for path in sys.argv[1:]:
            try:
                checkpoint.load(path)
            except checkpoint.CheckpointError as error:
                assert len(str(error)) < 1000
            else:
                raise SystemExit("read")
        print(int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) / 1000)
        """
    run = [sys.executable, "-c", textwrap.dedent(script), *(str(tmp_path / n) for n in ("large", "lists", "slashes"))]
    assert float(subprocess.run(run, capture_output=True, text=True, check=True).stdout) < 200
