"""losses: values against scipy, scikit-learn and optax, gradients against autodiff and complex steps, every error."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from jaxnet import activations
from jaxnet.losses import as_loss, sigmoid_cross_entropy, softmax_cross_entropy, squared_error

pytestmark = pytest.mark.numerical

X64 = jax.config.jax_enable_x64
TOLERANCE = 1e-12 if X64 else 64 * float(np.finfo(np.float32).eps)
INTEGERS = [np.int8, np.uint8, np.int16, np.int32, np.uint32] + ([np.int64] if X64 else [])


def near(got, want, scale=1.0):
    """The same shape, and equal to rounding, for numbers of order `scale`."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE * scale, strict=True)


def drawn(shape, seed=0, scale=2.0):
    """Float64 numbers that float32 holds exactly, so that oracles in float64 see the same inputs."""
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32).astype(np.float64)


@partial(jax.jit, static_argnums=0)
def both(loss, output, target):
    """The values, and the gradient by hand and by autodiff of their sum."""
    value, pullback = jax.vjp(lambda o: loss.value(o, target), output)
    return value, loss.gradient(output, target), pullback(jnp.ones_like(value))[0]


def shape(*sizes):
    return jax.ShapeDtypeStruct(sizes, jnp.float32)


# the formulas as books print them, for real and complex NumPy numbers
def textbook_squared_error(o, y):
    return ((o - y) ** 2).reshape(len(o), -1).sum(axis=1) / 2


def textbook_sigmoid_cross_entropy(z, y):
    a = 1 / (1 + np.exp(-z))
    return -(y * np.log(a) + (1 - y) * np.log(1 - a)).reshape(len(z), -1).sum(axis=1)


def textbook_softmax_cross_entropy(z, y):
    q = np.exp(z) / np.exp(z).sum(axis=-1, keepdims=True)
    return -(y * np.log(q)).reshape(len(z), -1).sum(axis=1)


TEXTBOOK = {
    squared_error: textbook_squared_error,
    sigmoid_cross_entropy: textbook_sigmoid_cross_entropy,
    softmax_cross_entropy: textbook_softmax_cross_entropy,
}

LABELS = np.array([2, 0, 1, 1, 3])
ONE_HOT = np.eye(4)[LABELS]
SOFT = np.array([[0.5, 0.25, 0.25, 0], [0, 0, 0, 1], [0.25] * 4, [0.125, 0.125, 0.5, 0.25], [1, 0, 0, 0]])
BITS = np.array([[1, 0, 1, 1], [0, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]])
# id: (loss, output, target, the target in the output's shape)
CASES = {
    "squared (n, k)": (squared_error, drawn((5, 4)), drawn((5, 4), 1), drawn((5, 4), 1)),
    "squared (n, 1) on (n,)": (squared_error, drawn((5, 1)), drawn(5, 1), drawn((5, 1), 1)),
    "squared (n,)": (squared_error, drawn(5), drawn(5, 1), drawn(5, 1)),
    "squared (n, t, k)": (squared_error, drawn((5, 3, 4)), drawn((5, 3, 4), 1), drawn((5, 3, 4), 1)),
    "squared on integers": (squared_error, drawn((5, 4)), BITS, BITS),
    "sigmoid (n,)": (sigmoid_cross_entropy, drawn(5), BITS[:, 0], BITS[:, 0]),
    "sigmoid (n, 1) on (n,)": (sigmoid_cross_entropy, drawn((5, 1)), BITS[:, 0], BITS[:, :1]),
    "sigmoid (n, k)": (sigmoid_cross_entropy, drawn((5, 4)), BITS, BITS),
    "sigmoid on booleans": (sigmoid_cross_entropy, drawn((5, 4)), BITS > 0, BITS),
    "sigmoid on probabilities": (sigmoid_cross_entropy, drawn((5, 4)), SOFT, SOFT),
    "softmax on labels": (softmax_cross_entropy, drawn((5, 4)), LABELS, ONE_HOT),
    "softmax on one-hot": (softmax_cross_entropy, drawn((5, 4)), ONE_HOT, ONE_HOT),
    "softmax on integer one-hot": (softmax_cross_entropy, drawn((5, 4)), ONE_HOT.astype(int), ONE_HOT),
    "softmax on probabilities": (softmax_cross_entropy, drawn((5, 4)), SOFT, SOFT),
    "softmax on rounded probabilities": (softmax_cross_entropy, drawn((5, 4)), SOFT * 1.0005, SOFT * 1.0005),
    "softmax on sequences of labels": (
        softmax_cross_entropy,
        drawn((5, 3, 4)),
        np.stack([LABELS] * 3, axis=1),
        np.stack([ONE_HOT] * 3, axis=1),
    ),
}
cases = pytest.mark.parametrize("case", CASES)


