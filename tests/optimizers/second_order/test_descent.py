"""Steepest descent on the textbook's canyon: what the exact search does is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import outcomes
from jaxnet.optimizers.second_order import minimize
from jaxnet.optimizers.second_order.descent import gradient_descent
from jaxnet.optimizers.second_order.line_search import backtracking, exact
from jaxnet.optimizers.second_order.method import of_function

pytestmark = [pytest.mark.numerical, pytest.mark.float64]
CANYON = np.array([[3.0, 2.0], [2.0, 3.0]])  # curvature 5 along (1, 1), 1 along (1, −1)


def canyon(p):
    return p @ jnp.asarray(CANYON) @ p / 2


def path(method, start, steps):
    problem = of_function(canyon)

    def step(state, _):
        state = method.step(problem, state)
        return state, (state.params, state.gradient, state.value)

    return [
        np.asarray(a) for a in jax.jit(lambda s: jax.lax.scan(step, method.init(problem, s), length=steps)[1])(start)
    ]


@pytest.mark.source("GB-8.6.2-steepest-zigzag", "GB-4.3-EPSEXACT", "GB-4.3.1-CANYON")
def test_exact_steps_zigzag_with_the_contraction_of_the_condition_number():
    """From the worst start (5, 1) in the eigenvectors' coordinates: 4/9 a step, successive gradients orthogonal."""
    axes = np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2)  # rows: curvatures 5 and 1
    start = axes.T @ np.array([1.0, 5.0])
    params, gradients, values = path(gradient_descent(exact()), jnp.asarray(start), 8)
    np.testing.assert_allclose(values, 15 * (4 / 9) ** np.arange(1, 9), rtol=1e-10)
    along = np.sum(gradients[1:] * gradients[:-1], axis=1)
    np.testing.assert_allclose(
        along / np.linalg.norm(gradients[1:], axis=1) / np.linalg.norm(gradients[:-1], axis=1), 0, atol=1e-10
    )
    steep = params @ axes[0]
    assert np.all(np.sign(steep[1:]) == -np.sign(steep[:-1]))


@pytest.mark.source("GB-8.6.2-linesearch")
def test_backtracking_lowers_the_value_by_armijos_share_in_each_step():
    start = jnp.asarray([1.0, 0.5])
    params, gradients, values = path(gradient_descent(backtracking(0.3)), start, 12)
    points, slopes = np.vstack([start, params]), np.vstack([CANYON @ start, gradients])
    before = np.append(np.asarray(start) @ CANYON @ np.asarray(start) / 2, values)
    fall = np.sum(slopes[:-1] * np.diff(points, axis=0), axis=1)  # α gᵀd
    assert np.all(values <= before[:-1] + 0.3 * fall + 1e-15)
    assert np.all(fall < 0)


@pytest.mark.source("GB-4.3-STOP")
def test_it_stops_where_the_gradient_is_within_its_tolerance():
    for tolerance in (1e-2, 1e-6):
        found = minimize(canyon, jnp.asarray([1.0, 0.5]), method=gradient_descent(), gradient_tolerance=tolerance)
        assert found.outcome == outcomes.CONVERGED
        norms = np.asarray(found.history["gradient_norm"])[: int(found.iterations) + 1]
        assert np.abs(CANYON @ np.asarray(found.params)).max() <= tolerance
        assert norms[-1] <= tolerance < norms[-2]
