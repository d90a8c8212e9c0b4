"""One pass over the training set: an epoch's order, its steps, their mean loss.

    one_pass       every step is taken as it comes
    careful_pass   the same, but updates that aren't finite are dropped

A thorough look at every update takes a small network twice its time or more, so a careful pass looks at losses and
gradients as they come, which is cheap, and at the parameters and states once, after it. Only an epoch that fails this
is made again from where it began, with a thorough look at each update.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxnet.data.sets import Data, take
from jaxnet.gradients import GradientFunction
from jaxnet.layers import Layer
from jaxnet.losses import Loss
from jaxnet.training.batches import scan_batches, shuffled
from jaxnet.training.nonfinite import still_finite
from jaxnet.training.step import TrainState


class Steps(NamedTuple):
    """What the steps of an epoch are made of, for those who look at one of them."""

    net: Layer  # with the head's layer
    loss: Loss
    gradient: GradientFunction
    given: bool  # whether that is `program(gradient=…)`
    optimizer: optax.GradientTransformation
    batch_size: int


def order_of(key: Array, epoch: Array, data: Data) -> Array:
    """The examples in the order of one epoch, from 1: every one once.

    >>> sorted(order_of(jax.random.key(0), 1, Data((jnp.zeros((3, 1)), jnp.zeros(3)))).tolist())
    [0, 1, 2]
    """
    order = shuffled(jax.random.fold_in(key, epoch), data.size)
    return order if data.rows is None else take(data.rows, order)


def one_pass(step: Callable, train: Any, order: Array, data: Data, batch_size: int) -> tuple[Any, Array, Array]:
    """All batches of one epoch: the state after them, the mean loss of the updates made, and whether one was bad.

    `step(train, batch) -> train, row` is such as a `train_step`. The mean has a batch's weight, or its number of
    examples; where no update was made it is NaN.
    """

    def body(train, rows):
        batch = take(data.train, rows)
        train, row = step(train, batch)
        return train, row | ({"weight": jnp.sum(batch[2])} if len(batch) == 3 else {})

    train, runs = scan_batches(body, train, order, batch_size)
    weights = [ys["weight"] if "weight" in ys else jnp.full_like(ys["loss"], size) for size, ys in runs]
    losses = [ys["loss"] for _, ys in runs]
    bad = jnp.zeros((), bool)
    if "skipped" in runs[0][1]:
        dropped = [ys["skipped"] for _, ys in runs]
        bad = jnp.any(jnp.concatenate(dropped))
        weights = [jnp.where(d, 0, w) for d, w in zip(dropped, weights, strict=True)]
        losses = [jnp.where(w > 0, a, 0) for a, w in zip(losses, weights, strict=True)]
    total = sum(jnp.sum(w) for w in weights)
    mean: Any = sum(jnp.sum(a * w.astype(a.dtype)) for a, w in zip(losses, weights, strict=True)) / total
    return train, mean, bad


def careful_pass(
    quick: Callable, careful: Callable, train: TrainState, order: Array, data: Data, batch_size: int
) -> tuple[TrainState, Array]:
    """`one_pass` of the step that drops updates (`careful`), or to the same effect of the one that just takes them."""
    after, loss, bad = one_pass(quick, train, order, data, batch_size)
    fine = ~bad & still_finite(train._replace(faults=()), after._replace(faults=()))

    def again(now):
        start, *_ = now
        after, loss, _ = one_pass(careful, start, order, data, batch_size)
        return after, after, loss, jnp.ones((), bool)

    # A loop of one round or none: under `vmap` it is run where a member needs it, `cond` would be run always. Where it
    # starts changes in it, else XLA would take the round out of the loop and make it always.
    _, after, loss, _ = jax.lax.while_loop(lambda now: ~now[3], again, (train, after, loss, fine))
    return after, loss
