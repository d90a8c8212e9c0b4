"""Loading: a set (x, y) by name, or from a file of one's own.

    x, y = load("digits")                          1,797 images of 8 x 8, 10 classes       in scikit-learn
    x, y = load("breast_cancer")                   569 examples of 30 numbers, 2 classes   in scikit-learn
    x, y = load("wine")                            178 examples of 13 numbers, 3 classes   in scikit-learn
    x, y = load("iris")                            150 examples of 4 numbers, 3 classes    in scikit-learn
    x, y = load("diabetes")                        442 examples of 10 numbers, regression  in scikit-learn
    x, y = load("fashion_mnist")                   60,000 images of 28 x 28, 10 classes    gzipped IDX files
    x, y = load("fashion_mnist", part="test")      10,000 more
    x, y = load("flowers.csv", target="kind")      read by `tables.read_csv`, which also gives the encoding
    x, y = load("measured.npz")                    arrays named x and y, perhaps weight: (x, y, weight)

x is in JAX's default float (pixels in [0, 1]), labels are int32, targets of a regression are floats. The
diabetes columns come as scikit-learn scales them: centred, with a sum of squares of 1. Nothing is downloaded unless
asked for: load("fashion_mnist", download=True), once.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

from jaxnet.data.csvfile import nearest
from jaxnet.data.download import cache_folder, fetch
from jaxnet.data.standardize import as_float
from jaxnet.data.tables import read_csv

__all__ = ["load", "read_idx", "read_npz"]

BUNDLED = ("digits", "breast_cancer", "wine", "iris", "diabetes")
NAMES = (*BUNDLED, "fashion_mnist")
FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where the Debian package puts it
ADDRESS = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"  # its authors'
CHECKSUMS = {  # SHA-256 of the unpacked files; the gzipped ones differ between distributors
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
MOST_PACKED, ROOM = 200, 2**24  # a packed file may unpack to so many times its size, and so many bytes
IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def load(
    name: str | os.PathLike[str],
    *,
    part: str = "train",
    images: bool = False,
    folder: str | os.PathLike[str] | None = None,
    download: bool | str = False,
    target: str | None = None,
    missing: str = "refuse",
) -> tuple[np.ndarray, ...]:
    """Load a set by its name, or from a CSV or NPZ file: (x, y), or (x, y, weight) where a file has weights.

    Args:
        name: one of the names above, or a path that ends in .csv or .npz. In an NPZ file floats become the
            default float, integers and truth values int32, in x and y alike: scale integer pixels yourself.
        part: "train" or "test"; only fashion_mnist has a test part, split the others by `split`.
        images: digits and fashion_mnist only: x as NHWC images (n, 8, 8, 1) or (n, 28, 28, 1) and not flat.
        folder: fashion_mnist only: where its IDX files lie, gzipped or not. Unless given they're looked for where
            Debian's package puts them, then in `download.cache_folder()`: JAXNET_DATA or the system's.
        download: fashion_mnist only: True fetches the files of this part that aren't there from its authors, an
            address from there, into the folder or the cache; their checksums are verified before they are kept.
        target, missing: CSV files only: the column to predict, and what to do about missing values (see
            `tables.read_csv`, which knows more options).

    Raises:
        FileNotFoundError: a file is not there; the sentence says how to get it.
        TypeError, ValueError: unknown name, an option that does not apply, or content that does not fit.
        OSError: a file can't be downloaded.

    >>> x, y = load("digits")
    >>> x.shape, y.shape, float(x.max()), y[:5].tolist()
    ((1797, 64), (1797,), 1.0, [0, 1, 2, 3, 4])
    """
    if not isinstance(name, (str, os.PathLike)):
        raise TypeError(f"name: got {type(name).__name__}, expected a path or one of {', '.join(NAMES)}")
    name = os.fspath(name)
    suffix = Path(name).suffix.lower()
    if name not in NAMES and suffix not in (".csv", ".npz"):
        raise ValueError(
            f"name: got {name!r}, expected one of {', '.join(NAMES)}, or a path that ends in .csv or .npz."
            + nearest(name, NAMES)
        )
    if part not in ("train", "test"):
        raise ValueError(f"part: got {part!r}, expected 'train' or 'test'")
    if part == "test" and name != "fashion_mnist":
        raise ValueError(f"part: got 'test', but {name} has no test part; take one by jaxnet.data.split")
    options = (
        ("images", images is not False, ("digits", "fashion_mnist")),
        ("folder", folder is not None, ("fashion_mnist",)),
        ("download", download is not False, ("fashion_mnist",)),
        ("target", target is not None, (".csv",)),
        ("missing", missing != "refuse", (".csv",)),
    )
    for option, given, users in options:
        if given and name not in users and suffix not in users:
            raise ValueError(f"{option}: got a value with {name!r}, expected it only with {' or '.join(users)}")
    if name == "fashion_mnist":
        return _fashion_mnist(folder, part, images, download)
    if name in BUNDLED:
        return _bundled(name, images)
    if suffix == ".csv":
        table = read_csv(name, target, missing=missing)  # type: ignore[arg-type]  # refuses None by a sentence
        return table.x, table.y
    return _npz(Path(name))


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read one IDX file, gzipped or not: the array it holds, in the type and shape that its header states.

    Raises:
        FileNotFoundError: no such file.
        ValueError: broken gzip, no IDX header, or another length than the header states.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "labels-idx1-ubyte")
    ...     _ = path.write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    ...     read_idx(path).tolist()
    [7, 8, 9]
    """
    path = Path(path)
    return _parse_idx(_unpacked(path), path)


