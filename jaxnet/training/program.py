"""A training run as a value: three pure functions of arrays.

    start(key, data, params=None) -> carry         initial parameters, evaluated: epoch 0
    epoch(carry, data)            -> carry, row    one pass over the training set, then validation
    finish(carry, rows)           -> Fitted        what the run leaves

`carry` holds arrays only, with a bool `done`; `row` is {"train_loss": …, "valid_loss": …, …}, scalars; `rows` is the
same with a leading epoch axis. `fit` loops over a Program inside one compiled function, `run` from the host; a study
is its `vmap`. The rules of the run (patience, best parameters, divergence) are all in `epoch`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxnet import outcomes
from jaxnet.data.checks import check_targets, concrete, outputs_of, positive_integer, prepared_array
from jaxnet.data.sets import Data, take
from jaxnet.gradients import GradientFunction, loss_and_grad
from jaxnet.heads import Head, attached
from jaxnet.layers import Layer, spec_of
from jaxnet.losses import Loss
from jaxnet.training.batches import scan_batches, shuffled
from jaxnet.training.evaluation import PIECE, judge, resolved_metrics
from jaxnet.training.step import TrainState, choose, strong, train_state, train_step

# What a run's key is folded with, one purpose each.
_INIT, _ORDER, _NOISE = 0, 1, 2


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Fitted:
    """What a run leaves; a pytree, with a leading axis on every leaf after `vmap`."""

    params: Any  # of the best validated epoch; without validation of the last finite one
    state: Any  # the layers' state of that epoch
    history: dict[str, Array]  # name -> (epochs,) from epoch 1; NaN beyond the end
    metrics: dict[str, Array]  # name -> () at the best epoch
    best_epoch: Array  # () int32; 0 is the initial parameters
    epochs_run: Array  # () int32
    outcome: Array  # () int32, see jaxnet.outcomes


class Carry(NamedTuple):
    """All that decides the rest of a run."""

    train: TrainState
    order_key: Array  # () epoch e is shuffled by fold_in(order_key, e)
    params: Any  # what `finish` would return now
    state: Any
    metrics: dict[str, Array]  # the row of the best epoch
    best_loss: Array  # () lowest validation loss so far, inf before the first finite one
    best_epoch: Array  # () int32
    waited: Array  # () int32, epochs since then
    epoch: Array  # () int32, epochs run
    outcome: Array  # () int32
    done: Array  # () bool


@dataclass(frozen=True, eq=False)
class Program:
    """The record of the three functions; compared by identity.

    `carry` has the fields `epoch`, the epochs run (int32), and `done` (bool). `check(data, params)` raises for data or
    parameters that don't fit, before any compile. `patience` is the number of epochs after which a run may stop early,
    None if it can't. A `whole` Program runs in one piece, its only epoch (see `jn.whole`).
    """

    start: Callable[..., Any]
    epoch: Callable[[Any, Data], tuple[Any, dict[str, Array]]]
    finish: Callable[[Any, dict[str, Array]], Any]
    check: Callable[[Data, Any], None]
    patience: int | None = None
    whole: bool = False
    compiled: dict[Callable, Callable] = field(default_factory=dict, repr=False)  # filled by `fit` and `run`


def program(
    net: Layer,
    loss: "Loss | Callable | Head",
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int,
    patience: int | None = None,
    gradient: GradientFunction | None = None,
    metrics: Mapping[str, Callable] | None = None,
    averaged: Callable[[Any, Any], Any] | None = None,
    eval_batch_size: int = PIECE,
) -> Program:
    """The supervised run: minibatch training with validation, patience and the best parameters kept.

    Each epoch visits every example once, in a fresh random order, in ⌈N / batch_size⌉ batches whose sizes differ by
    at most one. Then the validation set, if there is one, is evaluated. The run stops after `patience` consecutive
    epochs whose validation loss isn't strictly below the lowest so far (NaN never is; epoch 0, the initial parameters,
    counts as the first). It has diverged at the first epoch at whose end the training loss, the validation loss or a
    parameter isn't finite. Kept are the parameters of the lowest validation loss, before any of those the last
    finite ones (Goodfellow alg. 7.1; MIT 6.036 §8.1).

    Args:
        net: the network; a fresh one is initialized in each run.
        loss: a `Loss`, a function (output, target) -> (batch,), or a `Head`, whose layer is appended to `net`.
        optimizer: any optax GradientTransformation; its rates may be traced.
        batch_size: examples per step, at most.
        patience: epochs without improvement before the run stops; None never stops; needs a validation set.
        gradient: the gradient function, `loss_and_grad(net, loss)` unless given (with a head that of `head.on(net)`
            and `head.loss`); validation uses `loss` alone.
        metrics: name -> function (output, target) -> (batch,), evaluated on the validation set; None for the loss's
            own (accuracy for classification, R² for regression).
        averaged: (opt_state, params) -> params, what is validated and kept instead of the parameters themselves.
        eval_batch_size: examples evaluated at a time.

    `train_loss` is the mean over the epoch's steps of the objective (penalties and dropout included), as training
    goes on; `valid_loss` and the metrics belong to the parameters at the epoch's end.

    Raises:
        ValueError, TypeError: for arguments out of range.

    >>> import jaxnet as jn
    >>> prog = program(jn.mlp([8, 3]), jn.losses.softmax_cross_entropy, optax.adam(1e-2), batch_size=16)
    >>> prog.patience is None
    True
    """
    if not isinstance(net, Layer):
        raise TypeError(f"got net {net!r}; expected a Layer such as jn.mlp([256, 10])")
    net, loss, metrics = attached(net, loss, metrics)
    batch_size = positive_integer("batch_size", batch_size)
    eval_batch_size = positive_integer("eval_batch_size", eval_batch_size)
    patience = None if patience is None else positive_integer("patience", patience)
    metric_of = resolved_metrics(loss, metrics)
    step = train_step(gradient or loss_and_grad(net, loss), optimizer)

    def initial(key, data):
        return net.init(jax.random.fold_in(key, _INIT), spec_of(data.train[0]))

    def kept(train: TrainState):
        return train.params if averaged is None else averaged(train.opt_state, train.params)

    def validated(params, state, data: Data) -> dict[str, Array]:
        if data.judged is None:
            return {}
        values = judge(net, loss, metric_of, params, state, data.judged, data.valid_rows, eval_batch_size)
        return {f"valid_{name}": value for name, value in values.items()}

    def start(key, data: Data, params=None) -> Carry:
        fresh, state = initial(key, data)
        params = strong(fresh if params is None else params)
        train = train_state(params, state, optimizer, jax.random.fold_in(key, _NOISE))
        row = validated(kept(train), state, data)
        dtype = jnp.result_type(float)
        valid_loss = row.get("valid_loss", jnp.full((), jnp.inf, dtype))
        return Carry(
            train=train,
            order_key=jax.random.fold_in(key, _ORDER),
            params=kept(train),
            state=state,
            metrics=strong({"train_loss": jnp.full((), jnp.nan, dtype)} | row),
            best_loss=strong(jnp.where(jnp.isnan(valid_loss), jnp.full_like(valid_loss, jnp.inf), valid_loss)),
            best_epoch=jnp.zeros((), jnp.int32),
            waited=jnp.zeros((), jnp.int32),
            epoch=jnp.zeros((), jnp.int32),
            outcome=jnp.full((), outcomes.EPOCHS_EXHAUSTED, jnp.int32),
            done=jnp.zeros((), bool),
        )

    def one_pass(train: TrainState, order, data: Data):
        """All batches of one epoch; the mean training loss."""

        def body(train, rows):
            batch = take(data.train, rows)
            train, row = step(train, batch)
            return train, (row["loss"], jnp.sum(batch[2])) if len(batch) == 3 else (row["loss"],)

        train, runs = scan_batches(body, train, order, batch_size)
        weights = [ys[1] if len(ys) == 2 else jnp.full(ys[0].shape, size, ys[0].dtype) for size, ys in runs]
        total = sum(jnp.sum(w) for w in weights)
        return train, sum(
            jnp.sum(ys[0] * w.astype(ys[0].dtype)) for (_, ys), w in zip(runs, weights, strict=True)
        ) / total

    def epoch(carry: Carry, data: Data) -> tuple[Carry, dict[str, Array]]:
        number = carry.epoch + 1
        order = shuffled(jax.random.fold_in(carry.order_key, number), data.size)
        if data.rows is not None:
            order = take(data.rows, order)
        train, train_loss = one_pass(carry.train, order, data)
        params = kept(train)
        valid = validated(params, train.state, data)
        row = {"train_loss": train_loss.astype(carry.metrics["train_loss"].dtype)} | valid

        finite = jnp.isfinite(train_loss) & all_finite(train.params) & all_finite(params)
        if valid:
            finite &= jnp.isfinite(valid["valid_loss"])
            improved = finite & (valid["valid_loss"] < carry.best_loss)
            best_loss = jnp.where(improved, valid["valid_loss"], carry.best_loss)
            keep = improved | (finite & jnp.isinf(carry.best_loss))
        else:
            improved, best_loss, keep = finite, carry.best_loss, finite
        waited = jnp.where(improved, 0, carry.waited + 1)
        stopped = waited >= patience if patience is not None and valid else jnp.zeros((), bool)
        outcome = jnp.where(
            finite, jnp.where(stopped, outcomes.STOPPED_EARLY, outcomes.EPOCHS_EXHAUSTED), outcomes.DIVERGED
        )
        now = params, train.state, row, number
        before = carry.params, carry.state, carry.metrics, carry.best_epoch
        best_params, best_state, best_row, best_epoch = choose(keep, now, before)
        return Carry(
            train=train,
            order_key=carry.order_key,
            params=best_params,
            state=best_state,
            metrics=best_row,
            best_loss=best_loss,
            best_epoch=best_epoch,
            waited=waited,
            epoch=number,
            outcome=outcome.astype(jnp.int32),
            done=stopped | ~finite,
        ), row

    def finish(carry: Carry, rows: dict[str, Array]) -> Fitted:
        return Fitted(carry.params, carry.state, rows, carry.metrics, carry.best_epoch, carry.epoch, carry.outcome)

    traced: dict[Any, Any] = {}  # what `shapes` found, so that the next run on data of the same shapes starts at once

    def shapes(data: Data):
        """The shapes of the parameters, and of the outputs on each set, by tracing network and loss once."""
        leaves, tree = jax.tree.flatten(data)
        known = (tree, tuple((a.shape, str(a.dtype)) for a in leaves))
        if known not in traced:
            fresh, state = jax.eval_shape(initial, jax.random.key(0), data)
            sets = {"train": data.train} | ({} if data.valid is None else {"valid": data.valid})
            traced[known] = fresh, {part: outputs_of(net, loss, fresh, state, s) for part, s in sets.items()}
        return traced[known]

    def check(data: Data, params=None) -> None:
        if batch_size > data.size:
            raise ValueError(
                f"got batch_size={batch_size} for {data.size} training examples; expected at most as many: lower it"
            )
        if patience is not None and data.judged is None:
            raise ValueError(
                f"got patience={patience} without a validation set; expected one to stop by: jn.Data(train, valid), or "
                "patience=None"
            )
        fresh, outputs = shapes(data)
        if params is not None:
            check_params(params, fresh)
        for part, examples in (("train", data.train), ("valid", data.valid)):
            if examples is not None:
                check_targets(loss, outputs[part], examples[1])

    return Program(start, epoch, finish, check, patience)


def all_finite(tree: Any) -> Array:
    """Whether every number in the tree is finite, a scalar bool.

    >>> bool(all_finite({"w": jnp.array([1.0, jnp.nan])}))
    False
    """
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(tree)] or [jnp.ones((), bool)]))


def check_params(params: Any, expected: Any) -> None:
    """`params` has the tree, shapes and dtypes of `expected` and only finite numbers.

    Raises:
        ValueError: names the leaf.

    >>> check_params({"w": jnp.zeros(2)}, {"w": jnp.zeros(3)})
    Traceback (most recent call last):
    ValueError: params['w']: got float32(2,); expected float32(3,), as the network's init makes it for these data
    """
    given = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    wanted = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(expected)}
    if missing := wanted.keys() - given.keys():
        raise ValueError(
            f"params: got no {', '.join(sorted(missing))}; expected the tree that the network's init makes"
        )
    if extra := given.keys() - wanted.keys():
        raise ValueError(f"params: got {', '.join(sorted(extra))}, which the network doesn't have")
    for name, leaf in given.items():
        one, other = (f"{jnp.result_type(a).name}{tuple(jnp.shape(a))}" for a in (leaf, wanted[name]))
        if one != other:
            raise ValueError(
                f"params{name}: got {one}; expected {other}, as the network's init makes it for these data"
            )
        if concrete(leaf):
            prepared_array(f"params{name}", leaf)
