"""A training run as a value: three pure functions of arrays.

    start(key, data, params=None) -> carry         initial parameters, evaluated: epoch 0
    epoch(carry, data)            -> carry, row    one pass over the training set, then validation
    finish(carry, rows)           -> Fitted        what the run leaves

`carry` holds arrays only, with a bool `done`; `row` is {"train_loss": …, "valid_loss": …, …}, scalars; `rows` is the
same with a leading epoch axis. `fit` loops over a Program inside one compiled function, `run` from the host; a study
is its `vmap`. The rules of the run (patience, best parameters, divergence) are all in `epoch`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxnet import outcomes
from jaxnet.data.checks import positive_integer
from jaxnet.data.sets import Data
from jaxnet.gradients import GradientFunction, loss_and_grad
from jaxnet.heads import Head, attached
from jaxnet.layers import Layer, spec_of
from jaxnet.losses import Loss
from jaxnet.training.checks import checker
from jaxnet.training.evaluation import PIECE, judge, resolved_metrics
from jaxnet.training.nonfinite import Policy, all_finite, policy_of, sound
from jaxnet.training.passes import Steps, careful_pass, one_pass, order_of
from jaxnet.training.step import TrainState, choose, strong, train_state, train_step, watched_step

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
    None if it can't. A `whole` Program runs in one piece, its only epoch (see `jn.whole`). `steps` is None where an
    epoch isn't made of `train_step`s.
    """

    start: Callable[..., Any]
    epoch: Callable[[Any, Data], tuple[Any, dict[str, Array]]]
    finish: Callable[[Any, dict[str, Array]], Any]
    check: Callable[[Data, Any], None]
    patience: int | None = None
    whole: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)  # what made it, for people to read
    steps: Steps | None = None
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
    nonfinite: "str | Policy" = "stop",
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
        nonfinite: what to do about an update that isn't finite: "stop" takes it, "skip" drops it, "reduce" also makes
            the next ones smaller; `jn.training.skip(…)` and `jn.training.reduce(…)` have settings.

    `train_loss` is the mean over the epoch's steps of the objective (penalties and dropout included), as training
    goes on; `valid_loss` and the metrics belong to the parameters at the epoch's end. Unless `nonfinite` is "stop"
    there is `skipped`, the updates dropped since the run's start (in `Fitted.metrics`, in the whole run); `train_loss`
    is then that of the others, NaN where there were none, and too many dropped in a row are a divergence too.

    Raises:
        ValueError, TypeError: for arguments out of range.

    >>> import jaxnet as jn
    >>> prog = program(jn.mlp([8, 3]), jn.losses.softmax_cross_entropy, optax.adam(1e-2), batch_size=16)
    >>> prog.patience is None
    True
    """
    net, loss, metrics = network_and_loss(net, loss, metrics)
    batch_size = positive_integer("batch_size", batch_size)
    steps = Steps(net, loss, gradient or loss_and_grad(net, loss), gradient is not None, optimizer, batch_size)
    policy = policy_of(nonfinite)
    if averaged is not None and policy is not None and policy.factor is not None:
        raise ValueError(
            'got nonfinite="reduce" with averaged parameters, which optimizers average before updates are reduced; '
            'expected one of the two: nonfinite="skip"'
        )
    step = train_step(steps.gradient, optimizer, nonfinite)
    quick = None if policy is None else watched_step(steps.gradient, optimizer, policy, drop=False)

    def kept(train: TrainState):
        return train.params if averaged is None else averaged(train.opt_state, train.params)

    def counts(train: TrainState) -> dict[str, Array]:
        return {} if policy is None else {"skipped": train.faults.skipped.astype(jnp.result_type(float))}

    def begin(params, state, key, data: Data):
        train = train_state(params, state, optimizer, jax.random.fold_in(key, _NOISE), nonfinite)
        return train, {"train_loss": jnp.full((), jnp.nan, jnp.result_type(float))} | counts(train), None

    def advance(train: TrainState, order, data: Data):
        if quick is None:
            train, train_loss, _ = one_pass(step, train, order, data, batch_size)
        else:
            train, train_loss = careful_pass(quick, step, train, order, data, batch_size)
        return train, {"train_loss": train_loss} | counts(train), None

    made = supervised(
        net, loss, metrics, begin, advance, kept=kept, batch_size=batch_size, patience=patience,
        eval_batch_size=eval_batch_size, going=lambda train, train_loss: sound(policy, train_loss, train.faults),
        totals=() if policy is None else ("skipped",),
    )  # fmt: skip
    settings = {**made.settings, "nonfinite": nonfinite if policy is None else repr(policy)}
    return replace(made, settings=settings, steps=steps)


def network_and_loss(
    net: Layer, loss: "Loss | Callable | Head", metrics: Mapping[str, Callable] | None
) -> tuple[Layer, Loss, Mapping[str, Callable] | None]:
    """(network, Loss, metrics), with a Head's layer, loss and metrics in their places.

    Raises:
        TypeError: no Layer, no loss.

    >>> import jaxnet as jn
    >>> network_and_loss(jn.dense(3), jn.losses.squared_error, None)
    (dense(3), <loss squared_error>, None)
    """
    if not isinstance(net, Layer):
        raise TypeError(f"got net {net!r}; expected a Layer such as jn.mlp([256, 10])")
    return attached(net, loss, metrics)


def supervised(
    net: Layer,
    loss: Loss,
    metrics: Mapping[str, Callable] | None,
    begin: Callable[..., tuple[Any, dict[str, Array], Any]],
    advance: Callable[..., tuple[Any, dict[str, Array], Any]],
    *,
    kept: Callable[[Any], Any],
    batch_size: int | None,
    patience: int | None,
    eval_batch_size: int,
    going: Callable[[Any, Array], Array] = lambda train, train_loss: jnp.isfinite(train_loss),
    totals: tuple[str, ...] = (),
) -> Program:
    """The Program around any way to train: initial parameters, validation, patience, the best kept, the checks.

    begin(params, state, key, data) -> train, row, outcome      epoch 0
    advance(train, order, data)     -> train, row, outcome      one epoch, its examples in `order`

    `train` holds arrays, with fields `params` and `state`, from which `kept(train)` makes what is validated and
    returned; `row` is {"train_loss": …, …}; `outcome` says why training ended, outcomes.RUNNING where it didn't, and
    None if it never does by itself. `batch_size` is the most examples of a step, None for all. A run has diverged where
    `going(train, train_loss)` is False. Names of the row in `totals` belong to the whole run, not to its best epoch.

    Raises:
        ValueError, TypeError: for arguments out of range.
    """
    eval_batch_size = positive_integer("eval_batch_size", eval_batch_size)
    patience = None if patience is None else positive_integer("patience", patience)
    metric_of = resolved_metrics(loss, metrics)

    def initial(key, data):
        return net.init(jax.random.fold_in(key, _INIT), spec_of(data.train[0]))

    def validated(params, state, data: Data) -> dict[str, Array]:
        if data.judged is None:
            return {}
        values = judge(net, loss, metric_of, params, state, data.judged, data.valid_rows, eval_batch_size)
        return {f"valid_{name}": value for name, value in values.items()}

    def start(key, data: Data, params=None) -> Carry:
        fresh, state = initial(key, data)
        params = strong(fresh if params is None else params)
        train, row, ended = begin(params, state, key, data)
        valid = validated(kept(train), state, data)
        valid_loss = valid.get("valid_loss", jnp.full((), jnp.inf, jnp.result_type(float)))
        return Carry(
            train=train,
            order_key=jax.random.fold_in(key, _ORDER),
            params=kept(train),
            state=state,
            metrics=strong(row | valid),
            best_loss=strong(jnp.where(jnp.isnan(valid_loss), jnp.full_like(valid_loss, jnp.inf), valid_loss)),
            best_epoch=jnp.zeros((), jnp.int32),
            waited=jnp.zeros((), jnp.int32),
            epoch=jnp.zeros((), jnp.int32),
            outcome=jnp.full((), outcomes.EPOCHS_EXHAUSTED, jnp.int32)
            if ended is None
            else jnp.where(ended == outcomes.RUNNING, outcomes.EPOCHS_EXHAUSTED, ended).astype(jnp.int32),
            done=jnp.zeros((), bool) if ended is None else ended != outcomes.RUNNING,
        )

    def epoch(carry: Carry, data: Data) -> tuple[Carry, dict[str, Array]]:
        number = carry.epoch + 1
        train, found, ended = advance(carry.train, order_of(carry.order_key, number, data), data)
        params = kept(train)
        valid = validated(params, train.state, data)
        row = {name: value.astype(carry.metrics[name].dtype) for name, value in found.items()} | valid

        finite = going(train, found["train_loss"]) & all_finite(train.params) & all_finite(params)
        if ended is not None:
            finite &= ended != outcomes.NON_FINITE
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
        if ended is not None:  # what training says of itself comes before patience, after a bad validation loss
            stopped |= ended != outcomes.RUNNING
            own = (ended == outcomes.NON_FINITE) | (finite & (ended != outcomes.RUNNING))
            outcome = jnp.where(own, ended, outcome)
        now = params, train.state, row, number
        before = carry.params, carry.state, carry.metrics, carry.best_epoch
        best_params, best_state, best_row, best_epoch = choose(keep, now, before)
        return Carry(
            train=train,
            order_key=carry.order_key,
            params=best_params,
            state=best_state,
            metrics=best_row | {name: row[name] for name in totals},
            best_loss=best_loss,
            best_epoch=best_epoch,
            waited=waited,
            epoch=number,
            outcome=outcome.astype(jnp.int32),
            done=stopped | ~finite,
        ), row

    def finish(carry: Carry, rows: dict[str, Array]) -> Fitted:
        return Fitted(carry.params, carry.state, rows, carry.metrics, carry.best_epoch, carry.epoch, carry.outcome)

    check = checker(net, loss, initial, batch_size, patience)
    settings = {"net": repr(net), "loss": loss.name, "batch_size": batch_size, "patience": patience}
    return Program(start, epoch, finish, check, patience, settings=settings)
