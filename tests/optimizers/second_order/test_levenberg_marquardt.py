"""Levenberg–Marquardt: its limits, its two forms, its bookkeeping, and what it finds beside scipy."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from drawing import examples
from hypothesis import given
from jax.flatten_util import ravel_pytree
from network_problems import network_problem

import jaxnet as jn
from jaxnet import outcomes
from jaxnet.optimizers.second_order.gauss_newton import gauss_newton, least_norm_step
from jaxnet.optimizers.second_order.levenberg_marquardt import levenberg_marquardt
from jaxnet.optimizers.second_order.method import of_residuals
from jaxnet.optimizers.second_order.minimization import Tolerances, least_squares, repeated
from jaxnet.optimizers.second_order.newton import hessian
from jaxnet.optimizers.second_order.normal_equations import normal_matrix, system
from jaxnet.optimizers.second_order.of_network import of_network


def moved(method, problem, params, steps=1):
    """The raveled parameters after some steps, and the last state."""

    @jax.jit
    def run(params):
        state = method.init(problem, params)
        for _ in range(steps):
            state = method.step(problem, state)
        return state

    state = run(params)
    return ravel_pytree(state.params)[0], state


def rosenbrock(p):
    return jnp.stack([1 - p[0], 10 * (p[1] - p[0] ** 2)])


# ── the limits ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.numerical
@pytest.mark.float64
@pytest.mark.source("GB-8.6.1-damped")
def test_between_gradient_descent_and_gauss_newton():
    """A large μ takes −g/μ, a small one the Gauss–Newton step."""
    problem, params = network_problem(n=30, l2=0.0)
    start = ravel_pytree(params)[0]
    gradient = ravel_pytree(problem.value_and_grad(params)[1])[0]
    far, _ = moved(levenberg_marquardt(1e8, scaling=False), problem, params)
    np.testing.assert_allclose((far - start) * 1e8, -gradient, rtol=1e-5, atol=1e-8)
    full = least_norm_step(problem, params, "primal")[0]
    step = system(problem, params, "primal").solve(jnp.full_like(start, 1e-12))
    np.testing.assert_allclose(step, full, rtol=1e-3)


@pytest.mark.numerical
@pytest.mark.float64
def test_gauss_newton_is_newton_where_the_residuals_are_zero():
    problem, params = network_problem("deep", n=5, l2=0.0)
    network = problem.network
    x, _, weight = network.batch
    met = of_network(network.net, network.loss, network.state, (x, network.net.apply(params, {}, x)[0], weight))
    gram, exact = jax.jit(lambda p: (normal_matrix(met, p)[0], hessian(met, p)))(params)
    np.testing.assert_allclose(gram, exact, rtol=1e-10, atol=1e-14)


@pytest.mark.numerical
@pytest.mark.float64
@examples(5)
@given(
    n=st.integers(1, 12),
    outputs=st.integers(1, 3),
    weighted=st.booleans(),
    l2=st.sampled_from([0.0, 0.3]),
    exponent=st.integers(-6, 3),
    seed=st.integers(0, 9),
)
def test_the_forms_agree(n, outputs, weighted, l2, exponent, seed):
    """rows × rows by Woodbury, P × P by Cholesky, and NumPy on AᵀA + l2 I_w + Λ."""
    problem, params = network_problem(n=n, outputs=outputs, weighted=weighted, l2=l2, seed=seed)
    extra = 10.0**exponent * jnp.linspace(1.0, 2.0, ravel_pytree(params)[0].size)

    @jax.jit
    def both(params):
        found = {form: system(problem, params, form) for form in ("primal", "dual")}
        return {form: (s.gradient, s.diagonal, s.solve(extra)) for form, s in found.items()}, hessian_like(params)

    def hessian_like(params):
        penalty = l2 * ravel_pytree(jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.full_like(leaf, path[-1].key == "w"), params))[0]  # fmt: skip
        return normal_matrix(problem, params)[0] + jnp.diag(penalty)

    found, matrix = both(params)
    gradient = np.asarray(ravel_pytree(problem.value_and_grad(params)[1])[0])
    expected = -np.linalg.solve(np.asarray(matrix) + np.diag(np.asarray(extra)), gradient)
    for form in found:
        np.testing.assert_allclose(found[form][0], gradient, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(found[form][1], np.diag(matrix), rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(found[form][2], expected, rtol=1e-6, atol=1e-7 * np.max(np.abs(expected)))


# ── how the damping moves ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.numerical
@pytest.mark.float64
def test_hagan_and_menhaj_transcribed():
    """The same path as their algorithm in NumPy: μ ×10 until the sum of squares falls, then ÷10."""

    def plain(p, mu, steps):
        tried = 0
        for _ in range(steps):
            r = np.array([1 - p[0], 10 * (p[1] - p[0] ** 2)])
            jacobian = np.array([[-1.0, 0.0], [-20 * p[0], 10.0]])
            while True:
                tried += 1
                there = p - np.linalg.solve(jacobian.T @ jacobian + mu * np.eye(2), jacobian.T @ r)
                new = np.array([1 - there[0], 10 * (there[1] - there[0] ** 2)])
                if new @ new < r @ r:
                    p, mu = there, mu / 10
                    break
                mu *= 10
        return p, mu, tried

    method = levenberg_marquardt(0.01, increase=10.0, decrease=0.1, scaling=False)
    found, state = moved(method, of_residuals(rosenbrock), jnp.array([-1.2, 1.0]), 6)
    expected, mu, tried = plain(np.array([-1.2, 1.0]), 0.01, 6)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(state.memory.damping, mu, rtol=1e-9)
    assert int(state.evaluations) == 1 + 6 + tried


@pytest.mark.numerical
@pytest.mark.float64
def test_nielsens_rule_transcribed():
    def plain(p, mu, steps):
        scale = np.zeros(2)
        for _ in range(steps):
            r = np.array([1 - p[0], 10 * (p[1] - p[0] ** 2)])
            jacobian = np.array([[-1.0, 0.0], [-20 * p[0], 10.0]])
            gradient, growth = jacobian.T @ r, 2.0
            scale = np.maximum(scale, np.diag(jacobian.T @ jacobian))
            while True:
                step = -np.linalg.solve(jacobian.T @ jacobian + mu * np.diag(scale), gradient)
                new = np.array([1 - (p + step)[0], 10 * ((p + step)[1] - (p + step)[0] ** 2)])
                linear = r + jacobian @ step
                gain = (r @ r - new @ new) / (r @ r - linear @ linear)
                if gain > 1e-4:
                    p, mu = p + step, mu * max(1 / 3, 1 - (2 * gain - 1) ** 3)
                    break
                mu, growth = mu * growth, growth * 2
        return p, mu

    nielsen = levenberg_marquardt(1e-3, increase=None, decrease=None)
    found, state = moved(nielsen, of_residuals(rosenbrock), jnp.array([-1.2, 1.0]), 6)
    expected, mu = plain(np.array([-1.2, 1.0]), 1e-3, 6)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    np.testing.assert_allclose(state.memory.damping, mu, rtol=1e-6)


# ── as an array program ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.numerical
def test_scanned_is_looped_and_a_bad_member_is_alone():
    """Bitwise: eight steps in a scan or one by one; 64 starts with and without a NaN among them."""
    problem, params = network_problem(n=10, l2=0.01)
    method = levenberg_marquardt()
    flat, unravel = ravel_pytree(params)
    starts = flat + jax.random.normal(jax.random.key(1), (64, flat.size), flat.dtype)

    @jax.jit
    def scanned(starts):
        def run(start):
            state = method.init(problem, unravel(start))
            return jax.lax.scan(lambda s, _: (method.step(problem, s), s.value), state, length=4)

        return jax.vmap(run)(starts)

    step = jax.jit(jax.vmap(lambda state: method.step(problem, state)))
    state = jax.jit(jax.vmap(lambda start: method.init(problem, unravel(start))))(starts)
    for _ in range(4):
        state = step(state)
    whole, _ = scanned(starts)
    jax.tree.map(np.testing.assert_array_equal, whole, state)
    with_nan, _ = scanned(starts.at[17].set(jnp.nan))
    others = np.arange(64) != 17
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[others], b[others]), with_nan, whole)
    assert np.all(whole.outcome == outcomes.RUNNING)
    assert int(with_nan.outcome[17]) == outcomes.NON_FINITE


@pytest.mark.numerical
def test_the_batch_may_change():
    """A step on a batch depends on nothing of the batch before but the parameters, μ and D."""
    first, params = network_problem(n=10, seed=0)
    second, _ = network_problem(n=10, seed=1)
    method = levenberg_marquardt()

    @jax.jit
    def steps(params):
        state = method.step(first, method.init(first, params))
        fresh = method.init(second, state.params)
        return method.step(second, state), method.step(second, fresh._replace(memory=state.memory))

    stale, fresh = steps(params)
    jax.tree.map(np.testing.assert_array_equal, (stale[:4], stale.outcome), (fresh[:4], fresh.outcome))


# ── what it reaches ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.numerical
@pytest.mark.float64
def test_it_finds_what_scipy_finds():
    """Rosenbrock, Brown–Dennis (its residuals aren't zero) and a decay with an offset."""
    t = np.arange(1, 21) / 5

    def brown_dennis(p):
        a = p[0] + t * p[1] - np.exp(t)
        b = p[2] + np.sin(t) * p[3] - np.cos(t)
        return a**2 + b**2

    def decay(p):
        return p[0] * jnp.exp(-p[1] * t) + p[2] - (3 * np.exp(-0.7 * t) + 1 + 0.1 * np.sin(9 * t))

    for residuals, start in (
        (rosenbrock, [-1.2, 1.0]),
        (brown_dennis, [25.0, 5.0, -5.0, -1.0]),
        (decay, [1.0, 0.1, 0.0]),
    ):
        found = least_squares(residuals, jnp.array(start), method=levenberg_marquardt(), gradient_tolerance=1e-3)
        expected = scipy.optimize.least_squares(lambda p: np.asarray(residuals(p)), start, xtol=1e-14, ftol=1e-14)
        np.testing.assert_allclose(found.params, expected.x, rtol=1e-4)
        assert int(found.outcome) == outcomes.CONVERGED, found.sentence


@pytest.mark.numerical
@pytest.mark.float64
def test_badly_scaled_columns_cost_nothing():
    """A parameter in other units by 10⁶, and an input likewise: the same losses, iteration by iteration."""
    problem, params = network_problem(outputs=1, n=30)
    net, loss, state, (x, y, weight), _ = problem.network
    units = jnp.array([1e6, 1.0])
    method = levenberg_marquardt()

    @jax.jit
    def losses(params, x):
        problem = of_network(net, loss, state, (x, y, weight))
        return repeated(method, problem, params, 10, Tolerances(jnp.array(0.0))).history["value"]

    other = {**params, "dense_0": {**params["dense_0"], "w": params["dense_0"]["w"] / units[:, None]}}
    np.testing.assert_allclose(losses(other, x * units), losses(params, x), rtol=1e-4)

    def curve(p, units):
        t = jnp.linspace(0.0, 3.0, 20)
        return p[0] * units[0] * jnp.exp(-p[1] * units[1] * t) - 3 * jnp.exp(-0.7 * t) - 0.1 * jnp.sin(9 * t)

    plain, scaled = (
        least_squares(curve, jnp.array([1.0, 0.1]) / units, args=(units,), method=method, steps=10)
        for units in (jnp.ones(2), units)
    )
    assert abs(int(plain.iterations) - int(scaled.iterations)) <= 2
    np.testing.assert_allclose(plain.value, scaled.value, rtol=1e-10)


@pytest.mark.numerical
def test_a_network_is_trained():
    """sin(3x) by 12 tanh units: after 60 iterations the error is below 0.01, whatever the start."""
    x = jnp.linspace(-1.0, 1.0, 50)[:, None]
    net = jn.serial(jn.dense(12), jn.layers.tanh(), jn.dense(1))
    problem = of_network(net, jn.losses.squared_error, {}, (x, jnp.sin(3 * x)))

    @jax.jit
    @jax.vmap
    def run(key):
        return repeated(levenberg_marquardt(), problem, net.init(key, (1,))[0], 60, Tolerances(jnp.array(1e-6)))

    found = run(jax.random.split(jax.random.key(0), 8))
    assert np.all(np.sqrt(2 * found.value) < 1e-2)
    converged = np.asarray(found.outcome) == outcomes.CONVERGED
    assert np.all(np.asarray(found.gradient_norm)[converged] <= 1e-6)


# ── how it ends ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.numerical
def test_honest_ends():
    method = levenberg_marquardt()
    kink = least_squares(lambda p: jnp.stack([1 + jnp.where(p > 0, p, -p), p * 0]), jnp.array(0.0), method=method)
    assert int(kink.outcome) in (outcomes.DAMPING_EXHAUSTED, outcomes.STALLED)
    wall = least_squares(lambda p: jnp.where(p < 1, 2 - p, jnp.nan)[None], jnp.array(0.0), method=method)
    assert float(wall.params) < 1
    assert int(wall.outcome) != outcomes.CONVERGED
    nan = least_squares(rosenbrock, jnp.zeros(2), method=levenberg_marquardt(jnp.array(jnp.nan)))
    assert int(nan.outcome) == outcomes.DAMPING_EXHAUSTED
    bad = least_squares(lambda p: jnp.sqrt(p - 1)[None], jnp.array(0.0), method=method)
    assert (int(bad.outcome), int(bad.iterations)) == (outcomes.NON_FINITE, 0)
    rounded = least_squares(lambda p: jnp.stack([p - 1, p + 1]) * 1e3, jnp.array(0.3), method=method, steps=50, gradient_tolerance=0.0)  # fmt: skip  # noqa: E501
    assert int(rounded.outcome) in (outcomes.STALLED, outcomes.CONVERGED)
    assert int(rounded.iterations) < 10


def test_too_large_is_refused_before_any_compile():
    net = jn.mlp([20_000, 1])
    x = jax.ShapeDtypeStruct((50_000, 20), jnp.float32), jax.ShapeDtypeStruct((50_000, 1), jnp.float32)
    params, _ = jax.eval_shape(lambda: net.init(jax.random.key(0), (20,)))

    def start(params, batch, form=None, limit=10**9):
        method = levenberg_marquardt(form=form, memory_limit=limit)
        return method.init(of_network(net, jn.losses.squared_error, {}, batch), params)

    with pytest.raises(ValueError, match=r"primal form, 440,001 parameters and 50,000 rows: got .* GB .*lbfgs"):
        jax.eval_shape(lambda p, b: start(p, b, "primal"), params, x)
    with pytest.raises(ValueError, match=r"dual form.*smaller batches"):
        jax.eval_shape(start, params, x)
    small = jax.tree.map(lambda a: jax.ShapeDtypeStruct((16, *a.shape[1:]), a.dtype), x)
    jax.eval_shape(start, params, small)
    with pytest.raises(ValueError, match=r"take form='dual'"):
        jax.eval_shape(lambda p, b: start(p, b, "primal"), params, small)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"damping": 0.0}, "damping=0.0; expected a finite number above 0"),
        ({"increase": None}, "expected both"),
        ({"increase": 0.5, "decrease": 0.1}, "increase=0.5; expected a factor above 1"),
        ({"increase": 2.0, "decrease": 2.0}, "decrease=2.0; expected a factor in"),
        ({"form": "qr"}, "form='qr'; expected 'primal', 'dual' or None"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        levenberg_marquardt(**options)


# ── Gauss–Newton ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.numerical
@pytest.mark.float64
@pytest.mark.source("GB-4.5-NEWTLS")
@pytest.mark.parametrize("n, outputs", [(20, 2), (3, 1)])
def test_linear_least_squares_in_one_step(n, outputs):
    """The pseudoinverse's solution, of least norm where there are fewer equations than unknowns."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 5)), rng.normal(size=(n, outputs))
    net = jn.dense(outputs, bias=False)
    problem = of_network(net, jn.losses.squared_error, {}, (jnp.asarray(x), jnp.asarray(y)))
    found, state = moved(gauss_newton(), problem, {"w": jnp.zeros((5, outputs))})
    np.testing.assert_allclose(found, np.ravel(np.linalg.pinv(x) @ y), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ravel_pytree(state.gradient)[0], 0, atol=1e-12)


@pytest.mark.numerical
@pytest.mark.float64
def test_gauss_newton_shortens_its_step():
    """On arctan the full step from 3 goes uphill; shortened steps converge."""
    found = least_squares(lambda p: jnp.arctan(p)[None], jnp.array(3.0), method=gauss_newton())
    assert int(found.outcome) == outcomes.CONVERGED
    wild = least_squares(lambda p: jnp.arctan(p)[None], jnp.array(3.0), method=gauss_newton(full_steps=True), steps=1)
    np.testing.assert_allclose(wild.params, 3 - 10 * np.arctan(3.0), rtol=1e-12)
    assert float(wild.value) > np.arctan(3.0) ** 2 / 2
    with pytest.raises(ValueError, match="form='dual' with a penalty"):
        gauss_newton(form="dual").init(*network_problem(l2=0.1))
