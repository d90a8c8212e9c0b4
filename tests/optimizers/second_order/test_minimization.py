"""minimize and least_squares: what they refuse, compile and record; how each outcome is reached; who is touched."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st

from jaxnet import outcomes
from jaxnet.optimizers.second_order.levenberg_marquardt import levenberg_marquardt
from jaxnet.optimizers.second_order.method import Move, dot, method, of_function
from jaxnet.optimizers.second_order.minimization import least_squares, minimize
from jaxnet.testing.guards import compiles, no_leaks

DTYPE = jnp.result_type(float)
EPS = float(jnp.finfo(DTYPE).eps)


def descent(rate, needs="value"):
    """θ ← θ − rate · g, nothing else: on a quadratic every number of it is known."""

    def move(problem, state):
        params = jax.tree.map(lambda p, g: p - jnp.asarray(rate, p.dtype) * g, state.params, state.gradient)
        return Move(params, *problem.value_and_grad(params), (), 1)

    return method("descent", lambda problem, params, value, gradient: (), move, needs)


def halved(tries):
    """Steepest descent that halves its step until the value falls, at most so many times; then it has stalled."""

    def move(problem, state):
        def trial(rate):
            return jax.tree.map(lambda p, g: p - rate * g, state.params, state.gradient)

        rates = 0.5 ** jnp.arange(tries, dtype=state.value.dtype)
        values = jax.vmap(lambda rate: problem.value(trial(rate)))(rates)
        lower = values < state.value
        params = trial(rates[jnp.argmax(lower)])
        value, gradient = problem.value_and_grad(params)
        found = Move(params, value, gradient, (), tries + 1)
        outcome = jnp.where(jnp.any(lower), outcomes.RUNNING, outcomes.STALLED)
        kept = jax.tree.map(lambda a, b: jnp.where(jnp.any(lower), a, b), found[:3], state[:3])
        return Move(*kept, (), found.evaluations, outcome)

    return method("halved", lambda problem, params, value, gradient: (), move)


SLOW, HALF = descent(0.1), descent(0.5)


def bowl(p, scale):
    return scale * jnp.sum(p["x"] ** 2) / 2


def start(*numbers):
    return {"x": jnp.asarray(numbers, DTYPE)}


ONE = jnp.ones((), DTYPE)


# ── what is refused, and when ───────────────────────────────────────────────────────────────────────────────────

REFUSED = [
    ({"fun": 3}, TypeError, "got 3; expected a function of"),
    ({"method": 0.1}, TypeError, r"got method 0.1; expected a Method such as jn.optimizers.lbfgs\(\)"),
    ({"method": descent(0.1, "residuals")}, ValueError, "got descent, which needs residuals; .*least_squares"),
    ({"method": descent(0.1, "network")}, ValueError, "got descent, which needs network; .*program_full_batch"),
    ({"steps": -1}, ValueError, "got steps=-1; expected an integer ≥ 0"),
    ({"steps": 2.0}, ValueError, "got steps=2.0"),
    ({"steps": True}, ValueError, "got steps=True"),
    ({"gradient_tolerance": -1e-3}, ValueError, "got gradient_tolerance=-0.001; expected a number ≥ 0"),
    ({"step_tolerance": float("nan")}, ValueError, "got step_tolerance=nan"),
    ({"value_tolerance": float("inf")}, ValueError, "got value_tolerance=inf"),
    ({"params": {}}, ValueError, "got params without any array"),
    ({"params": {"x": np.arange(2)}}, TypeError, r"params\['x'\]: got int\d+; expected floating numbers"),
    ({"params": {"x": np.array([1.0, np.nan], "float32")}}, ValueError, r"params\['x'\]: got NaN or infinity"),
    ({"fun": lambda p: p["x"]}, ValueError, r"returns ShapeDtypeStruct\(.*\); expected a real scalar"),
    ({"fun": lambda p: (p["x"].sum(), 1)}, ValueError, "expected a real scalar"),
    ({"fun": lambda p: p["x"].sum() > 0}, ValueError, "expected a real scalar"),
]


@pytest.mark.parametrize(("change", "error", "message"), REFUSED)
def test_what_minimize_refuses_before_it_compiles(change, error, message):
    given = {"fun": lambda p: jnp.sum(p["x"] ** 2), "params": {"x": np.ones(2, "float32")}, "method": SLOW} | change
    with compiles(at_most=0), pytest.raises(error, match=f"^minimize.*{message}"):
        minimize(given.pop("fun"), given.pop("params"), **given)


@pytest.mark.parametrize(
    ("residuals", "message"),
    [
        (lambda p: p["x"] > 0, "got residuals of dtype bool; expected real floating numbers"),
        (lambda p: p["x"][:0], "got no residuals; expected at least one"),
        (lambda p: {}, "got no residuals"),
        (lambda p: p["x"] * 1j, "got residuals of dtype complex"),
    ],
)
def test_residuals_that_are_refused(residuals, message):
    with compiles(at_most=0), pytest.raises(ValueError, match=f"least_squares: {message}"):
        least_squares(residuals, {"x": np.ones(2, "float32")}, method=SLOW)
    with compiles(at_most=0), pytest.raises(ValueError, match="least_squares: got descent, which needs network"):
        least_squares(lambda p: p["x"], {"x": np.ones(2, "float32")}, method=descent(0.1, "network"))


# ── what is recorded ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.numerical
@pytest.mark.float64
def test_the_history_is_the_closed_form_and_ends_in_nan():
    """x ← (1 − 0.1 a) x on a x²/2 with a = 4: the values shrink by 0.36, the gradients by 0.6."""
    found = minimize(bowl, start(2.0, -1.0), method=SLOW, args=(4 * ONE,), steps=40, gradient_tolerance=1e-2)
    ran = int(found.iterations)
    k = np.arange(ran + 1)
    assert ran == int(np.ceil(np.log(1e-2 / 8) / np.log(0.6)))  # the first at or below the tolerance
    np.testing.assert_allclose(found.history["value"][: ran + 1], 10 * 0.36**k, rtol=200 * EPS)
    np.testing.assert_allclose(found.history["gradient_norm"][: ran + 1], 8 * 0.6**k, rtol=200 * EPS)
    for rows in found.history.values():
        assert rows.shape == (41,)
        assert np.isnan(rows[ran + 1 :]).all()
    np.testing.assert_allclose(found.params["x"], np.array([2.0, -1.0]) * 0.6**ran, rtol=200 * EPS)
    assert found.value == found.history["value"][ran]
    assert found.gradient_norm == found.history["gradient_norm"][ran] == np.abs(found.gradient["x"]).max()
    assert int(found.evaluations) == ran + 1
    assert found.sentence == f"converged at iteration {ran}: no entry of the gradient exceeds gradient_tolerance"


@pytest.mark.numerical
def test_the_loop_is_its_steps_bitwise():
    """A while loop of the method's steps, a scan of them and a Python loop of the jitted step leave the same bits."""
    scale = jnp.asarray(1.7, DTYPE)
    problem = of_function(lambda p: bowl(p, scale) + jnp.sum(jnp.cos(p["x"])))
    fun = lambda p: problem.value(p)  # noqa: E731
    found = minimize(fun, start(2.0, -1.0), method=SLOW, steps=7, gradient_tolerance=0.0)
    state, step = jax.jit(partial(SLOW.init, problem))(start(2.0, -1.0)), jax.jit(partial(SLOW.step, problem))
    scanned, values = jax.jit(
        lambda s: jax.lax.scan(lambda s, _: ((after := SLOW.step(problem, s)), after.value), s, length=7)
    )(state)
    looped = []
    for _ in range(7):
        state = step(state)
        looped.append(state.value)
    chex.assert_trees_all_equal(scanned[:3], state[:3])
    np.testing.assert_allclose(scanned.change, state.change, rtol=1e3 * EPS)  # a difference that XLA fuses as it likes
    np.testing.assert_array_equal(values, looped)
    np.testing.assert_array_equal(found.history["value"][1:], looped)
    chex.assert_trees_all_equal(found.params, state.params)