def as_arrays(output, target):
    """The output and, if it's real, the target in the default float; put on the device as they are."""
    floats, target = jnp.result_type(float), np.asarray(target)
    target = (
        target.astype({"f": floats, "i": np.int32}.get(target.dtype.kind, target.dtype))
        if target.dtype.itemsize == 8
        else target
    )
    return jax.device_put(np.asarray(output, floats)), jax.device_put(target)


# ── values and gradients ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.newer
@pytest.mark.source("GB-3.9.2-MULTI", "GB-6.2.2.2-BCE", "GB-6.5.6-BPROP", "GB-6.5.9-QMP", "S-sm", "GB-6.2.2.3-LSE")
@cases
def test_value_and_gradient_by_the_textbook_and_its_complex_step(case):
    loss, output, target, full = CASES[case]
    value, by_hand, by_autodiff = both(loss, *as_arrays(output, target))
    near(value, TEXTBOOK[loss](output, full))
    slope = np.zeros_like(output)
    for at in np.ndindex(output.shape[1:]):
        step = output.astype(complex)
        step[(slice(None), *at)] += 1e-30j
        slope[(slice(None), *at)] = TEXTBOOK[loss](step, full).imag / 1e-30
    near(by_hand, slope)
    near(by_autodiff, slope)


if X64:  # in float32 differences say nothing

    @cases
    def test_gradient_by_five_point_differences_of_the_implementation(case):
        loss, output, target, _ = CASES[case]
        output, target = as_arrays(output, target)
        direction = jnp.asarray(drawn(output.shape, 7, 1.0))
        along = jax.jit(lambda h: jnp.sum(loss.value(output + h * direction, target)))
        h = 1e-3
        slope = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
        want = jnp.sum(loss.gradient(output, target) * direction)
        np.testing.assert_allclose(slope, want, rtol=1e-9, atol=1e-9)


