"""What people hand over for an array, as one NumPy array of real numbers, or a sentence that says why it isn't one.

    plain(name, values)   the same values in a NumPy array; what can't be read without loss is refused
    real(name, values)    real numbers in native byte order
    in_training_dtype(…)  finite ones, in the dtypes that training uses
    owned(values)         a copy that only its holder can change

Read by position, as they are: arrays of NumPy (of any order of memory and of axes, read-only, memory-mapped) and of
jax, nested lists, pandas' Series, tensors of torch on the CPU. Refused: tables, since a network takes columns by
position and can't see that another table has them in another order; sparse matrices; masked entries, whose values are
leftovers; text, objects, dates, complex numbers.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

CURES = {
    "c": "give real and imaginary parts as columns: np.stack([x.real, x.imag], axis=-1)",
    "M": "count from a day: (x - np.datetime64('2000-01-01')) / np.timedelta64(1, 'D')",
    "m": "count in a unit: x / np.timedelta64(1, 'D')",
}
ENCODE = "encode categories and text as numbers (jn.data.load reads CSV files so)"

_narrowed = False  # whether this process has been told of 64-bit floats


def plain(name: str, values: Any) -> np.ndarray:
    """`values` as a NumPy array, which may share their memory; of any dtype.

    Raises:
        TypeError: tables, sparse matrices, a number that stands alone, what NumPy can't read.
        ValueError: masked entries, rows of unequal lengths.

    >>> plain("y", [1, 2]).tolist()
    [1, 2]
    >>> plain("x", np.ma.masked_array([1.0, 7.0], mask=[False, True]))
    Traceback (most recent call last):
    ValueError: x: got 1 masked entries of 2, the first at [1]; expected none: fill them, x.filled(0.0), or drop their \