@pytest.mark.numerical
@pytest.mark.float64
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_dtypes_are_those_of_the_parameters_and_nothing_is_weak(dtype):
    params = {"x": jnp.ones(2, dtype), "y": jnp.ones((), dtype)}
    found = minimize(lambda p: jnp.sum(p["x"] ** 2) + p["y"] ** 2, params, method=HALF, steps=3)
    real = jax.tree.leaves((found.params, found.gradient, found.value, found.gradient_norm, found.history))
    assert {a.dtype for a in real} == {np.dtype(dtype)}
    assert {a.dtype for a in (found.iterations, found.evaluations, found.outcome)} == {np.dtype("int32")}
    assert not any(a.weak_type for a in jax.tree.leaves(found))
    assert int(found.outcome) == outcomes.CONVERGED
    plain = minimize(lambda p: p**2, 3.0, method=HALF, steps=3)
    assert (plain.params.dtype, plain.params.weak_type, float(plain.params)) == (DTYPE, False, 0.0)


# ── compiles ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_data_and_tolerances_are_inputs_of_one_program():
    def fun(p, target):
        return jnp.sum((p["x"] - target) ** 2) / 2

    data = [jnp.asarray([value, 1.0], DTYPE) for value in (1.0, 2.0)]
    minimize(fun, start(0.0, 0.0), method=HALF, args=(data[0],))
    with compiles(at_most=0):
        found = minimize(fun, start(5.0, 0.0), method=HALF, args=(data[1],), gradient_tolerance=np.float32(1e-3))
        minimize(fun, {"x": np.zeros(2, DTYPE)}, method=HALF, args=(np.asarray(data[0]),), step_tolerance=1e-3)
    np.testing.assert_allclose(found.params["x"], data[1], atol=1e-3)
    with compiles(at_most=1):  # another number of steps is another program
        minimize(fun, start(0.0, 0.0), method=HALF, args=(data[0],), steps=5)
    text = jax.jit(lambda p, t: minimize(fun, p, method=HALF, args=(t,))).lower(start(0.0, 0.0), data[0]).as_text()
    assert "2.000000e+00, 1.000000e+00" not in text  # the data are not in it
    with no_leaks():
        minimize(lambda p: jnp.sum(p["x"] ** 2), start(1.0), method=descent(0.3), steps=2)


