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
DIFFERENTIABLE = [name for name, f in activations.named.items() if f.differentiable]
ELEMENTWISE = [name for name in activations.named if "softmax" not in name]
EPS = 2.0**-20
LOG2 = 0.6931471805599453
LAMBDA, SELU = 1.0507009873554805, 1.7580993408473766  # λ and λα
DENSITY = 0.3989422804014327  # of the normal distribution at 0

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
    "step": ([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0], None),
    "hard_sigmoid": (
        [0.0, 1 / 6, 0.5 - EPS / 6, 0.5, 0.5 + EPS / 6, 5 / 6, 1.0],
        [0.0, 1 / 6, 1 / 6, 1 / 6, 1 / 6, 1 / 6, 0.0],
    ),
    "hard_tanh": ([-1.0, -1.0, -EPS, 0.0, EPS, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 0.0]),
    "absolute": ([1e4, 2.0, EPS, 0.0, EPS, 2.0, 1e4], [-1.0, -1.0, -1.0, 0.0, 1.0, 1.0, 1.0]),
    "leaky_relu": ([-100.0, -0.02, -EPS / 100, 0.0, EPS, 2.0, 1e4], [0.01, 0.01, 0.01, 0.01, 1.0, 1.0, 1.0]),
    "elu": (
        [-1.0, -0.8646647167633873, -EPS + EPS**2 / 2, 0.0, EPS, 2.0, 1e4],
        [0.0, 0.1353352832366127, 1 - EPS + EPS**2 / 2, 1.0, 1.0, 1.0, 1.0],
    ),
    "selu": (
        [-SELU, -0.8646647167633873 * SELU, SELU * (-EPS + EPS**2 / 2), 0.0, LAMBDA * EPS, LAMBDA * 2, LAMBDA * 1e4],
        [0.0, 0.1353352832366127 * SELU, SELU * (1 - EPS + EPS**2 / 2), SELU, LAMBDA, LAMBDA, LAMBDA],
    ),
    "silu": (
        [0.0, -0.23840584404423517, -EPS / 2 + EPS**2 / 4, 0.0, EPS / 2 + EPS**2 / 4, 1.7615941559557649, 1e4],
        [0.0, -0.09078424878489548, 0.5 - EPS / 2, 0.5, 0.5 + EPS / 2, 1.0907842487848955, 1.0],
    ),
    "gelu": (
        [
            0.0,
            -0.04550026389635839,
            -EPS / 2 + EPS**2 * DENSITY,
            0.0,
            EPS / 2 + EPS**2 * DENSITY,
            1.9544997361036416,
            1e4,
        ],
        [0.0, -0.08523180107819693, 0.5 - 2 * EPS * DENSITY, 0.5, 0.5 + 2 * EPS * DENSITY, 1.085231801078197, 1.0],
    ),
    "gelu_tanh": (
        [
            0.0,
            -0.04540230591222397,
            -EPS / 2 + EPS**2 * DENSITY,
            0.0,
            EPS / 2 + EPS**2 * DENSITY,
            1.954597694087776,
            1e4,
        ],
        [0.0, -0.08609925662361828, 0.5 - 2 * EPS * DENSITY, 0.5, 0.5 + 2 * EPS * DENSITY, 1.0860992566236183, 1.0],
    ),
    "softsign": (
        [-1e4 / 10001, -2 / 3, -EPS + EPS**2, 0.0, EPS - EPS**2, 2 / 3, 1e4 / 10001],
        [10001.0**-2, 1 / 9, 1 - 2 * EPS + 3 * EPS**2, 1.0, 1 - 2 * EPS + 3 * EPS**2, 1 / 9, 10001.0**-2],
    ),
    "cosine": (
        [
            -0.9521553682590149,
            -0.4161468365471424,
            1 - EPS**2 / 2,
            1.0,
            1 - EPS**2 / 2,
            -0.4161468365471424,
            -0.9521553682590149,
        ],
        [-0.305614388888252, 0.9092974268256817, EPS, 0.0, -EPS, -0.9092974268256817, 0.305614388888252],
    ),
}
PIECEWISE = {"relu", "step", "hard_sigmoid", "hard_tanh", "absolute", "leaky_relu", "elu", "selu", "softsign"}

