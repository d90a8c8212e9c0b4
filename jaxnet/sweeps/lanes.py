"""The one compiled program of a bucket: `width` lanes, each holding one member's run, advanced side by side.

    advance(lanes, Orders, resident) -> lanes, Report

A lane is a member's carry and its rows so far. One call starts the members whose lane is `fresh`, carries every
`active` lane on by at most `length` epochs and not beyond its `limit`, and reports who has finished and what each
run would leave now. A lane that isn't active stays as it is, whatever it holds. Between calls the host decides which
member sits in which lane. What a member computes depends on its own orders and the resident data alone, never on
the lane or on its company; so it is the same, to the bit, in any lane at the same width.

PRNG keys cross the boundary as their words, so that lanes are plain arrays that NumPy can hold and files can keep.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.data.sets import Data
from jaxnet.training.identity import nameless
from jaxnet.training.loop import blank_rows, segment
from jaxnet.training.program import Program

Build = Callable[[Mapping[str, Any]], Program]


class Lanes(NamedTuple):
    """The members' runs, with a leading lane axis on every leaf; keys as uint32 words."""

    carry: Any
    rows: Any  # name -> (width, epochs), NaN where not yet run


class Orders(NamedTuple):
    """What the host asks of each lane; NumPy arrays with a leading lane axis, `length` a scalar."""

    fresh: Any  # (width,) bool, start this member anew
    active: Any  # (width,) bool, carry it on
    limit: Any  # (width,) int32, the epoch at which it pauses at the latest
    seed: Any  # (width,) uint32
    fold: Any  # (width,) int32, the row of the folds' table; 0 without folds
    hp: Any  # name -> (width,)
    length: Any  # () int32, the most epochs of this call


class Resident(NamedTuple):
    """What stays on the device for all calls."""

    key: Any  # the words of the study's key
    data: Any
    folds: Any  # (rows (folds, m), valid_rows (folds, v)) or None


class Report(NamedTuple):
    """What the host learns of each lane."""

    finished: Any  # (width,) bool: done, or at its limit
    epoch: Any  # (width,) int32, epochs run
    fitted: Any  # what the run would leave now


@dataclass(frozen=True, eq=False)
class LaneProgram:
    """The compiled function of one bucket and the shapes it works on."""

    advance: Callable[[Lanes, Orders, Resident], tuple[Lanes, Report]]  # jitted; the lanes given are used up
    lanes: Lanes  # as ShapeDtypeStructs
    report: Report  # as ShapeDtypeStructs
    width: int
    epochs: int
    whole: bool
    text: str  # the lowered program: with its inputs, it decides every bit

    def blank(self) -> Lanes:
        """Lanes that hold no member yet, NumPy zeros."""
        return jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), self.lanes)


