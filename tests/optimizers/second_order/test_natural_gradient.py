"""The natural gradient is the Fisher matrix solved in NumPy, and Newton's step where both matrices are one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jaxnet as jn
from jaxnet import losses, outcomes
from jaxnet.optimizers.second_order.minimization import Tolerances, minimize, repeated
from jaxnet.optimizers.second_order.natural_gradient import natural_gradient
from jaxnet.optimizers.second_order.newton import newton
from jaxnet.optimizers.second_order.of_network import of_network

pytestmark = [pytest.mark.numerical, pytest.mark.float64]
FLOAT = jnp.result_type(float)
RTOL = 1e-9 if jax.config.jax_enable_x64 else 1e-3
RNG = np.random.default_rng(0)
X, Y = jnp.asarray(RNG.normal(size=(20, 3)), FLOAT), jnp.asarray(RNG.integers(0, 3, 20))
WEIGHT = jnp.asarray(RNG.random(20), FLOAT)


def test_the_step_is_the_solved_fisher_matrix():
    """Of a small network, with weights, l2 on the weights alone and a fixed λ."""
    net = jn.serial(jn.dense(3), jn.tanh(), jn.dense(3))
    params, state = net.init(jax.random.key(0), (3,))
    flat, unravel = ravel_pytree(params)
    j = np.asarray(jax.jit(jax.jacrev(lambda f: net.apply(unravel(f), state, X)[0]))(flat))
    p = np.asarray(jax.nn.softmax(net.apply(params, state, X)[0]))
    each = np.asarray(WEIGHT / WEIGHT.sum())
    fisher = sum(w * a.T @ (np.diag(q) - np.outer(q, q)) @ a for w, a, q in zip(each, j, p, strict=True))
    penalty = ravel_pytree(jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1 * (leaf.ndim == 2)), params))[0]
    problem = of_network(net, losses.softmax_cross_entropy, state, (X, Y, WEIGHT), 0.1)
    g = ravel_pytree(jax.grad(problem.value)(params))[0]
    matrix = fisher + np.diag(penalty) + 0.3 * np.eye(flat.size)
    method = natural_gradient(damping=0.3)
    found = jax.jit(lambda p: method.step(problem, method.init(problem, p)).params)(params)
    expected = np.asarray(flat) - np.linalg.solve(matrix, np.asarray(g))
    np.testing.assert_allclose(ravel_pytree(found)[0], expected, rtol=RTOL, atol=RTOL)


def test_for_linear_models_it_is_newtons_method():
    net = jn.mlp([3])
    params, state = net.init(jax.random.key(0), (3,))
    problem = of_network(net, losses.softmax_cross_entropy, state, (X, Y), 0.01)
    ends = [
        jax.jit(lambda p, m=m: repeated(m, problem, p, 30, Tolerances(1e-6)))(params)
        for m in (natural_gradient(), newton())
    ]
    for end in ends:
        assert outcomes.word(end.outcome) == "converged"
        assert np.all(np.diff(end.history["value"][: int(end.iterations) + 1]) <= 0)
    assert ends[0].iterations == ends[1].iterations
    one, other = (jax.nn.softmax(net.apply(end.params, state, X)[0]) for end in ends)  # the biases' mean is free
    np.testing.assert_allclose(one, other, rtol=RTOL, atol=RTOL)


def test_refusals():
    with pytest.raises(ValueError, match="natural_gradient, which needs network"):
        minimize(lambda p: jnp.sum(p**2), jnp.ones(2), method=natural_gradient())
    with pytest.raises(ValueError, match="natural_gradient: got damping=-1"):
        natural_gradient(damping=-1)
