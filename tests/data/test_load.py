"""Loading: scikit-learn's own arrays, Fashion-MNIST's known counts, and files written by the test."""

import gzip
import hashlib
import struct
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import datasets

from jaxnet.data.load import CHECKSUMS, FOLDER, load, read_idx

FLOAT = jnp.result_type(float)
IDX_CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}


def idx_bytes(array):
    """IDX by the format's definition: magic number, lengths, then the values, all big-endian."""
    code = IDX_CODES[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "wine", "iris", "diabetes"])
def test_bundled_sets_equal_those_of_scikit_learn(name):
    x, y = load(name)
    theirs_x, theirs_y = getattr(datasets, f"load_{name}")(return_X_y=True)
    np.testing.assert_array_equal(x, (theirs_x / (16 if name == "digits" else 1)).astype(FLOAT))
    assert x.dtype == FLOAT
    if name == "diabetes":
        np.testing.assert_array_equal(y, theirs_y)
        assert y.dtype == FLOAT
    else:
        np.testing.assert_array_equal(y, theirs_y)
        assert y.dtype == np.int32
    x[:], y[:] = 0, 0  # the next caller's arrays are their own
    assert load(name)[0].any()


def test_digits_as_images():
    x, _ = load("digits", images=True)
    assert x.shape == (1797, 8, 8, 1)
    np.testing.assert_array_equal(x[..., 0], datasets.load_digits().images.astype(FLOAT) / 16)
    assert x.min() == 0
    assert x.max() == 1


@pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the Debian package dataset-fashion-mnist")
@pytest.mark.parametrize(("part", "n"), [("train", 60_000), ("test", 10_000)])
def test_fashion_mnist_is_what_it_is_known_to_be(part, n):
    x, y = load("fashion_mnist", part=part)
    assert x.shape == (n, 784)
    assert x.dtype == FLOAT
    assert (x.min(), x.max()) == (0, 1)
    assert y.dtype == np.int32
    assert np.bincount(y).tolist() == [n // 10] * 10
    # The mean and deviation of training pixels that everybody normalizes by.
    if part == "train":
        assert abs(x.mean(dtype=np.float64) - 0.2860) < 5e-5
        assert abs(x[::10].std(dtype=np.float64) - 0.3530) < 2e-3
        assert y[:10].tolist() == [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]


@pytest.fixture
def small_fashion(tmp_path, monkeypatch):
    """A folder of four small IDX files, two of them gzipped, whose checksums count as the known ones."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name in CHECKSUMS:
        n = 7 if name.startswith("train") else 3
        shape = (n, 28, 28) if "images" in name else (n,)
        arrays[name] = rng.integers(0, 256 if "images" in name else 10, shape).astype(np.uint8)
        content = idx_bytes(arrays[name])
        monkeypatch.setitem(CHECKSUMS, name, hashlib.sha256(content).hexdigest())
        if "images" in name:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (tmp_path / name).write_bytes(content)
    return tmp_path, arrays


@pytest.mark.parametrize(("part", "prefix"), [("train", "train"), ("test", "t10k")])
def test_fashion_mnist_from_a_folder(small_fashion, part, prefix):
    folder, arrays = small_fashion
    images, labels = arrays[f"{prefix}-images-idx3-ubyte"], arrays[f"{prefix}-labels-idx1-ubyte"]
    x, y = load("fashion_mnist", part=part, folder=str(folder))
    np.testing.assert_allclose(x, images.reshape(-1, 784) / 255, rtol=1e-6)
    np.testing.assert_array_equal(y, labels)
    assert (x.dtype, y.dtype) == (FLOAT, np.int32)
    square, _ = load("fashion_mnist", part=part, folder=folder, images=True)
    np.testing.assert_array_equal(square[..., 0].reshape(-1, 784), x)
    assert square.shape[1:] == (28, 28, 1)


def test_fashion_mnist_that_is_damaged_or_absent(small_fashion, tmp_path):
    folder, _ = small_fashion
    labels = folder / "train-labels-idx1-ubyte"
    content = labels.read_bytes()
    labels.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte: got SHA-256 \w{64} .* expected Fashion-MNIST"):
        load("fashion_mnist", folder=folder)
    labels.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"ubyte: got 6 bytes of data, expected 7 for the shape \(7,\)"):
        load("fashion_mnist", folder=folder)
    images = folder / "train-images-idx3-ubyte.gz"
    images.write_bytes(images.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz: got a broken gzip file .*fetch it again"):
        load("fashion_mnist", folder=folder)
    images.unlink()
    with pytest.raises(FileNotFoundError, match=r"apt-get install dataset-fashion-mnist, or pass the folder"):
        load("fashion_mnist", folder=folder)
    with pytest.raises(FileNotFoundError, match=r"none: got no t10k-images-idx3-ubyte.gz"):
        load("fashion_mnist", part="test", folder=tmp_path / "none")


@settings(max_examples=30)
@given(
    array=st.sampled_from(sorted(IDX_CODES)).flatmap(
        lambda code: hnp.arrays(code, hnp.array_shapes(max_dims=4, min_side=0, max_side=4))
    ),
    gzipped=st.booleans(),
)
def test_idx_files_come_back(tmp_path_factory, array, gzipped):
    path = tmp_path_factory.mktemp("idx") / "array"
    path.write_bytes(gzip.compress(idx_bytes(array)) if gzipped else idx_bytes(array))
    again = read_idx(path)
    np.testing.assert_array_equal(again, array)
    assert again.dtype == array.dtype
    assert again.flags.writeable


IDX = idx_bytes(np.arange(6, dtype=np.uint8).reshape(2, 3))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"array: got the first bytes , expected the header of an IDX file"),
        (IDX[:9], r"got the first bytes 0000080200000002, expected the header"),
        (b"\x00\x00\x07" + IDX[3:], r"got the first bytes 00000702\w*, expected the header"),
        (b"\x00\x00\x08\x00" + IDX[4:], r"got the first bytes 00000800"),
        (b"\x00\x00\x08\xff" + bytes(2000), r"got the first bytes 000008ff"),
        (b"P5 28 28", r"got the first bytes \w+, expected the header"),
        (IDX[:-1], r"got 5 bytes of data, expected 6 for the shape \(2, 3\)"),
        (IDX + b"1", r"got 7 bytes of data, expected 6"),
        (IDX[:4] + b"\xff" * 8, r"got 0 bytes of data, expected \d+ for the shape \(4294967295, 4294967295\)"),
        (gzip.compress(IDX, mtime=0)[:-9], r"got a broken gzip file"),
        (gzip.compress(IDX, mtime=0)[:-8] + bytes(8), r"got a broken gzip file \(CRC"),
        (b"\x1f\x8b" + bytes(30), r"got a broken gzip file"),
        (gzip.compress(IDX, mtime=0)[:10] + b"\xff" * 20, r"got a broken gzip file \(Error -3"),
    ],
)
def test_damaged_idx_files(tmp_path, content, sentence):
    (tmp_path / "array").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read_idx(tmp_path / "array")


def test_a_csv_file(tmp_path):
    path = tmp_path / "Flowers.CSV"
    path.write_text("width,kind\n1.5,iris\n,rose\n2.5,rose\n")
    with pytest.raises(ValueError, match=r"1 in column 'width'"):
        load(path, target="kind")
    x, y = load(str(path), target="kind", missing="drop")
    assert x.tolist() == [[1.5], [2.5]]
    assert y.tolist() == [0, 1]
    with pytest.raises(TypeError, match=r"target: got None, expected one of the columns 'width', 'kind'"):
        load(path)


def test_an_npz_file(tmp_path):
    path = tmp_path / "measured.npz"
    x, y, weight = np.arange(12.0).reshape(4, 3), np.array([0, 1, 2, 1]), np.array([1, 0, 2, 3])
    np.savez(path, x=x, y=y)
    ours = load(path)
    np.testing.assert_array_equal(ours[0], x)
    np.testing.assert_array_equal(ours[1], y)
    assert [array.dtype for array in ours] == [FLOAT, np.int32]
    np.savez_compressed(path, weight=weight, y=y / 2, x=x.astype(np.uint8))
    ours = load(str(path))
    assert [array.dtype for array in ours] == [np.int32, FLOAT, FLOAT]
    np.testing.assert_array_equal(ours[2], weight)


X, Y = np.zeros((3, 2)), np.array([0, 1, 1])


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": X}, r"measured.npz: got arrays named \['x'\], expected x, y and perhaps weight"),
        ({"x": X, "y": Y, "weights": Y}, r"named \['weights', 'x', 'y'\], expected x, y and perhaps weight"),
        ({"x_train": X, "y_train": Y}, r"named \['x_train', 'y_train'\], expected"),
        ({}, r"named \[\], expected"),
        ({"x": X, "y": np.array(["a", None, {}], object)}, r"NumPy cannot read \(Object arrays .*numbers by np.savez"),
        ({"x": X, "y": np.array(["a", "b", "c"])}, r"y: got <U1 of shape \(3,\), expected numbers"),
        ({"x": X + 1j, "y": Y}, r"x: got complex128 of shape \(3, 2\), expected numbers"),
        ({"x": X, "y": np.float64(1)}, r"y: got float64 of shape \(\), expected numbers with a leading"),
        ({"x": X, "y": Y[:2]}, r"got \[3, 2\] examples in \['x', 'y'\], expected the same number"),
        ({"x": X[:0], "y": Y[:0]}, r"got \[0, 0\] examples .*, at least 1"),
        ({"x": X * np.nan, "y": Y}, r"x: got 6 values that are NaN or infinite, the first at \(0, 0\)"),
        ({"x": X, "y": Y + 2**31 - 1}, r"y: got integers from 2147483647 to 2147483648, expected such as fit int32"),
        ({"x": X, "y": np.array([2**64 - 1] * 3, np.uint64)}, r"y: got integers from 18446744073709551615"),
        ({"x": X, "y": Y, "weight": Y - 1}, r"weight that is not one number per example, none negative"),
        ({"x": X, "y": Y, "weight": Y * 0}, r"weight that is not .* some above 0"),
        ({"x": X, "y": Y, "weight": X + 1}, r"weight that is not one number per example"),
        ({"x": X, "y": Y, "weight": X[:, 0] + np.inf}, r"weight: got 3 values that are NaN or infinite"),
    ],
)
def test_npz_files_that_are_no_set(tmp_path, arrays, sentence):
    np.savez(tmp_path / "measured.npz", **arrays)
    with pytest.raises(ValueError, match=sentence):
        load(tmp_path / "measured.npz")


def test_damaged_npz_files(tmp_path):
    path = tmp_path / "measured.npz"
    np.savez_compressed(path, x=np.random.default_rng(0).normal(size=(40, 5)), y=np.arange(40))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for trial in range(60):
        damaged = bytearray(whole)
        if trial % 2:
            damaged = damaged[: rng.integers(len(whole))]
        else:
            damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(load(path)[1], np.arange(40))  # a bit that means nothing
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
    assert refused > 45
    with pytest.raises(FileNotFoundError, match=r"none.npz: got no such file, expected an NPZ file"):
        load(tmp_path / "none.npz")
    path.write_bytes(whole.replace(b"PK\1\2", b"PK\1\3"))  # nor is the file left open
    with pytest.raises(ValueError, match=r"NumPy cannot read \(Bad magic number for central directory"):
        load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"a file that NumPy cannot read \(no zip archive\)"):
        load(path)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: load("digit"), ValueError, r"name: got 'digit', expected one of digits, .*Did you mean 'digits'\?"),
        (lambda: load("Fashion-MNIST"), ValueError, r"Did you mean 'fashion_mnist'\?"),
        (lambda: load("cifar"), ValueError, r"or a path that ends in \.csv or \.npz\.$"),
        (lambda: load("table.parquet"), ValueError, r"a path that ends in \.csv or \.npz"),
        (lambda: load(""), ValueError, r"name: got '', expected one of digits"),
        (lambda: load(3), TypeError, r"name: got int, expected a path or one of digits"),
        (lambda: load(None), TypeError, r"name: got NoneType, expected a path"),
        (lambda: load("digits", part="test"), ValueError, r"digits has no test part; take one by jaxnet.data.split"),
        (lambda: load("fashion_mnist", part="valid"), ValueError, r"part: got 'valid', expected 'train' or 'test'"),
        (lambda: load("wine", images=True), ValueError, r"images: .*only with digits or fashion_mnist"),
        (lambda: load("iris", folder="."), ValueError, r"folder: got a value with 'iris', .* with fashion_mnist"),
        (lambda: load("iris", target="kind"), ValueError, r"target: got a value with 'iris', .* only with \.csv"),
        (lambda: load("a.npz", missing="drop"), ValueError, r"missing: .* only with \.csv"),
        (lambda: load("a.csv", images=True), ValueError, r"images: .* only with digits or fashion_mnist"),
        (lambda: load("a.csv", target="y"), FileNotFoundError, r"a\.csv: got no such file"),
        (lambda: read_idx("none"), FileNotFoundError, r"none: got no such file, expected an IDX file"),
    ],
)
def test_errors_say_what_came_and_what_was_expected(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_a_name_may_be_a_path_object():
    assert load(Path("iris"))[0].shape == (150, 4)
