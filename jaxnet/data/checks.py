"""What is asked of data before anything compiles. Every error says what came, what was expected and what to do.

`prepared(data)` checks the parts of `Data` that are concrete, and returns it with arrays of the dtypes that training
uses: JAX's default float and 32-bit integers (64-bit under JAX_ENABLE_X64). Values inside a trace can't be checked;
what is checked here by value turns into NaN there (see `jaxnet.losses`).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.data.arrays import in_training_dtype, is_sparse, plain, real
from jaxnet.data.sets import Data
from jaxnet.layers import Layer
from jaxnet.losses import Loss


def concrete(tree: Any) -> bool:
    """Whether every leaf holds values, rather than standing for them inside a trace.

    >>> concrete({"x": np.zeros(3)}), jax.jit(lambda x: concrete(x))(1.0)
    (True, Array(False, dtype=bool))
    """
    try:
        for leaf in jax.tree.leaves(tree):
            np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)
    except jax.errors.TracerArrayConversionError:
        return False
    return True


def is_key(x: Any) -> bool:
    """Whether `x` is a typed PRNG key (or an array of them).

    >>> is_key(jax.random.key(0)), is_key(np.zeros(2, np.uint32))
    (True, False)
    """
    return jnp.issubdtype(getattr(x, "dtype", np.dtype(bool)), jax.dtypes.prng_key)


def check_key(key: Any) -> None:
    """One typed threefry key.

    Raises:
        TypeError: for a raw key, a number, a key of another generator; ValueError: for several keys.

    >>> check_key(jax.random.key(0))
    """
    if not is_key(key):
        raise TypeError(f"got key {_described(key)}; expected a typed key: make one with jax.random.key(0)")
    if str(jax.random.key_impl(key)) not in ("threefry2x32", "fry"):
        raise TypeError(
            f"got a key of the generator {jax.random.key_impl(key)}; expected threefry2x32, whose bits don't depend "
            "on how many members run side by side: make one with jax.random.key(0, impl='threefry2x32')"
        )
    if key.shape != ():
        raise ValueError(f"got {key.shape} keys; expected one: map over them with jax.vmap")


def positive_integer(name: str, value: Any) -> int:
    """`value` as an int ≥ 1.

    Raises:
        ValueError, TypeError: with the name of the argument.

    >>> positive_integer("epochs", np.int64(3))
    3
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"got {name}={value!r}; expected a positive integer")
    if value < 1:
        raise ValueError(f"got {name}={value}; expected at least 1")
    return int(value)


def prepared(data: Data) -> Data:
    """`data`, checked where it is concrete and in the dtypes of training; NumPy arrays are copied to the device.

    Raises:
        TypeError: not a `Data`; object, string or complex arrays; integers beyond 32 bits.
        ValueError: empty sets, different lengths, NaN or infinity, negative weights or weights that are all 0,
            rows out of range.

    >>> prepared(Data((np.zeros((4, 2), "float32"), np.zeros(4, int)))).train[1].dtype
    dtype('int32')
    """
    if not isinstance(data, Data):
        raise TypeError(f"got data {_described(data)}; expected jn.Data((x, y)) or jn.Data((x, y), (x_valid, y_valid))")
    train = prepared_set("train", data.train)
    valid = None if data.valid is None else prepared_set("valid", data.valid)
    if valid is not None:
        _check_same_kind(train, valid)
    rows = _prepared_rows("rows", data.rows, train)
    return Data(train, valid, rows, _prepared_rows("valid_rows", data.valid_rows, train if valid is None else valid))


def prepared_array(name: str, values: Any, *, finite: bool = True) -> Any:
    """One array, checked (dtype, and unless not `finite` finite values) and in the dtype of training.

    Floats of 16 bits are widened: parameters take the inputs' dtype, in which small updates would be lost. What isn't
    jax's own is copied, so the caller may change it at once.

    Raises:
        TypeError, ValueError: as `prepared`.

    >>> prepared_array("x", [[1, 2]]).dtype
    dtype('int32')
    """
    mine = isinstance(values, jax.Array)
    if mine and not concrete(values):
        return values
    array = real(name, values)
    trained = in_training_dtype(name, array, finite=finite)
    if mine:
        return values if trained is array else jax.device_put(trained, values.sharding)
    # A copy of its own: jax may use NumPy's memory as it is, which the caller may change. A read-only array that owns
    # its memory is such a copy, of `Data`.
    safe = trained is not array or not (array.flags.writeable or array.base is not None)
    return jax.device_put(trained if safe else trained.copy())


def outputs_of(net: Layer, loss: Loss, params: Any, state: Any, examples: tuple) -> Any:
    """The shapes of the network's outputs on the set, after both network and loss have accepted it; computes nothing.

    Raises:
        TypeError, ValueError: what the network or the loss says of the shapes and dtypes.

    >>> from jaxnet import losses, mlp
    >>> net = mlp([3])
    >>> params, state = net.init(jax.random.key(0), (2,))
    >>> outputs_of(net, losses.softmax_cross_entropy, params, state, (jnp.zeros((5, 2)), jnp.zeros(5, int))).shape
    (5, 3)
    """
    output = jax.eval_shape(lambda p, s, x: net.apply(p, s, x)[0], params, state, examples[0])
    jax.eval_shape(loss.value, output, examples[1])
    return output


