"""mlp: its layers and start; back-propagation against a NumPy transcription; symmetries; that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnet as jn
from jaxnet import activations, initializers, losses, metrics

TOLERANCE = 1e-12 if jax.config.jax_enable_x64 else 64 * float(np.finfo(np.float32).eps)
KEY = jax.random.key(2)


def near(got, want, scale=1.0):
    """The same shape, and equal to rounding, for numbers of order `scale`."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE * scale, strict=True)


def drawn(rng, *shape, scale=1.0):
    """Float64 numbers that float32 holds exactly, so that oracles in float64 see the same inputs."""
    return rng.normal(0, scale, shape).astype(np.float32).astype(np.float64)


def arrays(tree):
    """Put on the device in the default float, integers as int32; nothing compiles for it."""
    floats = jnp.result_type(float)
    return jax.tree.map(lambda a: jax.device_put(np.asarray(a, floats if a.dtype.kind == "f" else np.int32)), tree)


# ── what mlp builds ─────────────────────────────────────────────────────────────────────────────────────────────

# units, settings, the network's repr
BUILT = [
    ([10], {}, "serial(dense(10))"),
    ([256, 10], {}, "serial(dense(256), relu(), dense(10))"),
    ((5, 4, 3), {"activation": "tanh"}, "serial(dense(5), tanh(), dense(4), tanh(), dense(3))"),
    ([8, 2], {"dropout": 0.5}, "serial(dense(8), relu(), dropout(0.5), dense(2))"),
    ([8, 2], {"dropout": 0}, "serial(dense(8), relu(), dense(2))"),
    (
        [6, 8, 2],
        {"activation": activations.sigmoid, "dropout": 0.25},
        "serial(dense(6), sigmoid(), dropout(0.25), dense(8), sigmoid(), dropout(0.25), dense(2))",
    ),
    (np.array([4, 2]), {}, "serial(dense(4), relu(), dense(2))"),
]


@pytest.mark.newer
@pytest.mark.source("GB-6.1-RELUDEFAULT", "GB-7.12-dropout-mask")
@pytest.mark.parametrize(("units", "settings", "want"), BUILT)
def test_layers_in_order_and_none_after_the_last(units, settings, want):
    assert repr(jn.mlp(units, **settings)) == want


@pytest.mark.source("GB-6.1-RELUDEFAULT")
def test_rectified_linear_units_by_default():
    w0, b0, w1, b1 = (jnp.array(a) for a in ([[1.0, -1.0]], [0.5, 0.5], [[2.0], [3.0]], [0.25]))
    params = {"dense_0": {"w": w0, "b": b0}, "dense_1": {"w": w1, "b": b1}}
    y, _ = jn.mlp([2, 1]).apply(params, {}, jnp.array([[-2.0], [0.0], [2.0]]))
    assert y[:, 0].tolist() == [7.75, 2.75, 5.25]


@pytest.mark.parametrize("name", activations.named)
def test_hidden_weights_start_as_he_for_rectifiers_else_as_glorot(name):
    params, _ = jn.mlp([300, 200], activation=name).init(KEY, (100,))
    hidden, last = np.asarray(params["dense_0"]["w"]), np.asarray(params["dense_1"]["w"])
    if name in ("relu", "softplus", "leaky_relu", "elu", "silu", "gelu", "gelu_tanh"):
        assert abs(hidden.var() / (2 / 100) - 1) < 0.05
        assert np.abs(hidden).max() > (6 / 400) ** 0.5  # normal, not uniform
    else:
        assert 0.999 * (6 / 400) ** 0.5 < np.abs(hidden).max() <= (6 / 400) ** 0.5 * (1 + 1e-6)
    assert 0.999 * (6 / 500) ** 0.5 < np.abs(last).max() <= (6 / 500) ** 0.5 * (1 + 1e-6)


def test_an_initializer_of_ones_own_is_for_all_weights():
    params, _ = jn.mlp([3, 2], weight_init=initializers.constant(0.25)).init(KEY, (2,))
    assert [np.unique(layer["w"]).tolist() for layer in params.values()] == [[0.25]] * 2
    assert [np.unique(layer["b"]).tolist() for layer in params.values()] == [[0.0]] * 2