LIBRARIES = {
    "optax squared": (squared_error, BITS, lambda o, y: optax.l2_loss(o, y).sum(-1)),
    "optax sigmoid": (sigmoid_cross_entropy, SOFT, lambda o, y: optax.sigmoid_binary_cross_entropy(o, y).sum(-1)),
    "optax softmax": (softmax_cross_entropy, SOFT, optax.softmax_cross_entropy),
    "optax labels": (softmax_cross_entropy, LABELS, optax.softmax_cross_entropy_with_integer_labels),
    "scipy softmax": (softmax_cross_entropy, SOFT, lambda o, y: -(y * scipy.special.log_softmax(o, axis=-1)).sum(-1)),
    "scipy sigmoid": (
        sigmoid_cross_entropy,
        SOFT,
        lambda o, y: -(y * scipy.special.log_expit(o) + (1 - y) * scipy.special.log_expit(-o)).sum(-1),
    ),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_values_of_other_libraries(library):
    loss, target, other = LIBRARIES[library]
    output, target = as_arrays(drawn((5, 4)), np.asarray(target, LABELS.dtype if target is LABELS else float))
    want = (
        jax.jit(other)(output, target) if "optax" in library else other(np.asarray(output, float), np.asarray(target))
    )
    near(both(loss, output, target)[0], want)


@pytest.mark.source("GB-5.1.4-MSE", "H-mse", "GB-5.1.2-LOGP", "GB-8.1-ERM", "GB-8.6-objective")
def test_means_over_the_batch_against_scikit_learn():
    output, target = drawn((5, 4)), drawn((5, 4), 1)
    mean = float(jnp.mean(squared_error(jnp.asarray(output), jnp.asarray(target))))
    near(mean * 2 / 4, sklearn.metrics.mean_squared_error(target, output))  # Hagan 3.5: the mean over outputs, too
    near(mean * 2, np.linalg.norm(output - target) ** 2 / 5)  # Goodfellow 5.4: no ½
    softmax = jnp.mean(softmax_cross_entropy(jnp.asarray(output), jnp.asarray(LABELS)))
    near(softmax, sklearn.metrics.log_loss(LABELS, scipy.special.softmax(output, axis=1)))
    sigmoid = jnp.mean(sigmoid_cross_entropy(jnp.asarray(output[:, 0]), jnp.asarray(BITS[:, 0])))
    near(sigmoid, sklearn.metrics.log_loss(BITS[:, 0], scipy.special.expit(output[:, 0])))
    for loss, y in ((squared_error, target), (softmax_cross_entropy, LABELS)):
        one_by_one = [loss(*as_arrays(output[i : i + 1], y[i : i + 1]))[0] for i in range(5)]
        near(jnp.mean(loss(*as_arrays(output, y))), np.mean(np.asarray(one_by_one, np.float64)))


@pytest.mark.source("H-mse")
def test_hagans_mean_squared_error_by_hand():
    targets, outputs = jnp.array([[1.0, -1.0], [0.0, 2.0]]), jnp.array([[0.5, 0.0], [1.0, 4.0]])
    near(squared_error(outputs, targets), [0.625, 2.5])  # ½(¼ + 1), ½(1 + 4)
    near(jnp.mean(squared_error(outputs, targets)) * 2 / 2, 6.25 / 4)  # 1/(Q S) ΣΣ (t − a)²


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: d.__name__)
def test_labels_of_any_integer_type_are_their_one_hot(dtype):
    output = jnp.asarray(drawn((5, 4)), jnp.result_type(float))
    for got, want in zip(
        both(softmax_cross_entropy, output, jnp.asarray(LABELS.astype(dtype))),
        both(softmax_cross_entropy, output, jnp.asarray(ONE_HOT, output.dtype)),
        strict=True,
    ):
        np.testing.assert_array_equal(got, want)


def test_small_label_types_with_more_classes_than_they_can_hold():
    output, labels = drawn((3, 300)), np.array([0, 127, 126], np.int8)
    near(
        both(softmax_cross_entropy, *as_arrays(output, labels))[0],
        -scipy.special.log_softmax(output, axis=1)[[0, 1, 2], [0, 127, 126]],
    )


# ── far from zero ───────────────────────────────────────────────────────────────────────────────────────────────

# loss, logits, target: value, gradient; exact
LIMITS = [
    (sigmoid_cross_entropy, [1e4], [1], 0.0, [0.0]),
    (sigmoid_cross_entropy, [1e4], [0], 1e4, [1.0]),
    (sigmoid_cross_entropy, [-1e4], [1], 1e4, [-1.0]),
    (sigmoid_cross_entropy, [-1e4], [0], 0.0, [0.0]),
    (softmax_cross_entropy, [1e4, -1e4, 0.0], [1.0, 0.0, 0.0], 0.0, [0.0, 0.0, 0.0]),
    (softmax_cross_entropy, [1e4, -1e4, 0.0], [0.0, 1.0, 0.0], 2e4, [1.0, -1.0, 0.0]),
    (softmax_cross_entropy, [1e4, -1e4, 0.0], [0.0, 0.0, 1.0], 1e4, [1.0, 0.0, -1.0]),
    (softmax_cross_entropy, [1e4, -1e4, 0.0], [0.5, 0.5, 0.0], 1e4, [0.5, -0.5, 0.0]),
    (squared_error, [1e4, -1e4], [0.0, 0.0], 1e8, [1e4, -1e4]),
]


@pytest.mark.newer
@pytest.mark.source("M-5fused", "GB-6.2.2.2-BCE", "GB-6.5.9-QMP", "GB-4.1-OVER", "GB-4.1-LOGSM", "GB-3.13-0LOG0")
@pytest.mark.parametrize(("loss", "output", "target", "value", "gradient"), LIMITS)
def test_exact_limits_at_huge_outputs(loss, output, target, value, gradient):
    for got, want in zip(
        both(loss, *as_arrays([output], np.array([target], float))), ([value], [gradient], [gradient]), strict=True
    ):
        np.testing.assert_array_equal(got, want)


