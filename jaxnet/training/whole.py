"""`whole`: any pure function of (key, hyperparameters, data) as a Program of a single segment.

What such a function does inside is its own; a study can start it, wait for it, store and replay it, but can't look at
it half-way: no early leaving, no halving, no population-based training.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet.training.program import Program


class _Carry(NamedTuple):
    key: Array  # () typed key
    result: Any  # zeros before the function ran
    epoch: Array  # () int32, 0 or 1
    done: Array  # () bool


def whole(train: Callable[[Array, Mapping[str, Any], Any], Any]) -> Callable[[Mapping[str, Any]], Program]:
    """The `build` for `jn.sweep` whose members are `train(key, hp, data)`, each run in one piece.

    `train` is pure and can be jitted and vmapped; it returns a `Fitted` (as `jn.fit` does) or a dict of scalars and
    vectors: scalars become columns of the study's table, vectors its histories.

    Raises:
        TypeError: `train` isn't callable, or (when the study traces it) it returns anything else.

    >>> def train(key, hp, data):
    ...     return {"loss": jnp.square(hp["x"] - 3.0)}
    >>> program = whole(train)({"x": jnp.float32(1.0)})
    >>> carry, row = program.epoch(program.start(jax.random.key(0), None), None)
    >>> float(program.finish(carry, row)["loss"]), program.whole
    (4.0, True)
    """
    if not callable(train):
        raise TypeError(f"whole: got {train!r}; expected a function train(key, hp, data)")

    def build(hp: Mapping[str, Any]) -> Program:
        def start(key, data, params=None):
            if params is not None:
                raise TypeError("whole: got initial params; expected none: `train` makes its own")
            shapes = jax.eval_shape(lambda k: train(k, hp, data), key)
            result = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
            return _Carry(key, result, jnp.zeros((), jnp.int32), jnp.zeros((), bool))

        def epoch(carry, data):
            result = jax.tree.map(lambda new, old: new.astype(old.dtype), train(carry.key, hp, data), carry.result)
            return _Carry(carry.key, result, carry.epoch + 1, jnp.ones((), bool)), {}

        def finish(carry, rows):
            return carry.result

        def check(data, params=None):
            pass  # only `train` knows what it can take

        return Program(start, epoch, finish, check, whole=True)

    return build
