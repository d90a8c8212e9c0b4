"""What is saved comes back to the bit, or an error says that it doesn't; and the old file outlives a failed write."""

import contextlib
import errno
import os
import subprocess
import sys
import textwrap

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxnet import checkpoint

DTYPES = [np.dtype(name) for name in ("float32", "float64", "int32", "bool", "uint8")]
names = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), max_size=6).filter(
    lambda name: name != "__metadata__"
)
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
        ({"a": {"b/c": np.zeros(1)}}, {}, ValueError, "'b/c'"),
        ({"__metadata__": np.zeros(1)}, {}, ValueError, "__metadata__"),
        ({"\ud800": np.zeros(1)}, {}, ValueError, "surrogates"),
        ({3: np.zeros(1)}, {}, TypeError, "3"),
        ([np.zeros(1)], {}, TypeError, "list"),
        ({"a": {"b": np.array([None])}}, {}, TypeError, "a/b"),
        ({"a": np.zeros(1, complex)}, {}, TypeError, "complex128"),
        ({"a": np.zeros(1, np.longdouble)}, {}, TypeError, "a: "),
        ({"a": np.array(["text"])}, {}, TypeError, "a: "),
        ({}, {"rate": float("nan")}, ValueError, "JSON"),
        ({}, {"rate": np.float32(1)}, ValueError, "JSON"),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path, tree, settings, error, words):
    with pytest.raises(error, match=words):
        checkpoint.save(tmp_path / "a", tree, settings)
    assert not os.listdir(tmp_path)


@pytest.fixture
def small(tmp_path):
    tree = {"params": {"w": np.array([[1.0, -2.0]], np.float32), "b": np.zeros(2)}, "state": {}, "n": np.int32(7)}
    checkpoint.save(tmp_path / "a", tree, {"lr": 0.1, "units": [2]})
    return tmp_path / "a", tree


def test_a_flipped_byte_never_gives_wrong_numbers(small):
    path, tree = small
    good = path.read_bytes()
    noticed = 0
    for at in range(len(good)):
        for flip in (0x01, 0x02, 0x10, 0x20, 0x80, 0xFF):
            path.write_bytes(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
            try:
                loaded, settings = checkpoint.load(path)
            except ValueError as error:
                noticed += str(path) in str(error)
            else:
                assert same(tree, loaded)
                assert settings == {"lr": 0.1, "units": [2]}
    assert noticed > 0.9 * 6 * len(good)


def test_a_truncated_file_is_refused(small):
    path, _ = small
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(ValueError, match="a: got"):
            checkpoint.load(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(ValueError, match="a: got"):
        checkpoint.load(path)


def test_foreign_files_are_refused(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(FileNotFoundError, match="no such file"):
        checkpoint.load(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="a folder"):
        checkpoint.load(tmp_path)
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"a\.npz: got no whole safetensors file"):
        checkpoint.load(tmp_path / "a.npz")
    for metadata in (None, {"format": "pt"}, {"jaxnet": "[]"}, {"jaxnet": "{}"}, {"jaxnet": "{"}):
        save_file({"w": np.zeros(3)}, tmp_path / "b", metadata)
        with pytest.raises(ValueError, match="b: got"):
            checkpoint.load(tmp_path / "b")


def test_a_file_of_a_later_format_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    checkpoint.save(tmp_path / "a", {}, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match="got format 2; expected 1"):
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
