"""Newton's method on quadratics, saddles and classic functions: fixed, adapted and with absolute curvature."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import losses, outcomes
from jaxnet.optimizers.second_order.method import of_function
from jaxnet.optimizers.second_order.minimization import minimize
from jaxnet.optimizers.second_order.newton import newton
from jaxnet.optimizers.second_order.saddle_free import saddle_free_newton

pytestmark = [pytest.mark.numerical, pytest.mark.float64]
FLOAT = jnp.result_type(float)
X64 = jax.config.jax_enable_x64
RTOL = 1e-10 if X64 else 1e-3
PLAIN, ADAPTED, SADDLE_FREE = newton(damping=0.0), newton(), saddle_free_newton()


def stepped(method, fun, params, steps=1):
    """The state after so many steps."""
    problem = of_function(fun)

    @jax.jit
    def run(params):
        return jax.lax.scan(
            lambda s, _: (method.step(problem, s), s.params), method.init(problem, params), None, steps
        )[0]

    return run(params)


def array(values):
    return jnp.asarray(values, FLOAT)


@pytest.mark.source("H-3.28", "GB-4.3.1-NEWTON", "GB-8.6.1-Newton")
@pytest.mark.parametrize("method", [PLAIN, ADAPTED, SADDLE_FREE], ids=lambda m: m.name)
def test_one_step_solves_a_quadratic(method):
    """Of 20 drawn ones, condition numbers up to 10⁴; the parameters are a tree."""
    rng = np.random.default_rng(1)
    q = np.linalg.qr(rng.normal(size=(20, 5, 5)))[0]
    matrices = np.einsum("nij,nj,nkj->nik", q, 10.0 ** rng.uniform(-2, 2, (20, 5)), q)
    b, start = rng.normal(size=(20, 5)), rng.normal(size=(20, 5))

    def one(matrix, b, start):
        def f(p):
            x = jnp.concatenate([p["u"], p["v"].ravel()])
            return x @ matrix @ x / 2 - b @ x

        state = stepped(method, f, {"u": start[:1], "v": start[1:].reshape(2, 2)})
        return jnp.concatenate([state.params["u"], state.params["v"].ravel()]), state.iteration

    found, _ = jax.jit(jax.vmap(one))(array(matrices), array(b), array(start))
    expected = np.linalg.solve(matrices, b[..., None])[..., 0]
    np.testing.assert_allclose(found, expected, atol=10 * RTOL * np.abs(expected).max())


@pytest.mark.source("H-E3.1")
def test_three_points_are_fitted_by_one_step():
    p, t = array([-1, 0, 1]), array([-1.5, 0.5, 2.5])

    def squares(theta):
        return jnp.sum((t - theta["w"] * p - theta["b"]) ** 2)

    start = {"w": array(0), "b": array(0)}
    gradient = jax.grad(squares)(start)
    np.testing.assert_allclose([gradient["w"], gradient["b"]], [-8, -3], rtol=RTOL)
    found = stepped(PLAIN, squares, start).params
    np.testing.assert_allclose([found["w"], found["b"]], [2, 0.5], rtol=RTOL)


@pytest.mark.source("GB-4.5-NEWTLS")
def test_one_step_from_anywhere_is_least_squares():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(9, 4)), rng.normal(size=9)
    for start in rng.normal(size=(2, 4)) * 10:
        found = stepped(PLAIN, lambda x: jnp.sum((array(a) @ x - array(b)) ** 2) / 2, array(start)).params
        np.testing.assert_allclose(found, np.linalg.lstsq(a, b)[0], rtol=RTOL, atol=RTOL)


@pytest.mark.source("GB-8.6.1-damped")
def test_the_damped_step():
    """It's NumPy's; below the lowest eigenvalue's damping it may go up, above it down, in the end along −g, g/λ."""
    matrix = np.diag([3.0, 1.0, -0.5])
    x = np.array([1.0, -2.0, 0.3])
    g = matrix @ x

    @jax.jit
    def step(damping):
        f = of_function(lambda x: x @ array(matrix) @ x / 2)
        method = newton(damping=damping)
        return method.step(f, method.init(f, array(x))).params - array(x)

    cosines = []
    for damping in (0.0, 0.6, 3.0, 1e2, 1e4):
        d = np.asarray(step(array(damping)), np.float64)
        np.testing.assert_allclose(d, -np.linalg.solve(matrix + damping * np.eye(3), g), rtol=10 * RTOL)
        cosines.append(-d @ g / np.linalg.norm(d) / np.linalg.norm(g))
        assert damping <= 0.5 or d @ g < 0
    assert cosines[1:] == sorted(cosines[1:])
    assert cosines[-1] > 1 - 1e-6
    np.testing.assert_allclose(d, -g / 1e4, rtol=1e-3)


