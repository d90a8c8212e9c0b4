"""`run`: the same run as `fit`, driven from the host, so that a person can watch it."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxnet.data.sets import Data
from jaxnet.training.loop import blank_rows, checked, compiled, segment
from jaxnet.training.program import Program


def run(
    key: Array,
    program: Program,
    data: Data,
    *,
    epochs: int,
    params: Any = None,
    report: Callable[[int, dict[str, float]], None] | None = None,
) -> Any:
    """The arguments and, to the bit, the result of `fit`, one epoch at a time.

    After each epoch `report(epoch, row)` is called with the epoch's number, from 1, and {"train_loss": …} as floats.

    Raises:
        TypeError, ValueError: as `fit`; whatever `report` raises ends the run.

    >>> import jax, jaxnet as jn, numpy as np, optax
    >>> x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
    >>> line = jn.program(jn.mlp([1]), jn.losses.squared_error, optax.sgd(0.5), batch_size=8)
    >>> seen = []
    >>> fitted = run(jax.random.key(0), line, jn.Data((x, 3 * x)), epochs=2, report=lambda e, row: seen.append(e))
    >>> seen
    [1, 2]
    """
    data = checked(key, program, data, epochs, params)
    carry = compiled(program, _start)(key, data, params)
    rows = compiled(program, blank_rows, ("epochs",))(carry, data, epochs=int(epochs))
    advance = compiled(program, segment)
    epoch = 0
    while epoch < epochs and not bool(carry.done):
        epoch += 1
        carry, rows = advance(carry, rows, data, jnp.int32(epoch))
        if report is not None:
            report(epoch, {name: float(values[epoch - 1]) for name, values in rows.items()})
    return compiled(program, _finish)(carry, rows)


def _start(program: Program, key, data, params):
    return program.start(key, data, params)


def _finish(program: Program, carry, rows):
    return program.finish(carry, rows)
