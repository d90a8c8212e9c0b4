"""How well the data determine the parameters at a minimum: their covariance to first order."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet.layers import Layer
from jaxnet.losses import Loss, as_loss
from jaxnet.optimizers.second_order.memory import check_bytes
from jaxnet.optimizers.second_order.method import Problem, of_residuals
from jaxnet.optimizers.second_order.normal_equations import (
    bytes_needed,
    normal_matrix,
    penalties,
    primal_solve,
    size,
)
from jaxnet.optimizers.second_order.of_network import of_network


def covariance(
    net: Layer,
    loss: "Loss | Callable",
    params: Any,
    state: Any,
    batch: tuple,
    *,
    l2: Any = 0.0,
    variance: Any = None,
    memory_limit: int | None = None,
) -> Array:
    """The covariance (P, P) of the parameters of a trained network, in the order of `ravel_pytree`.

    Squared error: σ² (Σ w JᵀJ + l2 Σw I_w)⁻¹, with σ² = Σ w r² / (rows − P) unless `variance` gives it. Other losses
    are likelihoods: the inverse of the generalised Gauss–Newton matrix Σ w Jᵀ∇²ℓJ + l2 Σw I_w, the expected Fisher
    information and the prior's. NaN where the matrix is singular, as it is of networks whose hidden units can trade
    places or stand for each other exactly; softmax outputs need l2, since a constant added to all changes nothing. Its
    diagonal's roots are standard errors.

    Args:
        batch: (x, y) or (x, y, weight), all training data; a weight w counts an example w times.
        l2: the penalty's factor in Σ wℓ / Σ w + l2 · ½ ‖weights‖².

    Raises:
        ValueError: a loss without positive curvature; a matrix larger than the memory; as many parameters as rows
            without `variance`.
    Source: Nocedal & Wright §10.1; Bishop §10.1; MacKay 1992.

    >>> import jaxnet as jn
    >>> batch = jnp.array([[1.0], [1.0], [1.0]]), jnp.array([1.0, 2.0, 3.0])
    >>> mean = {"w": jnp.array([[2.0]])}
    >>> round(float(covariance(jn.dense(1, bias=False), jn.losses.squared_error, mean, {}, batch)[0, 0]), 4)  # s²/3
    0.3333
    """
    problem = of_network(net, as_loss(loss), state, batch, l2)
    total = jnp.sum(batch[2]) if len(batch) == 3 else jax.tree.leaves(batch[0])[0].shape[0]
    if as_loss(loss).name != "squared_error" and variance is None:
        variance = 1.0
    return _inverse(problem, params, total, variance, memory_limit)


def covariance_of_residuals(
    residuals: Callable[..., Any],
    params: Any,
    *,
    args: tuple = (),
    variance: Any = None,
    memory_limit: int | None = None,
) -> Array:
    """σ² (JᵀJ)⁻¹ at a least-squares solution, (P, P), as `scipy.optimize.curve_fit` gives it.

    σ² = Σ r² / (N − P) unless `variance` gives it, such as 1 for residuals that are divided by their known deviation.
    In the order of `ravel_pytree`; NaN where JᵀJ is singular.

    Raises:
        ValueError: as many parameters as residuals without `variance`; a matrix larger than the memory.

    >>> round(float(covariance_of_residuals(lambda p: p - jnp.array([1.0, 2.0, 3.0]), jnp.array([2.0]))[0, 0]), 4)
    0.3333
    """
    return _inverse(of_residuals(lambda p: residuals(p, *args)), params, 1.0, variance, memory_limit)


def _inverse(problem: Problem, params, total, variance, limit) -> Array:
    rows, parameters, itemsize = size(problem, params)
    check_bytes(
        f"covariance of {parameters:,} parameters from {rows:,} rows",
        bytes_needed(rows, parameters, itemsize, "primal", pieces=problem.network is not None),
        limit,
        cure="take fewer parameters, or a part of the examples",
    )
    if variance is None and rows <= parameters:
        raise ValueError(
            f"covariance: got {rows} rows for {parameters} parameters; expected more rows, or a known `variance`"
        )
    gram, _ = normal_matrix(problem, params)
    total = jnp.asarray(total, gram.dtype)
    if variance is None:
        variance = 2 * total * _without_penalty(problem, params) / (rows - parameters)
    inverse = primal_solve(gram, penalties(problem, params), jnp.eye(parameters, dtype=gram.dtype))
    return jnp.asarray(variance, gram.dtype) * inverse / total


def _without_penalty(problem: Problem, params) -> Array:
    if problem.network is None:
        return problem.value(params)
    net, loss, state, batch, _ = problem.network
    return of_network(net, loss, state, batch).value(params)