@pytest.mark.parametrize(
    ("units", "settings", "sentence"),
    [
        ([], {}, r"mlp: got no units; expected at least the number of outputs, mlp\(\[10\]\)"),
        ([4, 0], {}, r"got dense\(units=0\); expected a positive integer"),
        ([2.5, 1], {}, r"got dense\(units=2\.5\)"),
        ([4, 1], {"activation": "sinus"}, r"got activation 'sinus'; expected one of identity, relu"),
        ([4, 1], {"dropout": 1.5}, r"got dropout\(rate=1\.5\)"),
    ],
)
def test_what_makes_no_network_is_refused(units, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        jn.mlp(units, **settings)


# ── back-propagation, transcribed ───────────────────────────────────────────────────────────────────────────────


def sigma(z):
    return 1 / (1 + np.exp(-z))


def softmax(z):
    return np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)


# name: (f, f′)
UNITS = {
    "identity": (lambda a: a, np.ones_like),
    "relu": (lambda a: np.maximum(a, 0), lambda a: 1.0 * (a > 0)),
    "sigmoid": (sigma, lambda a: sigma(a) * (1 - sigma(a))),
    "tanh": (np.tanh, lambda a: 1 / np.cosh(a) ** 2),
    "softplus": (lambda a: np.log1p(np.exp(a)), sigma),
}
# name: (loss, its outputs, ℓ per example, ∂ℓ/∂output), targets as vectors
LOSSES = {
    "squared": (losses.squared_error, lambda o, y: ((o - y) ** 2).sum(1) / 2, lambda o, y: o - y),
    "sigmoid": (
        losses.sigmoid_cross_entropy,
        lambda o, y: -(y * np.log(sigma(o)) + (1 - y) * np.log(1 - sigma(o))).sum(1),
        lambda o, y: sigma(o) - y,
    ),
    "softmax": (
        losses.softmax_cross_entropy,
        lambda o, y: -(y * np.log(softmax(o))).sum(1),
        lambda o, y: softmax(o) - y,
    ),
}


def transcribed(params, x, y, unit, loss, decay=0.0):
    """Goodfellow alg. 6.3 and 6.4 for a whole batch in rows: J = mean ℓ + ½ λ Σ ‖W‖², and its gradient."""
    (f, f_prime), (_, value, slope) = UNITS[unit], LOSSES[loss]
    layers = [params[f"dense_{k}"] for k in range(len(params))]
    h, kept = x, []
    for k, layer in enumerate(layers):
        a = h @ layer["w"] + layer["b"]
        kept.append((h, a))
        h = f(a) if k < len(layers) - 1 else a
    j = value(h, y).mean() + decay / 2 * sum((layer["w"] ** 2).sum() for layer in layers)
    g, grads = slope(h, y) / len(x), {}
    for k in reversed(range(len(layers))):
        h, _ = kept[k]
        grads[f"dense_{k}"] = {"w": h.T @ g + decay * layers[k]["w"], "b": g.sum(axis=0)}
        g = g @ layers[k]["w"].T
        if k:
            g = g * f_prime(kept[k - 1][1])
    return j, grads


def problem(depth, seed=0):
    """Parameters of `depth` layers of three units, and a batch of five with one-hot targets."""
    rng = np.random.default_rng(seed)
    params = {f"dense_{k}": {"w": drawn(rng, 3, 3, scale=0.8), "b": drawn(rng, 3, scale=0.5)} for k in range(depth)}
    return params, drawn(rng, 5, 3), np.eye(3)[rng.integers(0, 3, 5)]


@pytest.mark.numerical
@pytest.mark.source(
    "GB-6.5.4-ALG63", "GB-6.5.4-ALG64", "M-4", "GB-6.3-AFFINE", "GB-6.2.2-ANYUNIT", "GB-6.2.1-COMPOSE", "H-bp"
)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("unit", UNITS)
def test_backpropagation_is_the_textbook_algorithm(unit, loss):
    for depth in range(1, 7):
        net = jn.mlp([3] * depth, activation=unit)
        params, x, y = problem(depth, seed=depth)
        for decay in (0.0, 0.1):
            j, want = transcribed(params, x, y, unit, loss, decay)
            for make in (jn.backprop, jn.loss_and_grad) if depth == 2 else (jn.backprop,):
                gradient = make(net, LOSSES[loss][0])
                gradient = jn.penalized(gradient, l2=decay) if decay else gradient
                (value, _), grads = gradient(arrays(params), {}, arrays((x, y)))
                near(value, j, 10)
                jax.tree.map(near, grads, want)