# ── outcomes ────────────────────────────────────────────────────────────────────────────────────────────────────


def ends(fun, x, how, **given):
    found = minimize(fun, start(*x), method=how, **given)
    return found, int(found.outcome), int(found.iterations)


def test_a_minimum_is_converged_before_the_first_step():
    found, outcome, ran = ends(lambda p: jnp.sum(p["x"] ** 4), (0.0, 0.0), SLOW)
    assert (outcome, ran, int(found.evaluations)) == (outcomes.CONVERGED, 0, 1)
    assert ends(lambda p: jnp.sum(p["x"] ** 4), (0.0,), SLOW, steps=0)[1:] == (outcomes.CONVERGED, 0)
    assert ends(lambda p: jnp.sum(p["x"] ** 4), (1.0,), SLOW, steps=0)[1:] == (outcomes.STEP_LIMIT, 0)


def test_a_step_and_a_change_below_their_tolerances_are_not_called_converged():
    fun = lambda p: jnp.sum(p["x"] ** 2) / 2 + 1.0  # noqa: E731
    found, outcome, ran = ends(fun, (1.0, 0.0), SLOW, step_tolerance=0.2)  # each step is a ninth of what it leaves
    assert (outcome, ran) == (outcomes.STEP_BELOW_TOLERANCE, 1)
    assert "stopped by step at iteration 1" in found.sentence
    found, outcome, ran = ends(fun, (1.0, 0.0), SLOW, value_tolerance=1e-2)
    values = 1 + 0.5 * 0.81 ** np.arange(50)
    assert ran == 1 + int(np.argmax(values[:-1] - values[1:] <= 1e-2 * values[1:]))
    assert outcome == outcomes.CHANGE_BELOW_TOLERANCE
    assert "converged" not in found.sentence
    assert found.gradient_norm > 1e-5  # which the sentence says


def test_steps_run_out():
    found, outcome, ran = ends(lambda p: jnp.sum(p["x"] ** 2) / 2, (1.0,), SLOW, steps=3)
    assert (outcome, ran) == (outcomes.STEP_LIMIT, 3)
    assert found.sentence == "step limit: all 3 iterations were made, and the gradient exceeds its tolerance"


