"""initializers: bounds, variances and distributions with fixed keys; what the start does to training."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats

import jaxnet as jn
from jaxnet import initializers, losses
from jaxnet.layers.calibrated import lsuv

FAN_IN, FAN_OUT = 200, 300
SHAPE = (FAN_IN, FAN_OUT)
XOR = jnp.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), jnp.array([[0.0], [1], [1], [0]])

# name: (initializer, variance, bound of a uniform distribution or None for a normal one)
TABLE = {
    "he_normal": (initializers.he_normal(), 2 / FAN_IN, None),
    "he_uniform": (initializers.he_uniform(), 2 / FAN_IN, (6 / FAN_IN) ** 0.5),
    "glorot_normal": (initializers.glorot_normal(), 2 / (FAN_IN + FAN_OUT), None),
    "glorot_uniform": (initializers.glorot_uniform(), 2 / (FAN_IN + FAN_OUT), (6 / (FAN_IN + FAN_OUT)) ** 0.5),
    "gaussian": (initializers.gaussian(), 1 / FAN_IN, None),
    "1/√M": (initializers.variance_scaling(1 / 3, "in", "uniform"), 1 / (3 * FAN_IN), FAN_IN**-0.5),
    "out": (initializers.variance_scaling(1.5, "out", "normal"), 1.5 / FAN_OUT, None),
    "uniform": (initializers.uniform(0.25), 0.25**2 / 3, 0.25),
    "normal": (initializers.normal(0.3), 0.09, None),
    "lecun_normal": (initializers.lecun_normal(), 1 / FAN_IN, None),
    "lecun_uniform": (initializers.lecun_uniform(), 1 / FAN_IN, (3 / FAN_IN) ** 0.5),
}


def drawn(initializer, shape=SHAPE, seed=0, dtype=jnp.float32):
    return np.asarray(initializer(jax.random.key(seed), shape, dtype), np.float64)


def deviations(draws, variance):
    """How many standard errors mean and variance of the draws are off (a normal's kurtosis at the most)."""
    mean = np.mean(draws) / (variance / draws.size) ** 0.5
    return abs(mean), abs(np.mean(draws**2) / variance - 1) / (2 / draws.size) ** 0.5


# ── distributions ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.newer
@pytest.mark.source("GB-8.4-glorot", "GB-8.4-uniform-fanin", "S-xavier")
@pytest.mark.parametrize("name", TABLE)
def test_mean_variance_bounds_and_distribution(name):
    initializer, variance, bound = TABLE[name]
    draws = drawn(initializer)
    assert max(deviations(draws, variance)) < 4
    assert abs(draws.var() / variance - 1) < 0.05
    if bound is None:
        ideal = scipy.stats.norm(0, variance**0.5)
    else:
        ideal = scipy.stats.uniform(-bound, 2 * bound)
        assert 0.999 * bound < np.abs(draws).max() <= bound * (1 + 1e-6)
    assert scipy.stats.kstest(draws.ravel(), ideal.cdf).pvalue > 1e-3


@pytest.mark.source("GB-8.4-glorot", "S-xavier")
def test_the_misprinted_glorot_bound_would_be_caught():
    """6 / √(N + M) has six times the variance 2 / (N + M), for these fans."""
    printed = drawn(initializers.uniform(6 / (FAN_IN + FAN_OUT) ** 0.5))
    assert abs(printed.var() / (2 / (FAN_IN + FAN_OUT)) - 6) < 0.3
    assert deviations(printed, 2 / (FAN_IN + FAN_OUT))[1] > 100
    assert np.abs(drawn(initializers.glorot_uniform())).max() <= (6 / 500) ** 0.5 < np.abs(printed).max()


FANS = [
    ((784, 256), (784, 256)),
    ((3, 3, 16, 32), (144, 288)),  # a 3 × 3 kernel of 16 channels in, 32 out
    ((5, 7, 2), (35, 10)),
    ((2, 3, 4, 5, 6), (120, 144)),
]


@pytest.mark.parametrize(("shape", "want"), FANS)
def test_fans_count_the_receptive_field(shape, want):
    assert initializers.fans(shape) == want


@pytest.mark.parametrize(("fan", "units"), [("in", 144), ("out", 288), ("mean", 216)])
def test_convolution_kernels_use_these_fans(fan, units):
    initializer = initializers.variance_scaling(2.0, fan)
    assert max(deviations(drawn(initializer, (3, 3, 16, 32)), 2 / units)) < 4


@pytest.mark.parametrize("shape", [(3,), ()])
def test_fans_of_a_bias_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected weights with axes \(…, inputs, units\): use zeros\(\) or constant"):
        initializers.he_normal()(jax.random.key(0), shape, jnp.float32)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((1.0, "both"), r'got fan \'both\'; expected "in", "out" or "mean"'),
        ((1.0, "in", "gamma"), r'got distribution \'gamma\'; expected "normal" or "uniform"'),
    ],
)
def test_unknown_fan_or_distribution_is_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        initializers.variance_scaling(*arguments)


