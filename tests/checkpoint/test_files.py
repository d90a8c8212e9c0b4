"""Nested dicts come back to the bit, other tools read the file, and the old file outlives a failed write."""

import contextlib
import errno
import hashlib
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnet
from jaxnet import checkpoint

FORMAT_1 = Path(__file__).with_name("format1.safetensors")  # written by jaxnet 0.1.0 before format 2
DTYPES = [np.dtype(name) for name in ("float32", "float64", "int32", "bool", "uint8")]
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(lambda name: name != "__metadata__")
leaves = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
trees = st.dictionaries(names, st.recursive(leaves, lambda t: st.dictionaries(names, t, max_size=3)), max_size=3)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
jsons = st.recursive(plain, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(), t, max_size=3))


def same(a, b):
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


@given(tree=trees, settings=st.dictionaries(st.text(), jsons, max_size=3))
def test_round_trip(tmp_path_factory, tree, settings):
    path = tmp_path_factory.mktemp("round") / "a.safetensors"
    checkpoint.save(path, tree, settings)
    loaded, said = checkpoint.load(path)
    assert same(tree, loaded)
    assert said == settings
    first = path.read_bytes()
    checkpoint.save(path, tree, settings)
    assert path.read_bytes() == first
    assert os.listdir(path.parent) == [path.name]


def test_views_other_byte_orders_and_jax_arrays(tmp_path):
    import jax.numpy as jnp

    tree = {"t": np.arange(6, dtype=">i4").reshape(2, 3).T, "j": jnp.ones((2, 0)), "n": 3, "r": np.arange(4.0)[::-1]}
    checkpoint.save(tmp_path / "a", tree, {"units": (2, 3)})
    loaded, settings = checkpoint.load(tmp_path / "a")
    assert settings == {"units": [2, 3]}
    for name, value in tree.items():
        np.testing.assert_array_equal(loaded[name], np.asarray(value))
        assert loaded[name].flags.writeable


@pytest.mark.parametrize(
    ("tree", "settings", "error", "words"),
    [
        ({"__metadata__": np.zeros(1)}, {}, ValueError, "__metadata__"),
        ({"\ud800": np.zeros(1)}, {}, ValueError, "surrogates"),
        ({(3,): np.zeros(1)}, {}, TypeError, "(3,)"),
        ({"a": {True: np.zeros(1)}}, {}, TypeError, "True below 'a'"),
        ({"a": {1: np.zeros(1), "1": np.zeros(1)}}, {}, ValueError, "two leaves with name 'a/1'"),
        ({"a": {"b": np.array([None])}}, {}, TypeError, "a/b"),
        ({"a": np.zeros(1, complex)}, {}, TypeError, "complex128"),
        ({"a": np.zeros(1, np.longdouble)}, {}, TypeError, "a: "),
        ({"a": np.array(["text"])}, {}, TypeError, "a: "),
        ({"a": 2**70}, {}, TypeError, "a: got an array of dtype object"),
        ({}, {"rate": float("nan")}, ValueError, "JSON"),
        ({}, {"rate": np.float32(1)}, ValueError, "JSON"),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path, tree, settings, error, words):
    with pytest.raises(error) as caught:
        checkpoint.save(tmp_path / "a", tree, settings)
    assert words in str(caught.value)
    assert not os.listdir(tmp_path)


def test_trees_too_deep_and_headers_too_large_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.format, "MAX_HEADER", 2000)
    monkeypatch.setattr(checkpoint.format, "MAX_MARKS", 100)
    deep: dict = {}
    for _ in range(101):
        deep = {"a": deep}
    for tree, settings in ((deep, {}), ({}, {"text": "x" * 2000}), ({}, {"n": "," * 100})):
        with pytest.raises(ValueError, match="got"):
            checkpoint.save(tmp_path / "a", tree, settings)
    assert not os.listdir(tmp_path)


def test_other_tools_read_it(tmp_path):
    import jax.numpy as jnp
    from safetensors import safe_open
    from safetensors.flax import load_file

    tree = {"p": {"w": np.float32([[1, 2]]), "h": jnp.array([0.5, -2], jnp.bfloat16)}, "n": [np.int8(3), True]}
    checkpoint.save(tmp_path / "a", tree, {"lr": 0.1})
    loaded = load_file(tmp_path / "a")
    assert {name: (str(a.dtype), a.tolist()) for name, a in loaded.items()} == {
        "p/w": ("float32", [[1, 2]]), "p/h": ("bfloat16", [0.5, -2]), "n/0": ("int8", 3), "n/1": ("bool", True),
    }  # fmt: skip
    with safe_open(tmp_path / "a", framework="np") as file:
        metadata = file.metadata()
        w = file.get_tensor("p/w")
    manifest = json.loads(metadata["jaxnet"])
    assert metadata["jaxnet_sha256"] == hashlib.sha256(metadata["jaxnet"].encode()).hexdigest()
    assert manifest["format"] == 2
    assert manifest["versions"]["jaxnet"] == jaxnet.__version__
    assert manifest["settings"] == {"lr": 0.1}
    assert manifest["settings_sha256"] == hashlib.sha256(b'{"lr": 0.1}').hexdigest()
    expected = {"dtype": "float32", "shape": [1, 2], "sha256": hashlib.sha256(w.tobytes()).hexdigest()}
    assert manifest["leaves"]["p/w"] == expected


