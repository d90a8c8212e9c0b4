"""Products with second derivatives are those of the matrices, written out by other means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jaxnet as jn
from jaxnet import losses
from jaxnet.gradients.products import gauss_newton_vector_product, hessian_vector_product, matrix_of

pytestmark = [pytest.mark.numerical, pytest.mark.float64]
FLOAT = jnp.result_type(float)
RTOL = 1e-11 if jax.config.jax_enable_x64 else 1e-3
RNG = np.random.default_rng(0)
NET = jn.serial(jn.dense(4), jn.tanh(), jn.dense(3))
PARAMS, STATE = NET.init(jax.random.key(0), (2,))
FLAT, UNRAVEL = ravel_pytree(PARAMS)
X = jnp.asarray(RNG.normal(size=(7, 2)), FLOAT)
WEIGHT = jnp.asarray(RNG.random(7), FLOAT)
TARGETS = {
    "squared_error": jnp.asarray(RNG.normal(size=(7, 3)), FLOAT),
    "softmax_cross_entropy": jnp.asarray(RNG.integers(0, 3, 7)),
    "sigmoid_cross_entropy": jnp.asarray(RNG.integers(0, 2, (7, 3))),
}


@pytest.mark.source("GB-4.3.1-HESS", "GB-4.3.1-DHD", "GB-4.3.1-ORDER")
def test_the_hessian_of_a_network():
    """Symmetric, the differences of gradients, and dᵀHd a mean of its eigenvalues."""
    rng = np.random.default_rng(1)
    batch = X, TARGETS["softmax_cross_entropy"], WEIGHT
    gradient = jn.backprop(NET, losses.softmax_cross_entropy)
    product = hessian_vector_product(gradient)

    @jax.jit
    def slope(flat):
        return ravel_pytree(gradient(UNRAVEL(flat), STATE, batch)[1])[0]

    found = np.asarray(jax.jit(lambda p: matrix_of(lambda v: product(p, STATE, batch, v), p))(PARAMS), np.float64)
    largest = np.abs(found).max()
    np.testing.assert_allclose(found, found.T, atol=RTOL * largest)
    h = 1e-4 if jax.config.jax_enable_x64 else 1e-2
    differences = np.stack([(slope(FLAT + h * e) - slope(FLAT - h * e)) / (2 * h) for e in jnp.eye(FLAT.size)])
    np.testing.assert_allclose(found, differences, atol=1e-6 * largest if jax.config.jax_enable_x64 else 0.05 * largest)
    d = rng.normal(size=FLAT.size)
    values, vectors = np.linalg.eigh(found)
    share = (vectors.T @ d) ** 2 / (d @ d)
    np.testing.assert_allclose(share.sum(), 1, rtol=1e-6)
    along = ravel_pytree(product(PARAMS, STATE, batch, UNRAVEL(jnp.asarray(d, FLOAT))))[0]
    np.testing.assert_allclose(d @ np.asarray(along) / (d @ d), share @ values, rtol=1e-4, atol=RTOL * largest)


@pytest.mark.source("GB-4.3.1-JAC")
@pytest.mark.parametrize("name", TARGETS)
def test_gauss_newton_is_the_fisher_matrix(name):
    """Σ w E[∇ℓ ∇ℓᵀ] / Σ w over the targets of the model itself, enumerated; J by forward and by reverse mode."""
    rng = np.random.default_rng(1)
    loss, product = getattr(losses, name), gauss_newton_vector_product(NET, getattr(losses, name))

    def outputs(flat):
        return NET.apply(UNRAVEL(flat), STATE, X)[0]

    z = np.asarray(outputs(FLAT), np.float64)
    forward, reverse = jax.jit(lambda f: (jax.jacfwd(outputs)(f), jax.jacrev(outputs)(f)))(FLAT)
    np.testing.assert_allclose(forward, reverse, atol=RTOL * np.abs(forward).max())
    j = np.asarray(forward, np.float64)
    fisher = np.zeros((FLAT.size, FLAT.size))
    for n, w in enumerate(np.asarray(WEIGHT)):
        if name == "squared_error":
            fisher += w * j[n].T @ j[n]
        elif name == "softmax_cross_entropy":
            p = np.exp(z[n]) / np.exp(z[n]).sum()
            for c in range(3):
                g = j[n].T @ (p - np.eye(3)[c])
                fisher += w * p[c] * np.outer(g, g)
        else:
            p = 1 / (1 + np.exp(-z[n]))
            for bits in np.ndindex(2, 2, 2):
                g = j[n].T @ (p - bits)
                fisher += w * np.prod(np.where(bits, p, 1 - p)) * np.outer(g, g)
    fisher /= float(WEIGHT.sum())
    batch = X, TARGETS[name], WEIGHT
    found = jax.jit(lambda p: matrix_of(lambda v: product(p, STATE, batch, v), p))(PARAMS)
    np.testing.assert_allclose(found, fisher, atol=RTOL * np.abs(fisher).max())
    bare = gauss_newton_vector_product(NET, lambda z, y: loss.value(z, y))  # no gradient by hand
    v = UNRAVEL(jnp.asarray(rng.normal(size=FLAT.size), FLOAT))
    np.testing.assert_allclose(
        ravel_pytree(bare(PARAMS, STATE, batch, v))[0],
        fisher @ ravel_pytree(v)[0],
        atol=10 * RTOL * np.abs(fisher).max(),
    )


def test_columns_beyond_one_piece():
    rng = np.random.default_rng(1)
    m = rng.normal(size=(300, 300))
    found = jax.jit(lambda v: matrix_of(lambda v: jnp.asarray(m, FLOAT) @ v, v))(jnp.zeros(300, FLOAT))
    np.testing.assert_allclose(found, m, rtol=1e-6)