@pytest.mark.source("GB-8.4-bias-zero")
def test_constants_and_the_default_bias():
    assert np.all(drawn(initializers.zeros(), (7,)) == 0)
    assert np.all(drawn(initializers.constant(0.5), (2, 3)) == 0.5)
    params, _ = jn.mlp([5, 4, 3]).init(jax.random.key(0), (2,))
    assert all(np.all(np.asarray(layer["b"]) == 0) for layer in params.values())


OTHERS = {
    "constant": initializers.constant(0.5),
    "orthogonal": initializers.orthogonal(),
    "sparse": initializers.sparse(3),
}


@pytest.mark.parametrize("name", ["he_normal", "glorot_uniform", "uniform", "normal", *OTHERS])
def test_dtype_is_the_one_asked_for(name):
    initializer = TABLE[name][0] if name in TABLE else OTHERS[name]
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        w = initializer(jax.random.key(0), (20, 30), jnp.bfloat16)
    assert (w.dtype, w.shape, w.weak_type) == (jnp.bfloat16, (20, 30), False)


def sparse_of(std):
    return initializers.sparse(3, std)


@pytest.mark.parametrize(
    "make",
    [
        initializers.variance_scaling,
        initializers.uniform,
        initializers.normal,
        initializers.orthogonal,
        sparse_of,
    ],
)
def test_a_traced_scale_gives_the_same_bits(make):
    def draw(scale):
        return make(scale)(jax.random.key(3), (6, 4), jnp.float32)

    np.testing.assert_array_equal(jax.jit(draw)(0.7), jax.jit(partial(draw, 0.7))())


@pytest.mark.source("GB-6.2-INIT")
def test_each_layer_draws_from_a_key_of_its_own_and_deterministically():
    net = jn.mlp([8, 8, 8])
    one, _ = net.init(jax.random.key(0), (8,))
    again, _ = net.init(jax.random.key(0), (8,))
    other, _ = net.init(jax.random.key(1), (8,))
    weights = [np.asarray(p[name]["w"]) for p in (one, other) for name in p]
    assert len({w.tobytes() for w in weights}) == len(weights) == 6
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert max(abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a in weights for b in weights if a is not b) < 0.5


# ── the scale of activations ────────────────────────────────────────────────────────────────────────────────────


@jax.jit
def growth(scale, keys):
    """log of the mean factor by which each of 49 ReLU layers of 32 units changes the second moment, summed."""

    def moments(key):
        def layer(h, key):
            w = initializers.variance_scaling(scale, "in")(key, (32, 32), jnp.float32)
            h = jn.activations.relu(h @ w)
            return h, jnp.mean(jnp.square(h))

        x = jax.random.normal(jax.random.fold_in(key, 50), (1, 32), jnp.float32)
        return jax.lax.scan(layer, x, jax.random.split(key, 50))[1]

    m = jax.lax.map(moments, keys, batch_size=50)
    return jnp.sum(jnp.log(jnp.mean(m[:, 1:] / m[:, :-1], axis=0)))


@pytest.mark.source("B-7.19-7.23")
def test_he_keeps_the_second_moment_through_fifty_relu_layers():
    keys = jax.random.split(jax.random.key(1), 600)
    assert 0.8 < np.exp(growth(2.0, keys)) < 1.2
    assert np.exp(growth(2.0 / 4, keys)) < 1e-25  # half the standard deviation: ¼ per layer
    assert np.exp(growth(2.0 * 4, keys)) > 1e25
    draws = drawn(initializers.he_normal())
    assert abs(draws.std() / (2 / FAN_IN) ** 0.5 - 1) < 0.02  # and `he_normal` is that scale