def test_tensors_are_aligned(tmp_path):
    tree = {f"{dtype}": np.ones(3, dtype) for dtype in DTYPES}
    checkpoint.save(tmp_path / "a", tree)
    raw = (tmp_path / "a").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:start])
    for name in tree:
        assert (start + header[name]["data_offsets"][0]) % np.dtype(name).itemsize == 0


def test_files_of_format_1_are_read():
    tree, settings = checkpoint.load(FORMAT_1)
    expected = {
        "params": {"dense_0": {"w": np.float32([[1.5, -2]]), "b": np.arange(2.0)}}, "state": {}, "n~1": np.int32(7),
        "mask": np.array([True, False]),
    }  # fmt: skip
    assert same(expected, tree)
    assert settings == {"lr": 0.1, "units": [2], "größe": "é"}
    assert same(
        expected["params"]["dense_0"]["w"], checkpoint.load(FORMAT_1, like=expected)[0]["params"]["dense_0"]["w"]
    )


def test_foreign_files_are_refused(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(FileNotFoundError, match="no such file"):
        checkpoint.load(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="a folder"):
        checkpoint.load(tmp_path)
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(checkpoint.CheckpointError, match=r"a\.npz: got 280 bytes, .* of them header"):
        checkpoint.load(tmp_path / "a.npz")
    for metadata in (None, {"format": "pt"}, {"jaxnet": "[]"}, {"jaxnet": "{}"}, {"jaxnet": "{"}):
        save_file({"w": np.zeros(3)}, tmp_path / "b", metadata)
        with pytest.raises(checkpoint.CheckpointError, match="b: got"):
            checkpoint.load(tmp_path / "b")


def test_a_file_of_a_later_format_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.format, "FORMAT", 3)
    checkpoint.save(tmp_path / "a", {}, {})
    monkeypatch.undo()
    with pytest.raises(checkpoint.CheckpointError, match="got format 3; expected 1 or 2"):
        checkpoint.load(tmp_path / "a")


@contextlib.contextmanager
def full_disk(folder):
    """A file system of 64 KiB at `folder`; skips where one can't be mounted."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("can't mount a tmpfs here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root mounts")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    with full_disk(tmp_path):
        checkpoint.save(tmp_path / "a", {"w": np.arange(3.0)}, {"old": True})
        with pytest.raises(OSError, match="No space left") as caught:
            checkpoint.save(tmp_path / "a", {"w": np.zeros(20_000)}, {"old": False})
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(tmp_path / "a")
        assert os.listdir(tmp_path) == ["a"]
        tree, settings = checkpoint.load(tmp_path / "a")
        assert tree["w"].tolist() == [0, 1, 2]
        assert settings == {"old": True}


@pytest.mark.skipif(os.name != "posix", reason="POSIX limits")
def test_a_write_cut_off_by_a_limit_leaves_the_old_file(tmp_path):
    script = """
        import resource, signal, sys, numpy as np
        from jaxnet import checkpoint
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        checkpoint.save(sys.argv[1], {"w": np.arange(3.0)}, {})
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            checkpoint.save(sys.argv[1], {"w": np.zeros(20_000)}, {})
        except OSError as error:
            print(error.filename == sys.argv[1], checkpoint.load(sys.argv[1])[0]["w"].tolist())
        assert "jax" not in sys.modules
        """
    run = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "a")]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == "True [0.0, 1.0, 2.0]\n"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
def test_links_stay_and_only_files_are_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "a")
    checkpoint.save(tmp_path / "link", {}, {"n": 1})
    checkpoint.save(tmp_path / "link", {}, {"n": 2})
    assert (tmp_path / "link").is_symlink()
    assert checkpoint.load(tmp_path / "a") == ({}, {"n": 2})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FileExistsError, match="no regular file"):
        checkpoint.save(tmp_path / "pipe", {}, {})
    assert sorted(os.listdir(tmp_path)) == ["a", "link", "pipe"]


@pytest.mark.parametrize("place", ["missing/a", "file/a", "folder"])
def test_a_place_that_cannot_be_written_is_named(tmp_path, place):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=place) as caught:
        checkpoint.save(tmp_path / place, {}, {})
    assert caught.value.filename == str(tmp_path / place)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_an_error_of_the_disk_while_reading_is_named(tmp_path, monkeypatch):
    checkpoint.save(tmp_path / "a", {"w": np.zeros(3)})

    def broken(raw, size):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoint.files, "parsed", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        checkpoint.load(tmp_path / "a")
    assert caught.value.filename == str(tmp_path / "a")


@pytest.mark.parametrize("size", [3, 300_000])  # large tensors are on the disk before the header is
def test_the_file_is_on_the_disk_before_it_has_its_name_and_the_name_after(tmp_path, monkeypatch, size):
    said = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        place = os.readlink(f"/proc/self/fd/{descriptor}") if os.path.isdir("/proc/self/fd") else ""
        said.append(("fsync", "folder" if os.path.isdir(place) else "file", os.fstat(descriptor).st_size > 8 * size))
        fsync(descriptor)

    def noted_replace(source, target):
        said.append(("rename", os.path.basename(target), (tmp_path / "a").exists()))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    checkpoint.save(tmp_path / "a", {"w": np.zeros(size)})
    large = [("fsync", "file", True)] if size > 3 else []
    assert [*said[:-1], said[-1][:2]] == [
        *large, ("fsync", "file", True), ("rename", "a", False), ("fsync", "folder"),
    ]  # fmt: skip