def quartic(x):
    return jnp.sum((x - jnp.arange(1.0, 4.0, dtype=x.dtype)) ** 4) + jnp.sum(x**2) + x[0] * x[1]


def test_affine_changes_of_variables_change_nothing():
    rng = np.random.default_rng(1)
    m, c = rng.normal(size=(3, 3)) + 3 * np.eye(3), rng.normal(size=3)
    x = rng.normal(size=3)
    ours = stepped(PLAIN, lambda y: quartic(array(m) @ y + array(c)), array(np.linalg.solve(m, x - c)), 4)
    np.testing.assert_allclose(m @ np.asarray(ours.params) + c, stepped(PLAIN, quartic, array(x), 4).params, rtol=RTOL)


@pytest.mark.source("GB-8.6.1-Newton", "GB-8.6-objective")
def test_errors_square_on_logistic_regression():
    """The mean loss over the examples, from the last iterates before rounding."""
    rng = np.random.default_rng(1)
    x = array(rng.normal(size=(50, 3)))
    y = array(rng.random(50) < 1 / (1 + np.exp(-np.asarray(x) @ [1.0, -1.0, 0.5])))

    def mean_loss(w):
        return jnp.mean(losses.sigmoid_cross_entropy((x @ w)[:, None], y)) + 0.01 * jnp.sum(w**2)

    problem = of_function(mean_loss)
    path = jax.jit(
        lambda w: jax.lax.scan(lambda s, _: (PLAIN.step(problem, s), s.params), PLAIN.init(problem, w), None, 8)[1]
    )(jnp.zeros(3, FLOAT))
    errors = np.linalg.norm(path - path[-1], axis=1)
    kept = errors[(errors > (1e-12 if X64 else 1e-6))]
    assert len(kept) >= 3
    assert np.all(kept[1:] < 2 * kept[:-1] ** 2), errors
    assert np.max(np.abs(jax.grad(mean_loss)(path[-1]))) < (1e-14 if X64 else 1e-6)


@pytest.mark.source("GB-4.3.1-SADDLE", "GB-4.3.1-NEWTSADDLE", "GB-8.2.3-newton-saddle", "GB-8.2.3-saddle-free-newton")
def test_a_saddle_attracts_newton_alone():
    def saddle(x):
        return x[0] ** 2 - x[1] ** 2

    assert np.linalg.eigvalsh(jax.hessian(saddle)(jnp.ones(2, FLOAT))).tolist() == [-2, 2]
    start = array([1, 1e-3])
    assert stepped(PLAIN, saddle, start).params.tolist() == [0, 0]
    descent = np.asarray(start)
    for _ in range(50):
        descent = descent - 0.1 * np.array([2, -2]) * descent
    assert abs(descent[0]) < 1e-4
    assert descent[1] > 1
    free = stepped(SADDLE_FREE, saddle, start)
    np.testing.assert_allclose(free.params, [0, 2e-3], atol=1e-9)  # as far from it as Newton would have gone to it
    damped = stepped(ADAPTED, saddle, start)
    assert damped.params[1] > start[1]
    assert damped.value < saddle(start)


def test_saddles_are_left_for_minima():
    """x² − y² + y⁴ has a saddle at 0 and minima at (0, ±√½) with the value −¼."""

    def two_wells(x):
        return x[0] ** 2 - x[1] ** 2 + x[1] ** 4

    start = array([1, 0.05])
    for method in (ADAPTED, SADDLE_FREE):
        found = minimize(two_wells, start, method=method, steps=50)
        assert outcomes.word(found.outcome) == "converged"
        np.testing.assert_allclose(found.value, -0.25, atol=1e-6)


TIMES = np.arange(1, 21) / 5
CLASSIC = {
    "Rosenbrock": (lambda x: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2, [-1.2, 1], 0.0),
    "Brown": (lambda x: (x[0] - 1e6) ** 2 + (x[1] - 2e-6) ** 2 + (x[0] * x[1] - 2) ** 2, [1, 1], 0.0),
    "Brown and Dennis": (
        lambda x: jnp.sum(
            (
                (x[0] + TIMES.astype(x.dtype) * x[1] - np.exp(TIMES).astype(x.dtype)) ** 2
                + (x[2] + x[3] * np.sin(TIMES).astype(x.dtype) - np.cos(TIMES).astype(x.dtype)) ** 2
            )
            ** 2
        ),
        [25, 5, -5, -1],
        85822.2016263563,
    ),
}


