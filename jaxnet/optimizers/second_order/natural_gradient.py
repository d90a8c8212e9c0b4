"""The natural gradient: the step that is steepest when lengths are measured in the model's distribution."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet.gradients import role
from jaxnet.gradients.products import gauss_newton_vector_product, matrix_of
from jaxnet.optimizers.second_order.method import Method, Problem
from jaxnet.optimizers.second_order.newton import by_curvature, solved


def natural_gradient(*, damping: Any = None) -> Method:
    """θ ← θ − (F + λI)⁻¹ g with the Fisher matrix F of the network's own distribution, dense: for small networks.

    F = Σ w E[∇ log p(y|x) ∇ log p(y|x)ᵀ] / Σ w, y drawn from the model at x. With squared error the model is a
    Gaussian of unit variance, with cross-entropies it's the probabilities that the logits give; F is then the
    generalised Gauss–Newton matrix Σ w Jᵀ ∇²ℓ J / Σ w, which stands for it with any other loss. The penalty's own
    curvature, l2 on the weights, is added.

    Args:
        damping: λ; None adapts it and the value never rises, a number ≥ 0 stays, as in `newton`.

    Outcomes as `newton`. Raises:
        ValueError: λ < 0; at the first step, before any compile, matrices larger than half of the memory.
    Source: Amari 1998; Martens 2020.

    >>> import jaxnet as jn
    >>> from jaxnet.optimizers.second_order.of_network import of_network
    >>> batch = jnp.array([[1.0], [2.0]]), jnp.array([[3.0], [6.0]])
    >>> problem = of_network(jn.dense(1, bias=False), jn.losses.squared_error, {}, batch)
    >>> method = natural_gradient(damping=0.0)
    >>> float(method.step(problem, method.init(problem, {"w": jnp.ones((1, 1))})).params["w"][0, 0])
    3.0
    """
    return by_curvature("natural_gradient", fisher, solved, damping, needs="network")


def fisher(problem: Problem, params: Any) -> Array:
    """The Fisher matrix (P, P) of the problem's network, in the order of the raveled parameters.

    >>> import jaxnet as jn
    >>> from jaxnet.optimizers.second_order.of_network import of_network
    >>> batch = jnp.array([[1.0], [2.0]]), jnp.array([[3.0], [6.0]])
    >>> problem = of_network(jn.dense(1, bias=False), jn.losses.squared_error, {}, batch)
    >>> fisher(problem, {"w": jnp.ones((1, 1))}).tolist()
    [[2.5]]
    """
    net, loss, state, batch, l2 = problem.network  # type: ignore[misc]
    gauss_newton = gauss_newton_vector_product(net, loss)

    def product(vector):
        pulled = gauss_newton(params, state, batch, vector, train=True)
        return jax.tree.map(jnp.add, pulled, penalized(vector, l2))

    return matrix_of(product, params)


def penalized(vector: Any, l2: Any) -> Any:
    """The Hessian of l2 · ½ ‖weights‖² times a vector: l2 times its leaves named `w`, 0 for the others.

    >>> {name: float(v) for name, v in penalized({"b": jnp.ones(()), "w": jnp.ones(())}, 0.5).items()}
    {'b': 0.0, 'w': 0.5}
    """

    def leaf(path, v):
        return jnp.asarray(l2, v.dtype) * v if role(path) == "w" else jnp.zeros_like(v)

    return jax.tree_util.tree_map_with_path(leaf, vector)
