"""BFGS: the secant condition, symmetry and definiteness after each step; a transcription in NumPy; what is skipped."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st

from jaxnet import outcomes
from jaxnet.optimizers.second_order import minimize
from jaxnet.optimizers.second_order.line_search import backtracking, exact
from jaxnet.optimizers.second_order.method import of_function
from jaxnet.optimizers.second_order.quasi_newton import bfgs, updated

pytestmark = [pytest.mark.numerical, pytest.mark.float64]
N = 4


def rosenbrock(p):
    x = jnp.concatenate([p["head"], p["tail"].ravel()])
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def raveled(p):
    return np.concatenate([np.asarray(p["head"]), np.asarray(p["tail"]).ravel()])


def walked(method, fun, start, steps):
    """The states before the first step and after each, one compiled step."""
    problem = of_function(fun)
    step = jax.jit(lambda s: method.step(problem, s))
    states = [method.init(problem, start)]
    for _ in range(steps):
        states.append(step(states[-1]))
    return states


@pytest.mark.source("GB-8.6.3-secant", "GB-8.6.3-BFGS")
def test_after_each_step_the_estimate_is_symmetric_definite_and_keeps_the_secant_condition():
    start = {"head": jnp.asarray([-1.2, 1.0]), "tail": jnp.asarray([[-1.0], [0.7]])}
    states = walked(bfgs(), rosenbrock, start, 30)
    updates = 0
    for old, new in pairwise(states):
        m = np.asarray(new.memory.inverse)
        s, y = raveled(new.params) - raveled(old.params), raveled(new.gradient) - raveled(old.gradient)
        if new.memory.updates > updates:
            np.testing.assert_allclose(m @ y, s, rtol=1e-8, atol=1e-10 * np.linalg.norm(s) * np.linalg.cond(m) ** 0.5)
        np.testing.assert_allclose(m, m.T, rtol=0, atol=1e-13 * np.abs(m).max())
        assert np.linalg.eigvalsh(m).min() > 0
        assert new.value <= old.value
        updates = int(new.memory.updates)
    assert updates >= 25


QUADRATIC = bfgs(search=exact())


@jax.jit
def quadratic_path(a, b, start):
    problem = of_function(lambda p: p @ a @ p / 2 - b @ p)

    def step(state, _):
        after = QUADRATIC.step(problem, state)
        return after, (after.params, after.memory.inverse)

    return jax.lax.scan(step, QUADRATIC.init(problem, start), length=N)[1]


@pytest.mark.source("GB-8.6.3-BFGS")
@examples(10)
@given(seed=st.integers(0, 10**6), condition=st.floats(1.5, 50))
def test_a_quadratic_with_exact_steps_gives_the_inverse_hessian_and_the_path_of_numpy(seed, condition):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(N, N)))
    a, b, x = (q * np.geomspace(1, condition, N)) @ q.T, rng.normal(size=N), rng.normal(size=N)
    params, inverses = (np.asarray(p) for p in quadratic_path(a, b, x))
    np.testing.assert_allclose(params[-1], np.linalg.solve(a, b), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(inverses[-1], np.linalg.inv(a), rtol=0, atol=1e-5)
    m, eye = np.eye(N), np.eye(N)
    for t in range(N - 1):
        g = a @ x - b
        d = -m @ g
        s = -(g @ d) / (d @ a @ d) * d
        y = a @ s
        m = eye * (s @ y) / (y @ y) if t == 0 else m
        left = eye - np.outer(s, y) / (s @ y)
        x, m = x + s, left @ m @ left.T + np.outer(s, s) / (s @ y)  # Nocedal & Wright eq. 6.17
        np.testing.assert_allclose(params[t], x, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(inverses[t], m, rtol=1e-5, atol=1e-6)


@pytest.mark.source("GB-8.6.3-BFGS")
def test_the_update_is_the_books_with_its_outer_product_and_of_rank_two():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(N, N))
    m, s = root @ root.T + np.eye(N), rng.normal(size=N)
    y = s + 0.3 * rng.normal(size=N)
    new = np.asarray(updated(jnp.asarray(m), jnp.asarray(s), jnp.asarray(y)))
    change = (1 + y @ m @ y / (s @ y)) * np.outer(s, s) / (s @ y)
    change -= (np.outer(s, y @ m) + np.outer(m @ y, s)) / (s @ y)
    np.testing.assert_allclose(new, m + change, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(new @ y, s, rtol=1e-11)
    assert np.linalg.matrix_rank(new - m, tol=1e-9) == 2


def test_negative_curvature_changes_nothing():
    """−x² walks off with Armijo's steps; its sᵀy is negative, so M stays I."""
    states = walked(bfgs(search=backtracking()), lambda p: -jnp.sum(p**2), jnp.asarray([1.0, 2.0]), 3)
    assert states[-1].value < states[0].value
    assert states[-1].memory.updates == 0
    assert states[-1].memory.inverse.tolist() == [[1, 0], [0, 1]]


def test_where_the_direction_fails_the_estimate_is_forgotten_before_it_is_called_stalled():
    problem, method = of_function(lambda p: jnp.sum(jnp.abs(p))), bfgs()
    state = method.init(problem, jnp.asarray([1.0, 2.0]))
    spoiled = state._replace(memory=state.memory._replace(inverse=-jnp.eye(2), updates=jnp.asarray(3, jnp.int32)))
    step = jax.jit(lambda s: method.step(problem, s))
    after = step(spoiled)
    assert after.outcome == outcomes.RUNNING
    assert after.params.tolist() == [1, 2]
    assert after.memory.inverse.tolist() == [[1, 0], [0, 1]]
    assert step(after).value < after.value
    found = minimize(lambda p: jnp.sum(jnp.abs(p)), jnp.asarray([1.0, 2.0]), method=method, steps=100)
    assert found.outcome != outcomes.CONVERGED
