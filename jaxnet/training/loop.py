"""`fit`: a Program's whole run inside one compiled, pure function."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet.data.checks import check_key, positive_integer, prepared
from jaxnet.data.sets import Data
from jaxnet.training.program import Program


def fit(key: Array, program: Program, data: Data, *, epochs: int, params: Any = None) -> Any:
    """Run `program` on `data` for at most `epochs` epochs; returns what its `finish` makes, a `Fitted`.

    Pure: the result depends on the arguments alone, and `jit` and `vmap` work (over keys, over hyperparameters from
    which the program is built inside the mapped function, over `rows`). Called with concrete arrays it checks them
    and then runs one compiled function; a second call with the same Program and shapes doesn't compile again.

    Args:
        key: one typed threefry key, `jax.random.key(0)`.
        program: from `program(...)`.
        data: the training set and, optionally, a validation set.
        epochs: the most epochs to run; static.
        params: where to start from, instead of the network's fresh ones.

    Raises:
        TypeError, ValueError: for data, parameters or numbers that don't fit, before any compile.

    >>> import jaxnet as jn, numpy as np, optax
    >>> x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
    >>> data = jn.Data((x, 3 * x))
    >>> line = jn.program(jn.mlp([1]), jn.losses.squared_error, optax.sgd(0.5), batch_size=8)
    >>> fitted = fit(jax.random.key(0), line, data, epochs=20)
    >>> round(float(fitted.params["dense_0"]["w"][0, 0]), 3)
    3.0
    """
    data = checked(key, program, data, epochs, params)
    fitted, _ = compiled(program, _fit, ("epochs",))(key, data, params, epochs=int(epochs))
    return fitted


def checked(key: Array, program: Program, data: Data, epochs: int, params: Any) -> Data:
    """All checks of a run's arguments; returns the data in the dtypes of training."""
    check_key(key)
    positive_integer("epochs", epochs)
    if not isinstance(program, Program):
        raise TypeError(f"got program {program!r}; expected a Program: make one with jn.program(...)")
    data = prepared(data)
    program.check(data, params)
    return data


def compiled(program: Program, function: Callable, static: tuple[str, ...] = ()) -> Any:
    """`jax.jit(partial(function, program))`, made once per Program and kept as long as the Program lives."""
    if function not in program.compiled:
        program.compiled[function] = jax.jit(partial(function, program), static_argnames=static)
    return program.compiled[function]


def _fit(program: Program, key, data, params, *, epochs: int):
    carry = program.start(key, data, params)
    carry, rows = segment(program, carry, blank_rows(program, carry, data, epochs=epochs), data, epochs)
    # The carry is a result too, as a segment's is: XLA gives arrays that never leave the program another layout, and
    # with it matrix products another last bit.
    return program.finish(carry, rows), carry


def segment(program: Program, carry, rows, data, until, first=0):
    """Epochs up to `until`, or until the run is done; the row of epoch e + 1 is written at e − first.

    A bounded loop that ends with its run; under `vmap` it ends with the last member, and those done stay as they are.
    `fit` and `run` share it, so that any cut of a run into segments gives the same bits. `until` and `first` may be
    traced.
    """

    def going_on(loop):
        carry, _ = loop
        return ~carry.done & (carry.epoch < until)

    def body(loop):
        carry, rows = loop
        after, row = program.epoch(carry, data)
        return after, jax.tree.map(lambda all_rows, value: all_rows.at[carry.epoch - first].set(value), rows, row)

    return jax.lax.while_loop(going_on, body, (carry, rows))


def blank_rows(program: Program, carry, data, *, epochs: int) -> Mapping[str, Array]:
    """Rows for `epochs` epochs, all NaN."""
    _, row = jax.eval_shape(program.epoch, carry, data)
    return jax.tree.map(lambda a: jnp.full((epochs, *a.shape), jnp.nan, a.dtype), row)