# the formulas as books print them, for real and complex NumPy numbers
TEXTBOOK = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": lambda z: (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z)),
    "softplus": lambda z: np.log1p(np.exp(z)),
    "softmax": lambda z: np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True),
    "log_softmax": lambda z: z - np.log(np.exp(z).sum(axis=-1, keepdims=True)),
    "silu": lambda z: z / (1 + np.exp(-z)),
    "gelu": lambda z: z * (1 + scipy.special.erf(z / 2**0.5)) / 2,
    "gelu_tanh": lambda z: z / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (z + 0.044715 * z**3))),
    "cosine": np.cos,
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
    assert set(TEXTBOOK) | PIECEWISE == set(activations.named)


# ── values and derivatives ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.newer
@pytest.mark.source("GB-6.1-RELUDEFAULT", "GB-6.3.1-RELU", "GB-3.10-SOFTPLUS", "GB-4.1-OVER", "GB-6.3.2-SIGTANH")
@pytest.mark.source("M-3a", "GB-6.3.1-LEAKY", "GB-6.3.1-ABS", "GB-6.3.3-HTANH", "GB-6.3.3-COS")
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_table_of_values_and_derivatives(name):
    f, x, (value, derivative) = activations.named[name], jnp.array(POINTS), TABLE[name]
    got = both(f, x, jnp.ones(7)) if f.differentiable else (jax.jit(f.value)(x),)
    far = np.array([0, -1])  # at ±1e4 the limits are exact, without overflow on the way
    for a, want in zip(got, (value, derivative, derivative), strict=False):
        near(a, want)
        if name not in ("selu", "softsign", "cosine", "leaky_relu"):
            np.testing.assert_array_equal(np.asarray(a)[far], np.array(want)[far])


@pytest.mark.source("GB-6.5.6-BPROP")
@pytest.mark.parametrize("name", sorted(set(TEXTBOOK) - {"softmax", "log_softmax"}))
def test_textbook_formula_and_its_complex_step(name):
    f, x = activations.named[name], np.linspace(-30, 30, 241)
    step = TEXTBOOK[name](x + 1e-30j)
    y, by_hand, _ = both(f, jnp.array(x), jnp.ones(241))
    size = np.maximum(1, np.abs(x))  # the value of a product with x is rounded in units of x
    near(y / size, step.real / size)
    near(by_hand, step.imag / 1e-30)


@pytest.mark.parametrize("name", ["identity", "sigmoid", "tanh", "softmax", "log_softmax", "silu", "cosine"])
def test_complex_step_through_the_implementation(name):
    # not softplus: jnp.logaddexp wraps the imaginary part and so loses a step of 1e-20
    f = activations.named[name]
    x, direction = jnp.array([[-2.0, 0.25, 1.5], [0.5, 0.0, -1.0]]), jnp.array([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])
    step = f(x + 1e-20j * direction).imag / 1e-20
    dy = jnp.array([[0.5, -1.0, 2.0], [1.0, 0.25, -0.75]])
    near(jnp.sum(f.backward(x, dy) * direction), float(jnp.sum(dy * step)))


@pytest.mark.source("GB-3.12-AE", "GB-6.3-NONDIFF")
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_hand_rule_is_the_vjp_at_random_inputs_and_at_zeros(name):
    x, dy = np.random.default_rng(0).normal(0, 3, (2, 50, 4)).astype(np.float32)
    assert np.all(x != 0)  # a kink is hit with probability zero, so it's put in by hand
    edges = np.sign(x) * np.where(dy < 0, 1, 3).astype(np.float32)  # the ends of hard tanh and hard sigmoid
    for inputs in (x, np.where(x < 0, -0.0, 0.0), np.where(dy < 0, 0.0, x), edges):
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


