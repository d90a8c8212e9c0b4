"""activations: values and derivatives against hand-worked tables, textbook formulas in float64 and autodiff."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from jaxnet import activations

pytestmark = pytest.mark.numerical

TOLERANCE = 1e-12 if jax.config.jax_enable_x64 else 64 * float(np.finfo(np.float32).eps)
FLOATS = [jnp.bfloat16, jnp.float32] + ([jnp.float64] if jax.config.jax_enable_x64 else [])
ELEMENTWISE = [name for name in activations.named if name != "softmax"]
EPS = 2.0**-20
LOG2 = 0.6931471805599453

# name: (value, derivative) at each of POINTS, worked by hand: σ and tanh at 2 to 16 digits, series at ±ε
POINTS = [-1e4, -2.0, -EPS, 0.0, EPS, 2.0, 1e4]
SIGMOID = [0.0, 0.11920292202211755, 0.5 - EPS / 4, 0.5, 0.5 + EPS / 4, 0.8807970779778825, 1.0]
TABLE = {
    "identity": (POINTS, [1.0] * 7),
    "relu": ([0.0, 0.0, 0.0, 0.0, EPS, 2.0, 1e4], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
    "sigmoid": (SIGMOID, [0.0, 0.10499358540350652, 0.25, 0.25, 0.25, 0.10499358540350652, 0.0]),
    "tanh": (
        [-1.0, -0.9640275800758169, -EPS, 0.0, EPS, 0.9640275800758169, 1.0],
        [0.0, 0.07065082485316447, 1.0 - EPS**2, 1.0, 1.0 - EPS**2, 0.07065082485316447, 0.0],
    ),
    "softplus": (
        [0.0, 0.1269280110429725, LOG2 - EPS / 2, LOG2, LOG2 + EPS / 2, 2.1269280110429727, 1e4],
        SIGMOID,
    ),
}

# the formulas as books print them, for real and complex NumPy numbers
TEXTBOOK = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": lambda z: (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z)),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "softmax": lambda z: np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True),
}

arrays = st.lists(st.floats(-30, 30, width=32, allow_subnormal=False), min_size=16, max_size=16).map(np.array)
logits = st.lists(st.floats(-1e4, 1e4, width=32, allow_subnormal=False), min_size=16, max_size=16).map(
    lambda z: np.reshape(z, (4, 4))
)


def near(got, want):
    """The same shape, and equal to rounding, for numbers of order 1."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, strict=True)


@partial(jax.jit, static_argnums=0)
def both(f, x, dy):
    """The value, dx by the hand-written rule, dx by autodiff."""
    y, pullback = jax.vjp(f.value, x)
    return y, f.backward(x, dy), pullback(dy)[0]


def slope(f):
    return jax.jit(jax.vmap(jax.grad(f)))


def test_the_tables_cover_every_activation():
    assert set(TABLE) == set(ELEMENTWISE)
    assert set(TEXTBOOK) | {"relu"} == set(activations.named)


# ── values and derivatives ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.newer
@pytest.mark.source("GB-6.1-RELUDEFAULT", "GB-6.3.1-RELU", "GB-3.10-SOFTPLUS", "GB-4.1-OVER", "GB-6.3.2-SIGTANH")
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_table_of_values_and_derivatives(name):
    x, (value, derivative) = jnp.array(POINTS), TABLE[name]
    far = np.array([0, -1])  # at ±1e4 the limits are exact, without overflow on the way
    for got, want in zip(both(activations.named[name], x, jnp.ones(7)), (value, derivative, derivative), strict=True):
        near(got, want)
        np.testing.assert_array_equal(np.asarray(got)[far], np.array(want)[far])


@pytest.mark.source("GB-6.5.6-BPROP")
@pytest.mark.parametrize("name", sorted(set(TEXTBOOK) - {"softmax"}))
def test_textbook_formula_and_its_complex_step(name):
    f, x = activations.named[name], np.linspace(-30, 30, 241)
    step = TEXTBOOK[name](x + 1e-30j)
    y, by_hand, _ = both(f, jnp.array(x), jnp.ones(241))
    near(y, step.real)
    near(by_hand, step.imag / 1e-30)