@pytest.mark.source("GB-8.4-glorot-flow")
def test_glorot_keeps_activations_and_gradients_level_in_a_linear_net():
    def stds(initializer):
        weights = [drawn(initializer, (64, 64), seed) for seed in range(10)]
        h = g = np.random.default_rng(0).normal(0, 1, (100, 64))
        forward, backward = [h.std()], [g.std()]
        for w, w_last in zip(weights, reversed(weights), strict=True):
            h, g = h @ w, g @ w_last.T
            forward.append(h.std())
            backward.append(g.std())
        return np.array([forward, backward])

    level = stds(initializers.glorot_uniform())
    assert level.min() > 0.5
    assert level.max() < 2
    assert stds(initializers.uniform(6 / 128**0.5))[:, -1].min() > 1000  # the misprint blows up


# ── symmetry ────────────────────────────────────────────────────────────────────────────────────────────────────


def trained(net, steps=100):
    """The network's first parameters, and those after some steps of Adam."""
    x, y = np.random.default_rng(0).normal(0, 1, (2, 8, 3))
    optimizer = optax.adam(0.05)
    step = jn.train_step(jn.loss_and_grad(net, losses.squared_error), optimizer)
    params, state = net.init(jax.random.key(0), (3,))
    start = jn.train_state(params, state, optimizer, jax.random.key(1))
    batch = jnp.asarray(x, jnp.float32), jnp.asarray(y[:, :1], jnp.float32)
    end, _ = jax.jit(lambda s: jax.lax.scan(lambda s, _: (step(s, batch)[0], None), s, length=steps))(start)
    return start.params, end.params


def hidden_units_alike(params):
    first, last = params["dense_0"], params["dense_1"]
    columns = np.concatenate([first["w"], first["b"][None], last["w"].T])
    return bool(np.all(columns == columns[:, :1]))


@pytest.mark.source("B-7.2.5", "GB-8.4-symmetry-break", "GB-6.2-INIT")
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_equal_units_stay_equal_for_ever(activation):
    start, end = trained(jn.mlp([4, 1], activation=activation, weight_init=initializers.constant(0.3)))
    assert hidden_units_alike(start)
    assert hidden_units_alike(end)
    assert float(jnp.abs(end["dense_0"]["w"] - start["dense_0"]["w"]).max()) > 0.1  # though they learn
    if activation == "tanh":
        assert not hidden_units_alike(trained(jn.mlp([4, 1], activation=activation))[1])


@pytest.mark.source("GB-8.4-symmetry-break", "GB-6.2-INIT")
@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_zero_weights_give_the_first_layer_no_gradient(activation):
    net = jn.mlp([4, 1], activation=activation, weight_init=initializers.zeros())
    params, state = net.init(jax.random.key(0), (2,))
    _, grads = jn.backprop(net, losses.squared_error)(params, state, XOR)
    assert np.all(np.asarray(grads["dense_0"]["w"]) == 0)
    assert np.all(np.asarray(grads["dense_1"]["w"]) == 0)
    assert float(grads["dense_1"]["b"][0]) == -0.5


@pytest.mark.source("GB-6.3.1-BIAS01", "GB-8.4-relu-bias-0.1", "GB-6.2-INIT")
def test_small_random_weights_learn_xor_and_positive_biases_help():
    """Four ReLU units, N(0, 1) weights, 5,000 full-batch steps of rate 0.1 on ¼ Σ (f − y)²: twice our loss."""
    starts = jnp.array([[0.0, 1.0], [0.1, 1.0], [0.0, 0.0]])  # the hidden biases and the weights' deviation

    def run(start, key):
        random = initializers.normal(start[1])
        hidden = jn.dense(4, weight_init=random, bias_init=initializers.constant(start[0]))
        net, optimizer = jn.serial(hidden, jn.relu(), jn.dense(1, weight_init=random)), optax.sgd(0.2)
        step = jn.train_step(jn.loss_and_grad(net, losses.squared_error), optimizer)
        params, state = net.init(key, (2,))
        active = jnp.mean(hidden.apply(params["dense_0"], {}, XOR[0])[0] > 0)
        first = jn.train_state(params, state, optimizer, key)
        _, rows = jax.lax.scan(lambda s, _: step(s, XOR), first, length=5000)
        return active, 2 * rows["loss"][-1]

    keys = jax.random.split(jax.random.key(0), 300)
    active, loss = jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(starts, keys)
    solved, active = np.mean(np.asarray(loss) < 1e-3, axis=1), np.mean(np.asarray(active), axis=1)
    assert active[0] < active[1]
    assert 0.5 < solved[0] < solved[1] < 0.9  # 61 % and 77 % were expected
    np.testing.assert_allclose(loss[2], 0.25, atol=1e-6)  # all weights 0: only the last bias learns, the mean