def test_a_method_that_finds_no_lower_value_has_stalled():
    """At 10⁶ the bowl of cosh (x − 1) is flat to rounding long before its gradient is small."""
    fun = lambda p: 1e6 + jnp.sum(jnp.cosh(p["x"] - 1.0))  # noqa: E731
    found, outcome, ran = ends(fun, (3.3,), halved(4), gradient_tolerance=1e-14, steps=200)
    assert outcome == outcomes.STALLED
    assert "stalled at iteration" in found.sentence
    assert found.value == found.history["value"][ran] == found.history["value"][ran - 1]  # nothing was taken
    loose, outcome, _ = ends(fun, (3.3,), halved(4), gradient_tolerance=1.0, steps=200)
    assert outcome == outcomes.CONVERGED
    assert abs(np.sinh(float(loose.params["x"][0]) - 1)) <= 1.0


def test_damping_that_may_not_grow_is_exhausted():
    """From 3 a Gauss–Newton step for arctan x = 0 overshoots to −9.5, and little damping doesn't help."""

    def run(largest):
        how = levenberg_marquardt(largest=largest)
        return least_squares(lambda p: jnp.arctan(p["x"]), start(3.0), method=how, steps=50)

    found = run(1e-2)
    assert (int(found.outcome), int(found.iterations)) == (outcomes.DAMPING_EXHAUSTED, 1)
    assert found.params["x"] == 3
    assert "damping exhausted at iteration 1" in found.sentence
    found = run(1e10)
    assert int(found.outcome) == outcomes.CONVERGED
    assert abs(float(found.params["x"][0])) <= 1e-5


def test_a_number_that_is_not_finite_ends_at_its_iteration_with_the_last_finite_parameters():
    """√x falls by 1 / (2 √x) · rate: from 1 at rate 0.8 the third step would leave the domain."""
    path = [1.0]
    while (after := path[-1] - 0.8 / (2 * np.sqrt(path[-1]))) > 0:
        path.append(after)
    found, outcome, ran = ends(lambda p: jnp.sum(jnp.sqrt(p["x"])), (1.0,), descent(0.8), steps=50)
    assert (outcome, ran) == (outcomes.NON_FINITE, len(path))
    np.testing.assert_allclose(found.params["x"], path[-1:], rtol=100 * EPS)
    np.testing.assert_allclose(found.value, np.sqrt(path[-1]), rtol=100 * EPS)
    assert found.sentence.startswith(f"non-finite at iteration {ran}: ")


@examples(15)
@given(
    curvatures=st.lists(st.floats(0.05, 25.0), min_size=3, max_size=3),
    x=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
    tolerance=st.sampled_from([1e-1, 1e-3, 1e-6]),
)
def test_converged_says_what_numpy_finds(curvatures, x, tolerance):
    """On drawn quadratics, some of which diverge: the outcome is what a transcription in NumPy ends with."""
    curvatures, x = np.asarray(curvatures, DTYPE), np.asarray(x, DTYPE)
    found = drawn_quadratic(x, curvatures, tolerance)
    gradient = np.abs(curvatures * np.asarray(found.params)).max()
    assert (int(found.outcome) == outcomes.CONVERGED) == (gradient <= tolerance)
    if int(found.outcome) == outcomes.CONVERGED:
        assert (found.history["gradient_norm"][: int(found.iterations)] > tolerance).all()  # not one too late
    else:
        assert int(found.outcome) == outcomes.STEP_LIMIT
        assert int(found.iterations) == 60
    expected = x * (1 - DTYPE.type(0.1) * curvatures) ** int(found.iterations)
    np.testing.assert_allclose(found.params, expected, rtol=2e3 * EPS, atol=1e-30)


def drawn_quadratic(x, curvatures, tolerance):
    return minimize(QUADRATIC, x, method=SLOW, args=(curvatures,), steps=60, gradient_tolerance=tolerance)


def QUADRATIC(p, curvatures):
    return jnp.sum(curvatures * p**2) / 2