@pytest.mark.parametrize("name", ["identity", "sigmoid", "tanh", "softmax"])
def test_complex_step_through_the_implementation(name):
    # not softplus: jnp.logaddexp wraps the imaginary part and so loses a step of 1e-20
    f = activations.named[name]
    x, direction = jnp.array([[-2.0, 0.25, 1.5], [0.5, 0.0, -1.0]]), jnp.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])
    step = f(x + 1e-20j * direction).imag / 1e-20
    dy = jnp.array([[0.5, -1.0, 2.0], [1.0, 0.25, -0.75]])
    near(jnp.sum(f.backward(x, dy) * direction), float(jnp.sum(dy * step)))


@pytest.mark.source("GB-3.12-AE", "GB-6.3-NONDIFF")
@pytest.mark.parametrize("name", activations.named)
def test_hand_rule_is_the_vjp_at_random_inputs_and_at_zeros(name):
    x, dy = np.random.default_rng(0).normal(0, 3, (2, 50, 4)).astype(np.float32)
    assert np.all(x != 0)  # a kink is hit with probability zero, so it's put in by hand
    for inputs in (x, np.where(x < 0, -0.0, 0.0), np.where(dy < 0, 0.0, x)):
        _, by_hand, by_autodiff = both(activations.named[name], jnp.asarray(inputs, float), jnp.asarray(dy, float))
        near(by_hand, by_autodiff)


@pytest.mark.source("GB-6.3-NONDIFF")
def test_relu_has_derivative_zero_at_zero_on_both_roads():
    y, by_hand, by_autodiff = both(activations.relu, jnp.array([0.0, -0.0]), jnp.ones(2))
    assert [a.tolist() for a in (y, by_hand, by_autodiff)] == [[0.0, 0.0]] * 3


@pytest.mark.source("GB-6.3.1-RELU")
def test_relu_has_no_curvature():
    x, c = jnp.array([-2.0, -EPS, EPS, 3.0]), jnp.array([1.0, -2.0, 3.0, 4.0])
    curvature = jax.jit(jax.hessian(lambda x: jnp.sum(c * activations.relu(x))))(x)
    by_rule = jax.jit(jax.jacobian(lambda x: activations.relu.backward(x, c)))(x)
    np.testing.assert_array_equal(curvature, np.zeros((4, 4)))
    np.testing.assert_array_equal(by_rule, np.zeros((4, 4)))


# ── identities ──────────────────────────────────────────────────────────────────────────────────────────────────

sigmoid, softplus, tanh, relu = activations.sigmoid, activations.softplus, activations.tanh, activations.relu
relu_slope = slope(relu)
# numbered as in Goodfellow: what the implementation gives, what it must equal
IDENTITIES = {
    "3.33": (sigmoid, lambda x: np.exp(x) / (np.exp(x) + 1)),
    "3.34": (slope(sigmoid), lambda x: scipy.special.expit(x) * scipy.special.expit(-x)),  # σ′ = σ (1 − σ)
    "3.35": (lambda x: 1 - sigmoid(x), lambda x: sigmoid(-x)),
    "3.36": (lambda x: -softplus(-x), scipy.special.log_expit),  # log σ(x) = −ζ(−x)
    "3.37": (slope(softplus), sigmoid),
    "3.38": (lambda x: sigmoid(scipy.special.logit(scipy.special.expit(x))), scipy.special.expit),
    "3.39": (lambda x: softplus(np.log(np.expm1(np.abs(x) + 1e-3))), lambda x: np.abs(x) + 1e-3),
    "3.41": (lambda x: softplus(x) - softplus(-x), lambda x: x),
    "6.39": (tanh, lambda x: 2 * np.asarray(sigmoid(2 * x), np.float64) - 1),
    "tanh' = 1 - tanh^2": (slope(tanh), lambda x: 1 - np.tanh(x) ** 2),
    "parts differ by x": (lambda x: relu(x) - relu(-x), lambda x: x),
    "slopes of the parts add to 1, but at 0": (lambda x: relu_slope(x) + relu_slope(-x), lambda x: 1.0 * (x != 0)),
}