# ── orthogonal, sparse ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.newer
@pytest.mark.source("GB-8.4-orthogonal", "GB-8.4-gram-schmidt", "GB-2.6-ORTH")
@pytest.mark.parametrize("shape", [(30, 30), (40, 7), (7, 40), (3, 2, 5, 8), (1, 4)], ids=str)
@pytest.mark.parametrize("gain", [1.0, 2**0.5])
def test_orthogonal_weights_have_all_singular_values_equal(gain, shape):
    w = drawn(initializers.orthogonal(gain), shape).reshape(-1, shape[-1])
    assert drawn(initializers.orthogonal(gain), shape).shape == shape
    np.testing.assert_allclose(np.linalg.svd(w, compute_uv=False), gain, atol=1e-5)
    if len(w) >= shape[-1]:
        np.testing.assert_allclose(w.T @ w, gain**2 * np.eye(shape[-1]), atol=1e-5)
    else:  # more units than inputs: lengths are kept
        x = np.random.default_rng(0).normal(0, 1, (5, len(w)))
        np.testing.assert_allclose(np.linalg.norm(x @ w, axis=1), gain * np.linalg.norm(x, axis=1), rtol=1e-5)


@pytest.mark.source("GB-8.4-orthogonal")
def test_orthogonal_weights_are_drawn_evenly():
    """Without the sign of R's diagonal QR favours some matrices: entries must have mean 0 and variance 1/n."""
    draw = jax.jit(jax.vmap(lambda key: initializers.orthogonal()(key, (3, 3), jnp.float32)))
    w = np.asarray(draw(jax.random.split(jax.random.key(0), 4000)), np.float64)
    assert np.abs(w.mean(axis=0)).max() < 4.5 * (1 / 3 / 4000) ** 0.5
    np.testing.assert_allclose(w.var(axis=0), 1 / 3, atol=0.03)
    assert 0.45 < np.mean(np.linalg.det(w) > 0) < 0.55


@pytest.mark.source("GB-8.4-orthogonal")
def test_a_linear_chain_of_orthogonal_layers_keeps_lengths_at_any_depth():
    weights = [drawn(initializers.orthogonal(), (16, 16), seed) for seed in range(60)]
    x = np.random.default_rng(0).normal(0, 1, (4, 16))
    y = x
    for w in weights:
        y = y @ w
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), np.linalg.norm(x, axis=1), rtol=1e-5)


@pytest.mark.source("GB-8.4-sparse")
@pytest.mark.parametrize("shape", [(200, 300), (3, 3, 4, 20), (5, 4)], ids=str)
def test_sparse_weights_are_a_fixed_number_for_each_unit_at_even_places(shape):
    w = np.asarray(jax.jit(lambda key: initializers.sparse(5, 0.7)(key, shape, jnp.float32))(jax.random.key(0)))
    assert w.shape == shape
    w = w.reshape(-1, shape[-1]).astype(np.float64)
    assert np.all(np.sum(w != 0, axis=0) == 5)
    if shape == (200, 300):
        values = w[w != 0]
        assert scipy.stats.kstest(values, scipy.stats.norm(0, 0.7).cdf).pvalue > 1e-3
        counts = np.sum(w != 0, axis=1)  # of each input over the units: 300 · 5/200 on average
        assert abs(counts.var() / (300 * 0.025 * 0.975) - 1) < 0.4