examples
    """
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        if mask.any():
            first = [int(i) for i in np.argwhere(mask)[0]]
            raise ValueError(
                f"{name}: got {int(mask.sum())} masked entries of {mask.size}, the first at {first}; expected none: "
                "fill them, x.filled(0.0), or drop their examples"
            )
        return np.asarray(values.data)
    if isinstance(values, (np.ndarray, jax.Array)):
        return np.asarray(values)  # of np.matrix and np.memmap too; inside a trace jax refuses
    if is_sparse(values):
        cure = next(f"x.{way}()" for way in ("toarray", "todense", "to_dense") if hasattr(values, way))
        raise TypeError(f"{name}: got a sparse matrix; expected a dense array: {cure}")
    names = getattr(values, "columns", getattr(values, "column_names", None))
    if names is not None:
        listed = [str(c) for c in names]
        got = ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
        raise TypeError(
            f"{name}: got a table with columns {got}; expected an array, whose columns are in an order that you chose "
            "and can choose again for new examples: table[names].to_numpy(), or jn.data.load for a CSV file"
        )
    if isinstance(values, (bool, int, float, complex)):
        raise TypeError(
            f"{name}: got the number {values} alone; expected an array with a first axis of examples, (n, …), such as "
            "np.asarray(x) of nested lists: a list is a tree of arrays"
        )
    try:
        return np.asarray(values)
    except ValueError as error:
        if not isinstance(values, (list, tuple)):
            raise
        raise ValueError(f"{name}: got rows of unequal lengths, expected one rectangular array") from error
    except Exception as error:  # whatever the object's own conversion raises
        raise TypeError(
            f"{name}: got {type(values).__name__}, which NumPy doesn't read ({error}); expected an array of numbers"
        ) from error


def real(name: str, values: Any) -> np.ndarray:
    """`values` as a NumPy array of real numbers or truth values, in native byte order; it may share their memory.

    Raises:
        TypeError, ValueError: as `plain`, and for other dtypes.

    >>> real("x", np.array([1.5], ">f4")).dtype
    dtype('float32')
    """
    array = plain(name, values)
    if array.dtype.kind not in "fiub" and not jnp.issubdtype(array.dtype, jnp.floating):  # such as bfloat16
        kind = array.dtype.kind
        small = kind == "V" and jnp.issubdtype(array.dtype, jnp.integer)  # int4 and its like
        cure = "cast them, x.astype('int32')" if small else CURES.get(kind, ENCODE)
        expected = "real numbers" if kind == "c" else "numbers"
        raise TypeError(f"{name}: got an array of dtype {array.dtype}; expected {expected}: {cure}")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def in_training_dtype(name: str, array: np.ndarray, *, finite: bool = True) -> np.ndarray:
    """Finite real numbers in the dtypes of training: float32 and integers of at most 32 bits, and with x64 of 64 bits.

    float64 is narrowed with one warning per process; floats of 16 bits and less are widened, because parameters take
    the dtype of the inputs, and small updates would be lost in theirs; float32 stays under x64.

    Raises:
        ValueError: NaN or infinity, unless not `finite`; without x64 floats too large for float32, integers beyond 32
            bits.

    >>> in_training_dtype("y", np.array([1, 0, 2])).dtype
    dtype('int32')
    """
    kind, default = array.dtype.kind, jnp.result_type(float)
    if kind == "b":
        return array
    if kind in "iu":
        limits = np.iinfo(jax.dtypes.canonicalize_dtype(np.int64))
        if array.size and (int(array.max()) > limits.max or int(array.min()) < limits.min):
            raise ValueError(
                f"{name}: got integers {array.min()}…{array.max()}; expected {limits.bits}-bit ones, which jax would "
                "narrow silently: renumber them, or set JAX_ENABLE_X64=1"
            )
        return array.astype(limits.dtype) if array.dtype.itemsize == 8 else array
    good = np.isfinite(array)
    if finite and not good.all():
        at = tuple(int(i) for i in np.argwhere(~good)[0])
        raise ValueError(
            f"{name}: got {array[at]} at {list(at)}, {int((~good).sum())} such values in all; expected finite "
            "numbers: drop or fill the missing ones"
        )
    if array.dtype in (np.float32, default):
        return array
    if array.dtype == np.float64:
        _say_narrowed()
    with np.errstate(over="ignore"):
        result = array.astype(default)
    if not np.isfinite(result)[good].all():
        raise ValueError(
            f"{name}: got {np.abs(array[good]).max()} as the largest magnitude; expected at most "
            f"{np.finfo(default).max:g}, the largest {default.name}: rescale the values"
            + (" or set JAX_ENABLE_X64=1" if default == np.float32 else "")
        )
    return result


def _say_narrowed() -> None:
    global _narrowed
    if not _narrowed:
        _narrowed = True
        warnings.warn(
            "float64 data are used as float32; set JAX_ENABLE_X64=1 to compute in float64 (said once)",
            UserWarning,
            stacklevel=7,
        )


def is_sparse(values: Any) -> bool:
    """Whether it's a sparse matrix: of scipy, jax.experimental.sparse or torch.

    >>> is_sparse(np.zeros((2, 2)))
    False
    """
    if isinstance(values, (np.ndarray, jax.Array)):
        return False
    return hasattr(values, "toarray") or hasattr(values, "todense") or getattr(values, "is_sparse", False)


def owned(values: Any) -> Any:
    """A copy that nobody else holds, read-only, of what may change behind its holder's back; jax's arrays as they are.

    A mask stays; a memory-mapped array is read. Lists are trees, of which `jax.tree.map(owned, …)` makes new ones.

    >>> x = np.zeros(2)
    >>> mine = owned(x)
    >>> x[:] = 7
    >>> mine.tolist(), mine.flags.writeable
    ([0.0, 0.0], False)
    """
    if isinstance(values, np.ndarray):
        copy = values.copy() if isinstance(values, np.ma.MaskedArray) else np.array(values, order="C")
        copy.setflags(write=False)
        return copy
    if not isinstance(values, jax.Array) and hasattr(values, "__array__"):
        duplicate = getattr(values, "copy", getattr(values, "clone", None))  # of pandas and of torch
        return values if duplicate is None else duplicate()
    return values
