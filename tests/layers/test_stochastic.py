"""dropout and Gaussian noise: distribution, expectation, one draw on both roads, and what no draw may depend on."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import jaxnet as jn
from jaxnet import losses
from jaxnet.layers import dropout
from jaxnet.layers.stochastic import gaussian_noise

X64 = jax.config.jax_enable_x64
TOLERANCE = 1e-12 if X64 else 64 * float(np.finfo(np.float32).eps)
KEY = jax.random.key(7)
RATES = [0.1, 0.5, 0.8]


def near(got, want):
    """The same shape, and equal to rounding, for numbers of order 1."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, strict=True)


@partial(jax.jit, static_argnames=("rate", "shape"))
def mask(rate, shape, key=KEY):
    """What x = 1 becomes in training: m / (1 − rate)."""
    return dropout(rate).apply({}, {}, jnp.ones(shape), key=key, train=True)[0]


def roads(rate, x, dy):
    """y and dx in training, by hand and by autodiff."""
    layer = dropout(rate)
    y, pullback = jax.vjp(lambda x: layer.apply({}, {}, x, key=KEY, train=True)[0], x)
    by_hand, grads = layer.backward({}, {}, x, dy, key=KEY, train=True)
    assert grads == {}
    return y, by_hand, pullback(dy)[0]


traced, static = jax.jit(roads), jax.jit(roads, static_argnums=0)


def drawn(shape, seed=0):
    return jax.device_put(np.random.default_rng(seed).uniform(0.5, 2, shape).astype(jnp.result_type(float)))


# ── the distribution of the mask ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.newer
@pytest.mark.source("GB-7.12-dropout-mask", "M-8.2")
@pytest.mark.parametrize("rate", RATES)
def test_the_share_of_kept_units_and_the_expectation(rate):
    m = np.asarray(mask(rate, (200, 301)), np.float64)
    error = (rate * (1 - rate) / m.size) ** 0.5
    assert abs(np.mean(m > 0) - (1 - rate)) < 4 * error
    assert abs(m.mean() - 1) < 4 * error / (1 - rate)
    kept = 1 - round(rate * 65536) / 65536  # the rate in 1/65,536: with it E[m] = 1 exactly
    near(np.unique(m), [0, 1 / kept])
    for axis in (0, 1):  # no unit and no example is dropped more than others
        assert np.abs(np.mean(m > 0, axis=axis) - (1 - rate)).max() < 5 * error * m.shape[1 - axis] ** 0.5


@pytest.mark.numerical
def test_the_finest_rates_are_exact():
    """Of 2²⁰ draws at rate 0 none is dropped, at rate 1 − 2⁻¹⁶ about 16 are kept, times 65,536."""
    ones = jnp.ones((1024, 1024))
    at = jax.jit(lambda rate: dropout(rate).apply({}, {}, ones, key=KEY, train=True)[0])
    assert np.all(np.asarray(at(0.0)) == 1)
    m = np.asarray(at(1 - 2.0**-16))
    assert set(np.unique(m)) == {0, 65536}
    assert 4 <= np.sum(m > 0) <= 32


@pytest.mark.source("GB-7.12-dropout-mask")
def test_units_and_examples_are_dropped_independently():
    kept = np.asarray(mask(0.5, (200, 301)) > 0, float) - 0.5
    for down, right in ((0, 1), (0, 2), (1, 0), (1, 1)):  # two neighbours share a random word
        pairs = kept[: 200 - down, : 301 - right] * kept[down:, right:]
        assert abs(pairs.mean()) < 4 * 0.25 / pairs.size**0.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 3, 5)], ids=str)
def test_odd_sizes(shape):
    keys = jax.random.split(KEY, 3000)
    m = np.asarray(jax.jit(jax.vmap(lambda key: mask(0.25, shape, key)))(keys), np.float64)
    assert m.shape == (3000, *shape)
    assert np.abs(np.mean(m > 0, axis=0) - 0.75).max() < 4.5 * (0.75 * 0.25 / 3000) ** 0.5