def _bundled(name: str, images: bool) -> tuple[np.ndarray, np.ndarray]:
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{name}")()
    x, y = as_float(bunch.data, "x"), bunch.target
    if name == "digits":
        x = (x / 16).reshape((-1, 8, 8, 1) if images else (-1, 64))
    return x, (as_float(y, "y") if name == "diabetes" else y.astype(np.int32))


def _fashion_mnist(
    folder: str | os.PathLike[str] | None, part: str, images: bool, download: bool | str
) -> tuple[np.ndarray, np.ndarray]:
    if not isinstance(download, (bool, str)):
        raise TypeError(f"download: got {download!r}, expected True, False or the address of the files' folder")
    folders = [FOLDER, cache_folder()] if folder is None else [Path(folder)]
    prefix = {"train": "train", "test": "t10k"}[part]
    arrays = []
    for name in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
        found = [path for at in folders for path in (at / f"{name}.gz", at / name) if path.is_file()]
        if not found and download:
            address = ADDRESS if download is True else download
            found = [folders[-1] / f"{name}.gz"]
            fetch(f"{address.rstrip('/')}/{name}.gz", found[0], CHECKSUMS[name])
        if not found:
            raise FileNotFoundError(
                f"{folders[0]}: got no {name}.gz, expected Fashion-MNIST's four IDX files there; "
                "apt-get install dataset-fashion-mnist, or pass the folder that has them as folder=, or download=True"
            )
        content = _unpacked(found[0])
        arrays.append(_parse_idx(content, found[0]))
        checksum = hashlib.sha256(content).hexdigest()
        if checksum != CHECKSUMS[name]:
            raise ValueError(
                f"{found[0]}: got SHA-256 {checksum} of the unpacked bytes, expected Fashion-MNIST's "
                f"{CHECKSUMS[name]}; fetch the file again, or read another set by read_idx"
            )
    x = as_float(arrays[0], "x")
    x /= 255
    return x.reshape((-1, 28, 28, 1) if images else (-1, 784)), arrays[1].astype(np.int32)