def check_targets(loss: Loss, output: Any, y: Any) -> None:
    """The values of concrete targets suit the loss and the number of outputs.

    Raises:
        TypeError, ValueError: what the loss says of them.

    >>> from jaxnet import losses
    >>> check_targets(losses.softmax_cross_entropy, jax.ShapeDtypeStruct((1, 3), jnp.float32), jnp.array([3]))
    Traceback (most recent call last):
    ValueError: softmax_cross_entropy: got label 3 at example 0; expected 0…2, since the network has 3 outputs: ...
    """
    if (isinstance(output, jax.ShapeDtypeStruct) or hasattr(output, "mask")) and concrete(y):
        loss.check(output, np.asarray(y))


def prepared_set(part: str, examples: Any) -> tuple:
    """One set (x, y[, weight]), checked and in the dtypes of training; `part` names it in errors.

    Raises:
        TypeError, ValueError: as `prepared`.

    >>> prepared_set("test", (np.zeros((4, 2), "float32"), [0, 1, 1, 0]))[1].dtype
    dtype('int32')
    """
    if not isinstance(examples, (tuple, list)) or len(examples) not in (2, 3):
        raise TypeError(f"{part}: got {_described(examples)}; expected (x, y) or (x, y, weight)")
    x = prepared_inputs(f"{part} x", examples[0])
    y = prepared_array(f"{part} y", examples[1])
    weight = tuple(prepared_array(f"{part} weight", w) for w in examples[2:] if w is not None)
    for name, a in (("y", y), *(("weight", w) for w in weight)):
        if a.ndim == 0:
            raise ValueError(f"{part}: got {name} without axes; expected a first axis of examples, (n, …)")
    leaves = [(f"x{jax.tree_util.keystr(p)}", a) for p, a in jax.tree_util.tree_leaves_with_path(x)]
    lengths = {name: a.shape[0] for name, a in (*leaves, ("y", y), *(("weight", w) for w in weight))}
    if len(set(lengths.values())) > 1:
        got = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise ValueError(f"{part}: got different numbers of examples: {got}; expected the same in each")
    if weight:
        weight = (_prepared_weight(part, weight[0]),)
    return (x, y, *weight)


def prepared_inputs(name: str, x: Any) -> Any:
    """Inputs of a network, an array (n, …) or a tree of them, checked and in the dtypes of training.

    Raises:
        TypeError, ValueError: as `prepared`; no array, no examples, examples without numbers.

    >>> prepared_inputs("x", {"ids": np.array([[3], [4]])})["ids"].dtype
    dtype('int32')
    """
    x = jax.tree_util.tree_map_with_path(
        lambda path, a: prepared_array(name + jax.tree_util.keystr(path), a), x, is_leaf=is_sparse
    )
    leaves = jax.tree_util.tree_leaves_with_path(x)
    if not leaves:
        raise ValueError(f"{name}: got no array at all; expected (n, …)")
    for path, a in leaves:
        where = name + jax.tree_util.keystr(path)
        if a.ndim == 0:
            raise ValueError(f"{where}: got an array without axes; expected a first axis of examples, (n, …)")
        if a.shape[0] == 0:
            raise ValueError(f"{where}: got an empty set; expected at least one example")
        if a.size == 0:
            raise ValueError(f"{where}: got examples of shape {a.shape[1:]}, without any number; expected at least one")
    return x


def _prepared_weight(part, weight):
    if weight.ndim != 1:
        raise ValueError(f"{part}: got weights of shape {weight.shape}; expected one per example, (n,)")
    if concrete(weight):
        values = np.asarray(weight)
        if (values < 0).any():
            at = int(np.argwhere(values < 0)[0][0])
            raise ValueError(f"{part}: got weight {values[at]} at example {at}; expected weights ≥ 0")
        kind = values.dtype if jnp.issubdtype(values.dtype, jnp.floating) else jnp.result_type(float)
        if not (values >= jnp.finfo(kind).tiny).any():  # smaller ones are 0 to a processor
            raise ValueError(f"{part}: got weights that are all 0; expected at least one above 0")
        total = values.sum(dtype=np.float64)
        if total > jnp.finfo(kind).max:
            raise ValueError(f"{part}: got weights whose sum is {total:g}; expected one that {kind} holds: divide them")
    return weight if jnp.issubdtype(weight.dtype, jnp.floating) else weight.astype(jnp.result_type(float))


def _prepared_rows(name, rows, examples):
    if rows is None:
        return None
    if not concrete(rows):
        return rows
    array = plain(name, rows)
    if array.dtype == bool:
        raise TypeError(f"{name}: got a mask of booleans; expected indices: np.flatnonzero(mask)")
    if not array.size:
        raise ValueError(f"{name}: got no rows; expected at least one")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"{name}: got {array.dtype} of shape {array.shape}; expected integer indices (m,)")
    count = jax.tree.leaves(examples)[0].shape[0]
    if array.min() < 0 or array.max() >= count:
        raise ValueError(f"{name}: got indices {array.min()}…{array.max()}; expected 0…{count - 1}")
    return jax.device_put(array.astype(np.int32))


def _check_same_kind(train, valid):
    """Both sets look alike but for the number of examples."""
    for name, a, b in (("x", train[0], valid[0]), ("y", train[1], valid[1])):
        one, other = (jax.tree.map(lambda leaf: tuple(leaf.shape[1:]), tree) for tree in (a, b))
        if one != other:
            raise ValueError(f"valid {name}: got examples of shape {other}; expected {one} as in the training set")


def _described(value) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"an array of {value.dtype} with shape {tuple(value.shape)}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) < 60 else text[:57] + '…'}"