@pytest.mark.source("GB-6.2.2.2-ASYMP", "GB-6.2.2.3-LSE", "GB-6.2.2.1-LINOUT", "GB-6.2.2.2-BCE")
def test_the_loss_saturates_only_where_it_is_right():
    z = np.array([-20.0, -10.0, 0.0, 10.0, 20.0])
    value = [20.000000002061153, 10.000045398899218, 0.6931471805599453, 4.539889921686465e-05, 2.061153620314381e-09]
    slope = [-0.9999999979388463, -0.9999546021312976, -0.5, -4.5397868702434395e-05, -2.0611536181902037e-09]
    pair = np.stack([np.zeros(5), z], axis=1)
    for y, sign in ((1, 1), (0, -1)):
        binary = both(sigmoid_cross_entropy, *as_arrays(sign * z, np.full(5, y)))
        near(binary[0], value, 20)
        near(binary[1], sign * np.array(slope))
        near(binary[2], sign * np.array(slope))
        near(binary[0], scipy.special.log1p(np.exp((1 - 2 * y) * sign * z)), 20)  # ζ((1 − 2y) z)
        softmax = both(softmax_cross_entropy, *as_arrays(sign * pair, np.full(5, y)))
        near(softmax[0], value, 20)
        near(softmax[1][:, 1], sign * np.array(slope))
        assert np.abs(np.asarray(binary[1])[:2]).min() > 0.9999
    far = np.array([-1e4, -10.0, 0.5, 1e4])
    near(squared_error.gradient(*as_arrays(far, np.ones(4))), far - 1)


@pytest.mark.source(
    "GB-4.1-AUTOSTAB", "GB-4.1-LOGSM", "GB-6.2.2.2-LOGIT", "GB-6.5.9-QMP", "GB-6.5.9-CUSTOM", "GB-4.1-OVER"
)
def test_naive_formulas_fail_where_the_losses_do_not():
    f32 = partial(jnp.array, dtype=jnp.float32)
    log_sigmoid = jax.jit(lambda z: jnp.log(activations.sigmoid(z)))
    assert float(log_sigmoid(f32(-200.0))) == -np.inf
    np.testing.assert_array_equal(sigmoid_cross_entropy(f32([-200.0]), f32([1])), [200.0])
    assert float(-jnp.log(1 - activations.sigmoid(f32(20.0)))) == np.inf
    np.testing.assert_allclose(sigmoid_cross_entropy(f32([20.0]), f32([0])), [20.0], rtol=1e-6)
    log_softmax = jax.jit(lambda z: jnp.log(activations.softmax(z)))
    assert float(log_softmax(f32([0.0, -200.0]))[1]) == -np.inf
    np.testing.assert_array_equal(softmax_cross_entropy(f32([[0.0, -200.0]]), jnp.array([1])), [200.0])

    def naive(z):  # −log of the true class's share, class 1
        return -jnp.log(jnp.exp(z[1]) / jnp.sum(jnp.exp(z)))

    mild, huge = jnp.array([1.0, -0.5, 0.25]), jnp.array([1e4, -1e4, 0.0])
    near(jax.grad(naive)(mild), scipy.special.softmax([1.0, -0.5, 0.25]) - np.eye(3)[1])
    near(softmax_cross_entropy.gradient(mild[None], jnp.array([1]))[0], jax.grad(naive)(mild))
    assert np.isnan(jax.grad(naive)(huge)).any()
    np.testing.assert_array_equal(softmax_cross_entropy.gradient(huge[None], jnp.array([1])), [[1.0, -1.0, 0.0]])


@pytest.mark.source("GB-4.1-UNDER", "GB-5.5-LOGSUM")
def test_the_sum_of_logarithms_does_not_underflow():
    """2,000 coin tosses, 600 heads: the product of probabilities is 0, its logarithm has its maximum at 0.3."""
    share = np.linspace(0.05, 0.95, 19)
    logits = jnp.asarray(scipy.special.logit(share), jnp.float32)

    @jax.jit
    def product_and_sum(y):
        z = jnp.broadcast_to(logits[:, None], (19, y.size))
        likelihood = jnp.prod(jnp.where(y == 1, jax.nn.sigmoid(z), 1 - jax.nn.sigmoid(z)), axis=1)
        return likelihood, jnp.sum(jax.vmap(lambda z: sigmoid_cross_entropy(z, y))(z), axis=1)

    for heads, tosses, underflows in ((600, 2000, True), (6, 20, False)):
        likelihood, total = product_and_sum(jnp.asarray(np.arange(tosses) < heads, jnp.float32))
        want = -(heads * np.log(share) + (tosses - heads) * np.log(1 - share))
        np.testing.assert_allclose(total, want, rtol=1e-4)
        assert np.argmin(total) == 5
        assert np.all(likelihood == 0) == underflows
        assert underflows or np.argmax(likelihood) == 5


