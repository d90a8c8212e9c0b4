"""Constraints on parameters, kept after every step: transformations that stand last in an optax chain.

    θ' = P(θ + u)      u' = θ' − θ

P is the nearest point of the allowed set, or a shrinkage (`proximal_l1`). Inside the set u passes through untouched.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnet.gradients.penalties import check_weights, role
from jaxnet.norms import squared_norm


def projected(projection: Callable[[Any], Any]) -> optax.GradientTransformation:
    """After each step the parameters are `projection(params)` (Goodfellow §4.4, §7.2).

    Args:
        projection: from a tree of parameters to one of the same shapes; what it leaves alone must keep its bits.

    In floating point θ + (P(θ + u) − θ) may miss P(θ + u) by a rounding of θ.

    Raises:
        ValueError: where the optimizer is called without parameters.

    >>> optimizer = optax.chain(optax.sgd(1.0), projected(lambda params: jnp.clip(params, -1, 1)))
    >>> params = jnp.array([0.5, 0.5])
    >>> updates, _ = optimizer.update(jnp.array([2.0, 0.25]), optimizer.init(params), params)
    >>> optax.apply_updates(params, updates).tolist()
    [-1.0, 0.25]
    """

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("a constraint got params=None; expected update(grads, state, params)")
        moved = jax.tree.map(lambda w, u: w + u.astype(w.dtype), params, updates)

        def changed(w, u, before, after):
            return jnp.where(after == before, u, (after - w).astype(u.dtype))

        return jax.tree.map(changed, params, updates, moved, projection(moved)), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def _shrunk(square, limit):
    """min(1, limit/√square), safe at 0."""
    square = jnp.maximum(square, jnp.finfo(square.dtype).tiny)
    return jnp.minimum(jnp.ones_like(square), jnp.asarray(limit, square.dtype) / jnp.sqrt(square))


def _of_weights(change, params):
    check_weights("a constraint", params, "projected(projection)")
    return jax.tree_util.tree_map_with_path(lambda path, w: change(w) if role(path) == "w" else w, params)


def norm_ball(radius: Any) -> optax.GradientTransformation:
    """All weights (leaves named `w`) together within ‖w‖₂ ≤ c: w ← w · min(1, c/‖w‖) (Goodfellow §7.2).

    Raises:
        ValueError: matrices of which none is named `w`; an optimizer called without parameters.

    >>> optimizer = norm_ball(1.0)
    >>> params = {"w": jnp.array([3.0, 0.0]), "b": jnp.array([9.0])}
    >>> updates, _ = optimizer.update({"w": jnp.array([0.0, 4.0]), "b": jnp.zeros(1)}, optimizer.init(params), params)
    >>> [round(float(w), 6) for w in optax.apply_updates(params, updates)["w"]]
    [0.6, 0.8]
    """

    def projection(params):
        weights = [w for path, w in jax.tree_util.tree_leaves_with_path(params) if role(path) == "w"]
        factor = _shrunk(squared_norm(weights), radius)
        return _of_weights(lambda w: w * factor.astype(w.dtype), params)

    return projected(projection)


def max_norm(limit: Any) -> optax.GradientTransformation:
    """The incoming weights of each unit within ‖w_·j‖₂ ≤ c: w_·j ← w_·j · min(1, c/‖w_·j‖) (Goodfellow §7.2).

    Units are the last axis of each leaf named `w`: the columns of a dense layer, the output channels of a convolution.

    Raises:
        ValueError: matrices of which none is named `w`; an optimizer called without parameters.

    >>> optimizer = max_norm(1.0)
    >>> params = {"w": jnp.array([[3.0, 0.5], [4.0, 0.5]])}
    >>> updates, _ = optimizer.update({"w": jnp.zeros((2, 2))}, optimizer.init(params), params)
    >>> [[round(float(a), 6) for a in row] for row in optax.apply_updates(params, updates)["w"]]
    [[0.6, 0.5], [0.8, 0.5]]
    """

    def capped(w):
        square = jnp.sum(jnp.square(w), axis=tuple(range(w.ndim - 1)), keepdims=True)
        return w * _shrunk(square, limit)

    return projected(lambda params: _of_weights(capped, params))


def non_negative() -> optax.GradientTransformation:
    """Weights (leaves named `w`) at least 0: w ← max(w, 0).

    Raises:
        ValueError: matrices of which none is named `w`; an optimizer called without parameters.

    >>> params = {"w": jnp.array([0.5, 0.5])}
    >>> updates, _ = non_negative().update({"w": jnp.array([-1.0, 1.0])}, optax.EmptyState(), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [0.0, 1.5]
    """
    return projected(lambda params: _of_weights(lambda w: jnp.maximum(w, jnp.zeros_like(w)), params))


def proximal_l1(threshold: Any) -> optax.GradientTransformation:
    """Soft thresholding of the weights after each step: w ← sign(w) max(|w| − t, 0) (Goodfellow eq. 7.23; ISTA).

    After gradient descent with rate η and t = η α it minimizes the loss plus α ‖w‖₁ and, unlike the penalty's
    subgradient, gives weights that are exactly 0.

    Args:
        threshold: t ≥ 0, a number, traced or not, or a schedule of the step's number from 0.

    Raises:
        ValueError: matrices of which none is named `w`; an optimizer called without parameters.

    >>> optimizer = proximal_l1(0.5)
    >>> params = {"w": jnp.array([2.0, -0.25])}
    >>> updates, _ = optimizer.update({"w": jnp.zeros(2)}, optimizer.init(params), params)
    >>> optax.apply_updates(params, updates)["w"].tolist()
    [1.5, 0.0]
    """

    def update(updates, step, params=None):
        t = threshold(step) if callable(threshold) else threshold

        def soft(w):
            return jnp.sign(w) * jnp.maximum(jnp.abs(w) - jnp.asarray(t, w.dtype), jnp.zeros_like(w))

        shrinking = projected(lambda tree: _of_weights(soft, tree))
        return shrinking.update(updates, optax.EmptyState(), params)[0], step + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)
