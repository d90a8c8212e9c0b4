"""Norms of trees: the axioms, NumPy's values, derivatives at zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st

from jaxnet.norms import norm, squared_norm

pytestmark = pytest.mark.numerical
EPS = float(jnp.finfo(jnp.result_type(float)).eps)
ORDERS = [1, 1.5, 2, 3, jnp.inf]


def tree(rng, scale=1.0):
    leaves = (rng.normal(size=(3, 2)), rng.normal(size=4), rng.normal(size=()))
    return dict(zip("abc", (jnp.asarray(scale * a, jnp.result_type(float)) for a in leaves), strict=True))


def flat(tree):
    return np.concatenate([np.ravel(np.asarray(a, np.float64)) for a in jax.tree.leaves(tree)])


@pytest.mark.source("GB-2.5-LP")
@examples(10)
@given(st.integers(0, 2**32 - 1), st.sampled_from(ORDERS), st.sampled_from([1e-18, 1.0, 1e18]))
def test_norms_are_numpys_and_keep_the_axioms(seed, order, scale):
    rng = np.random.default_rng(seed)
    x, y = tree(rng, scale), tree(rng, scale)
    a, b = float(norm(x, order)), float(norm(y, order))
    np.testing.assert_allclose(a, np.linalg.norm(flat(x), order), rtol=64 * EPS)
    both = float(norm(jax.tree.map(jnp.add, x, y), order))
    assert both <= (a + b) * (1 + 64 * EPS)  # triangle
    np.testing.assert_allclose(float(norm(jax.tree.map(lambda a: -3 * a, x), order)), 3 * a, rtol=64 * EPS)
    assert norm(jax.tree.map(jnp.zeros_like, x), order) == 0


@pytest.mark.source("GB-2.5-SQL2")
def test_derivatives_are_the_formulas_and_zero_at_zero():
    x = tree(np.random.default_rng(0))
    jax.tree.map(lambda g, a: np.testing.assert_array_equal(g, 2 * a), jax.grad(squared_norm)(x), x)
    length = np.linalg.norm(flat(x))
    np.testing.assert_allclose(flat(jax.grad(norm)(x)), flat(x) / length, rtol=64 * EPS)
    np.testing.assert_allclose(flat(jax.grad(lambda t: norm(t, 1))(x)), np.sign(flat(x)))
    zeros = jax.tree.map(jnp.zeros_like, x)
    for order in ORDERS:
        assert not flat(jax.grad(lambda t, p=order: norm(t, p))(zeros)).any()
    naive = jax.grad(lambda a: jnp.sqrt(jnp.sum(a**2)))(jnp.zeros(3))
    assert np.isnan(naive).all()  # what the safe form is for


def test_orders_below_one_are_refused():
    with pytest.raises(ValueError, match=r"got order=0\.5; expected p ≥ 1"):
        norm(jnp.ones(2), 0.5)