@pytest.mark.source("GB-6.5.8-UNDEF", "GB-3.13-0LOG0")
@pytest.mark.parametrize(("loss", "output", "target", "value", "gradient"), LIMITS)
def test_no_nan_on_any_way_to_value_and_gradient(loss, output, target, value, gradient):
    output, target = as_arrays([output], np.array([target], float))
    with jax.debug_nans(True):  # raises at the first NaN, intermediate ones included
        got = loss(output, target), loss.gradient(output, target), jax.vjp(loss.value, output, target)[1](jnp.ones(1))
    np.testing.assert_array_equal(got[0], [value])
    np.testing.assert_array_equal(got[1], [gradient])


# ── how the losses belong together ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("M-6.2", "H-ce", "GB-6.2.2.3-NMINUS1", "GB-6.2.2.2-SIG")
@given(
    z=st.lists(st.floats(-30, 30, width=32, allow_subnormal=False), min_size=10, max_size=10),
    y=st.lists(st.integers(0, 1), min_size=5, max_size=5),
)
def test_two_classes_are_one_logit(z, y):
    z = np.reshape(z, (5, 2))
    gap = (z[:, 1] - z[:, 0]).astype(np.float32)
    softmax = both(softmax_cross_entropy, *as_arrays(np.stack([np.zeros(5), gap], axis=1), np.array(y)))
    sigmoid = both(sigmoid_cross_entropy, *as_arrays(gap, np.array(y)))
    near(softmax[0], sigmoid[0], 60)
    near(softmax[1][:, 1], sigmoid[1])
    near(softmax[1][:, 0], -np.asarray(sigmoid[1], np.float64))
    exponents = np.exp(np.stack([np.zeros(5), gap.astype(np.float64)], axis=1))  # e^{yz} / Σ_y′ e^{y′z}
    near(np.exp(-np.asarray(sigmoid[0], np.float64)), exponents[np.arange(5), y] / exponents.sum(axis=1), 60)


@pytest.mark.source("GB-6.2.2.3-INV")
def test_softmax_cross_entropy_ignores_a_common_shift():
    output, target = as_arrays(drawn((5, 4)), SOFT)
    value, gradient, _ = both(softmax_cross_entropy, output, target)
    shifted, shifted_gradient, _ = both(softmax_cross_entropy, output + 100, target)
    near(shifted, value, 100)
    near(shifted_gradient, gradient, 100)
    near(jnp.sum(gradient, axis=1), np.zeros(5))


@pytest.mark.source("GB-3.13-CE", "GB-5.5-KLMIN", "GB-3.13-0LOG0")
def test_cross_entropy_is_entropy_plus_divergence():
    output, target = drawn((5, 4)), SOFT
    q = scipy.special.softmax(output, axis=1)
    entropy, divergence = scipy.stats.entropy(target, axis=1), scipy.special.rel_entr(target, q).sum(axis=1)
    value, by_hand, _ = both(softmax_cross_entropy, *as_arrays(output, target))
    near(value, entropy + divergence)

    def kl(z):
        return jnp.sum(jax.scipy.special.rel_entr(jnp.asarray(target, z.dtype), activations.softmax(z)))

    near(by_hand, jax.jit(jax.grad(kl))(jnp.asarray(output, by_hand.dtype)))


@pytest.mark.source("GB-3.13-KL", "GB-3.13-CE")
def test_divergence_is_not_symmetric():
    p, q = np.array([[0.36, 0.48, 0.16]]), np.full((1, 3), 1 / 3)

    def kl(true, model):
        value = [softmax_cross_entropy(*as_arrays(np.log(m), true))[0] for m in (model, true)]
        return float(value[0] - value[1])

    near(kl(p, q), scipy.stats.entropy(p[0], q[0]))
    near(kl(q, p), scipy.stats.entropy(q[0], p[0]))
    assert round(kl(p, q), 4) == 0.0853
    assert round(kl(q, p), 4) == 0.0975