@pytest.mark.numerical
@pytest.mark.source("GB-6.5.4-BATCH", "GB-5.9-COST", "GB-8.1.3-ML-expectation", "GB-8.1-ERM")
def test_a_batch_is_the_mean_of_its_examples_in_any_order():
    net, (params, x, y) = jn.mlp([3, 3, 3], activation="tanh"), problem(3)
    gradient, (p, *batch) = jn.backprop(net, losses.softmax_cross_entropy), arrays((params, x, y))
    (loss, _), grads = gradient(p, {}, tuple(batch))
    single = jax.jit(jax.vmap(lambda x, y: gradient(p, {}, (x[None], y[None]))))
    (values, _), each = single(*batch)
    near(values.mean(), loss)
    jax.tree.map(lambda a, b: near(a.mean(axis=0), b), each, grads)
    for i in range(5):
        j, want = transcribed(params, x[i : i + 1], y[i : i + 1], "tanh", "softmax")
        near(values[i], j)
        jax.tree.map(lambda a, b: near(a[i], b), each, want)
    order = np.array([3, 1, 4, 0, 2])
    (permuted, _), again = gradient(p, {}, (batch[0][order], batch[1][order]))
    near(permuted, loss)
    jax.tree.map(near, again, grads)


@pytest.mark.numerical
@pytest.mark.source("GB-6.5.4-FINALACT", "M-5fused", "GB-6.5.9-QMP")
def test_softmax_at_the_output_is_not_elementwise():
    """With q = softmax(a) and ℓ = −Σ y log q: the full Jacobian gives q − y, an elementwise f′ doesn't."""
    a, y = np.array([[0.5, -1.0, 2.0]]), np.array([[0.0, 1.0, 0.0]])
    q = softmax(a)
    dq = -y / q
    fused = losses.softmax_cross_entropy.gradient(*arrays((a, y)))
    near(fused, q - y)
    near(activations.softmax.backward(*arrays((a, dq))), q - y)
    assert np.abs(dq * q * (1 - q) - (q - y)).max() > 0.1
    # and as a layer before a loss of probabilities
    probabilities = losses.Loss("nll", lambda q, y: -jnp.sum(y * jnp.log(q), axis=-1), lambda q, y: -y / q)
    params, x, y = problem(2)
    two_roads = [
        jn.backprop(jn.mlp([3, 3]), losses.softmax_cross_entropy),
        jn.backprop(jn.serial(jn.mlp([3, 3]), jn.softmax()), probabilities),
    ]
    given = [arrays(params), {"serial_0": arrays(params)}]
    (_, one), (_, other) = (g(p, {}, arrays((x, y))) for g, p in zip(two_roads, given, strict=True))
    jax.tree.map(near, one, other["serial_0"])


@pytest.mark.numerical
@pytest.mark.source("GB-4.1-ROUND")
def test_float32_drifts_from_float64_by_its_rounding():
    net, (params, x, y) = jn.mlp([3] * 6, activation="tanh"), problem(6)
    j, want = transcribed(params, x, y, "tanh", "softmax")
    single = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (params, x, y))
    (loss, _), grads = jn.backprop(net, losses.softmax_cross_entropy)(single[0], {}, single[1:])
    largest = max(np.abs(b).max() for b in jax.tree.leaves(want))
    drift = (
        max(np.abs(a - b).max() for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(want), strict=True)) / largest
    )
    assert 1e-9 < drift < 64 * 2.0**-23
    assert abs(float(loss) - j) / j < 64 * 2.0**-23
    if jax.config.jax_enable_x64:
        (loss, _), _ = jn.backprop(net, losses.softmax_cross_entropy)(arrays(params), {}, arrays((x, y)))
        assert abs(float(loss) - j) / j < 1e-14


# ── symmetries ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.numerical
@pytest.mark.source("GB-8.2.2-symmetry")
@pytest.mark.parametrize("unit", ["relu", "tanh"])
def test_hidden_units_may_change_places(unit):
    net, (params, x, y) = jn.mlp([3, 3, 3], activation=unit), problem(3)
    one, two = np.array([2, 0, 1]), np.array([1, 2, 0])
    permuted = {
        "dense_0": {"w": params["dense_0"]["w"][:, one], "b": params["dense_0"]["b"][one]},
        "dense_1": {"w": params["dense_1"]["w"][one][:, two], "b": params["dense_1"]["b"][two]},
        "dense_2": {"w": params["dense_2"]["w"][two], "b": params["dense_2"]["b"]},
    }
    batch, gradient = arrays((x, y)), jn.backprop(net, losses.squared_error)
    near(net.apply(arrays(permuted), {}, batch[0])[0], net.apply(arrays(params), {}, batch[0])[0])
    (loss, _), grads = gradient(arrays(params), {}, batch)
    (same_loss, _), moved = gradient(arrays(permuted), {}, batch)
    near(same_loss, loss)
    near(moved["dense_1"]["w"], grads["dense_1"]["w"][one][:, two])


