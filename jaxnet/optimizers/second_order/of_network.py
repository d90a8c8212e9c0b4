"""The problem of a network, a loss and a batch: L(θ) = Σ wℓ / Σ w + l2 · ½ ‖weights‖², the sums over the batch."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.gradients import role, weighted_mean
from jaxnet.layers import Layer
from jaxnet.losses import Loss
from jaxnet.optimizers.second_order.method import NetworkBatch, Problem


def of_network(net: Layer, loss: Loss, state: Any, batch: tuple, l2: Any = 0.0) -> Problem:
    """The problem of training `net` on `batch`, (x, y) or (x, y, weight), as one function of its parameters.

    The network runs as in training, without a key; `state`, the layers' own, is constant. l2 ≥ 0, traced or not,
    penalizes the leaves named `w` alone.

    >>> import jaxnet as jn
    >>> net = jn.dense(1, bias=False)
    >>> batch = jnp.array([[1.0], [2.0]]), jnp.array([[0.0], [0.0]])
    >>> problem = of_network(net, jn.losses.squared_error, {}, batch, 1.0)
    >>> float(problem.value({"w": jnp.array([[2.0]])}))  # (2 + 8)/2 + 2
    7.0
    """

    def value(params):
        x, y, *weight = batch
        output, _ = net.apply(params, state, x, train=True)
        per_example = loss.value(output, y)
        if per_example.ndim != 1:
            raise ValueError(
                f"loss {loss.name}: got a result of shape {per_example.shape}; expected one number per example, "
                "(batch,): leave out the mean over the batch"
            )
        mean = weighted_mean(per_example, *weight)
        return mean if isinstance(l2, (int, float)) and l2 == 0 else mean + penalty(params, l2)

    return Problem(value, jax.value_and_grad(value), network=NetworkBatch(net, loss, state, batch, l2))


def penalty(params: Any, l2: Any) -> Any:
    """l2 · ½ Σ w² over the leaves named `w`, ().

    >>> float(penalty({"w": jnp.array([3.0]), "b": jnp.array([9.0])}, 2.0))
    9.0
    """
    weights = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if role(path) == "w"]
    return sum(jnp.asarray(l2, w.dtype) * jnp.sum(jnp.square(w)) / 2 for w in weights)
