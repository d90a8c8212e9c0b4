"""Rules where their path is known in closed form: constant gradients and quadratics."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnet import optimizers, schedules

pytestmark = pytest.mark.numerical
FLOAT = jnp.result_type(float)
X64 = jax.config.jax_enable_x64
RTOL = 1e-10 if X64 else 2e-5


def path(optimizer, gradient, start, steps, key=None):
    """Parameters after 1, 2, … steps, (steps, …); the gradient gets θ and, with a key, the step's noise."""
    start = jnp.asarray(start, FLOAT)
    noise = jnp.zeros((steps, *start.shape), FLOAT)
    if key is not None:
        noise = jax.random.normal(key, noise.shape, FLOAT)

    def step(carry, z):
        theta, state = carry
        updates, state = optimizer.update(gradient(theta) + z, state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), theta

    with jax.numpy_dtype_promotion("standard"):
        return jax.jit(lambda t: jax.lax.scan(step, (t, optimizer.init(t)), noise)[1])(start)


def steps_under(optimizer, g, steps):
    """What a constant gradient moves in steps 1, 2, …"""
    theta = np.asarray(path(optimizer, lambda theta: jnp.asarray(g, FLOAT), np.zeros(np.shape(g)), steps))
    return np.diff(theta, axis=0, prepend=np.zeros((1, *np.shape(g))))


@pytest.mark.source("GB-8.3.2-terminal-velocity", "GB-8.3.2-momentum", "B-Alg7.3")
def test_momentum_ends_at_the_rate_over_one_minus_mu():
    steps = steps_under(optimizers.momentum(0.1, 0.9), 1.0, 400)
    np.testing.assert_allclose(steps[49], -0.9948, atol=1e-4)  # Goodfellow eq. 8.17 says -1 in the end
    np.testing.assert_allclose(steps[:50], -0.1 * (1 - 0.9 ** np.arange(1, 51)) / 0.1, rtol=100 * RTOL)
    for rule in (optimizers.momentum(0.1, 0.9), optimizers.nesterov(0.1, 0.9), optimizers.averaged_momentum(1.0, 0.9)):
        np.testing.assert_allclose(steps_under(rule, 1.0, 400)[-1], -1.0, rtol=max(1e4 * RTOL * X64, 1e-4))


@pytest.mark.source("GB-8.5.1-AdaGrad", "B-7.39-40")
def test_adagrads_steps_are_the_rate_over_the_root_of_their_number():
    steps = steps_under(optimizers.adagrad(0.5, 1e-12), [3.0, -0.01], 100)
    expected = -0.5 / np.sqrt(np.arange(1, 101))[:, None] * np.array([1, -1])
    np.testing.assert_allclose(steps, expected, rtol=1e-7 if X64 else 1e-3)


@pytest.mark.source("GB-8.5.3-Adam")
@pytest.mark.parametrize("placement", ["outside", "inside", "folded"])
def test_adams_steps_are_the_rate(placement):
    """η|g|/(|g| + ε): within 5e-9 of 0.001 for g = 2, whatever g's size."""
    steps = steps_under(optimizers.adam(0.001, placement=placement), [2.0, -300.0], 20)
    np.testing.assert_allclose(steps, np.array([[-1e-3, 1e-3]] * 20), rtol=1e-6 if X64 else 1e-3)
    if placement == "outside" and X64:
        np.testing.assert_allclose(steps[:5, 0], -1e-3 * 2 / (2 + 1e-8), rtol=1e-10)


@pytest.mark.source("GB-8.5.3-bias-correction")
def test_adams_corrections_remove_the_first_steps_excess():
    """Without them the first steps are 3.2, 4.2, 5.0, 5.4, 5.8 times the rate (Goodfellow §8.5.3)."""
    steps = steps_under(optimizers.amsgrad(1.0, epsilon=1e-12), 1.0, 5)  # v rises: AMSGrad is Adam uncorrected
    np.testing.assert_allclose(-steps, [3.162, 4.250, 4.950, 5.443, 5.797], atol=2e-3)


@pytest.mark.source("GB-8.5.2-RMSProp", "B-7.41-42")
def test_rmsprops_first_step_is_long_and_its_last_is_the_rate():
    for placement in ("inside", "outside"):
        steps = steps_under(optimizers.rmsprop(0.01, 0.9, 1e-12, placement), 3.0, 300)
        np.testing.assert_allclose(steps[0], -0.01 / 0.1**0.5, rtol=1e-5)
        np.testing.assert_allclose(steps[-1], -0.01, rtol=1e-3)