@pytest.mark.source("GB-3.13-KL")
@given(z=st.lists(st.floats(-20, 20, width=32, allow_subnormal=False), min_size=8, max_size=8))
def test_divergence_is_never_negative(z):
    output, other = np.reshape(z, (2, 1, 4))
    true = scipy.special.softmax(other, axis=1)
    least = scipy.stats.entropy(true[0])
    assert float(softmax_cross_entropy(*as_arrays(output, true))[0]) >= least - 40 * TOLERANCE
    near(softmax_cross_entropy(*as_arrays(np.log(true), true)), [least], 20)


@pytest.mark.source("GB-7.5.1-label-smoothing")
def test_smoothed_targets_have_their_optimum_at_a_finite_gap():
    """ε = 0.1 over k = 10: ε/k and 1 − (k − 1)ε/k; least loss 0.5003 nats at the gap log(0.91 / 0.01) = 4.511."""
    smoothed = np.full((1, 10), 0.01)
    smoothed[0, 3] = 0.91
    best = np.zeros((1, 10))
    best[0, 3] = np.log(0.91 / 0.01)
    near(smoothed.sum(), 1.0)
    value, gradient, _ = both(softmax_cross_entropy, *as_arrays(best, smoothed))
    near(value, scipy.stats.entropy(smoothed, axis=1))
    near(gradient, np.zeros((1, 10)))
    assert (round(best[0, 3], 3), round(float(value[0]), 4)) == (4.511, 0.5003)
    hard = [both(softmax_cross_entropy, *as_arrays(c * best, np.eye(10)[[3]])) for c in (1, 2, 3)]
    assert all(float(gradient[0, 3]) < 0 for _, gradient, _ in hard)  # hard targets ask for ever more
    plain = both(softmax_cross_entropy, *as_arrays(best, np.array([3])))
    near(hard[0][0], plain[0])


@pytest.mark.source("GB-6.2.1.1-MSE", "GB-5.5.1-LINML", "GB-5.5.1-COND", "GB-5.1.2-LOGP")
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_squared_error_is_a_gaussian_likelihood(sigma):
    output, target = drawn((5, 4)), drawn((5, 4), 1)
    log_density = scipy.stats.norm.logpdf(target, output, sigma).sum(axis=1)  # additive over outputs and examples
    constant = 4 * (np.log(sigma) + np.log(2 * np.pi) / 2)
    value, gradient, _ = both(squared_error, *as_arrays(output, target))
    near(value, -(log_density + constant) * sigma**2, 10)
    loglik_slope = (target - output) / sigma**2
    near(-np.asarray(gradient, np.float64) / sigma**2, loglik_slope, 10)


@pytest.mark.source("GB-5.1.2-LOGP", "GB-3.9.2-MULTI")
def test_cross_entropies_are_negative_log_probabilities():
    output = drawn((5, 4))
    log_p = [
        scipy.stats.multinomial.logpmf(y, 1, p) for y, p in zip(ONE_HOT, scipy.special.softmax(output, 1), strict=True)
    ]
    near(softmax_cross_entropy(*as_arrays(output, LABELS)), -np.array(log_p))
    log_p = scipy.stats.bernoulli.logpmf(BITS, scipy.special.expit(output)).sum(axis=1)
    near(sigmoid_cross_entropy(*as_arrays(output, BITS)), -log_p)


# ── what is out of range ────────────────────────────────────────────────────────────────────────────────────────

OUT_OF_RANGE = {
    "label = K": (softmax_cross_entropy, (3, 4), np.array([1, 4, 0])),
    "label < 0": (softmax_cross_entropy, (3, 4), np.array([1, -1, 0])),
    "label < 0, int8": (softmax_cross_entropy, (3, 4), np.array([1, -128, 0], np.int8)),
    "label of uint8": (softmax_cross_entropy, (3, 4), np.array([1, 255, 0], np.uint8)),
    "label of uint32": (softmax_cross_entropy, (3, 4), np.array([1, 2**32 - 1, 0], np.uint32)),
    "negative probability": (softmax_cross_entropy, (3, 4), np.array([[1.0, 0, 0, 0], [-0.5, 1.5, 0, 0], [0.25] * 4])),
    "probability NaN": (softmax_cross_entropy, (3, 4), np.array([[1.0, 0, 0, 0], [np.nan, 1, 0, 0], [0.25] * 4])),
    "target > 1": (sigmoid_cross_entropy, (3,), np.array([0, 2, 1])),
    "target −1": (sigmoid_cross_entropy, (3,), np.array([0, -1, 1])),
    "target NaN": (sigmoid_cross_entropy, (3,), np.array([0, np.nan, 1])),
    "regression on NaN": (squared_error, (3,), np.array([0, np.nan, 1])),
}


