"""Conjugate gradients: at most k steps on a quadratic, conjugate directions, restarts; a transcription in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st

import jaxnet as jn
from jaxnet import outcomes
from jaxnet.optimizers.second_order import minimize
from jaxnet.optimizers.second_order.conjugate_gradient import conjugate_gradient, share
from jaxnet.optimizers.second_order.line_search import exact, strong_wolfe
from jaxnet.optimizers.second_order.method import of_function

pytestmark = [pytest.mark.numerical, pytest.mark.float64]
FORMULAS = ["polak-ribiere+", "fletcher-reeves", "hestenes-stiefel", "dai-yuan"]
K = 5


def drawn(seed, condition=100.0):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(K, K)))
    return (q * np.geomspace(1, condition, K)) @ q.T, rng.normal(size=K), rng.normal(size=K)


def path_of(formula):
    method = conjugate_gradient(formula, search=exact())

    def path(a, b, start):
        problem = of_function(lambda p: p @ a @ p / 2 - b @ p)

        def step(state, _):
            after = method.step(problem, state)
            return after, (after.params, after.memory.direction, after.gradient)

        return jax.lax.scan(step, method.init(problem, start), length=K)[1]

    return jax.jit(path)


PATHS = {formula: path_of(formula) for formula in FORMULAS}


@pytest.mark.source("GB-8.6.2-CG", "GB-8.6.2-FR", "GB-8.6.2-PR")
@pytest.mark.parametrize("formula", FORMULAS)
@examples(8)
@given(seed=st.integers(0, 10**6), condition=st.floats(1.5, 300))
def test_a_quadratic_takes_at_most_as_many_steps_as_variables(formula, seed, condition):
    """Every formula walks the linear method's path, as written down in NumPy; its directions are conjugate."""
    a, b, start = drawn(seed, condition)
    params, directions, gradients = (np.asarray(p) for p in PATHS[formula](a, b, start))
    best = np.linalg.solve(a, b)
    np.testing.assert_allclose(params[-1], best, atol=1e-8 * max(1, np.abs(best).max()))
    x, g = start, a @ start - b
    d = -g
    for t in range(K - 1):
        x = x + (g @ g) / (d @ a @ d) * d
        new = a @ x - b
        np.testing.assert_allclose(params[t], x, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(gradients[t], new, rtol=1e-6, atol=1e-6)
        d, g = -new + (new @ new) / (g @ g) * d, new
    products = directions @ a @ directions.T
    lengths = np.sqrt(np.diag(products))
    np.testing.assert_allclose(products / np.outer(lengths, lengths), np.eye(K), atol=1e-6)


@pytest.mark.source("GB-8.6.2-PR")
def test_the_first_direction_is_steepest_descent_and_formulas_differ_off_quadratics():
    rng = np.random.default_rng(1)
    old, new, d = rng.normal(size=(3, 4))
    y = new - old
    expected = {
        "fletcher-reeves": new @ new / (old @ old),
        "polak-ribiere+": max(0, y @ new / (old @ old)),
        "hestenes-stiefel": max(0, y @ new) / (y @ d),
        "dai-yuan": new @ new / (y @ d),
    }
    for formula, beta in expected.items():
        np.testing.assert_allclose(share(formula, jnp.asarray(old), jnp.asarray(new), jnp.asarray(d)), beta, rtol=1e-13)
    assert share("polak-ribiere+", jnp.asarray(old), jnp.asarray(old / 2), jnp.asarray(d)) == 0
    a, b, start = drawn(3)
    first = np.asarray(PATHS["polak-ribiere+"](a, b, start)[1][0])
    np.testing.assert_allclose(first, b - a @ start, rtol=1e-14)


@pytest.mark.source("GB-8.6.2-nonlinear-CG")
def test_directions_start_anew_every_so_many_steps():
    def bent(p):
        return jnp.sum(p**4) / 4 + jnp.sum(jnp.arange(1.0, 6.0) * p**2)

    problem, method = of_function(bent), conjugate_gradient("fletcher-reeves", restart=3)

    def step(state, _):
        after = method.step(problem, state)
        return after, (after.memory.since, after.memory.direction + state.gradient)

    start = method.init(problem, jnp.linspace(1.0, 2.0, 5))
    since, beside = jax.jit(lambda s: jax.lax.scan(step, s, length=7)[1])(start)
    assert since.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert (np.abs(beside).max(axis=1) == 0).tolist() == [True, False, False, True, False, False, True]


def test_a_direction_that_does_not_fall_is_replaced():
    problem, method = of_function(lambda p: jnp.sum(p**2)), conjugate_gradient(restart=100)
    state = method.init(problem, jnp.asarray([1.0, 2.0]))
    uphill = state.memory._replace(direction=state.gradient, beta=jnp.asarray(5.0))
    after = jax.jit(lambda s: method.step(problem, s))(state._replace(memory=uphill))
    assert after.memory.direction.tolist() == [-2, -4]
    assert after.outcome == outcomes.RUNNING


@pytest.mark.source("GB-8.6.2-nonlinear-CG")
def test_a_small_network_is_trained_monotonically():
    net = jn.mlp([6, 1], activation="tanh")
    x = jnp.linspace(-1.0, 1.0, 40)[:, None]
    params, state = net.init(jax.random.key(0), (1,))

    def loss(params, x):
        return jnp.mean(jn.losses.squared_error(net.apply(params, state, x)[0], jnp.sin(3 * x)))

    found = minimize(loss, params, args=(x,), method=conjugate_gradient(restart=5), steps=60)
    values = np.asarray(found.history["value"])[: int(found.iterations) + 1]
    assert np.all(np.diff(values) <= 0)
    assert values[-1] < values[0] / 50


def test_a_sloppy_search_still_solves():
    """Powell's badly behaved neighbour, the extended Rosenbrock function, with both searches."""

    def extended(p):
        return jnp.sum(100 * (p[1::2] - p[::2] ** 2) ** 2 + (1 - p[::2]) ** 2)

    start = jnp.tile(jnp.asarray([-1.2, 1.0]), 5)
    for search in (strong_wolfe(curvature=0.1), strong_wolfe(curvature=0.4)):
        found = minimize(extended, start, method=conjugate_gradient(search=search), steps=400)
        assert found.outcome == outcomes.CONVERGED
        np.testing.assert_allclose(found.params, 1, atol=1e-4)