@pytest.mark.source("GB-8.4-sparse")
def test_sparse_pre_activations_do_not_depend_on_the_fan_in():
    spreads = []
    for inputs in (20, 500):
        x = np.random.default_rng(0).normal(0, 1, (200, inputs))
        spreads.append(np.std(x @ drawn(initializers.sparse(10), (inputs, 400))))
    np.testing.assert_allclose(spreads, 10**0.5, rtol=0.05)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: initializers.sparse(0), r"got sparse\(0\); expected a positive integer"),
        (lambda: drawn(initializers.sparse(6), (5, 3)), r"sparse: got 6 incoming weights for a fan-in of 5; expected"),
        (lambda: drawn(initializers.orthogonal(), (5,)), r"expected weights with axes"),
        (lambda: initializers.class_marginals([1, 0]), r"got class_marginals\(\[1, 0\]\); expected one positive"),
        (lambda: initializers.class_marginals([1]), r"expected one positive number for each of two or more classes"),
        (lambda: drawn(initializers.class_marginals([1, 2, 3]), (1,)), r"got a bias of shape \(1,\); expected \(3,\):"),
        (lambda: drawn(initializers.class_marginals([1, 2]), (3,)), r"expected \(2,\) or \(1,\)"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


# ── biases from the data ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.newer
@pytest.mark.source("GB-8.4-bias-marginals")
def test_a_bias_from_the_marginals_starts_at_the_entropy_of_the_labels():
    y = jnp.array([0] * 12 + [1] * 3 + [2] * 1)
    c = np.bincount(y) / 16
    bias = initializers.class_marginals(jnp.bincount(y))
    net = jn.dense(3, weight_init=initializers.zeros(), bias_init=bias)
    params, state = net.init(jax.random.key(0), (2,))
    logits, _ = net.apply(params, state, jnp.ones((16, 2)))
    np.testing.assert_allclose(jax.nn.softmax(logits)[0], c, rtol=1e-6)
    np.testing.assert_allclose(jnp.mean(losses.softmax_cross_entropy(logits, y)), scipy.stats.entropy(c), rtol=1e-6)
    plain, _ = jn.dense(3, weight_init=initializers.zeros()).init(jax.random.key(0), (2,))
    start = jnp.mean(losses.softmax_cross_entropy(net.apply(plain, state, jnp.ones((16, 2)))[0], y))
    np.testing.assert_allclose(start, np.log(3), rtol=1e-6)
    one = initializers.class_marginals([12, 4])(jax.random.key(0), (1,), jnp.float32)
    np.testing.assert_allclose(one, np.log(4 / 12), rtol=1e-6)  # logit of ¼
    np.testing.assert_allclose(jax.nn.sigmoid(one), 0.25, rtol=1e-6)


@pytest.mark.source("GB-3.10-INVSP")
def test_inverse_softplus_is_the_inverse_from_a_millionth_to_a_thousand():
    v = jnp.geomspace(1e-6, 1e3, 200, dtype=jnp.float32)
    np.testing.assert_allclose(jn.activations.softplus(initializers.inverse_softplus(v)), v, rtol=2e-6)
    assert abs(float(initializers.inverse_softplus(1.0)) - 0.5413248546129181) < 1e-7
    assert initializers.inverse_softplus(v.astype(jnp.bfloat16)).dtype == jnp.bfloat16


# ── scales from a batch ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-8.4-activation-std-heuristic")
@pytest.mark.parametrize("std", [1.0, 0.5])
def test_lsuv_gives_each_layer_the_same_deviation(std):
    hidden = [part for _ in range(4) for part in (jn.dense(20, weight_init=initializers.normal(1e-3)), jn.tanh())]
    last = jn.dense(3, bias_init=initializers.constant(5.0))
    net = jn.serial(jn.serial(*hidden), jn.dropout(0.5), last)
    params, state = net.init(jax.random.key(0), (6,))
    x = jax.random.normal(jax.random.key(1), (64, 6))
    scaled = jax.jit(lambda p, x: lsuv(net, p, state, x, std=std))(params, x)
    assert jax.tree.structure(scaled) == jax.tree.structure(params)
    h = np.asarray(x, np.float64)
    layers = [*scaled["serial_0"].values(), scaled["dense_0"]]
    for i, layer in enumerate(layers):  # by NumPy, layer after layer
        z = h @ np.asarray(layer["w"], np.float64)
        np.testing.assert_allclose(z.std(), std, rtol=1e-5)
        before = params["serial_0"][f"dense_{i}"] if i < 4 else params["dense_0"]
        ratio = np.asarray(layer["w"] / before["w"])
        np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-5)  # only the scale changes
        np.testing.assert_array_equal(layer["b"], before["b"])
        h = np.tanh(z)
    assert float(jn.serial(*hidden).apply(params["serial_0"], {}, x)[0].std()) < 1e-6  # as it was without


@pytest.mark.source("GB-8.4-activation-std-heuristic")
def test_lsuv_leaves_alone_what_does_not_vary_or_has_no_weights():
    net = jn.serial(jn.relu(), jn.dense(3))
    params, state = net.init(jax.random.key(0), (6,))
    same = lsuv(net, params, state, jnp.zeros((4, 6)))
    jax.tree.map(np.testing.assert_array_equal, same, params)
    assert lsuv(jn.relu(), {}, {}, jnp.ones((4, 6))) == {}
    alone = lsuv(jn.dense(3), params["dense_0"], {}, jnp.eye(6))
    assert abs(float(jnp.std(alone["w"])) - 1) < 1e-5
