"""Where a run's first inf or NaN began: epoch, step, layer and operation, by making the run again up to there.

    print(first_nonfinite(key, program, data, epochs=int(fitted.epochs_run)))

A run is a function of its arguments, so nothing needs to be recorded on the way: the epochs are made again without
validation, then the one epoch step by step, then the one step operation by operation (`explain`).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxnet.data.sets import Data, take
from jaxnet.microscope import Explanation, explain
from jaxnet.origins import origin
from jaxnet.training.batches import cuts
from jaxnet.training.loop import checked, compiled
from jaxnet.training.nonfinite import CAUSES, no_faults, skip
from jaxnet.training.passes import Steps, one_pass, order_of
from jaxnet.training.program import Program
from jaxnet.training.step import TrainState, train_step


@dataclass(frozen=True)
class NonFinite:
    """The first update that wasn't finite; printed as one sentence."""

    epoch: int  # from 1
    step: int  # within the epoch, from 1
    cause: str  # what wasn't finite first, one of `jaxnet.training.nonfinite.CAUSES`
    path: str  # of the first such leaf, "dense_1/w"; "" for the loss
    value: float  # the number there
    origin: str  # where it began: `explanation.sentence`, or the optimizer's operation
    rows: np.ndarray  # the batch's rows of the training set
    before: TrainState  # all that decided the step
    batch: Any
    explanation: Explanation  # of the step, layer by layer

    @property
    def row(self) -> int | None:
        """The row of the training set that is to blame, where it's one."""
        example = self.explanation.example
        return None if example is None else int(self.rows[example])

    def __str__(self) -> str:
        what = f"the {self.cause}{f' of {self.path}' if self.path else ''}"
        row = "" if self.row is None else f" (row {self.row} of the training set)"
        return f"epoch {self.epoch}, step {self.step}: {what} is {self.value}; {self.origin}{row}"


def first_nonfinite(key: Array, program: Program, data: Data, *, epochs: int, params: Any = None) -> NonFinite | None:
    """The first update of the run `fit(key, program, data, epochs=epochs)` that isn't finite; None if there's none.

    It finds what `nonfinite="skip"` drops, whatever the program does about it. Made again are at most `epochs` epochs:
    give `int(fitted.epochs_run)`.

    Raises:
        TypeError, ValueError: as `fit`; a program that isn't made of steps (`jn.whole`).

    >>> import jaxnet as jn
    >>> x = np.linspace(1, 9, 64, dtype="float32")[:, None]
    >>> steep = jn.program(jn.mlp([1]), jn.losses.squared_error, optax.sgd(1.0), batch_size=8)
    >>> key, data = jax.random.key(0), jn.Data((x, 3 * x))
    >>> fitted = jn.fit(key, steep, data, epochs=9)
    >>> found = first_nonfinite(key, steep, data, epochs=int(fitted.epochs_run))
    >>> found.epoch == int(fitted.epochs_run), found.cause
    (True, 'loss')
    """
    data = checked(key, program, data, epochs, params)
    _steps(program)
    carry = compiled(program, _started)(key, data, params)
    train, replay = carry.train, compiled(program, _replayed)
    for epoch in range(1, int(epochs) + 1):
        before, order = train, compiled(program, _ordered)(carry.order_key, jnp.int32(epoch), data)
        train = replay(before, order, data)
        if int(train.faults.skipped):
            return _of_epoch(program, before, np.asarray(order), data, epoch)
    return None


_POLICY = skip()


def _steps(program: Program) -> Steps:
    if program.steps is None:
        raise ValueError("first_nonfinite: got a program that isn't made of steps; expected one from jn.program")
    return program.steps


def _started(program: Program, key, data, params):
    """The carry before the first epoch, counting what isn't finite."""
    carry = program.start(key, data, params)
    return carry._replace(train=carry.train._replace(faults=no_faults(_POLICY)))


def _ordered(program: Program, order_key, epoch, data):
    return order_of(order_key, epoch, data)


def _replayed(program: Program, train, order, data):
    return one_pass(_step(_steps(program)), train, order, data, _steps(program).batch_size)[0]


def _advanced(program: Program, train, batch):
    return _step(_steps(program))(train, batch)


def _step(steps: Steps):
    return train_step(steps.gradient, steps.optimizer, _POLICY)


def _of_epoch(program: Program, train: TrainState, order: np.ndarray, data: Data, epoch: int) -> NonFinite | None:
    """Step by step to the first that isn't finite."""
    advance, number = compiled(program, _advanced), 0
    for cut in cuts(len(order), _steps(program).batch_size):
        for rows in order[cut.start : cut.start + cut.batches * cut.size].reshape(-1, cut.size):
            number, before, batch = number + 1, train, take(data.train, rows)
            train, _ = advance(train, batch)
            if int(train.faults.skipped):
                return _of_step(program, before, batch, rows, CAUSES[int(train.faults.cause)], epoch, number)
    return None


def _of_step(program, before: TrainState, batch, rows, cause: str, epoch: int, number: int) -> NonFinite:
    """The leaf that isn't finite, and where it began."""
    steps, key = _steps(program), jax.random.fold_in(before.key, before.step)

    def gradient(params):
        return steps.gradient(params, before.state, batch, key=key, train=True)

    def update(grads, opt_state, params, loss):
        def value_fn(at):
            return gradient(at)[0][0]

        with jax.numpy_dtype_promotion("standard"):
            transformation = optax.with_extra_args_support(steps.optimizer)
            updates, opt_state = transformation.update(
                grads, opt_state, params, value=loss, grad=grads, value_fn=value_fn
            )
            return opt_state, optax.apply_updates(params, updates)

    (loss, state), grads = jax.jit(gradient)(before.params)
    made, old = {"loss": loss, "layer state": state, "gradient": grads}, {"layer state": before.state}
    explanation = explain(
        steps.net, before.params, before.state, batch,
        loss=steps.loss, key=key, gradient=steps.gradient if steps.given else None,
    )  # fmt: skip
    sentence = f"it began: {explanation.sentence.removeprefix('not finite: ')}"
    if cause not in made:  # of a finite gradient
        made["optimizer state"], made["parameters"] = jax.jit(update)(grads, before.opt_state, before.params, loss)
        old = {"optimizer state": before.opt_state, "parameters": before.params}
        found = origin(update, grads, before.opt_state, before.params, loss)
        sentence = f"it began: {found.operation if found else 'a reordered sum'} in the optimizer's update"
    path, value = _bad_leaf(old.get(cause), made[cause])
    return NonFinite(epoch, number, cause, path, value, sentence, rows, before, batch, explanation)


def _bad_leaf(before: Any, after: Any) -> tuple[str, float]:
    """(path, number) of the first leaf of `after` with a number that isn't finite, where that of `before` was."""
    for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(after)):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            continue
        values = np.asarray(leaf, np.float64)
        bad = ~np.isfinite(values)
        if before is not None:
            bad &= np.isfinite(np.asarray(jax.tree.leaves(before)[i], np.float64))
        if bad.any():
            return jax.tree_util.keystr(path, simple=True, separator="/"), float(values[bad][0])
    return "", float("nan")