@pytest.mark.numerical
@pytest.mark.source("GB-8.2.2-relu-scale")
@pytest.mark.parametrize(("unit", "free"), [("relu", True), ("tanh", False)])
def test_rectifiers_may_be_rescaled_and_pay_with_their_penalty(unit, free):
    net, (params, x, y) = jn.mlp([3, 3], activation=unit), problem(2)
    alpha = np.array([0.25, 2.0, 8.0])
    scaled = {
        "dense_0": {"w": params["dense_0"]["w"] * alpha, "b": params["dense_0"]["b"] * alpha},
        "dense_1": {"w": params["dense_1"]["w"] / alpha[:, None], "b": params["dense_1"]["b"]},
    }
    batch, gradient = arrays((x, y)), jn.backprop(net, losses.squared_error)
    values = [gradient(arrays(p), {}, batch)[0][0] for p in (params, scaled)]
    penalized = [jn.penalized(gradient, l2=0.1)(arrays(p), {}, batch)[0][0] for p in (params, scaled)]
    assert (abs(float(values[0] - values[1])) < TOLERANCE * float(values[0])) == free
    assert abs(float(penalized[0] - penalized[1])) > 0.1


# ── learning ────────────────────────────────────────────────────────────────────────────────────────────────────


def trained(net, loss, batch, steps, rate):
    """The parameters after full-batch Adam, and the first and last loss."""
    optimizer = optax.adam(rate)
    step = jn.train_step(jn.backprop(net, loss), optimizer)
    params, state = net.init(KEY, batch[0].shape[1:])
    start = jn.train_state(params, state, optimizer, KEY)
    end, rows = jax.jit(lambda s: jax.lax.scan(lambda s, _: step(s, batch), s, length=steps))(start)
    return end.params, float(rows["loss"][0]), float(rows["loss"][-1])


@pytest.mark.source("GB-5.1.1-CLF", "GB-3.3-PMF")
def test_three_classes_are_learned():
    rng = np.random.default_rng(0)
    labels = np.arange(150) % 3
    centre = np.array([[0.0, 0.0], [3.0, 3.0], [0.0, 4.0]])
    batch = arrays((drawn(rng, 150, 2, scale=0.5) + centre[labels], labels))
    net = jn.mlp([16, 3])
    params, first, last = trained(net, losses.softmax_cross_entropy, batch, 200, 0.03)
    logits, _ = net.apply(params, {}, batch[0])
    assert float(metrics.accuracy(logits, batch[1]).mean()) >= 0.99
    assert last < 0.05 < 0.5 < first
    shares = np.asarray(activations.softmax(logits), np.float64)
    near(shares.sum(axis=1), np.ones(150))
    np.testing.assert_array_equal(shares.argmax(axis=1), metrics.labels(logits))


@pytest.mark.source("GB-5.1.1-REG", "GB-6.2.2.1-LINOUT")
def test_the_sine_is_learned():
    x = np.linspace(-3, 3, 64)[:, None]
    net = jn.mlp([32, 1], activation="tanh")
    params, first, last = trained(net, losses.squared_error, arrays((x, np.sin(x))), 1500, 0.01)
    assert 2 * last < 1e-3 < first
    between = np.linspace(-2.9, 2.9, 50)[:, None]
    assert np.abs(np.asarray(net.apply(params, {}, jnp.asarray(between))[0]) - np.sin(between)).max() < 0.05


@pytest.mark.source("GB-6.2.1.2-MEAN")
def test_squared_error_learns_the_conditional_mean_of_skewed_noise():
    """y = sin x + Exp(1): the mean is sin x + 1, the median sin x + 0.693."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-2, 2, (16384, 1))
    y = np.sin(x) + rng.exponential(1.0, x.shape)
    net = jn.mlp([6, 1], activation="tanh")
    params, *_ = trained(net, losses.squared_error, arrays((x, y)), 400, 0.03)
    grid = np.linspace(-1.8, 1.8, 37)[:, None]
    off = np.asarray(net.apply(params, {}, jnp.asarray(grid))[0]) - np.sin(grid)
    assert np.abs(off - 1).max() < 0.1
    assert abs(off.mean() - 1) < 0.02
