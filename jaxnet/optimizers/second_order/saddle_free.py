"""Newton's method with the Hessian's absolute values: down along directions of negative curvature, too."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxnet.optimizers.second_order.method import Method
from jaxnet.optimizers.second_order.newton import by_curvature, hessian


def saddle_free_newton() -> Method:
    """θ ← θ − (|H| + λI)⁻¹ g, |H| = Q |Λ| Qᵀ of the Hessian H = Q Λ Qᵀ; λ starts at 0 and is adapted as in `newton`.

    A saddle repels it: along an eigenvector of negative curvature it goes down as far as Newton would go up. For small
    networks: the eigenvalues of P × P are computed at each step. Outcomes as `newton`.

    Source: Dauphin et al. 2014; Goodfellow §8.2.3.

    >>> from jaxnet.optimizers.second_order import minimize
    >>> saddle = lambda p: p[0] ** 2 - p[1] ** 2 + p[1] ** 4  # minima at (0, ±√½)
    >>> found = minimize(saddle, jnp.array([1.0, 0.1]), method=saddle_free_newton())
    >>> [round(abs(float(p)), 4) for p in found.params]
    [0.0, 0.7071]
    """
    return by_curvature("saddle_free_newton", hessian, absolute, None)


def absolute(curvature: Array, gradient: Array) -> Callable[[Array], tuple[Array, Array]]:
    """λ -> (d, foretold fall) with d = −(|C| + λI)⁻¹ g; the fall is foretold by C itself.

    >>> d, fall = absolute(-2 * jnp.eye(1), jnp.ones(1))(jnp.array(0.0))
    >>> float(d[0]), float(fall)
    (-0.5, 0.75)
    """
    values, vectors = jnp.linalg.eigh(curvature)
    along = jnp.dot(vectors.T, gradient, precision="highest")

    def propose(damping: Any):
        size = jnp.abs(values) + damping
        step = -jnp.where(along == 0, jnp.zeros_like(along), along / size)
        return jnp.dot(vectors, step, precision="highest"), -jnp.vdot(along, step) - jnp.vdot(step, values * step) / 2

    return propose
