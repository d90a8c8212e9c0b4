"""Inputs or parameters in units that differ by 10⁶: as many iterations as in equal units, in both precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnet as jn
from jaxnet import outcomes
from jaxnet.optimizers.second_order.levenberg_marquardt import levenberg_marquardt
from jaxnet.optimizers.second_order.method import of_residuals
from jaxnet.optimizers.second_order.minimization import Tolerances, repeated
from jaxnet.optimizers.second_order.of_network import of_network

pytestmark = pytest.mark.numerical
X64 = jax.config.jax_enable_x64
FLOAT = jnp.result_type(float)
SCALES = jnp.stack([jnp.ones(4), jnp.array([1e3, 1e-3, 1e-3, 1e3])]).astype(FLOAT)  # a run of each
SCALED, PLAIN = levenberg_marquardt(), levenberg_marquardt(scaling=False)
STEPS = 60


def reached(history, target):
    """The first iteration at which the value is at the target; the number of iterations and one more if none is."""
    below = np.asarray(history) <= target
    return int(np.argmax(below)) if below.any() else len(history)


def network_runs(method):
    """The values of both runs, (2, STEPS + 1), of a network with inputs x · scale that starts at weights w / scale."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(60, 4)), FLOAT)
    y = jnp.asarray(np.sin(x @ np.array([1.0, -0.5, 0.3, 0.8])) + 0.1 * rng.normal(size=60), FLOAT)[:, None]
    net = jn.serial(jn.dense(5), jn.layers.tanh(), jn.dense(1))
    params, _ = net.init(jax.random.key(1), (4,))

    def run(scale):
        first = {**params["dense_0"], "w": params["dense_0"]["w"] / scale[:, None]}
        start = {**params, "dense_0": first}
        problem = of_network(net, jn.losses.squared_error, {}, (x * scale, y))
        return repeated(method, problem, start, STEPS, Tolerances(jnp.zeros((), FLOAT))).history["value"]

    return np.asarray(jax.jit(jax.vmap(run))(SCALES))


def test_a_network_whose_inputs_differ_by_a_million():
    """To the loss after 12 iterations; after 8 in float32, whose rounding parts the runs later."""
    well, badly = network_runs(SCALED)
    target = well[12 if X64 else 8] * 1.02
    assert target < (0.02 if X64 else 0.05) * well[0]
    assert abs(reached(well, target) - reached(badly, target)) <= 2


@pytest.mark.long
def test_plain_damping_is_far_from_it():
    well, badly = network_runs(PLAIN)
    target = 0.02 * well[0]
    assert reached(well, target) <= 20
    assert reached(badly, target) == STEPS + 1


def curve_runs(method, tolerance):
    """a e^(−bt) + c e^(−dt), its parameters in units that differ by 10⁶: two runs, one well scaled."""
    t = jnp.linspace(0.0, 4.0, 40, dtype=FLOAT)
    y = 2 * jnp.exp(-0.4 * t) + 3 * jnp.exp(-2 * t) + 0.05 * jnp.sin(9 * t)

    def run(units):
        def residuals(p):
            a, b, c, d = p * units
            return a * jnp.exp(-b * t) + c * jnp.exp(-d * t) - y

        start = jnp.array([1.0, 0.1, 1.0, 3.0], FLOAT) / units
        return repeated(method, of_residuals(residuals), start, 200, Tolerances(jnp.asarray(tolerance, FLOAT)))

    return jax.jit(jax.vmap(run))(SCALES)


def test_a_curve_whose_parameters_differ_by_a_million():
    """The same value, and the same parameters as far as a tolerance on the gradient, in other units, fixes them.

    float32 can't make the gradient of a unit of 1000 that small.
    """
    found = curve_runs(SCALED, 1e-6)
    well, badly = np.asarray(found.history["value"])
    target = float(found.value[0]) * (1 + 1e-5)
    assert abs(reached(well, target) - reached(badly, target)) <= 2
    np.testing.assert_allclose(found.params[1] * SCALES[1], found.params[0], rtol=1e-5 if X64 else 1e-2)
    small = np.asarray(found.gradient_norm) <= 1e-6
    np.testing.assert_array_equal(np.asarray(found.outcome) == outcomes.CONVERGED, small)
    if X64:
        assert small[0]
        assert reached(curve_runs(PLAIN, 1e-6).history["value"][1], target) > reached(badly, target) + 20
    else:
        assert int(found.outcome[1]) in (outcomes.STALLED, outcomes.DAMPING_EXHAUSTED)
