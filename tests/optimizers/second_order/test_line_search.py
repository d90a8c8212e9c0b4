"""Line searches against closed forms and scipy; what all methods share that search: scans, bad members, outcomes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from jaxnet import outcomes
from jaxnet.optimizers.second_order import minimize
from jaxnet.optimizers.second_order.conjugate_gradient import conjugate_gradient
from jaxnet.optimizers.second_order.descent import gradient_descent
from jaxnet.optimizers.second_order.lbfgs import lbfgs
from jaxnet.optimizers.second_order.line_search import backtracking, exact, first_trial, grid, strong_wolfe
from jaxnet.optimizers.second_order.method import of_function
from jaxnet.optimizers.second_order.quasi_newton import bfgs

FLOAT = jnp.result_type(float)
METHODS = {
    "grid": gradient_descent(grid([1e-4, 1e-3, 1e-2, 1e-1])),
    "exact": gradient_descent(exact()),
    "backtracking": conjugate_gradient("fletcher-reeves", search=backtracking()),
    "conjugate": conjugate_gradient(),
    "bfgs": bfgs(),
    "lbfgs": lbfgs(3),
}
each_method = pytest.mark.parametrize("name", METHODS)


def rosenbrock(p):
    return 100 * (p["y"] - p["x"] ** 2) ** 2 + (1 - p["x"]) ** 2


def searching(search, fun):
    """(θ, d, first) -> Found, compiled once."""
    problem = of_function(fun)
    start = gradient_descent().init
    return jax.jit(lambda p, d, first: search.along(problem, start(problem, p), d, first))


def wave(p):
    """One variable, with minima and maxima along it, steep far away: p = (x, a, b), where a and b don't move."""
    x, a, b = p
    return a * x**4 / 10 + jnp.cos(b * x) + x / 2


def wave_numpy(x, a, b):
    return a * x**4 / 10 + np.cos(b * x) + x / 2, 4 * a * x**3 / 10 - b * np.sin(b * x) + 0.5


WOLFE = searching(strong_wolfe(1e-3, 0.1), wave)
ARMIJO = searching(backtracking(0.2), wave)


@pytest.mark.numerical
@pytest.mark.float64
@pytest.mark.source("GB-8.6.2-linesearch")
@examples(60)
@given(st.floats(-4, 4), st.floats(0.1, 3), st.floats(0.3, 4), st.floats(-4, 4), st.booleans())
def test_accepted_steps_meet_their_conditions_as_numpy_finds_them(x, a, b, magnitude, wolfe):
    value, slope = wave_numpy(x, a, b)
    if abs(slope) < 1e-3:
        return
    search, decrease = (WOLFE, 1e-3) if wolfe else (ARMIJO, 0.2)
    direction = -np.sign(slope)
    found = search(jnp.asarray([x, a, b]), jnp.asarray([direction, 0.0, 0.0]), jnp.asarray(10.0**magnitude))
    assert found.ok
    new, new_slope = wave_numpy(float(found.params[0]), a, b)
    assert new <= value - decrease * float(found.step) * abs(slope) + 1e-13
    if wolfe:
        assert abs(new_slope) <= 0.1 * abs(slope) + 1e-13
        assert found.evaluations <= 20
    np.testing.assert_allclose([found.value, found.gradient[0]], [new, new_slope], rtol=1e-11, atol=1e-11)


def quadratic(seed, n=4, condition=30.0):
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return (q * np.geomspace(1, condition, n)) @ q.T, rng.normal(size=n), rng.normal(size=n)


def form(p):
    """½ xᵀA x with A among the variables, so that one program serves all."""
    return p["x"] @ p["a"] @ p["x"] / 2