# the derivative at each kink that this toolkit has settled on; torch's own, but for |x|, where both have 0
KINKS = {
    "relu": ([0.0], [0.0]),
    "leaky_relu": ([0.0], [0.01]),
    "absolute": ([0.0], [0.0]),
    "hard_tanh": ([-1.0, 1.0], [0.0, 0.0]),
    "hard_sigmoid": ([-3.0, 3.0], [0.0, 0.0]),
    "elu": ([0.0], [1.0]),
    "selu": ([0.0], [SELU]),
}


@pytest.mark.source("GB-6.3-NONDIFF", "GB-6.3.3-HTANH", "GB-6.3.1-ABS")
@pytest.mark.parametrize("name", KINKS)
def test_the_derivative_at_a_kink_on_both_roads(name):
    x, want = KINKS[name]
    _, by_hand, by_autodiff = both(activations.named[name], jnp.array(x), jnp.ones(len(x)))
    near(by_hand, want)
    near(by_autodiff, want)


@pytest.mark.source("GB-6.3.1-ABS")
def test_jax_itself_has_another_slope_of_the_absolute_value_at_zero():
    assert float(jax.grad(jnp.abs)(0.0)) == 1  # so `absolute` isn't `jnp.abs`
    x = jnp.array([-jnp.inf, -1e-37, -0.0, 1e38, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(activations.absolute(x), np.abs(np.asarray(x)))


@pytest.mark.source("GB-6.3.1-GENREL")
@pytest.mark.parametrize(
    ("slope", "name"), [(0.0, "relu"), (1.0, "identity"), (-1.0, "absolute"), (0.01, "leaky_relu")]
)
def test_rectifiers_of_other_slopes_are_known_units(slope, name):
    x, dy = np.random.default_rng(0).normal(0, 3, (2, 40)).astype(jnp.result_type(float))
    got, want = both(activations.rectifier(slope), x, dy), both(activations.named[name], x, dy)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    traced = jax.jit(lambda a: activations.rectifier(a)(x))(slope)
    near(traced, np.maximum(x, 0) + slope * np.minimum(x, np.float64(0)))
    at_zero = both(activations.rectifier(slope), jnp.zeros(1), jnp.ones(1))
    assert [float(a[0]) for a in at_zero] == [0, *[float(jnp.asarray(slope, float))] * 2]


@pytest.mark.source("M-3a")
def test_the_step_refuses_every_way_to_its_derivative():
    f, x = activations.step, jnp.array([-1.0, 0.0, 2.0])
    sentence = r"step: got asked for its derivative, which is 0 everywhere.*train with sigmoid or relu"
    roads = (
        lambda: f.backward(x, x),
        lambda: jax.grad(lambda x: jnp.sum(f(x)))(x),
        lambda: jax.jit(jax.grad(lambda x: jnp.sum(jax.jit(f.value)(x))))(x),
        lambda: jax.jvp(f.value, (x,), (x,)),
    )
    for road in roads:
        with pytest.raises(TypeError, match=sentence):
            road()
    stopped = jax.grad(lambda x: jnp.sum(x * f(jax.lax.stop_gradient(x))))(x)  # what the sentence advises
    assert stopped.tolist() == [0, 1, 1]
    assert np.isnan(f(jnp.array([jnp.nan]))).all()


@pytest.mark.source("M-3a", "GB-6.5.8-DTYPES")
@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.__name__)
def test_the_step_keeps_its_dtype(dtype):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        y = jax.jit(activations.step.value)(jnp.array([[-1.5, -0.0, 2.0]], dtype))
    assert (y.dtype, y.tolist()) == (dtype, [[0, 1, 1]])


TORCH = {
    "relu": ("relu", {}),
    "sigmoid": ("sigmoid", {}),
    "tanh": ("tanh", {}),
    "softplus": ("softplus", {"threshold": 1e9}),
    "softmax": ("softmax", {"dim": -1}),
    "log_softmax": ("log_softmax", {"dim": -1}),
    "hard_sigmoid": ("hardsigmoid", {}),
    "hard_tanh": ("hardtanh", {}),
    "leaky_relu": ("leaky_relu", {}),
    "elu": ("elu", {}),
    "selu": ("selu", {}),
    "silu": ("silu", {}),
    "gelu": ("gelu", {}),
    "gelu_tanh": ("gelu", {"approximate": "tanh"}),
    "softsign": ("softsign", {}),
}


@pytest.mark.parametrize("name", TORCH)
def test_values_and_gradients_are_those_of_torch(name):
    torch = pytest.importorskip("torch")
    function, settings = TORCH[name]
    rng = np.random.default_rng(0)
    x, dy = rng.normal(0, 3, (30, 4)), rng.normal(0, 1, (30, 4))
    x[:5] = [
        [0.0, 1.0, -1.0, 3.0],
        [-3.0, 0.0, 0.0, 0.0],
        [30.0, -30.0, 8.0, -8.0],
        [100.0, -100.0, 0.0, 1.0],
        [5.0] * 4,
    ]
    if name == "softplus":
        x[3] = 0  # torch's own derivative overflows there
    t = torch.tensor(x, requires_grad=True)
    y = getattr(torch.nn.functional, function)(t, **settings)
    y.backward(torch.tensor(dy))
    got, by_hand, by_autodiff = both(activations.named[name], jnp.asarray(x, float), jnp.asarray(dy, float))
    bound = 1e-10 if jax.config.jax_enable_x64 else 1e-5
    np.testing.assert_allclose(got, y.detach(), rtol=bound, atol=bound)
    if name == "hard_sigmoid":
        bound = max(bound, 1e-7)  # torch rounds ⅙ to float32
    np.testing.assert_allclose(by_hand, t.grad, rtol=bound, atol=bound)
    np.testing.assert_allclose(by_autodiff, t.grad, rtol=bound, atol=bound)


def test_selu_keeps_mean_zero_and_variance_one():
    """The fixed point that λ and α are made for, by Gauss–Hermite-free quadrature on [−12, 12]."""
    z = np.linspace(-12, 12, 200_001)
    weight = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    y = np.asarray(activations.selu(jnp.asarray(z, float)), np.float64)
    bound = 1e-9 if jax.config.jax_enable_x64 else 1e-5
    assert abs(np.sum(weight * y)) < bound
    assert abs(np.sum(weight * y**2) - 1) < bound


@pytest.mark.source("GB-4.1-LOGSM")
def test_log_softmax_where_the_logarithm_of_softmax_fails():
    z = jnp.array([[0.0, -1e4, 1e4], [1e4, 1e4, -1e4]])
    want = [[-1e4, -2e4, 0.0], [-LOG2, -LOG2, -2e4 - LOG2]]
    y, by_hand, by_autodiff = both(activations.log_softmax, z, jnp.ones((2, 3)))
    np.testing.assert_allclose(y, want, rtol=1e-6)
    for dx in (by_hand, by_autodiff):  # 1 − 3 q
        near(dx, [[1.0, 1.0, -2.0], [-0.5, -0.5, 1.0]])
    assert np.asarray(activations.softmax(z)).min() == 0  # whose logarithm is −∞


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
@pytest.mark.parametrize("name", DIFFERENTIABLE)
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
@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_no_nan_on_any_way_to_value_and_gradient(name):
    f, x = activations.named[name], jnp.array([-1e4, -0.0, 0.0, 1e4])
    with jax.debug_nans(True):  # raises at the first NaN, intermediate ones included
        results = f(x), f.backward(x, x), jax.vjp(f.value, x)[1](x)[0]
    assert all(np.isfinite(a).all() for a in results)


def test_get_by_name_or_as_it_is():
    mine = activations.Activation("mine", jnp.sin, lambda x, dy: dy * jnp.cos(x))
    assert activations.get(mine) is mine
    assert all(activations.get(name) is f for name, f in activations.named.items())
    like = {f.name for f in activations.named.values() if f.relu_like}
    assert like == {"relu", "softplus", "leaky_relu", "elu", "silu", "gelu", "gelu_tanh"}
    assert {f.name for f in activations.named.values() if not f.differentiable} == {"step"}
    assert repr(activations.tanh) == "<activation tanh>"


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"got activation 'rleu'; expected one of identity, relu, .*, or an Activation"
    ):
        activations.get("rleu")