@pytest.mark.parametrize(
    ("method", "name"),
    [*((ADAPTED, n) for n in CLASSIC), (SADDLE_FREE, "Rosenbrock")],
    ids=lambda v: getattr(v, "name", v),
)
def test_classic_functions_are_solved_and_the_value_never_rises(method, name):
    f, start, lowest = CLASSIC[name]
    found = minimize(f, array(start), method=method, steps=100)
    values = np.asarray(found.history["value"])[: int(found.iterations) + 1]
    assert np.all(np.diff(values) <= 0)
    assert values[-1] == found.value
    assert outcomes.word(found.outcome) == "converged"
    assert np.max(np.abs(jax.grad(f)(found.params))) <= 1e-5
    np.testing.assert_allclose(found.value, lowest, rtol=1e-10, atol=1e-8)


def test_float32_ends_honestly():
    """A value of 85822 is rounded to 0.008: no step lowers it further, and the gradient isn't small."""
    f, start, _ = CLASSIC["Brown and Dennis"]
    found = minimize(f, jnp.asarray(start, jnp.float32), method=ADAPTED, steps=100)
    assert found.value.dtype == jnp.float32
    assert outcomes.word(found.outcome) == "damping exhausted"
    assert float(found.gradient_norm) > 1e-5
    np.testing.assert_allclose(found.value, 85822.2, atol=0.05)


def kinked(x):
    """|x₀| + x₁², with JAX's slope 1 at the kink."""
    return jnp.abs(x[0]) + x[1] ** 2


@pytest.mark.parametrize(
    ("fun", "start", "word"),
    [
        (kinked, [0, 0], "damping exhausted"),
        (lambda x: jnp.sum(x + x**1.5), [0, 0], "non-finite"),  # finite with its gradient, the curvature isn't
        (lambda x: jnp.sum(jnp.sqrt(x) + 1 / x), [9, 0.1], "converged"),  # NaN beyond 0: the step is shortened
    ],
    ids=["kink", "infinite curvature", "NaN region"],
)
def test_outcomes(fun, start, word):
    found = minimize(fun, array(start), method=ADAPTED, steps=60)
    assert outcomes.word(found.outcome) == word
    assert np.all(np.isfinite(found.params))
    assert np.all(np.isfinite(found.gradient))


def test_singular_curvature_without_damping():
    """LU meets an exact zero: no finite step."""
    state = stepped(PLAIN, lambda x: (x[0] + x[1]) ** 2, array([1, 2]))
    assert state.outcome == outcomes.NON_FINITE
    assert state.params.tolist() == [1, 2]


@pytest.mark.parametrize("method", [ADAPTED, SADDLE_FREE], ids=lambda m: m.name)
def test_a_nan_member_ends_alone(method):
    """Its neighbours keep their bits."""
    rng = np.random.default_rng(1)

    def f(x, nan):
        return quartic(x) + nan

    def run(starts, nans):
        return jax.vmap(lambda x, nan: minimize(f, x, method=method, args=(nan,), steps=20, gradient_tolerance=1e-6))(
            starts, nans
        )

    starts = array(rng.normal(size=(8, 3)) * 3)
    nans = jnp.zeros(8, FLOAT)
    run = jax.jit(run)
    sound, hurt = run(starts, nans), run(starts, nans.at[3].set(jnp.nan))
    assert np.all(sound.outcome != outcomes.NON_FINITE)
    assert hurt.outcome[3] == outcomes.NON_FINITE
    kept = np.arange(8) != 3
    for a, b in zip(jax.tree.leaves(sound), jax.tree.leaves(hurt), strict=True):
        np.testing.assert_array_equal(a[kept], b[kept])


def test_scanned_is_looped():
    problem = of_function(quartic)
    scanned = stepped(ADAPTED, quartic, array([3, -1, 9]), 4)
    state, step = (
        jax.jit(lambda x: ADAPTED.init(problem, x))(array([3, -1, 9])),
        jax.jit(partial(ADAPTED.step, problem)),
    )
    for _ in range(4):
        state = step(state)
    for a, b in zip(jax.tree.leaves(scanned), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.source("GB-8.6.1-cost")
def test_large_parameter_counts_are_refused_before_compiling():
    for method in (ADAPTED, PLAIN, SADDLE_FREE):
        with pytest.raises(ValueError, match=r"got arrays of 16,000\.0 GB together.*1,000,000 parameters.*lbfgs"):
            jax.eval_shape(
                lambda p: method.init(of_function(lambda p: jnp.sum(p**2)), p),
                jax.ShapeDtypeStruct((10**6,), jnp.float32),
            )


@pytest.mark.parametrize("damping", [-1.0, float("nan"), float("inf")])
def test_impossible_damping_is_refused(damping):
    with pytest.raises(ValueError, match="expected a finite number ≥ 0, or None"):
        newton(damping=damping)