@pytest.mark.numerical
@pytest.mark.float64
@pytest.mark.source("GB-4.3.1-EPSOPT", "GB-8.6.2-linesearch", "GB-4.3-EPSEXACT")
def test_the_exact_step_is_the_closed_form_and_what_brent_finds():
    search = searching(exact(), form)
    for seed in range(5):
        a, x, d = quadratic(seed)
        d *= -np.sign(d @ a @ x)
        still = jnp.zeros((4, 4))
        found = search({"x": jnp.asarray(x), "a": jnp.asarray(a)}, {"x": jnp.asarray(d), "a": still}, jnp.asarray(1.0))
        np.testing.assert_allclose(found.step, -(d @ a @ x) / (d @ a @ d), rtol=1e-12)
        brent = minimize_scalar(lambda s: (x + s * d) @ a @ (x + s * d), tol=1e-12).x
        np.testing.assert_allclose(found.step, brent, rtol=1e-6)
        np.testing.assert_allclose(found.gradient["x"] @ d, 0, atol=1e-10 * np.linalg.norm(a @ x))
        steepest = np.linalg.eigh(a)[1][:, -1]  # along it the step is 1/λ_max
        at = {"x": jnp.asarray(steepest), "a": jnp.asarray(a)}
        found = search(at, {"x": jnp.asarray(-a @ steepest), "a": still}, jnp.asarray(1.0))
        np.testing.assert_allclose(found.step, 1 / 30, rtol=1e-12)
        assert found.evaluations == 2
    a = -np.eye(4)  # curvature isn't positive: the first trial is the method's
    found = search({"x": jnp.ones(4), "a": jnp.asarray(a)}, {"x": jnp.ones(4), "a": still}, jnp.asarray(0.25))
    assert found.ok
    assert found.step == 0.25


@pytest.mark.numerical
@pytest.mark.float64
@pytest.mark.source("GB-4.3-LINES")
def test_a_grid_finds_the_lowest_of_its_steps_or_stays():
    steps = np.geomspace(1e-3, 3.0, 9)
    search = searching(grid(steps), wave)
    for x in np.linspace(-3, 3, 13):
        value, slope = wave_numpy(x, 1.0, 2.0)
        values = wave_numpy(x - steps * slope, 1.0, 2.0)[0]
        found = search(jnp.asarray([x, 1.0, 2.0]), jnp.asarray([-slope, 0.0, 0.0]), jnp.asarray(1.0))
        np.testing.assert_allclose(found.step, np.append(steps, 0)[np.argmin(np.append(values, value))], rtol=1e-12)
        assert found.value <= value + 1e-13
        assert bool(found.ok) == (values.min() < value)
    uphill = search(jnp.asarray([0.0, 1.0, 2.0]), jnp.asarray([0.05, 0.0, 0.0]), jnp.asarray(1.0))
    assert not uphill.ok
    assert uphill.step == 0
    assert uphill.params.tolist() == [0, 1, 2]


def test_what_is_not_finite_is_too_far():
    """NaN beyond a wall at 1, far below the first trial of 1000."""
    for search in (strong_wolfe(), backtracking(), grid([1e-3, 0.5, 1000.0])):
        walled = searching(search, lambda p: jnp.sqrt(1 - p) ** 3 - p)
        found = walled(jnp.asarray(0.0, FLOAT), jnp.asarray(1.0, FLOAT), jnp.asarray(1000.0, FLOAT))
        assert found.ok
        assert 0 < found.params <= 1
        assert np.isfinite(found.gradient)


def test_without_a_descent_direction_nothing_is_evaluated():
    search = searching(strong_wolfe(), jnp.sum)
    for direction in (1.0, 0.0, np.nan):
        found = search(jnp.ones(2, FLOAT), jnp.full(2, direction, FLOAT), jnp.asarray(1.0, FLOAT))
        assert not found.ok
        assert found.evaluations == 0
        assert found.params.tolist() == [1, 1]
        assert found.gradient.tolist() == [1, 1]


def test_when_trials_run_out_a_step_that_lowers_the_function_is_taken():
    found = searching(strong_wolfe(trials=5), lambda p: -p)(*(jnp.asarray(a, FLOAT) for a in (0.0, 1.0, 1.0)))
    assert found.ok
    assert found.evaluations == 5
    assert found.step == 1000  # 1, 10, 100, 1000, and 1000 again


@pytest.mark.parametrize("name", ["conjugate", "lbfgs"])
def test_gradients_lead_on_where_values_no_longer_differ(name):
    """1 + xᵀA x / 2 in float32 is 1 below |x| ≈ 3e-4; Armijo's line alone ends there."""
    curvature = jnp.asarray([0.5, 1.0, 3.0], jnp.float32)
    found = minimize(
        lambda p: 1 + jnp.sum(curvature * p**2) / 2,
        jnp.asarray([1.0, -2.0, 0.5], jnp.float32),
        method=METHODS[name],
        gradient_tolerance=1e-6,
    )
    assert found.outcome == outcomes.CONVERGED
    assert np.abs(np.asarray(curvature) * np.asarray(found.params)).max() <= 1.001e-6
    assert found.iterations < 60