def test_a_finished_state_is_left_alone_whatever_ended_it():
    problem = of_function(lambda p: jnp.sum(p["x"] ** 2))
    state, step = SLOW.init(problem, start(1.0)), jax.jit(partial(SLOW.step, problem))
    for code in (outcomes.STALLED, outcomes.NON_FINITE, outcomes.DAMPING_EXHAUSTED, outcomes.CONVERGED):
        ended = state._replace(outcome=np.int32(code))
        chex.assert_trees_all_equal(step(ended), ended)


# ── side by side ────────────────────────────────────────────────────────────────────────────────────────────────


def rosenbrock(p, args=None):
    x, y = p["x"]
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def test_one_bad_start_of_64_leaves_the_others_unchanged_bitwise():
    rng = np.random.default_rng(0)
    starts = jnp.asarray(rng.normal(size=(64, 2)), DTYPE)
    many = jax.jit(jax.vmap(lambda x: minimize(rosenbrock, {"x": x}, method=halved(12), steps=60)))
    healthy = many(starts)
    for bad in (jnp.nan, float(jnp.finfo(DTYPE).max)):
        beside = many(starts.at[17].set(bad))
        assert int(beside.outcome[17]) == outcomes.NON_FINITE
        assert int(beside.iterations[17]) == 0
        others = np.arange(64) != 17
        chex.assert_trees_all_equal(
            jax.tree.map(lambda a: a[others], beside), jax.tree.map(lambda a: a[others], healthy)
        )
    assert len(set(healthy.outcome.tolist())) > 1  # they end in different ways
    alone = minimize(rosenbrock, {"x": starts[3]}, method=halved(12), steps=60)
    np.testing.assert_allclose(healthy.history["value"][3, :10], alone.history["value"][:10], rtol=1e3 * EPS)


def test_settings_and_tolerances_can_be_mapped_over():
    def run(rate, tolerance):
        return minimize(bowl, start(1.0), method=descent(rate), args=(ONE,), gradient_tolerance=tolerance, steps=400)

    rates, tolerances = jnp.asarray([0.1, 0.5, 0.9], DTYPE), jnp.asarray([1e-2, 1e-3, 1e-1], DTYPE)
    found = jax.vmap(run)(rates, tolerances)
    expected = np.ceil(np.log(np.asarray(tolerances, float)) / np.log1p(-np.asarray(rates, float)))
    np.testing.assert_array_equal(found.iterations, expected)
    one = jax.jit(run)(rates[1], tolerances[1])
    np.testing.assert_allclose(one.params["x"], found.params["x"][1], rtol=10 * EPS)


# ── least squares ───────────────────────────────────────────────────────────────────────────────────────────────


def test_linear_least_squares_by_any_method_and_any_tree_of_residuals():
    rng = np.random.default_rng(1)
    a = np.linalg.qr(rng.normal(size=(12, 3)))[0] * [1.0, 0.7, 0.5]
    b = rng.normal(size=12)
    expected = np.linalg.lstsq(a, b, rcond=None)[0]
    a, b = jnp.asarray(a, DTYPE), jnp.asarray(b, DTYPE)

    def residuals(p, a, b):
        r = a @ p["x"] - b
        return {"first": r[:8].reshape(2, 4), "last": [r[8:]]}

    found = least_squares(residuals, start(0, 0, 0), method=descent(1.0), args=(a, b), gradient_tolerance=1e-5)
    assert int(found.outcome) == outcomes.CONVERGED
    np.testing.assert_allclose(found.params["x"], expected, atol=1e-4)
    left = np.asarray(a @ found.params["x"] - b)
    np.testing.assert_allclose(found.value, left @ left / 2, rtol=100 * EPS)
    np.testing.assert_allclose(found.gradient["x"], a.T @ left, atol=100 * EPS)


def test_methods_for_residuals_get_them():
    seen = []

    def move(problem, state):
        seen.append(jax.eval_shape(problem.residuals, state.params))
        direction = state.gradient
        params = jax.tree.map(lambda p, d: p - d, state.params, direction)
        assert dot(direction, direction).shape == ()
        return Move(params, *problem.value_and_grad(params), (), 1)

    asking = method("asking", lambda *_: (), move, "residuals")
    least_squares(lambda p: (p["x"], p["x"][:1]), start(1.0, 2.0), method=asking, steps=1)
    assert seen[0].shape == (3,)
