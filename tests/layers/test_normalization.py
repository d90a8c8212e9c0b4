"""batch, layer and RMS norm against NumPy, autodiff and torch; running statistics; what no gradient may do."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnet as jn
from jaxnet import losses
from jaxnet.layers.normalization import batch_norm, layer_norm, rms_norm

pytestmark = pytest.mark.numerical

X64 = jax.config.jax_enable_x64
TOLERANCE = 1e-12 if X64 else 256 * float(np.finfo(np.float32).eps)
RNG = np.random.default_rng(0)
X = (RNG.normal(0, 1, (6, 4)) * [1, 2, 0.5, 3] + [0, 5, -3, 1]).astype(np.float32).astype(np.float64)
DY = RNG.normal(0, 1, (6, 4)).astype(np.float32).astype(np.float64)
PARAMS = {"scale": np.array([0.5, -1.0, 2.0, 1.5]), "shift": np.array([1.0, 0.0, -2.0, 0.25])}
STATE = {"mean": np.array([0.5, 4.0, -2.0, 0.0]), "variance": np.array([1.0, 3.0, 0.25, 8.0])}
LAYERS = {"batch_norm": batch_norm(), "layer_norm": layer_norm(), "rms_norm": rms_norm()}


def arrays(tree):
    return jax.tree.map(lambda a: jnp.asarray(a, float), tree)


def near(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, strict=True)


@partial(jax.jit, static_argnums=(0, 5))
def both(layer, params, state, x, dy, train):
    """y, the new state, (dx, dparams) by hand, (dx, dparams) by autodiff."""
    y, pullback, new = jax.vjp(lambda x, p: layer.apply(p, state, x, train=train), x, params, has_aux=True)
    return y, new, layer.backward(params, state, x, dy, train=train), pullback(dy)


def run(name, x=X, dy=DY, train=True, params=PARAMS, state=STATE):
    params = {"scale": params["scale"]} if name == "rms_norm" else params
    return both(LAYERS[name], *arrays((params, state if name == "batch_norm" else {}, x, dy)), train)


# ── values and gradients ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.newer
@pytest.mark.source("B-7.52-57", "GB-8.7.1-BN-train", "GB-8.7.1-BN-backprop", "GB-8.7.1-BN-conv")
@pytest.mark.parametrize("axes", [(), (3, 2)], ids=str)
def test_batch_norm_in_training_is_the_formula_and_torch(axes):
    torch = pytest.importorskip("torch")
    x, dy = RNG.normal(2, 3, (6, *axes, 4)), RNG.normal(0, 1, (6, *axes, 4))
    y, state, by_hand, by_autodiff = run("batch_norm", x, dy)
    rows = x.reshape(-1, 4)
    mean, variance = rows.mean(axis=0), rows.var(axis=0)  # biased
    near(y, PARAMS["scale"] * (x - mean) / np.sqrt(variance + 1e-5) + PARAMS["shift"])
    jax.tree.map(
        near, state, {"mean": 0.9 * STATE["mean"] + 0.1 * mean, "variance": 0.9 * STATE["variance"] + 0.1 * variance}
    )
    jax.tree.map(near, by_hand, by_autodiff)
    t, w, b = (torch.tensor(a, requires_grad=True) for a in (rows, PARAMS["scale"], PARAMS["shift"]))
    torch.nn.functional.batch_norm(t, None, None, w, b, training=True, eps=1e-5).backward(
        torch.tensor(dy.reshape(-1, 4))
    )
    near(by_hand[0], t.grad.numpy().reshape(x.shape))
    jax.tree.map(near, by_hand[1], {"scale": w.grad, "shift": b.grad})


@pytest.mark.source("B-7.52-57", "GB-8.7.1-BN-backprop")
def test_the_course_notes_jacobian():
    """dẐ_k/dZ_j = G/(Kσ) · (Kδ_jk − 1 − (Z_k − μ)(Z_j − μ)/σ²), with ε inside σ here."""
    _, _, (dx, _), _ = run("batch_norm")
    k, centred = len(X), X - X.mean(axis=0)
    for i in range(4):
        sigma = np.sqrt(X[:, i].var() + 1e-5)
        jacobian = k * np.eye(k) - 1 - np.outer(centred[:, i], centred[:, i]) / sigma**2
        near(dx[:, i], PARAMS["scale"][i] / (k * sigma) * jacobian @ DY[:, i])


@pytest.mark.newer
@pytest.mark.source("B-7.52-57", "GB-8.7.1-BN-test")
def test_batch_norm_in_inference_uses_the_running_averages_and_one_example_is_enough():
    torch = pytest.importorskip("torch")
    y, state, by_hand, by_autodiff = run("batch_norm", train=False)
    jax.tree.map(near, state, STATE)
    t = [torch.tensor(a, requires_grad=True) for a in (X, PARAMS["scale"], PARAMS["shift"])]
    running = torch.tensor(STATE["mean"]), torch.tensor(STATE["variance"])
    out = torch.nn.functional.batch_norm(t[0], *running, *t[1:], training=False, eps=1e-5)
    out.backward(torch.tensor(DY))
    near(y, out.detach())
    for dx, grads in (by_hand, by_autodiff):
        near(dx, t[0].grad)
        jax.tree.map(near, grads, {"scale": t[1].grad, "shift": t[2].grad})
    alone = run("batch_norm", X[:1], DY[:1], train=False)
    near(alone[0], y[:1])
    near(alone[2][0], by_hand[0][:1])


@pytest.mark.newer
@pytest.mark.source("B-7.58-60")
@pytest.mark.parametrize("axes", [(), (3,)], ids=str)
@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_norms_of_one_example_are_the_formula_and_torch(name, axes):
    torch = pytest.importorskip("torch")
    x, dy = RNG.normal(2, 3, (6, *axes, 4)), RNG.normal(0, 1, (6, *axes, 4))
    y, state, by_hand, by_autodiff = run(name, x, dy)
    t, w, b = (torch.tensor(a, requires_grad=True) for a in (x, PARAMS["scale"], PARAMS["shift"]))
    if name == "layer_norm":
        want = PARAMS["scale"] * (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        want = want + PARAMS["shift"]
        torch.nn.functional.layer_norm(t, (4,), w, b, eps=1e-5).backward(torch.tensor(dy))
    else:
        want = PARAMS["scale"] * x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-5)
        torch.nn.functional.rms_norm(t, (4,), w, eps=1e-5).backward(torch.tensor(dy))
    assert state == {}
    near(y, want)
    jax.tree.map(near, by_hand, by_autodiff)
    near(by_hand[0], t.grad)
    jax.tree.map(near, by_hand[1], {"scale": w.grad} | ({"shift": b.grad} if name == "layer_norm" else {}))
    alone = run(name, x[:1], dy[:1], train=False)  # neither the batch nor the mode matters
    near(alone[0], y[:1])
    near(alone[2][0], by_hand[0][:1])


@pytest.mark.source("B-7.58-60")
def test_the_misprinted_layer_norm_would_be_caught():
    """Bishop's 7.59 prints μ_i, a mean of another axis: rows don't get the variance 1 then."""
    x, mean = X[:4], X[:4].mean(axis=1)
    right = np.mean((x - mean[:, None]) ** 2, axis=1)
    printed = np.mean((x - mean[None, :]) ** 2, axis=1)
    ones = {"scale": np.ones(4), "shift": np.zeros(4)}
    y = np.asarray(run("layer_norm", x, DY[:4], params=ones)[0], np.float64)
    near(y, (x - mean[:, None]) / np.sqrt(right[:, None] + 1e-5))
    near(y.var(axis=1), right / (right + 1e-5))
    assert np.abs(((x - mean[:, None]) / np.sqrt(printed[:, None] + 1e-5)).var(axis=1) - 1).min() > 0.03


# ── what normalization promises ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-8.7.1-BN-train", "GB-8.7.1-BN-backprop", "GB-8.7.1-BN-gamma-beta")
def test_columns_are_standard_and_no_gradient_shifts_or_scales_them():
    ones = {"scale": np.ones(4), "shift": np.zeros(4)}
    y, _, (dx, _), _ = run("batch_norm", params=ones)
    y, dx = np.asarray(y, np.float64), np.asarray(dx, np.float64)
    near(y.mean(axis=0), np.zeros(4))
    near(y.var(axis=0), X.var(axis=0) / (X.var(axis=0) + 1e-5))
    near(dx.sum(axis=0), np.zeros(4))
    assert np.abs(np.sum(dx * y, axis=0)).max() < 1e-3  # up to ε
    y, *_ = run("batch_norm")
    near(np.asarray(y, np.float64).mean(axis=0), PARAMS["shift"])  # the mean is β alone
    undone = {"scale": np.sqrt(X.var(axis=0) + 1e-5), "shift": X.mean(axis=0)}
    near(run("batch_norm", params=undone)[0], X)


@pytest.mark.source("GB-8.7.1-BN-train", "GB-6.5.8-UNDEF")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("c", [0.0, 0.1, -1e4, 1e4])
def test_constant_input_gives_the_shift_and_finite_gradients(name, c):
    y, _, by_hand, by_autodiff = run(name, np.full((6, 4), c))
    if name != "rms_norm":
        np.testing.assert_array_equal(y, np.broadcast_to(arrays(PARAMS["shift"]), (6, 4)))
    for leaf in jax.tree.leaves((y, by_hand, by_autodiff)):
        assert np.isfinite(leaf).all()
    bound = 1e-12 if X64 else 1e-5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=bound, atol=bound * 1000), by_hand, by_autodiff)


@pytest.mark.source("GB-8.7.1-BN-train")
@pytest.mark.parametrize("name", ["batch_norm", "layer_norm"])
def test_far_from_zero_no_digits_are_lost(name):
    x = np.float32(1e4) + RNG.integers(-8, 8, (6, 4)) / 8  # held exactly by float32
    near(run(name, x)[0], run(name, x - 1e4)[0])


@pytest.mark.source("GB-8.7.1-BN-placement", "GB-8.7.1-BN-scale-invariance")
def test_a_bias_before_batch_norm_has_no_effect_and_no_gradient():
    net = jn.serial(jn.dense(4), batch_norm(), jn.tanh(), jn.dense(1))
    params, state = net.init(jax.random.key(0), (4,))
    gradient = jn.backprop(net, losses.squared_error)
    batch = arrays((X, DY[:, :1]))
    at = jax.jit(lambda p: gradient(p, state, batch, train=True))
    (loss, _), grads = at(params)
    near(grads["dense_0"]["b"], np.zeros(4))
    moved = params | {"dense_0": {"w": params["dense_0"]["w"], "b": jnp.array([3.0, -1.0, 0.5, 7.0])}}
    near(at(moved)[0][0], loss)
    assert float(jnp.abs(grads["dense_0"]["w"]).max()) > 1e-3
    scaled = params | {"dense_0": {"w": 1000 * params["dense_0"]["w"], "b": params["dense_0"]["b"]}}
    np.testing.assert_allclose(at(scaled)[0][0], loss, rtol=1e-3)  # up to ε
    assert np.isfinite(at(params | {"dense_0": jax.tree.map(jnp.zeros_like, params["dense_0"])})[0][0])


def test_the_ends_of_the_momentum_keep_the_last_batch_or_the_beginning():
    x = jnp.array([[1.0], [3.0]])
    for momentum, mean in ((0, 2.0), (1, 0.0)):
        layer = batch_norm(momentum=momentum)
        params, state = layer.init(jax.random.key(0), (1,))
        assert layer.apply(params, state, x, train=True)[1]["mean"].tolist() == [mean]


@pytest.mark.source("GB-8.7.1-BN-test")
@pytest.mark.parametrize("traced", [False, True])
def test_running_averages_tend_to_those_of_the_population(traced):
    def train(momentum):
        layer = batch_norm(momentum=momentum)
        params, state = layer.init(jax.random.key(0), (2,))

        def step(state, key):
            x = jnp.array([[3.0, -1.0]]) + jnp.array([[2.0, 0.5]]) * jax.random.normal(key, (64, 2))
            return layer.apply(params, state, x, train=True)[1], None

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(1), 2000))[0]

    state = jax.jit(train)(0.99) if traced else jax.jit(partial(train, 0.99))()
    np.testing.assert_allclose(state["mean"], [3.0, -1.0], atol=0.1)
    np.testing.assert_allclose(state["variance"], np.array([4.0, 0.25]) * 63 / 64, rtol=0.1)


@pytest.mark.float64
@pytest.mark.source("B-7.52-57")
def test_a_network_with_batch_norm_is_proven_and_carries_its_state():
    net = jn.serial(jn.dense(5, bias=False), batch_norm(momentum=0.5), jn.relu(), jn.dense(3))
    params, state = net.init(jax.random.key(0), (4,))
    batch = arrays(X), jnp.array([0, 1, 2, 0, 1, 2])
    loss = losses.softmax_cross_entropy
    roads = [jax.jit(make(net, loss), static_argnames="train") for make in (jn.backprop, jn.loss_and_grad)]
    for train in (True, False):
        report = jn.testing.compare_gradients(*roads, params, state, batch, train=train)
        assert report, report
    (_, new), _ = roads[0](params, state, batch, train=True)
    z = np.asarray(X @ np.asarray(params["dense_0"]["w"], np.float64))
    near(new["batch_norm_0"]["mean"], 0.5 * z.mean(axis=0))
    near(new["batch_norm_0"]["variance"], 0.5 + 0.5 * z.var(axis=0))


# ── types, errors ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-6.5.8-DTYPES")
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("name", LAYERS)
def test_strict_promotion_dtype_and_statistics_in_float32(name, dtype):
    layer = LAYERS[name]
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        params, state = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((4,), dtype))
        y, new, by_hand, by_autodiff = both(layer, params, state, jnp.asarray(X, dtype), jnp.asarray(DY, dtype), True)
    leaves = jax.tree.leaves((params, y, by_hand, by_autodiff))
    assert {(a.dtype, a.weak_type) for a in leaves} == {(jnp.dtype(dtype), False)}
    assert all(a.dtype == jnp.float32 and not a.weak_type for a in jax.tree.leaves((state, new)))
    eps = float(jnp.finfo(dtype).eps)
    for a, b in zip(jax.tree.leaves(by_hand), jax.tree.leaves(by_autodiff), strict=True):
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), atol=64 * eps)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: batch_norm(momentum=1.5), r"got batch_norm\(momentum=1\.5\); expected the share"),
        (lambda: batch_norm(epsilon=0), r"got batch_norm\(epsilon=0\); expected ε > 0"),
        (lambda: layer_norm(epsilon=-1.0), r"got layer_norm\(epsilon=-1\.0\)"),
        (lambda: rms_norm(epsilon=0.0), r"got rms_norm\(epsilon=0\.0\)"),
        (lambda: run("batch_norm", X[:1], DY[:1]), r"batch_norm in training got inputs of shape \(1, 4\).*at least 2"),
        (lambda: run("layer_norm", X[:, :3], DY[:, :3]), r"layer_norm: got inputs of shape \(6, 3\); expected \(batch"),
        (lambda: batch_norm().init(jax.random.key(0), ()), r"batch_norm: got an example of spec \(\)"),
    ],
)
def test_what_does_not_fit_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("name", LAYERS)
def test_integers_are_refused(name):
    with pytest.raises(TypeError, match=f"{name}: got inputs of dtype int32; expected floats"):
        LAYERS[name].init(jax.random.key(0), jax.ShapeDtypeStruct((4,), jnp.int32))
    with pytest.raises(TypeError, match=f"{name}: got inputs of dtype int32; expected floats"):
        LAYERS[name].apply(arrays(PARAMS), arrays(STATE), jnp.ones((2, 4), jnp.int32))


def test_repr_shows_what_was_set():
    shown = [repr(layer) for layer in (batch_norm(), batch_norm(momentum=0.5, epsilon=1e-3), layer_norm(epsilon=1e-6))]
    assert shown == ["batch_norm()", "batch_norm(momentum=0.5, epsilon=0.001)", "layer_norm(epsilon=1e-06)"]
