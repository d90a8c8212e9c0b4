"""Lookahead: k steps of any optimizer, then a part of the way from where they began; stands last in an optax chain."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array


class LookaheadState(NamedTuple):
    """Where the last k steps began."""

    step: Array  # () int32, steps since then
    slow: Any  # like the parameters


def lookahead(steps: int, rate: Any = 0.5) -> optax.GradientTransformation:
    """Every k-th step goes to φ ← φ + α(θ − φ), with θ where it would have gone and φ the last such place.

    The optimizer's own state is kept (Zhang et al. 2019).

    Args:
        steps: k ≥ 1.
        rate: α, traced or not; 1 changes nothing.

    Raises:
        ValueError: for fewer than one step.

    >>> optimizer, params = optax.chain(optax.sgd(1.0), lookahead(2, 0.5)), jnp.zeros(())
    >>> state, path = optimizer.init(params), []
    >>> for _ in range(4):
    ...     updates, state = optimizer.update(-jnp.ones(()), state, params)
    ...     params = params + updates
    ...     path.append(float(params))
    >>> path
    [1.0, 1.0, 2.0, 2.0]
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"lookahead: got steps={steps!r}; expected a whole number ≥ 1")

    def init(params):
        return LookaheadState(jnp.zeros((), jnp.int32), params)

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("lookahead got params=None; expected update(grads, state, params)")
        back = state.step + 1 == steps

        def place(slow, p, u):
            return jnp.where(back, slow + jnp.asarray(rate, slow.dtype) * (p + u.astype(p.dtype) - slow), slow)

        slow = jax.tree.map(place, state.slow, params, updates)
        updates = jax.tree.map(lambda s, p, u: jnp.where(back, (s - p).astype(u.dtype), u), slow, params, updates)
        return updates, LookaheadState(jnp.where(back, 0, state.step + 1), slow)

    return optax.GradientTransformation(init, update)