@each_method
@pytest.mark.numerical
@pytest.mark.float64
def test_scanned_is_looped_and_a_bad_member_ends_alone(name):
    """Bitwise, six members side by side, one of them NaN from its start."""
    problem, method = of_function(rosenbrock), METHODS[name]
    init, step = jax.jit(jax.vmap(lambda p: method.init(problem, p))), jax.vmap(lambda s: method.step(problem, s))
    scanned = jax.jit(lambda s: jax.lax.scan(lambda s, _: (step(s), s.value), s, length=12))
    starts = np.random.default_rng(0).normal(size=(2, 6))
    spoiled = starts.copy()
    spoiled[0, 2] = np.nan
    clean, bad = (init({"x": jnp.asarray(a[0]), "y": jnp.asarray(a[1])}) for a in (starts, spoiled))
    (clean, values), (bad, _) = scanned(clean), scanned(bad)
    keep = np.arange(6) != 2
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(bad), strict=True):
        assert np.array_equal(np.asarray(a)[keep], np.asarray(b)[keep])
    assert int(bad.outcome[2]) == outcomes.NON_FINITE
    assert np.all(np.diff(np.asarray(values), axis=0) <= 1e-15 * np.abs(values[1:]))
    assert np.all(np.asarray(clean.value) < values[0])
    now, step = init({"x": jnp.asarray(starts[0]), "y": jnp.asarray(starts[1])}), jax.jit(step)
    for _ in range(12):
        now = step(now)
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(now), strict=True):
        assert np.array_equal(a, b)
        assert a.dtype == b.dtype
        assert not b.weak_type


def mixed(p, weights):
    """Of these by weights: functions without a minimum, without a slope, with a wall, and one at its minimum."""
    return weights @ jnp.stack([p, jnp.log(p), (p - 2) ** 2, jnp.sqrt(p)])


@each_method
def test_outcomes_are_honest(name):
    ends = []
    for weights, start in (
        ([-1, 0, 0, 0], 1),
        ([0, 0, 0, 0], 1),
        ([1, -1, 0, 0], 0.01),
        ([0, 0, 1, 0], 2),
        ([0, 0, 0, 1], 1),
    ):
        weights = jnp.asarray(weights, FLOAT)
        end = minimize(mixed, jnp.asarray(start, FLOAT), args=(weights,), method=METHODS[name], steps=60)
        x = float(end.params)
        slope = np.asarray(weights, float) @ [1, 1 / x, 2 * (x - 2), 0.5 / np.sqrt(x)]
        assert (int(end.outcome) == outcomes.CONVERGED) == (abs(slope) <= 1e-5)
        assert np.isfinite(end.value)
        ends.append(end)
    line, constant, wall, minimum, root = ends
    assert line.value < -5
    assert int(line.outcome) in (outcomes.STEP_LIMIT, outcomes.STALLED)
    assert constant.iterations == minimum.iterations == 0
    assert 0 <= root.value < 1
    if name != "grid":
        np.testing.assert_allclose(wall.params, 1, rtol=1e-4)


def test_the_first_trial_of_a_huge_gradient_is_finite():
    state = gradient_descent().init(of_function(lambda p: jnp.exp(p)), jnp.asarray(60.0, jnp.float32))
    zero = jnp.zeros((), jnp.float32)
    assert np.isfinite(first_trial(state, -(state.gradient**2), zero, zero))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: strong_wolfe(decrease=0.5), r"decrease=0\.5; expected a number in \(0, 0\.5\)"),
        (lambda: strong_wolfe(curvature=1.0), r"curvature=1\.0; expected a number in"),
        (lambda: strong_wolfe(0.2, 0.1), r"curvature=0\.1; expected a number in \(0\.2, 1\)"),
        (lambda: backtracking(trials=1), "trials=1; expected an integer"),
        (lambda: exact(trials=2.5), r"trials=2\.5; expected"),
        (lambda: backtracking(float("nan")), "decrease=nan; expected"),
        (lambda: grid([]), "expected a list of positive numbers"),
        (lambda: grid([0.0, 1.0]), "expected a list of positive numbers"),
        (lambda: conjugate_gradient("polak"), "formula='polak'; expected one of polak-ribiere"),
        (lambda: conjugate_gradient(restart=0), "restart=0; expected an integer"),
        (lambda: lbfgs(0), "memory=0; expected an integer"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
