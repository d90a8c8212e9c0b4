"""Every public loss: the hand-written gradient is the derivative of the value, far from zero and at kinks too."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import losses
from jaxnet.losses import Loss
from jaxnet.testing import check_loss

pytestmark = pytest.mark.numerical

X64 = jax.config.jax_enable_x64
TOLERANCE = 1e-12 if X64 else 64 * float(np.finfo(np.float32).eps)
N = 5


def drawn(shape, seed=0, scale=1.5):
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32).astype(np.float64)


COUNTS = np.array([[0, 3], [1, 1], [7, 2], [2, 0], [4, 5]])
SIGNS = np.array([[1, -1], [-1, -1], [1, 1], [-1, 1], [1, 1]])
LABELS = np.array([2, 0, -1, 1, 2])
SOFT = np.random.default_rng(3).dirichlet(np.ones(3), N)
# id: (public name, loss, outputs, target); every public loss and every option of one
CASES = {
    "squared": ("squared_error", losses.squared_error, 2, drawn((N, 2), 1)),
    "absolute": ("absolute_error", losses.absolute_error, 2, drawn((N, 2), 1)),
    "huber": ("huber", losses.huber(0.7), 2, drawn((N, 2), 1)),
    "poisson": ("poisson", losses.poisson, 2, COUNTS),
    "quantile": ("quantile", losses.quantile(0.1, 0.5, 0.8), 3, drawn(N, 1)),
    "hinge": ("hinge", losses.hinge, 2, SIGNS),
    "squared hinge": ("squared_hinge", losses.squared_hinge, 2, SIGNS),
    "sigmoid": ("sigmoid_cross_entropy", losses.sigmoid_cross_entropy, 2, (SIGNS + 1) // 2),
    "binary": (
        "binary_cross_entropy",
        losses.binary_cross_entropy(smoothing=0.2, positive_weight=3.0, ignore=-1),
        2,
        np.where(COUNTS > 4, -1, COUNTS % 2),
    ),
    "softmax": ("softmax_cross_entropy", losses.softmax_cross_entropy, 3, LABELS % 3),
    "classes": (
        "cross_entropy",
        losses.cross_entropy(smoothing=0.1, class_weights=[1.0, 0.5, 2.0], ignore=-1),
        3,
        LABELS,
    ),
    "classes, soft": ("cross_entropy", losses.cross_entropy(smoothing=0.1, class_weights=[1, 0.5, 2]), 3, SOFT),
    "precision": ("gaussian", losses.gaussian(), 4, drawn((N, 2), 1)),
    "variance": ("gaussian", losses.gaussian("variance"), 2, drawn(N, 1)),
    "deviation": ("gaussian", losses.gaussian("deviation"), 4, drawn((N, 2), 1)),
    "multivariate": ("multivariate_gaussian", losses.multivariate_gaussian, 9, drawn((N, 3), 1)),
    "mixture": ("mixture", losses.mixture(3), 15, drawn((N, 2), 1)),
    "mixture of one target": ("mixture", losses.mixture(2), 6, drawn(N, 1)),
}
every = pytest.mark.parametrize("case", CASES)
NOT_LOSSES = {
    "Loss", "as_loss", "log_softmax", "mean_and_factor", "mean_and_scale", "mean_over_steps", "mixture_parameters",
    "per_step", "positive", "raw_of", "responsibilities",
}  # fmt: skip


def arrays(case, dtype=None):
    _, loss, outputs, target = CASES[case]
    dtype = dtype or jnp.result_type(float)
    target = np.asarray(target)
    y = jnp.asarray(target, dtype if target.dtype.kind == "f" else jnp.int32)
    return loss, jnp.asarray(drawn((N, outputs)), dtype), y


@partial(jax.jit, static_argnums=0)
def both(loss, output, target):
    """The values, and the gradient by hand and by autodiff of their sum."""
    value, pullback = jax.vjp(lambda o: loss.value(o, target), output)
    return value, loss.gradient(output, target), pullback(jnp.ones_like(value))[0]


def near(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE * max(1, np.abs(want).max()), strict=True)


def test_every_public_loss_is_among_the_cases():
    assert {name for name, *_ in CASES.values()} == set(losses.__all__) - NOT_LOSSES
    assert all(isinstance(loss, Loss) and loss.gradient is not None for _, loss, *_ in CASES.values())


@pytest.mark.newer
@pytest.mark.source("GB-3.12-AE", "GB-6.3-NONDIFF")
@every
def test_gradient_by_hand_by_autodiff_and_under_vmap(case):
    loss, output, target = arrays(case)
    value, by_hand, by_autodiff = both(loss, output, target)
    assert value.shape == (N,)
    near(by_hand, by_autodiff)
    one_by_one = jax.jit(jax.vmap(lambda o, y: loss.gradient(o[None], y[None])[0]))(output, target)
    near(one_by_one, by_hand)
    assert loss.check(jax.ShapeDtypeStruct(output.shape, output.dtype), np.asarray(target)) is None


if X64:

    @every
    def test_gradient_by_five_point_differences(case):
        loss, output, target = arrays(case)
        direction = jnp.asarray(drawn(output.shape, 7, 1.0))
        along = jax.jit(lambda h: jnp.sum(loss.value(output + h * direction, target)))
        h = 1e-4  # no case has a kink within it
        slope = (8 * (along(h) - along(-h)) - (along(2 * h) - along(-2 * h))) / (12 * h)
        want = jnp.sum(loss.gradient(output, target) * direction)
        np.testing.assert_allclose(slope, want, rtol=1e-8, atol=1e-8)


@pytest.mark.source("GB-6.5.8-DTYPES")
@every
def test_strict_promotion_and_the_outputs_dtype(case):
    for dtype in (jnp.bfloat16, jnp.float32):
        loss, output, target = arrays(case, dtype)
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            results = jax.eval_shape(partial(both, loss), output, target)
        assert [(a.dtype, a.shape) for a in results] == [(dtype, (N,)), (dtype, output.shape), (dtype, output.shape)]


@pytest.mark.source("GB-6.5.8-UNDEF", "GB-6.2.2.4-POS", "GB-3.9.6-MIX")
@every
def test_finite_at_huge_outputs(case):
    """Outputs of ±1e4 in every pattern of signs and of 0; only e^(1e4), the Poisson rate, is truly infinite."""
    loss, output, target = arrays(case)
    signs = np.random.default_rng(5).choice([-1e4, 0.0, 1e4], (40, *output.shape))
    if loss is losses.poisson:
        signs = -np.abs(signs)
    outputs = jnp.asarray(np.concatenate([signs, np.zeros_like(signs[:1])]), output.dtype)
    value, by_hand, by_autodiff = jax.jit(jax.vmap(partial(both, loss), (0, None)))(outputs, target)
    assert np.isfinite(value).all()
    assert np.isfinite(by_hand).all()
    near(by_hand, by_autodiff)


KINKS = [
    (losses.absolute_error, [[1.0, -2.0]], [[1.0, -2.0]], [[0.0, 0.0]]),
    (losses.huber(2.0), [[1.0, 3.0, -1.0]], [[1.0, 1.0, 1.0]], [[0.0, 2.0, -2.0]]),
    (losses.quantile(0.1, 0.5), [[1.0, 0.0]], [1.0], [[0.0, -0.5]]),
    (losses.hinge, [[1.0, -1.0, 0.5]], [[1.0, -1.0, 1.0]], [[0.0, 0.0, -1.0]]),
    (losses.squared_hinge, [[1.0, -1.0, 0.5]], [[1.0, -1.0, 1.0]], [[0.0, 0.0, -1.0]]),
]


@pytest.mark.source("GB-6.3-NONDIFF")
@pytest.mark.parametrize(("loss", "output", "target", "slope"), KINKS)
def test_both_roads_agree_at_kinks(loss, output, target, slope):
    _, by_hand, by_autodiff = both(loss, jnp.array(output), jnp.array(target))
    np.testing.assert_array_equal(by_hand, slope)
    np.testing.assert_array_equal(by_autodiff, slope)


BAD = {
    "poisson": (1, -1.0),
    "hinge": (1, 0.0),
    "squared hinge": (1, 0.0),
    "binary": (1, 2.0),
    "quantile": (1, np.nan),
    "absolute": (1, np.nan),
    "huber": (1, np.nan),
    "precision": (1, np.nan),
    "multivariate": (1, np.nan),
    "mixture": (1, np.nan),
    "classes": (1, 3),
}


@pytest.mark.parametrize("case", BAD)
def test_in_a_trace_only_the_bad_example_is_nan(case):
    loss, output, target = arrays(case)
    at, bad = BAD[case]
    target = target.at[at].set(bad) if case == "classes" else target.astype(output.dtype).at[at].set(bad)
    value, by_hand, _ = both(loss, output, target)
    for a in (value, by_hand):
        assert np.isnan(np.asarray(a)).reshape(N, -1).any(axis=1).tolist() == [False, True, False, False, False]


@pytest.mark.long
@every
def test_the_public_battery_accepts_it(case):
    _, loss, outputs, target = CASES[case]
    extremes = (-1e4, 80.0) if case == "poisson" else (-1e4, 1e4)  # a rate of e^10000 is inf
    report = check_loss(loss, outputs, target=np.asarray(target), extremes=extremes)
    assert report, report