@pytest.mark.source("GB-7.12-dropout-mask")
def test_the_mask_depends_on_the_key_alone():
    layer, x = dropout(0.5), drawn((8, 33))
    y, _ = layer.apply({}, {}, x, key=KEY, train=True)
    np.testing.assert_array_equal(y, x * mask(0.5, (8, 33)))  # whatever x is
    np.testing.assert_array_equal(layer.apply({}, {}, x, key=KEY, train=True)[0], y)
    other = layer.apply({}, {}, x, key=jax.random.key(8), train=True)[0]
    assert 0.3 < np.mean((y > 0) != (other > 0)) < 0.7
    assert len({row.tobytes() for row in np.asarray(y > 0)}) == 8  # a mask for each example


def test_a_member_of_a_population_has_the_mask_it_has_alone():
    keys = jax.random.split(KEY, 3)
    together = jax.vmap(lambda key: mask(0.5, (8, 33), key))(keys)
    for member, key in zip(together, keys, strict=True):
        np.testing.assert_array_equal(member, mask(0.5, (8, 33), key))


# ── both roads ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.numerical
@pytest.mark.source("GB-7.12-dropout-mask")
@pytest.mark.parametrize("rate", RATES)
def test_apply_backward_and_autodiff_use_one_mask(rate):
    x, dy = drawn((8, 33)), drawn((8, 33), 1)
    y, by_hand, by_autodiff = static(rate, x, dy)
    m = np.asarray(mask(rate, (8, 33)), np.float64)
    near(y, np.asarray(x, np.float64) * m)
    near(by_hand, np.asarray(dy, np.float64) * m)
    near(by_autodiff, by_hand)
    assert np.all((np.asarray(by_hand) == 0) == (m == 0))  # nothing flows through what was dropped


@pytest.mark.numerical
@pytest.mark.parametrize("rate", [0.0, 0.1, 1 / 3, 0.5, 1.0])
def test_a_traced_rate_gives_the_bits_of_a_static_one(rate):
    x, dy = drawn((8, 33)), drawn((8, 33), 1)
    want = static(rate, x, dy)
    for got in (traced(rate, x, dy), traced(jnp.float32(rate), x, dy)):
        jax.tree.map(np.testing.assert_array_equal, got, want)
    if rate == 0.5:
        jax.tree.map(np.testing.assert_array_equal, static(np.float32(rate), x, dy), want)


@pytest.mark.source("GB-6.5.8-UNDEF")
@pytest.mark.parametrize("compiled", [static, traced], ids=["static", "traced"])
def test_rate_one_drops_everything_without_nan(compiled):
    x = drawn((8, 33))
    with jax.debug_nans(True):  # the scale 1/(1 − rate) is never formed
        results = compiled(1.0, x, x), roads(1.0, x, x)
    for a in jax.tree.leaves(results):
        np.testing.assert_array_equal(a, np.zeros((8, 33)))


@pytest.mark.source("M-8.2", "GB-7.12-weight-scaling")
@pytest.mark.parametrize(("rate", "train"), [(0.5, False), (jnp.float32(0.5), False), (0.0, True), (0, True)])
def test_the_identity_in_inference_and_at_rate_zero(rate, train):
    x = drawn((8, 33))
    assert dropout(rate).apply({}, {}, x, train=train)[0] is x  # and asks for no key
    assert dropout(rate).backward({}, {}, x, 2 * x, train=train)[0].tolist() == (2 * x).tolist()
    assert dropout(rate).init(KEY, (33,)) == ({}, {})


