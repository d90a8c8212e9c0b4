"""Products of second derivatives with a vector, without the matrix; and the matrix, where it's small.

    hessian_vector_product(gradient)(params, state, batch, vector)             H v
    gauss_newton_vector_product(net, loss)(params, state, batch, vector)       G v,  G = Σ w Jᵀ ∇²ℓ J / Σ w
    matrix_of(product, params)                                                 the matrix whose product this is

`vector` and the result are trees like the parameters; J is the Jacobian of the outputs and ∇²ℓ the loss's second
derivative by them. A product costs a few gradients. G is the Hessian without the network's own curvature: it's
positive semidefinite for a loss that is convex in the outputs, and for squared error and cross-entropies on logits it's
the Fisher information (Goodfellow §4.3.1, eq. 4.6; Schraudolph 2002).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree

from jaxnet.gradients.roads import GradientFunction, weighted_mean
from jaxnet.layers import Layer
from jaxnet.losses import Loss, as_loss

COLUMNS = 128  # of a matrix, computed side by side


def hessian_vector_product(gradient: GradientFunction) -> Callable[..., Any]:
    """H v of the loss that `gradient` differentiates: its directional derivative, forward over reverse.

    Source: Pearlmutter 1994.

    >>> def square(params, state, batch, *, key=None, train=False):
    ...     return (jnp.sum(params**2), state), 2 * params
    >>> hessian_vector_product(square)(jnp.ones(2), {}, (), jnp.arange(2.0)).tolist()
    [0.0, 2.0]
    """

    def product(params, state, batch, vector, *, key=None, train=False):
        def slope(params):
            return gradient(params, state, batch, key=key, train=train)[1]

        return jax.jvp(slope, (params,), (vector,))[1]

    return product


def gauss_newton_vector_product(net: Layer, loss: "Loss | Callable") -> Callable[..., Any]:
    """G v of the weighted mean of `loss` over a batch: Jᵀ ∇²ℓ J v, one forward and one backward pass.

    >>> from jaxnet import layers, losses
    >>> product = gauss_newton_vector_product(layers.dense(1, bias=False), losses.squared_error)
    >>> batch = jnp.array([[1.0], [3.0]]), jnp.zeros((2, 1))
    >>> product({"w": jnp.ones((1, 1))}, {}, batch, {"w": jnp.ones((1, 1))})["w"].tolist()
    [[5.0]]
    """
    loss = as_loss(loss)

    def product(params, state, batch, vector, *, key=None, train=False):
        x, y, *weight = batch

        def outputs(params):
            return net.apply(params, state, x, key=key, train=train)[0]

        z, pullback = jax.vjp(outputs, params)
        along = jax.jvp(outputs, (params,), (vector,))[1]
        bent = curvature_product(loss, z, y, along)
        return pullback(jax.tree.map(lambda b: b * shares(b, *weight), bent))[0]

    return product


def curvature_product(loss: Loss, output: Any, target: Any, vector: Any) -> Any:
    """∇²ℓ v of each example: v and the result are like the output.

    >>> from jaxnet import losses
    >>> curvature_product(losses.sigmoid_cross_entropy, jnp.zeros((1, 1)), jnp.ones((1, 1)), jnp.ones((1, 1))).tolist()
    [[0.25]]
    """

    def slope(output):
        if loss.gradient is not None:
            return loss.gradient(output, target)
        return jax.grad(lambda z: jnp.sum(loss.value(z, target)))(output)

    return jax.jvp(slope, (output,), (vector,))[1]


def shares(values: Array, weight: Array | None = None) -> Array:
    """w / Σw of each example, in the rank and dtype of `values`; 1/n without weights, 0 where Σw = 0.

    >>> shares(jnp.zeros((2, 1)), jnp.array([1.0, 3.0])).tolist()
    [[0.25], [0.75]]
    """
    each = jax.grad(weighted_mean)(jnp.zeros(values.shape[0], values.dtype), weight)
    return each.reshape(-1, *[1] * (values.ndim - 1))


def matrix_of(product: Callable[[Any], Any], params: Any) -> Array:
    """The matrix (P, P) of a linear `product`, tree -> tree like `params`, in the order of the raveled leaves.

    Its columns are computed side by side, so many at a time that the network's values for them stay small.

    >>> matrix_of(lambda v: {"a": 2 * v["a"] + v["b"], "b": v["a"]}, {"a": jnp.zeros(1), "b": jnp.zeros(1)}).tolist()
    [[2.0, 1.0], [1.0, 0.0]]
    """
    flat, unravel = ravel_pytree(params)

    def column(unit):
        return ravel_pytree(product(unravel(unit)))[0]

    units = jnp.eye(flat.size, dtype=flat.dtype)
    if flat.size <= COLUMNS:
        return jax.vmap(column, out_axes=1)(units)
    return jax.lax.map(column, units, batch_size=COLUMNS).T