def _unpacked(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: got no such file, expected an IDX file; mind the working folder")
    with path.open("rb") as file:
        if file.read(2) != b"\x1f\x8b":
            return path.read_bytes()
    most = _most_unpacked(path)
    try:
        with gzip.open(path) as file:
            content = file.read(most + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path}: got a broken gzip file ({error}); fetch it again") from error
    if len(content) > most:
        raise ValueError(f"{path}: got more than {most:,} bytes from this small gzip file; unpack it, if it's right")
    return content


def _most_unpacked(path: Path) -> int:
    """How many bytes a packed file may hold: what packs better is made to fill the memory."""
    return ROOM + MOST_PACKED * path.stat().st_size


def _parse_idx(content: bytes, path: Path) -> np.ndarray:
    """The array behind an IDX header: two zeros, a type, the number of axes, their lengths (big-endian)."""
    axes = content[3] if len(content) >= 4 else 0
    start = 4 + 4 * axes
    if len(content) < start or content[:2] != b"\0\0" or content[2] not in IDX_TYPES or not 1 <= axes <= 32:
        raise ValueError(f"{path}: got the first bytes {content[:8].hex()}, expected the header of an IDX file")
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", axes, offset=4))
    dtype = np.dtype(IDX_TYPES[content[2]])
    stated = math.prod(shape) * dtype.itemsize
    if len(content) - start != stated:
        raise ValueError(
            f"{path}: got {len(content) - start} bytes of data, expected {stated} for the shape {shape} "
            "of the header; the file is damaged, fetch it again"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of an NPZ file by name; nothing is unpickled, nor unpacked that is larger than such a file can be.

    Raises:
        FileNotFoundError: no such file. ValueError: no NPZ file, a damaged one, or one of other things than arrays.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(Path(folder, "a.npz"), x=np.arange(3))
    ...     read_npz(Path(folder, "a.npz"))
    {'x': array([0, 1, 2])}
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: got no such file, expected an NPZ file; mind the working folder")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("no zip archive")
        _check_sizes(path)
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in sorted(file.files)}
    except Exception as error:  # NumPy, zipfile and zlib raise a dozen kinds
        raise ValueError(
            f"{path}: got a file that NumPy cannot read ({error!s:.200}); expected arrays of numbers by np.savez"
        ) from error


def _npz(path: Path) -> tuple[np.ndarray, ...]:
    arrays = read_npz(path)
    names = list(arrays)
    if names not in (["x", "y"], ["weight", "x", "y"]):
        raise ValueError(
            f"{path}: got arrays named {names!s:.500}, expected x, y and perhaps weight; rename or drop others"
        )
    given = {name: arrays[name] for name in ("x", "y", "weight") if name in arrays}
    result = tuple(_numeric(array, f"{path}: {name}", name) for name, array in given.items())
    sizes = [len(array) for array in result]
    if len(set(sizes)) > 1 or sizes[0] == 0:
        raise ValueError(f"{path}: got {sizes} examples in {list(given)}, expected the same number, at least 1")
    if len(result) == 3 and (result[2].ndim != 1 or (result[2] < 0).any() or not result[2].any()):
        raise ValueError(
            f"{path}: got a weight that is not one number per example, none negative, some above 0; expected such a one"
        )
    return result


def _check_sizes(path: Path) -> None:
    """ValueError before anything is unpacked that is larger than such a file can be, or than it says."""
    with zipfile.ZipFile(path) as archive:
        total, most = sum(member.file_size for member in archive.infolist()), _most_unpacked(path)
        if total > most:
            raise ValueError(f"{total:,} bytes packed into a small file; at most {most:,} are unpacked")
        for member in archive.infolist():
            with archive.open(member) as opened:
                version = np.lib.format.read_magic(opened)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = read[version](opened)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise ValueError(f"{member.filename}: {dtype}{list(shape)} in {member.file_size:,} bytes")


def _numeric(array: np.ndarray, what: str, name: str) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf" or array.ndim == 0:
        got = f"{array.dtype} of shape {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{what}: got {got}, expected numbers with a leading example axis; convert them first")
    if array.dtype.kind == "f" or name == "weight":
        return as_float(array, what)
    if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
        raise ValueError(f"{what}: got integers from {array.min()} to {array.max()}, expected such as fit int32")
    return array.astype(np.int32)