@pytest.mark.numerical
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32] + [jnp.float64] * X64, ids=lambda d: d.__name__)
@pytest.mark.parametrize("compiled", [static, traced], ids=["static", "traced"])
def test_strict_promotion_and_the_dtype_of_the_input(compiled, dtype):
    x = drawn((8, 33)).astype(dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        y, by_hand, by_autodiff = compiled(0.25, x, x)
    assert {(a.dtype.name, a.weak_type) for a in (y, by_hand, by_autodiff)} == {(jnp.dtype(dtype).name, False)}
    np.testing.assert_array_equal(np.asarray(by_hand, float), np.asarray(by_autodiff, float))


# ── in a network ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-7.12-dropout-mask")
def test_layers_of_a_network_draw_different_masks():
    net = jn.serial(dropout(0.5), dropout(0.5))
    y, _ = net.apply({}, {}, jnp.ones((40, 51)), key=KEY, train=True)
    assert set(np.unique(y)) == {0, 4}
    assert abs(np.mean(np.asarray(y) > 0) - 0.25) < 4 * (0.25 * 0.75 / y.size) ** 0.5


@pytest.mark.source("GB-7.12-weight-scaling", "M-8.2")
def test_classic_dropout_is_ours_with_its_weights_scaled():
    """Classic: x ⊙ m in training, weights times the keep probability p in inference. With p w ours is both."""
    keep, w, x = 0.75, np.asarray(drawn((33, 2), 2)), drawn((8, 33))
    net, params = jn.serial(dropout(1 - keep), jn.dense(2, bias=False)), {"dense_0": {"w": jnp.asarray(keep * w)}}
    kept = np.asarray(dropout(1 - keep).apply({}, {}, x, key=jax.random.fold_in(KEY, 0), train=True)[0]) > 0
    near(net.apply(params, {}, x, key=KEY, train=True)[0], (np.asarray(x) * kept) @ w)
    near(net.apply(params, {}, x)[0], np.asarray(x) @ (keep * w))
    plain, _ = jn.serial(jn.dense(2, bias=False)).apply(params, {}, x)
    near(net.apply(params, {}, x)[0], plain)


@pytest.mark.source("GB-7.12-objective", "GB-7.12-expected-input", "GB-7.12-arith-inference")
def test_sampled_gradients_and_predictions_average_to_the_enumerated_ones():
    """All 2⁴ sub-networks of a logistic regression on four inputs, each kept with probability ½."""
    rng = np.random.default_rng(3)
    x, w, b = rng.normal(0, 1, (3, 4)), rng.normal(0, 1, 4), 0.25
    y = np.array([0.0, 1.0, 1.0])
    masks = 2.0 * np.array(list(itertools.product([0, 1], repeat=4)))
    z = np.einsum("mi,ni,i->mn", masks, x, w) + b
    p = 1 / (1 + np.exp(-z))
    exact = {"w": np.einsum("mn,mi,ni->i", p - y, masks, x)[:, None] / 48, "b": np.sum(p - y)[None] / 48}

    net = jn.serial(dropout(0.5), jn.dense(1))
    params = {"dense_0": {"w": jnp.asarray(w[:, None], jnp.float32), "b": jnp.array([b], jnp.float32)}}
    batch = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    gradient = jn.backprop(net, losses.sigmoid_cross_entropy)

    def sampled(key):
        _, grads = gradient(params, {}, batch, key=key, train=True)
        return grads["dense_0"], net.apply(params, {}, batch[0], key=key, train=True)[0]

    grads, outputs = jax.jit(jax.vmap(sampled))(jax.random.split(KEY, 4096))
    outputs = np.asarray(outputs, np.float64)[..., 0]
    for got, want in (
        (grads["w"], exact["w"]),
        (grads["b"], exact["b"]),
        (outputs, x @ w + b),  # the expected pre-activation is the deterministic one
        (1 / (1 + np.exp(-outputs)), p.mean(axis=0)),
    ):
        got = np.asarray(got, np.float64)
        assert np.all(np.abs(got.mean(axis=0) - want) < 4 * got.std(axis=0) / 64)
    few = np.mean(1 / (1 + np.exp(-outputs[:20])), axis=0)
    assert np.abs(few - p.mean(axis=0)).max() < 4 * p.std() / 20**0.5
    np.testing.assert_array_equal(few > 0.5, p.mean(axis=0) > 0.5)


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan"), True, "0.5", np.float32(1.5), 2])
def test_a_rate_outside_of_zero_to_one_is_refused(rate):
    with pytest.raises(
        ValueError, match=r"got dropout\(rate=.*\); expected the probability to drop a unit, in \[0, 1\]"
    ):
        dropout(rate)


@pytest.mark.parametrize("part", ["apply", "backward"])
@pytest.mark.parametrize("rate", [0.5, 1, jnp.float32(0)], ids=str)
def test_training_asks_for_a_key(rate, part):
    x = jnp.ones((2, 3))
    with pytest.raises(
        ValueError, match=r"dropout in training got key=None; expected a key: pass key=jax\.random\.key"
    ):
        getattr(dropout(rate), part)({}, {}, *[x] * (1 if part == "apply" else 2), train=True)


def test_repr_shows_the_rate():
    assert repr(dropout(0.5)) == "dropout(0.5)"


# ── Gaussian noise ──────────────────────────────────────────────────────────────────────────────────────────────


@partial(jax.jit, static_argnames="multiplicative")
def noisy(std, multiplicative, x, dy):
    """y and dx in training, by hand and by autodiff."""
    layer = gaussian_noise(std, multiplicative=multiplicative)
    y, pullback = jax.vjp(lambda x: layer.apply({}, {}, x, key=KEY, train=True)[0], x)
    by_hand, grads = layer.backward({}, {}, x, dy, key=KEY, train=True)
    assert grads == {}
    return y, by_hand, pullback(dy)[0]


@pytest.mark.numerical
@pytest.mark.newer
@pytest.mark.source("GB-7.4-input-noise", "GB-7.4-hidden-noise", "GB-7.12-gaussian-mult")
@pytest.mark.parametrize("multiplicative", [False, True])
def test_noise_is_normal_keeps_the_mean_and_is_one_draw_on_both_roads(multiplicative):
    std, x, dy = 0.5, drawn((200, 301)), drawn((200, 301), 1)
    y, by_hand, by_autodiff = noisy(std, multiplicative, x, dy)
    wide = np.asarray(x, np.float64)
    n = (np.asarray(y, np.float64) / wide - 1) / std if multiplicative else (np.asarray(y, np.float64) - wide) / std
    assert abs(n.mean()) < 4 / n.size**0.5  # E[y] = x
    assert abs(n.var() - 1) < 4 * (2 / n.size) ** 0.5
    assert scipy.stats.kstest(n.ravel(), scipy.stats.norm.cdf).pvalue > 1e-3
    assert abs(np.mean(n[:, 1:] * n[:, :-1])) < 4 / n.size**0.5
    np.testing.assert_allclose(by_hand, np.asarray(dy) * (1 + std * n if multiplicative else 1), rtol=1e-5, atol=1e-5)
    near(by_autodiff, by_hand)


@pytest.mark.source("GB-7.4-input-noise", "GB-7.4-hidden-noise", "GB-7.12-gaussian-mult")
@pytest.mark.parametrize("multiplicative", [False, True])
@pytest.mark.parametrize(("std", "train"), [(0.5, False), (0.0, True), (0, True)])
def test_noise_is_off_in_inference_and_at_deviation_zero(std, train, multiplicative):
    layer, x = gaussian_noise(std, multiplicative=multiplicative), drawn((8, 33))
    assert layer.apply({}, {}, x, train=train)[0] is x  # and asks for no key
    assert layer.backward({}, {}, x, 2 * x, train=train)[0].tolist() == (2 * x).tolist()
    y, by_hand, _ = noisy(0.0, multiplicative, x, x)  # traced
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(by_hand, x)


@pytest.mark.source("M-8.1c", "GB-7.4-input-noise")
def test_noise_on_the_inputs_of_a_linear_model_is_ridge():
    """E[½ ((x + σn) w − y)²] = ½ (x w − y)² + ½ σ² ‖w‖²: loss and gradient, over 4,096 draws."""
    std, w = 0.5, np.array([[1.0], [-2.0], [0.5]])
    x, y = np.random.default_rng(0).normal(0, 1, (2, 16, 3))
    batch = jnp.asarray(x, jnp.float32), jnp.asarray(y[:, :1], jnp.float32)
    net, params = (
        jn.serial(gaussian_noise(std), jn.dense(1, bias=False)),
        {"dense_0": {"w": jnp.asarray(w, jnp.float32)}},
    )
    gradient = jn.backprop(net, losses.squared_error)
    sampled = jax.jit(jax.vmap(lambda key: gradient(params, {}, batch, key=key, train=True)))
    (loss, _), grads = sampled(jax.random.split(KEY, 4096))
    residual = x @ w - y[:, :1]
    for got, want in (
        (loss, np.mean(residual**2) / 2 + std**2 * np.sum(w**2) / 2),
        (grads["dense_0"]["w"], x.T @ residual / 16 + std**2 * w),
    ):
        got = np.asarray(got, np.float64)
        assert np.all(np.abs(got.mean(axis=0) - want) < 4 * got.std(axis=0) / 64)
    plain = x.T @ residual / 16
    assert np.abs(np.asarray(grads["dense_0"]["w"]).mean(axis=0) - plain).max() > 0.3  # and it isn't the plain one


@pytest.mark.source("GB-7.4-input-noise")
def test_training_with_noise_helps_against_noise():
    """Two inputs that are nearly equal: without noise their weights come out large and of opposite sign."""
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 1, (64, 1))
    x = jnp.asarray(shared + [[0.05, -0.05]] * rng.normal(0, 1, (64, 1)), jnp.float32)
    y = x @ jnp.array([[3.0], [-2.0]])

    def trained(std, key):
        net = jn.serial(gaussian_noise(std), jn.dense(1, bias=False))
        gradient = jn.backprop(net, losses.squared_error)

        def descend(params, key):
            _, grads = gradient(params, {}, (x, y), key=key, train=True)
            return jax.tree.map(lambda p, g: p - 0.3 * g, params, grads), None

        start = {"dense_0": {"w": jnp.zeros((2, 1))}}
        return jax.lax.scan(descend, start, jax.random.split(key, 3000))[0]["dense_0"]["w"]

    plain, noise = (np.asarray(jax.jit(trained)(std, KEY), np.float64) for std in (0.0, 0.3))
    tests = np.asarray(x)[None] + 0.3 * rng.normal(0, 1, (200, 64, 2))
    error_plain, error_noise = (np.mean((tests @ w - np.asarray(y)) ** 2) for w in (plain, noise))
    assert error_noise < 0.5 * error_plain