@pytest.mark.source("GB-3.10-IDS", "GB-3.10-POSNEG", "GB-6.3.2-SIGTANH")
@pytest.mark.parametrize("identity", IDENTITIES)
@given(x=arrays)
def test_identities(identity, x):
    left, right = IDENTITIES[identity]
    near(left(x.astype(jnp.result_type(float))), np.asarray(right(x), np.float64))


@pytest.mark.source("GB-3.10-IDS")
def test_softplus_is_the_integral_of_sigmoid():
    """Goodfellow 3.40, by 20-point Gauss–Legendre on the unit intervals of [−60, 30]."""
    node, weight = np.polynomial.legendre.leggauss(20)
    ends = np.arange(-59, 31)
    pieces = np.asarray(sigmoid(jnp.asarray(ends[:, None] - 0.5 + node / 2)), np.float64) @ (weight / 2)
    near(softplus(jnp.asarray(ends, jnp.result_type(float))), np.cumsum(pieces) + np.exp(-60.0))


@pytest.mark.source("GB-3.10-SIG")
def test_sigmoid_saturates_where_the_precision_ends():
    x = jnp.array([-10.0, 0.0, 10.0])
    near(sigmoid(x), [4.5397868702434395e-05, 0.5, 0.9999546021312976])
    for dtype, edge in ((jnp.float32, 16.64), (jnp.float64, 36.74)):
        if dtype in FLOATS:
            below, above = np.asarray(sigmoid(jnp.array([edge - 0.4, edge + 0.1], dtype)))
            assert below < 1
            assert above == 1
    left = np.asarray(sigmoid(jnp.array([-20.0, -80.0], jnp.float32)), np.float64)
    np.testing.assert_allclose(left, np.exp([-20.0, -80.0]), rtol=1e-5)  # its left tail keeps its digits


# ── softmax ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-4.1-SMCONST", "GB-4.1-SMSHIFT")
@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize("c", [0.0, 1e3, -1e3, 1e4, -1e4])
def test_softmax_of_equal_inputs_is_exactly_one_nth(c, n):
    z = np.full((1, n), c, jnp.result_type(float))
    np.testing.assert_array_equal(activations.softmax(jnp.asarray(z)), np.full_like(z, 1) / n)
    with np.errstate(all="ignore"):
        assert np.isnan(TEXTBOOK["softmax"](z)).all() == (c != 0)  # 0/0 or ∞/∞ without the shift


@pytest.mark.source("GB-4.1-SMSHIFT", "GB-6.2.2.3-INV")
@pytest.mark.parametrize("shift", [-1e4, -100.0, 100.0, 1e4])
def test_softmax_ignores_a_common_shift(shift):
    z = jnp.array([[-2.0, 0.5, 1.0, 4.0], [0.125, 3.0, -1.25, 0.0]])  # z + shift is exact, so the rest is, too
    np.testing.assert_array_equal(activations.softmax(z + shift), activations.softmax(z))
    dy = jnp.array([[1.0, -1.0, 2.0, 0.5], [0.0, 1.0, 0.25, -3.0]])
    np.testing.assert_array_equal(activations.softmax.backward(z + shift, dy), activations.softmax.backward(z, dy))
    near(jnp.sum(activations.softmax.backward(z + shift, dy), axis=-1), [0.0, 0.0])


@pytest.mark.newer
@pytest.mark.source("GB-6.2.2.3-SOFTMAX")
@pytest.mark.parametrize("z", [[0.0, 1.0, -2.0, 0.5], [3.0, 3.0, 3.0, 3.0], [20.0, -20.0, 0.0, 19.0]])
def test_softmax_value_and_jacobian(z):
    z, q = np.array(z), scipy.special.softmax(z)
    jacobian = np.diag(q) - np.outer(q, q)
    step = np.stack([TEXTBOOK["softmax"](z + 1e-30j * e).imag / 1e-30 for e in np.eye(4)], axis=1)
    rows, by_hand, by_autodiff = both(activations.softmax, jnp.array([z] * 4), jnp.eye(4))
    near(rows, np.array([q] * 4))
    for want in (jacobian, step):
        near(by_hand, want)
        near(by_autodiff, want)