def lane_program(
    build: Build,
    static: Mapping[str, Any],
    traced: Mapping[str, Any],
    resident: Resident,
    *,
    width: int,
    epochs: int,
) -> LaneProgram:
    """Trace and lower the program of the bucket with these static values; compiles nothing.

    `traced` names the other hyperparameters with their dtypes; `build` gets {**static, **traced scalars}. `resident`
    may hold arrays or their shapes.

    Raises:
        TypeError, ValueError: what `build` and the network say of the shapes; a traced hyperparameter used where
            Python needs its value.

    >>> import jaxnet as jn, optax
    >>> def build(hp):
    ...     return jn.program(jn.mlp([1]), jn.losses.squared_error, optax.sgd(hp["lr"]), batch_size=2)
    >>> data = jn.Data((np.ones((4, 2), "float32"), np.ones((4, 1), "float32")))
    >>> resident = Resident(np.zeros(2, "uint32"), data, None)
    >>> lane_program(build, {}, {"lr": np.float32}, resident, width=3, epochs=5).lanes.rows["train_loss"].shape
    (3, 5)
    """
    whole = []

    def of_member(seed, fold, hp, resident: Resident):
        """The member's Program, key and data."""
        program = build({**static, **hp})
        if not isinstance(program, Program):
            raise TypeError(f"build returned {program!r}; expected a Program: jn.program(...), or jn.whole(train)")
        whole.append(program.whole)
        key = jax.random.fold_in(jax.random.wrap_key_data(resident.key, impl="threefry2x32"), seed)
        data = resident.data
        if resident.folds is not None:
            rows, valid_rows = resident.folds
            data = Data(data.train, None, rows[fold], valid_rows[fold])
        return program, key, data

    def started(seed, fold, hp, resident):
        program, key, data = of_member(seed, fold, hp, resident)
        carry = program.start(key, data)
        return Lanes(carry, {} if program.whole else blank_rows(program, carry, data, epochs=epochs))

    def carry_on(lane, seed, fold, hp, until, resident):
        program, _, data = of_member(seed, fold, hp, resident)
        carry, rows = _with_keys(lane, typed)
        carry, rows = segment(program, carry, rows, data, until)
        return _with_words(Lanes(carry, rows)), Report(carry.done, carry.epoch, program.finish(carry, rows))

    def advance(lanes: Lanes, orders: Orders, resident: Resident):
        member = orders.seed, orders.fold, orders.hp

        def with_fresh(lanes):
            fresh = jax.vmap(lambda seed, fold, hp: _with_words(started(seed, fold, hp, resident)))(*member)
            return jax.tree.map(
                lambda new, old: jnp.where(orders.fresh.reshape(-1, *[1] * (old.ndim - 1)), new, old), fresh, lanes
            )

        lanes = jax.lax.cond(jnp.any(orders.fresh), with_fresh, lambda lanes: lanes, lanes)
        until = jnp.minimum(lanes.carry.epoch + orders.length, orders.limit)
        until = jnp.where(orders.active, until, jnp.zeros_like(until))
        lanes, report = jax.vmap(carry_on, (0, 0, 0, 0, 0, None))(lanes, *member, until, resident)
        return lanes, report._replace(finished=report.finished | (report.epoch >= orders.limit))

    resident = jax.tree.map(_shape, resident)
    orders = blank_orders(traced, width)
    one = jax.tree.map(lambda a: jax.ShapeDtypeStruct((), a.dtype), (orders.seed, orders.fold, orders.hp))
    try:
        typed = jax.eval_shape(started, *one, resident)
        words = jax.eval_shape(_with_words, typed)
        lanes = jax.tree.map(lambda s: jax.ShapeDtypeStruct((width, *s.shape), s.dtype), words)
        jitted = jax.jit(advance, donate_argnums=0)
        lowered = jitted.lower(lanes, orders, resident)
    except (TypeError, ValueError) as error:
        if not traced or not re.search("[Tt]racer|traced array", str(error)):
            raise
        raise TypeError(
            f"build: one of the hyperparameters {', '.join(traced)} is used where Python needs its value (an if, a "
            "shape, a name), but is an input of the compiled program; mark it as shaping the program: "
            f"jn.static([...]). It failed with: {str(error).splitlines()[0]}"
        ) from error
    report = jax.tree.map(_shape, lowered.out_info[1])
    return LaneProgram(jitted, lanes, report, width, epochs, whole[0], nameless(lowered.as_text()))


def blank_orders(traced: Mapping[str, Any], width: int) -> Orders:
    """Orders that ask nothing of any lane.

    >>> blank_orders({"lr": np.float32}, 4).active.tolist()
    [False, False, False, False]
    """
    return Orders(
        fresh=np.zeros(width, bool),
        active=np.zeros(width, bool),
        limit=np.zeros(width, np.int32),
        seed=np.zeros(width, np.uint32),
        fold=np.zeros(width, np.int32),
        hp={name: np.zeros(width, dtype) for name, dtype in traced.items()},
        length=np.zeros((), np.int32),
    )


def _shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _with_words(tree: Any) -> Any:
    """Typed keys as their words."""
    return jax.tree.map(lambda a: jax.random.key_data(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a, tree)


def _with_keys(tree: Any, typed: Any) -> Any:
    """Words as keys again, where `typed` has them."""
    return jax.tree.map(
        lambda a, like: (
            jax.random.wrap_key_data(a, impl="threefry2x32") if jnp.issubdtype(like.dtype, jax.dtypes.prng_key) else a
        ),
        tree,
        typed,
    )