@pytest.mark.newer
@pytest.mark.parametrize("case", OUT_OF_RANGE)
def test_in_a_trace_only_the_bad_example_is_nan(case):
    loss, sizes, target = OUT_OF_RANGE[case]
    value, by_hand, by_autodiff = both(loss, *as_arrays(drawn(sizes), target))
    for a in (value, by_hand) if "label" in case else (value, by_hand, by_autodiff):
        assert np.isnan(np.asarray(a)).reshape(3, -1).all(axis=1).tolist() == [False, True, False]
        assert np.isfinite(np.asarray(a)[[0, 2]]).all()


def test_a_bad_label_in_a_sequence_spoils_its_example_only():
    labels = np.stack([LABELS] * 3, axis=1)
    labels[2, 1] = 4
    value, by_hand, _ = both(softmax_cross_entropy, *as_arrays(drawn((5, 3, 4)), labels))
    assert np.flatnonzero(np.isnan(value)).tolist() == [2]
    assert np.argwhere(np.isnan(by_hand)).tolist() == [[2, 1, k] for k in range(4)]


# loss, the output's shape, targets, error, what it says
REFUSED = [
    (squared_error, (4, 2), np.array([["a", "b"]] * 4), TypeError, r"squared_error: got targets of dtype <U1; .* cast"),
    (squared_error, (4,), np.zeros(4, complex), TypeError, r"got targets of dtype complex128; expected real numbers"),
    (
        squared_error,
        (4, 2),
        np.zeros((4, 3)),
        ValueError,
        r"shape \(4, 3\) for outputs of shape \(4, 2\); expected the",
    ),
    (
        squared_error,
        (4, 2),
        np.zeros(4),
        ValueError,
        r"squared_error: got targets of shape \(4,\) .*: reshape the targ",
    ),
    (squared_error, (4,), np.zeros((4, 1)), ValueError, r"got targets of shape \(4, 1\) for outputs of shape \(4,\)"),
    (sigmoid_cross_entropy, (4,), np.array(["a"] * 4), TypeError, r"sigmoid_cross_entropy: got targets of dtype <U1"),
    (sigmoid_cross_entropy, (4, 2), np.zeros(4), ValueError, r"shape \(4,\) for outputs of shape \(4, 2\)"),
    (
        sigmoid_cross_entropy,
        (3,),
        np.array([0, 1, 2]),
        ValueError,
        r"got target 2 at example 2; expected 0, 1 or a prob",
    ),
    (sigmoid_cross_entropy, (3, 1), np.array([1, -1, 1]), ValueError, r"got target -1 at example 1; .*\(−1/\+1 belong"),
    (sigmoid_cross_entropy, (2, 2), np.array([[0, 1], [1, np.nan]]), ValueError, r"got target nan at example 1"),
    (
        softmax_cross_entropy,
        (4,),
        np.zeros(4, int),
        ValueError,
        r"got logits of shape \(4,\); expected \(batch, classe",
    ),
    (softmax_cross_entropy, (4, 1), np.zeros(4, int), ValueError, r"shape \(4, 1\); .* or use sigmoid_cross_entropy"),
    (softmax_cross_entropy, (2, 2), np.zeros((2, 2), complex), TypeError, r"got targets of dtype complex128"),
    (
        softmax_cross_entropy,
        (2, 2),
        np.array([[0.5, 0.5], [0.5, 0.475]]),
        ValueError,
        r"sums to 0\.975 .*example 1; exp",
    ),
    (
        softmax_cross_entropy,
        (2, 2),
        np.array([[1.5, -0.5], [1, 0]]),
        ValueError,
        r"negative entry at example 0; .*normal",
    ),
    (
        softmax_cross_entropy,
        (3, 4),
        np.zeros(3),
        TypeError,
        r"labels of dtype float64; expected integers 0…3: cast them",
    ),
    (softmax_cross_entropy, (3, 4), np.zeros(3, bool), TypeError, r"labels of dtype bool; .*, or give probabilities"),
    (softmax_cross_entropy, (3, 4), np.zeros((3, 1), int), ValueError, r"labels of shape \(3, 1\) .* expected \(3,\)"),
    (
        softmax_cross_entropy,
        (3, 4),
        np.array([0, 4, 5]),
        ValueError,
        r"got label 4 at example 1; expected 0…3, .*4 outp",
    ),
    (
        softmax_cross_entropy,
        (3, 4),
        np.array([0, 3, -1]),
        ValueError,
        r"got label -1 at example 2; .*the classes from 0",
    ),
]