@pytest.mark.source("GB-4.1-SMSHIFT", "GB-4.1-OVER")
def test_softmax_and_its_gradient_at_huge_inputs():
    z = jnp.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4 - 16], [1e4, 1e4, -1e4]])
    q = np.array([[1.0, 0.0, 0.0], scipy.special.softmax([0.0, 0.0, -16.0]), [0.5, 0.5, 0.0]])
    dy = np.array([[1.0, 2.0, 3.0], [1.0, -1.0, 0.5], [2.0, -2.0, 7.0]])
    analytic = q * dy - q * (q * dy).sum(axis=1, keepdims=True)
    for got, want in zip(both(activations.softmax, z, jnp.asarray(dy)), (q, analytic, analytic), strict=True):
        near(got, want)


@pytest.mark.source("GB-3.3-PMF", "GB-6.2.2.3-SOFTMAX", "GB-6.2.2.3-SOFTARGMAX")
@given(z=logits)
def test_softmax_is_a_distribution_that_keeps_the_order(z):
    q = np.asarray(activations.softmax(jnp.asarray(z)), np.float64)
    assert (q >= 0).all()
    near(q.sum(axis=1), np.ones(4))
    assert (np.diff(np.take_along_axis(q, np.argsort(z, axis=1), axis=1), axis=1) >= 0).all()
    # a soft argmax: the mean of z under q never exceeds the largest
    assert (np.sum(q * z, axis=1) <= z.max(axis=1) + TOLERANCE * 1e4).all()


@pytest.mark.source("GB-6.2.2.3-SOFTARGMAX")
def test_softmax_tends_to_one_hot_as_the_temperature_falls():
    z = np.array([[0.5, 2.0, -1.0, 1.0]])
    off = [float(np.abs(activations.softmax(jnp.asarray(z / t)) - np.eye(4)[[1]]).max()) for t in (1.0, 0.3, 0.1, 1e-3)]
    assert off == sorted(off, reverse=True)
    assert off[-1] == 0


@pytest.mark.source("GB-6.2.2.3-NMINUS1", "H-ce")
@given(z=arrays)
def test_softmax_of_zero_and_z_is_the_sigmoid(z):
    pair = jnp.stack([jnp.zeros(16), jnp.asarray(z, jnp.result_type(float))], axis=1)
    near(activations.softmax(pair)[:, 1], np.asarray(sigmoid(pair[:, 1]), np.float64))


# ── types, names ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-6.5.8-DTYPES")
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", activations.named)
def test_dtype_and_shape_stay_under_strict_promotion(name, dtype):
    f = activations.named[name]
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        x = jnp.array([[-1.5, 0.0, 2.0]], dtype)
        results = both(f, x, x)
    eps = float(jnp.finfo(dtype).eps)
    for got, want in zip(results, both(f, x.astype(jnp.float32), x.astype(jnp.float32)), strict=True):
        assert (got.dtype, got.shape, got.weak_type) == (dtype, (1, 3), False)
        np.testing.assert_allclose(np.asarray(got, np.float32), want, rtol=0, atol=max(4 * eps, 1e-6))


@pytest.mark.source("GB-6.5.8-UNDEF")
@pytest.mark.parametrize("name", activations.named)
def test_no_nan_on_any_way_to_value_and_gradient(name):
    f, x = activations.named[name], jnp.array([-1e4, -0.0, 0.0, 1e4])
    with jax.debug_nans(True):  # raises at the first NaN, intermediate ones included
        results = f(x), f.backward(x, x), jax.vjp(f.value, x)[1](x)[0]
    assert all(np.isfinite(a).all() for a in results)


def test_get_by_name_or_as_it_is():
    mine = activations.Activation("mine", jnp.sin, lambda x, dy: dy * jnp.cos(x))
    assert activations.get(mine) is mine
    assert all(activations.get(name) is f for name, f in activations.named.items())
    assert {f.name for f in activations.named.values() if f.relu_like} == {"relu", "softplus"}
    assert repr(activations.tanh) == "<activation tanh>"


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"got activation 'rleu'; expected one of identity, relu, .*, or an Activation"
    ):
        activations.get("rleu")
