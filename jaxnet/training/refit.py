"""Training on all data once validation has said how long: the two ways of early stopping's second pass.

merged(data)                          training and validation set as one (Goodfellow §7.8)
retrained(key, program, data, fitted) from fresh parameters, for as long as the first pass did best (alg. 7.2)
until(program, name, target)          a program that ends once a row's value is down at the target (alg. 7.3)
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet import outcomes
from jaxnet.data.sets import Data, take
from jaxnet.training.loop import fit
from jaxnet.training.program import Program


def merged(data: Data) -> Data:
    """Training and validation set as one training set; rows are resolved, and there's no validation set any more.

    Raises:
        ValueError: without a validation set.

    >>> data = Data((jnp.zeros((4, 1)), jnp.zeros(4)), valid=(jnp.ones((2, 1)), jnp.ones(2)))
    >>> merged(data).size
    6
    """
    if data.judged is None:
        raise ValueError("merged: got data without a validation set; expected Data(train, valid) or valid_rows")
    parts = [
        examples if rows is None else take(examples, rows)
        for examples, rows in ((data.train, data.rows), (data.judged, data.valid_rows))
    ]
    return Data(jax.tree.map(lambda a, b: jnp.concatenate([jnp.asarray(a), jnp.asarray(b)]), *parts))


def retrained(key: Array, program: Program, data: Data, fitted: Any, *, batch_size: int | None = None) -> Any:
    """Train anew on training and validation set together, for as long as `fitted` took to its best epoch.

    Fresh parameters from `key`, then as many epochs as `fitted.best_epoch` (Goodfellow alg. 7.2). With the program's
    `batch_size` given as well, as many *updates* as the first pass made till then, to the nearest whole epoch of the
    larger set, at least one. Neither is right: the book says so too.

    Args:
        program: as in the first pass, made without patience, since nothing is left to validate on.
        data: the first pass's, with its validation set.
        fitted: what the first pass left.

    Raises:
        ValueError: without a validation set; when the first pass was best before its first epoch.

    >>> import jaxnet as jn, numpy as np, optax
    >>> x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
    >>> data = jn.Data((x[::2], x[::2]), (x[1::2], x[1::2]))
    >>> line = jn.program(jn.mlp([1]), jn.losses.squared_error, optax.sgd(0.5), batch_size=8)
    >>> first = jn.fit(jax.random.key(0), line, data, epochs=5)
    >>> int(retrained(jax.random.key(1), line, data, first).epochs_run) == int(first.best_epoch)
    True
    """
    together, epochs = merged(data), int(fitted.best_epoch)
    if epochs < 1:
        raise ValueError("retrained: got a first pass whose best epoch is 0; expected at least one epoch that helped")
    if batch_size is not None:
        updates = epochs * -(-data.size // batch_size)
        epochs = max(1, round(updates / -(-together.size // batch_size)))
    return fit(key, program, together, epochs=epochs)


def until(program: Program, name: str, target: Any) -> Program:
    """`program`, but a run ends as soon as `name` of an epoch's row is at most `target`; the outcome says so.

    With `Data(everything, valid)`, "valid_loss", the loss on the training set at the end of the first pass and
    `params=` of that pass this is the second pass by which early stopping goes on with all data (Goodfellow alg. 7.3).
    It may never get there: then the epochs are exhausted, and the outcome says that.

    Args:
        name: a name of the history whose values fall, such as "valid_loss". Of what should rise give a metric of the
            error instead: `metrics={"error": lambda z, y: 1 - jn.metrics.accuracy(z, y)}` and "valid_error".
        target: traced or not.

    Raises:
        ValueError: a program of one piece (`jn.whole`), or at the first epoch a name that isn't in the row.

    >>> import jaxnet as jn, numpy as np, optax
    >>> x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
    >>> line = jn.program(jn.mlp([1]), jn.losses.squared_error, optax.sgd(0.1), batch_size=64)
    >>> fitted = jn.fit(jax.random.key(0), until(line, "train_loss", 1e-3), jn.Data((x, 3 * x)), epochs=500)
    >>> outcomes.describe(fitted.outcome, fitted.epochs_run)
    'reached the target at epoch ...'
    """
    if program.whole:
        raise ValueError("until: got a program of one piece; expected one with epochs, from jn.program")

    def epoch(carry, data):
        after, row = program.epoch(carry, data)
        if name not in row:
            raise ValueError(f"until: got {name!r}; expected a name of the history: {sorted(row)}")
        reached = (row[name] <= jnp.asarray(target, row[name].dtype)) & (after.outcome != outcomes.DIVERGED)
        outcome = jnp.where(reached, jnp.full_like(after.outcome, outcomes.TARGET_REACHED), after.outcome)
        return after._replace(done=after.done | reached, outcome=outcome), row

    return dataclasses.replace(program, epoch=epoch, compiled={})