@pytest.mark.parametrize(("loss", "output", "target", "error", "sentence"), REFUSED)
def test_check_refuses_concrete_targets_with_a_sentence(loss, output, target, error, sentence):
    with pytest.raises(error, match=sentence):
        loss.check(shape(*output), target)


@cases
def test_check_accepts_what_the_loss_computes(case):
    loss, output, target, _ = CASES[case]
    assert loss.check(shape(*output.shape), np.asarray(target)) is None


# loss, output, target, error, what it says, also inside a trace
REFUSED_SHAPES = [
    (squared_error, (4, 2), np.zeros((4, 3)), ValueError, r"squared_error: got targets of shape \(4, 3\)"),
    (squared_error, (4,), np.zeros((4, 1)), ValueError, r"squared_error: .*expected the same shape"),
    (sigmoid_cross_entropy, (4, 2), np.zeros(4), ValueError, r"sigmoid_cross_entropy: got targets of shape \(4,\)"),
    (softmax_cross_entropy, (4, 2), np.zeros((4, 3)), ValueError, r"softmax_cross_entropy: .*expected labels of shape"),
    (softmax_cross_entropy, (4, 2), np.zeros((4, 1), int), ValueError, r"got targets of shape \(4, 1\) for logits of"),
    (softmax_cross_entropy, (4, 2), np.zeros(4), TypeError, r"got labels of dtype float\d+; expected integers: cast"),
    (softmax_cross_entropy, (4, 2), np.zeros(4, bool), TypeError, r"got labels of dtype bool; expected integers"),
]


@pytest.mark.source("GB-6.5.8-DTYPES")
@pytest.mark.parametrize("part", ["value", "gradient"])
@pytest.mark.parametrize(("loss", "output", "target", "error", "sentence"), REFUSED_SHAPES)
def test_shapes_and_dtypes_are_refused_even_in_a_trace(loss, output, target, error, sentence, part):
    with pytest.raises(error, match=sentence):
        jax.eval_shape(getattr(loss, part), *as_arrays(np.zeros(output), target))


@pytest.mark.source("GB-6.5.8-DTYPES")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32] + [jnp.float64] * X64, ids=lambda d: d.__name__)
@cases
def test_strict_promotion_and_the_outputs_dtype(case, dtype):
    loss, output, target, _ = CASES[case]
    output, target = jnp.asarray(output, dtype), as_arrays(output, target)[1]
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        results = jax.eval_shape(partial(both, loss), output, target)
    assert [(a.dtype, a.shape) for a in results] == [(dtype, (5,)), (dtype, output.shape), (dtype, output.shape)]


# ── the record ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_bare_function_becomes_a_loss_without_gradient():
    bare = as_loss(optax.squared_error)
    assert (bare.name, bare.gradient, bare.value) == ("squared_error", None, optax.squared_error)
    assert bare.check(shape(3, 4), np.array(["whatever"])) is None
    assert as_loss(partial(optax.huber_loss, delta=2.0)).name == "loss"
    assert all(as_loss(loss) is loss for loss in TEXTBOOK)
    assert repr(softmax_cross_entropy) == "<loss softmax_cross_entropy>"


def test_what_cannot_be_called_is_refused():
    with pytest.raises(TypeError, match=r"got loss 'mse'; expected a jaxnet Loss or a function \(output, target\)"):
        as_loss("mse")