@pytest.mark.numerical
@pytest.mark.parametrize("multiplicative", [False, True])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32] + [jnp.float64] * X64, ids=lambda d: d.__name__)
def test_noise_under_strict_promotion_keeps_the_dtype(dtype, multiplicative):
    x = drawn((8, 33)).astype(dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        y, by_hand, by_autodiff = noisy(0.25, multiplicative, x, x)
    assert {(a.dtype.name, a.weak_type) for a in (y, by_hand, by_autodiff)} == {(jnp.dtype(dtype).name, False)}
    np.testing.assert_array_equal(np.asarray(by_hand, float), np.asarray(by_autodiff, float))
    static = gaussian_noise(0.25, multiplicative=multiplicative)
    np.testing.assert_array_equal(jax.jit(lambda x: static.apply({}, {}, x, key=KEY, train=True)[0])(x), y)


@pytest.mark.parametrize("std", [-0.1, float("nan"), float("inf"), True, "0.5"])
def test_a_deviation_below_zero_is_refused(std):
    with pytest.raises(ValueError, match=r"got gaussian_noise\(std=.*\); expected a standard deviation ≥ 0"):
        gaussian_noise(std)


def test_noise_asks_for_a_key_and_shows_its_settings():
    x = jnp.ones((2, 3))
    with pytest.raises(ValueError, match=r"gaussian_noise in training got key=None; expected a key"):
        gaussian_noise(0.5).apply({}, {}, x, train=True)
    with pytest.raises(ValueError, match=r"gaussian_noise in training got key=None; expected a key"):
        gaussian_noise(0.5, multiplicative=True).backward({}, {}, x, x, train=True)
    shown = [repr(gaussian_noise(0.1)), repr(gaussian_noise(1.0, multiplicative=True))]
    assert shown == ["gaussian_noise(0.1)", "gaussian_noise(1.0, multiplicative=True)"]
