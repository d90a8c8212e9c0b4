"""Norms of a whole tree of arrays, with derivatives that are finite everywhere.

    ‖x‖_p = (Σ |x_i|^p)^(1/p)      ‖x‖_∞ = max |x_i|

All entries of all leaves count as one vector. At x = 0 the derivative is 0, one of the subgradients (the naive form
gives NaN).
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet import activations


def squared_norm(tree: Any) -> Array:
    """Σ x_i² over every entry of the tree, (); its derivative is 2 x (Goodfellow §2.5).

    >>> float(squared_norm({"w": jnp.array([3.0]), "b": jnp.array([4.0])}))
    25.0
    """
    return sum((jnp.sum(jnp.square(a)) for a in jax.tree.leaves(tree)), jnp.zeros(()))


def norm(tree: Any, order: float = 2) -> Array:
    """‖x‖_p over every entry of the tree, (), for p = `order` ≥ 1 or infinity (Goodfellow eq. 2.30–2.32).

    The derivative at 0 is 0. Several largest entries share the derivative of the maximum norm equally.

    Raises:
        ValueError: for p < 1, which gives no norm.

    >>> tree = {"w": jnp.array([3.0, 0.0]), "b": jnp.array([-4.0])}
    >>> float(norm(tree)), float(norm(tree, 1)), float(norm(tree, jnp.inf))
    (5.0, 7.0, 4.0)
    >>> float(jax.grad(norm)(0.0))
    0.0
    """
    if not order >= 1:
        raise ValueError(f"norm: got order={order}; expected p ≥ 1: below 1 the triangle inequality fails")
    leaves = [activations.absolute(jnp.asarray(a)) for a in jax.tree.leaves(tree)]
    if order == 1:
        return sum((jnp.sum(a) for a in leaves), jnp.zeros(()))
    largest = jnp.zeros(())
    for a in leaves:
        largest = jnp.maximum(largest, jnp.max(a, initial=0).astype(largest.dtype))
    if order == jnp.inf:
        return largest
    # Scaled by the largest entry, so that no power overflows; the scale has no derivative of its own.
    scale = jax.lax.stop_gradient(jnp.where(largest == 0, jnp.ones_like(largest), largest))
    total = sum((jnp.sum((a / scale.astype(a.dtype)) ** order) for a in leaves), jnp.zeros(()))
    there = total > 0
    return jnp.where(there, scale * jnp.where(there, total, jnp.ones_like(total)) ** (1 / order), 0.0)
