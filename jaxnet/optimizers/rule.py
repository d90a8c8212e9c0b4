"""What the first-order rules share: a rule is arithmetic on one leaf, applied to every leaf of the gradient.

    rule(slots, numbers, move) -> optax.GradientTransformation
    numbers(k)                 -> the step's scalars: rates, decays, corrections; k = 0, 1, …, () int32
    move(scalars, g, *slots)   -> (update, *slots)      of one leaf; θ ← θ + update

A rate, and a momentum, is a number, traced or not, or a schedule. What is remembered of a bfloat16 or float16
parameter is kept in float32, because in bfloat16 the decay 0.999 is 1; updates have the gradient's dtype.

The order of a rule's operations isn't free: where a product is added to a product, or a product is used twice, XLA
may fuse either into a multiply-add, another one in a scan than in a single step, and both then differ in the last
bit. The contract's tests see it; `rounded` stands where no order helps.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from jaxnet.schedules import known


class RuleState(NamedTuple):
    """What a rule remembers."""

    step: Array  # () int32, steps taken
    slots: dict[str, Any]  # name -> tree like the parameters


def rule(
    slots: tuple[str, ...],
    numbers: Callable[[Array], tuple[Array, ...]],
    move: Callable[..., tuple[Array, ...]],
) -> optax.GradientTransformation:
    """The transformation that applies `move` to each leaf; every slot starts at 0.

    >>> halving = rule((), lambda k: (), lambda scalars, g: (-g / 2,))
    >>> updates, state = halving.update(jnp.ones(2), halving.init(jnp.ones(2)))
    >>> updates.tolist(), int(state.step)
    ([-0.5, -0.5], 1)
    """

    def init(params):
        def zeros(p):
            return jnp.zeros_like(p, dtype=_wide(jnp.result_type(p)))

        return RuleState(jnp.zeros((), jnp.int32), {name: jax.tree.map(zeros, params) for name in slots})

    def update(grads, state, params=None):
        scalars = numbers(state.step)
        tree: Any
        leaves, tree = jax.tree.flatten(grads)
        memories = [tree.flatten_up_to(state.slots[name]) for name in slots]
        moved = [_leaf(move, scalars, g, memory) for g, *memory in zip(leaves, *memories, strict=True)]
        updates, *slots_after = ([leaf[i] for leaf in moved] for i in range(1 + len(slots)))
        after = {name: tree.unflatten(values) for name, values in zip(slots, slots_after, strict=True)}
        return tree.unflatten(updates), RuleState(optax.safe_increment(state.step), after)

    return optax.GradientTransformation(init, update)


def _wide(dtype):
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else dtype


def _leaf(move, scalars, g, memory):
    dtype = memory[0].dtype if memory else _wide(g.dtype)
    update, *memory = move(tuple(s.astype(dtype) for s in scalars), g.astype(dtype), *memory)
    return update.astype(g.dtype), *memory


def number(value: Any, step: Array) -> Array:
    """A hyperparameter at a step, () of the default float: the number, or the schedule's.

    >>> float(number(0.5, jnp.zeros((), jnp.int32))), float(number(lambda k: 1 / (k + 1), jnp.ones((), jnp.int32)))
    (0.5, 0.5)
    """
    return jnp.asarray(value(step) if callable(value) else value, jnp.result_type(float))


def rounded(product: Array) -> Array:
    """A product as it is, rounded before anything is added to it: a select keeps it out of a fused multiply-add.

    >>> float(rounded(jnp.asarray(0.5) * 3))
    1.5
    """
    return jnp.where(product == 0, jnp.zeros_like(product), product)


def unbiased(decay: Array, step: Array) -> Array:
    """1 − βᵗ, t = step + 1: the sum of the weights in an average (1 − β) Σ β^{t−i} x_i that started at 0.

    Computed as −expm1(t ln β), which keeps every digit in float32 too.

    >>> round(float(unbiased(jnp.asarray(0.9), jnp.ones((), jnp.int32))), 6)
    0.19
    """
    return -jnp.expm1((step + 1).astype(decay.dtype) * jnp.log(decay))


def check(name: str, learning_rate: Any = 0.0, epsilon: Any = 1.0, **decays: Any) -> None:
    """Numbers that aren't traced are in their ranges: η ≥ 0, ε > 0, both finite, decays in [0, 1).

    Schedules check their own numbers. A rate of 0 is one: it leaves the parameters as they are.

    Raises:
        ValueError: otherwise; TypeError: not one real number.

    >>> check("adam", 0.1, b1=1.0)
    Traceback (most recent call last):
    ValueError: adam: got b1=1.0; expected 0 ≤ b1 < 1
    """

    def wrong(key, value, fits):
        given = None if callable(value) else known(f"{name}: got {key}", value)
        return given is not None and not fits(given)

    if wrong("learning_rate", learning_rate, lambda v: 0 <= v < math.inf):
        raise ValueError(f"{name}: got learning_rate={learning_rate}; expected a number ≥ 0 or a schedule")
    if wrong("epsilon", epsilon, lambda v: 0 < v < math.inf):
        raise ValueError(f"{name}: got epsilon={epsilon}; expected a number > 0: 0 makes 0/0 of a zero gradient")
    for key, value in decays.items():
        if wrong(key, value, lambda v: 0 <= v < 1):
            raise ValueError(f"{name}: got {key}={value}; expected 0 ≤ {key} < 1")