@pytest.mark.source("GB-8.5.3-Adam", "GB-8.5.2-RMSProp", "GB-8.5.1-AdaGrad")
@pytest.mark.parametrize("name", ["adagrad", "rmsprop", "adam", "adamax", "amsgrad"])
def test_rates_by_coordinate_do_not_see_the_gradients_scale(name):
    """Up to ε: the path of a coordinate whose loss is a thousandfold is the same."""
    rule = getattr(optimizers, name)(0.05)
    theta = path(rule, lambda t: jnp.asarray([1.0, 1e3], FLOAT) * t, [2.0, 2.0], 50)
    np.testing.assert_allclose(theta[:, 0], theta[:, 1], rtol=1e-4, atol=1e-4)


@pytest.mark.source("GB-8.3.1-SGD", "B-7.24-7.30", "GB-4.3-GD")
def test_descent_on_a_quadratic_is_a_power_and_diverges_just_above_two_over_the_largest_curvature():
    """θ_T = Q (1 − ηΛ)ᵀ Qᵀ θ₀, Hagan's A with eigenvalues 4 and 20: the edge is 0.1."""
    a = np.array([[12.0, -8.0], [-8.0, 12.0]])
    curvature, q = np.linalg.eigh(a)
    start, now = np.array([1.0, 0.5]), jnp.asarray(a, FLOAT)
    for rate in (0.01, 0.05, 0.099, 0.101):
        theta = np.asarray(path(optax.sgd(rate), lambda t: now @ t, start, 60), np.float64)
        for t in (1, 10, 60):
            expected = q @ ((1 - rate * curvature) ** t * (q.T @ start))
            np.testing.assert_allclose(theta[t - 1], expected, rtol=20 * RTOL, atol=20 * RTOL)
    along = q[:, 1]  # the steepest direction alone
    for rate, grows in ((0.0999, False), (0.1001, True)):
        sizes = np.linalg.norm(path(optax.sgd(rate), lambda t: now @ t, along, 200), axis=1)
        assert (sizes[-1] > 1) == grows
    np.testing.assert_allclose(path(optax.sgd(1 / 20), lambda t: now @ t, along, 1)[0], 0, atol=1e-6)  # one step


@pytest.mark.source("GB-8.3.2-momentum", "GB-8.3.3-nesterov")
def test_momentum_on_a_quadratic_is_a_power_of_its_two_by_two_matrix():
    """(θ, v) ← [[1 − ηλ, μ], [−ηλ, μ]] (θ, v), and Nesterov's with θ + μ v in the gradient."""
    rate, mu, curvature = 0.05, 0.8, np.array([0.5, 4.0, 30.0])
    heavy = np.asarray(path(optimizers.momentum(rate, mu), lambda t: jnp.asarray(curvature, FLOAT) * t, np.ones(3), 40))
    ahead = np.asarray(path(optimizers.nesterov(rate, mu), lambda t: jnp.asarray(curvature, FLOAT) * t, np.ones(3), 40))
    for i, c in enumerate(curvature):
        ball = np.linalg.matrix_power(np.array([[1 - rate * c, mu], [-rate * c, mu]]), 40) @ [1, 0]
        np.testing.assert_allclose(heavy[-1, i], ball[0], rtol=20 * RTOL, atol=20 * RTOL)
        f = 1 - rate * c
        theta, v = np.linalg.matrix_power(np.array([[f, mu * f], [f - 1, mu * f]]), 40) @ [1, 0]
        np.testing.assert_allclose(ahead[-1, i], theta + mu * v, rtol=20 * RTOL, atol=20 * RTOL)


@pytest.mark.source("GB-8.3.1-robbins-monro")
def test_noise_vanishes_with_robbins_monros_rate_and_stays_with_a_constant_one():
    """On ½ θ² with unit noise: variance 1/k of the mean (θ_k is it for η₀ = 1), or η/(2 − η)."""
    keys = jax.random.split(jax.random.key(0), 200)

    def last(rate):
        return np.asarray(jax.vmap(lambda key: path(optax.sgd(rate), lambda t: t, np.zeros(2), 400, key)[-1])(keys))

    np.testing.assert_allclose(last(schedules.robbins_monro(1.0)).var(), 1 / 400, rtol=0.35)
    np.testing.assert_allclose(last(0.5).var(), 0.5 / 1.5, rtol=0.35)


@pytest.mark.source("GB-8.5.1-AdaGrad")
def test_adagrads_sum_never_falls():
    optimizer = optimizers.adagrad(0.1)
    state, before = optimizer.init(jnp.zeros(3)), np.zeros(3)
    for g in np.random.default_rng(0).normal(size=(10, 3)):
        _, state = optimizer.update(jnp.asarray(g, FLOAT), state)
        assert (np.asarray(state.slots["squares"]) >= before).all()
        before = np.asarray(state.slots["squares"])
