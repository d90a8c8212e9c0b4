"""gradient functions: weights, penalties, means over examples, keys and states, on both roads."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

import jaxnet as jn
from jaxnet import gradients, layers, losses
from jaxnet.layers import Layer, dense, dropout, serial

pytestmark = pytest.mark.numerical

X64 = jax.config.jax_enable_x64
TOLERANCE = 1e-12 if X64 else 64 * float(np.finfo(np.float32).eps)
KEY = jax.random.key(4)
ROADS = [jn.backprop, jn.loss_and_grad]
both_roads = pytest.mark.parametrize("make", ROADS, ids=["backprop", "loss_and_grad"])
NET = serial(dense(4), layers.tanh(), dense(3))
LOSSES = [losses.squared_error, losses.sigmoid_cross_entropy, losses.softmax_cross_entropy]


def near(got, want, scale=1.0):
    """The same shape, and equal to rounding, for numbers of order `scale`."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE * scale, strict=True)


def drawn(*shape, seed=0):
    """Numbers that float32 holds exactly, in the default float."""
    draws = np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)
    return jax.device_put(draws.astype(jnp.result_type(float)))


PARAMS = jax.tree.map(lambda a: drawn(*a.shape, seed=a.size), jax.eval_shape(lambda: NET.init(KEY, (2,))[0]))
X, LABELS = drawn(6, 2), np.array([0, 2, 1, 1, 0, 2], np.int32)
ONE_HOT = jax.device_put(np.eye(3, dtype=X.dtype)[LABELS])
COMPILED = {(make, loss): jax.jit(make(NET, loss), static_argnames="train") for make in ROADS for loss in LOSSES}


def value_and_grads(make, loss, *batch):
    """Loss and gradient at PARAMS, checked to return the network's state."""
    (value, state), grads = COMPILED[make, loss](PARAMS, {}, batch)
    assert state == {}
    assert jax.tree.structure(grads) == jax.tree.structure(PARAMS)
    return value, grads


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


# ── weights ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.newer
@pytest.mark.source("GB-8.1.3-redundancy")
@both_roads
@given(rows=st.lists(st.integers(0, 5), min_size=8, max_size=8))
def test_integer_weights_are_repeated_rows(make, rows):
    repeats, loss = np.bincount(rows, minlength=6), losses.softmax_cross_entropy
    value, grads = value_and_grads(make, loss, np.asarray(X)[rows], LABELS[rows])
    for weight in (repeats.astype(np.int32), repeats.astype(X.dtype) / 8):
        weighted, weighted_grads = value_and_grads(make, loss, X, LABELS, weight)
        near(weighted, value)
        jax.tree.map(near, weighted_grads, grads)


@both_roads
@pytest.mark.parametrize("loss", LOSSES[::2], ids=repr)
def test_rows_of_weight_zero_are_as_good_as_removed(make, loss):
    weight = np.array([2.0, 0.0, 2.0, 2.0, 0.0, 2.0], X.dtype)
    kept, x = weight > 0, np.asarray(X)
    value, grads = value_and_grads(make, loss, np.where(kept[:, None], x, 1e3).astype(X.dtype), ONE_HOT, weight)
    alone, alone_grads = value_and_grads(make, loss, x[kept], np.asarray(ONE_HOT)[kept])
    near(value, alone)
    jax.tree.map(near, grads, alone_grads)
    equal, equal_grads = value_and_grads(make, loss, X, ONE_HOT, np.full(6, 0.3, X.dtype))
    plain, plain_grads = value_and_grads(make, loss, X, ONE_HOT)
    near(equal, plain)
    jax.tree.map(near, equal_grads, plain_grads)


@pytest.mark.source("GB-6.5.8-UNDEF")
@both_roads
@pytest.mark.parametrize("loss", LOSSES[::2], ids=repr)
def test_a_batch_without_weight_has_loss_and_gradient_zero(make, loss):
    with jax.debug_nans(True):  # 0/0 is never formed
        value, grads = value_and_grads(make, loss, X, ONE_HOT, np.zeros(6, X.dtype))
    assert float(value) == 0
    same(grads, jax.tree.map(jnp.zeros_like, PARAMS))


@both_roads
@pytest.mark.parametrize("shape", [(6, 1), (5,), ()], ids=str)
def test_weights_of_another_shape_are_refused(make, shape):
    with pytest.raises(ValueError, match=r"got weights of shape .* for 6 examples; expected one per example"):
        make(NET, losses.squared_error)(PARAMS, {}, (X, ONE_HOT, jnp.ones(shape)))


@pytest.mark.parametrize("columns", [(), (3,), (2, 3)], ids=str)
def test_weighted_mean_is_numpys_average(columns):
    values, w = drawn(6, *columns), jnp.array([0.0, 1.0, 2.5, 0.25, 1.0, 3.0])
    near(
        gradients.weighted_mean(values, w), np.average(np.asarray(values, float), axis=0, weights=np.asarray(w, float))
    )
    near(gradients.weighted_mean(values), np.mean(np.asarray(values, float), axis=0))
    np.testing.assert_array_equal(gradients.weighted_mean(values, jnp.zeros(6)), np.zeros(columns))


# ── means over examples ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-5.9-COST", "GB-8.1.3-ML-expectation", "GB-3.8-EXP", "GB-8.1-ERM")
@both_roads
@pytest.mark.parametrize("loss", LOSSES[::2], ids=repr)
def test_the_mean_over_examples_and_over_equal_batches(make, loss):
    value, grads = value_and_grads(make, loss, X, ONE_HOT)
    for pieces in (6, 3) if loss is losses.softmax_cross_entropy else (6,):
        gradient = jax.jit(jax.vmap(make(NET, loss), in_axes=(None, None, 0)))
        parts = X.reshape(pieces, -1, 2), ONE_HOT.reshape(pieces, -1, 3)
        (values, _), each = gradient(PARAMS, {}, parts)
        near(values.mean(), value)
        jax.tree.map(lambda a, b: near(a.mean(axis=0), b), each, grads)


@pytest.mark.source("GB-5.9-SGD", "GB-8.1.3-SE", "GB-3.8-EXP")
def test_minibatch_gradients_are_unbiased_and_their_error_falls_with_the_root():
    """3,000 batches of 1, 4, 16 and 64, drawn with replacement: mean within 4 errors, deviation ∝ 1/√m."""
    gradient = jn.backprop(NET, losses.squared_error)
    x, y = drawn(40, 2, seed=9), drawn(40, 3, seed=10)
    params, x, y = jax.tree.map(lambda a: a.astype(jnp.float32), (PARAMS, x, y))
    one_by_one = jax.jit(jax.vmap(lambda x, y: ravel_pytree(gradient(params, {}, (x[None], y[None]))[1])[0]))(x, y)
    flat = jax.jit(lambda x, y: ravel_pytree(gradient(params, {}, (x, y))[1])[0])
    full = np.asarray(flat(x, y), np.float64)
    each = np.asarray(one_by_one, np.float64)
    rows = np.random.default_rng(0).integers(0, 40, (3000, 64))
    np.testing.assert_allclose(flat(x[rows[0]], y[rows[0]]), each[rows[0]].mean(axis=0), rtol=1e-4, atol=1e-5)
    deviations = []
    for m in (1, 4, 16, 64):
        draws = each[rows[:, :m]].mean(axis=1)
        assert np.all(np.abs(draws.mean(axis=0) - full) < 4 * draws.std(axis=0) / 3000**0.5 + 1e-6)
        deviations.append(np.linalg.norm(draws.std(axis=0)))
    slope = np.polyfit(np.log([1, 4, 16, 64]), np.log(deviations), 1)[0]
    assert abs(slope + 0.5) < 0.02


@pytest.mark.source("S-ce", "S-sm")
def test_the_gradient_of_one_layer_with_cross_entropy():
    """1/n Σ x_j (σ(a) − y) for each output, and softmax(a) − y likewise; never negative, 0 as outputs reach targets."""
    net, params = serial(dense(3)), {"dense_0": {"w": drawn(2, 3), "b": drawn(3, seed=1)}}
    x, w, b = (np.asarray(a, np.float64) for a in (X, params["dense_0"]["w"], params["dense_0"]["b"]))
    a = x @ w + b
    sigma, share = 1 / (1 + np.exp(-a)), np.exp(a) / np.exp(a).sum(1, keepdims=True)
    for loss, outputs in ((losses.sigmoid_cross_entropy, sigma), (losses.softmax_cross_entropy, share)):
        gradient = jax.jit(jn.backprop(net, loss))
        (value, _), grads = gradient(params, {}, (X, ONE_HOT))
        delta = outputs - np.eye(3)[LABELS]
        jax.tree.map(near, grads, {"dense_0": {"w": x.T @ delta / 6, "b": delta.mean(axis=0)}})
        assert float(value) > 0
        sure = {"dense_0": {"w": jnp.zeros((3, 3)) + 100 * jnp.eye(3) - 50, "b": jnp.zeros(3)}}
        right = [gradient(jax.tree.map(lambda a: c * a, sure), {}, (ONE_HOT, ONE_HOT)) for c in (0.01, 1.0)]
        assert float(right[0][0][0]) > float(right[1][0][0]) >= 0
        near(right[1][0][0], 0.0)
        near(right[1][1]["dense_0"]["w"], np.zeros((3, 3)))


@pytest.mark.source("GB-6.2.1.1-MSE", "GB-5.5.1-LINML")
def test_on_a_deep_net_squared_error_has_the_gradient_of_a_gaussian_likelihood():
    def gaussian(output, target):
        return -jnp.sum(jax.scipy.stats.norm.logpdf(target, output), axis=-1)

    value, grads = value_and_grads(jn.backprop, losses.squared_error, X, ONE_HOT)
    (likelihood, _), by_density = jax.jit(jn.loss_and_grad(NET, gaussian))(PARAMS, {}, (X, ONE_HOT))
    near(likelihood - value, 3 / 2 * np.log(2 * np.pi))
    jax.tree.map(near, grads, by_density)
    output = np.asarray(NET.apply(PARAMS, {}, X)[0], np.float64)
    near(likelihood, -scipy.stats.norm.logpdf(np.eye(3)[LABELS], output).sum(1).mean())


# ── penalties ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.newer
@pytest.mark.source("GB-7.1.1-L2", "GB-7.1-weights-only", "GB-5.2.2-OMEGA", "GB-6.2.1-COMPOSE", "M-8.1b")
@both_roads
@pytest.mark.parametrize("alpha", [0.1, 3, np.float32(0.1)], ids=str)
def test_a_penalty_adds_alpha_w_to_weights_alone(make, alpha):
    batch = X, ONE_HOT
    plain, grads = value_and_grads(make, losses.softmax_cross_entropy, *batch)
    gradient = COMPILED[make, losses.softmax_cross_entropy]
    (value, state), penalized = jn.penalized(gradient, l2=alpha)(PARAMS, {}, batch)
    squares = sum(float(np.sum(np.asarray(layer["w"], float) ** 2)) for layer in PARAMS.values())
    near(value, float(plain) + float(alpha) / 2 * squares, 10)
    assert state == {}
    for name, layer in penalized.items():
        same(layer["b"], grads[name]["b"])
        same(layer["w"], grads[name]["w"] + jnp.asarray(alpha, X.dtype) * PARAMS[name]["w"])
    twice = jn.penalized(jn.penalized(gradient, l2=alpha), l2=alpha)(PARAMS, {}, batch)[1]
    near(twice["dense_0"]["w"], jn.penalized(gradient, l2=2 * alpha)(PARAMS, {}, batch)[1]["dense_0"]["w"])


@pytest.mark.source("GB-7.1.1-L2", "GB-6.2.1-COMPOSE")
def test_the_penalized_gradient_is_that_of_the_penalized_loss():
    gradient = jn.penalized(jn.loss_and_grad(NET, losses.softmax_cross_entropy), l2=0.1)
    by_autodiff = jax.jit(jax.grad(lambda p: gradient(p, {}, (X, ONE_HOT))[0][0]))(PARAMS)
    by_hand = jn.penalized(COMPILED[jn.backprop, losses.softmax_cross_entropy], l2=0.1)(PARAMS, {}, (X, ONE_HOT))[1]
    jax.tree.map(near, by_hand, by_autodiff)


@pytest.mark.source("GB-7.1-penalized-objective")
@both_roads
def test_a_penalty_of_zero_changes_no_bit(make):
    gradient = COMPILED[make, losses.softmax_cross_entropy]
    same(jn.penalized(gradient, l2=0.0)(PARAMS, {}, (X, ONE_HOT)), gradient(PARAMS, {}, (X, ONE_HOT)))


def test_only_leaves_named_w_are_penalized():
    class Pair(NamedTuple):
        w: jax.Array
        scale: jax.Array

    def nothing(params, state, batch, *, key=None, train=False):
        return (jnp.zeros(()), state), jax.tree.map(jnp.zeros_like, params)

    one = jnp.array([2.0])
    params = {"wide": {"b": one, "scale": one}, "deep": [one, {"w": one}], "pair": Pair(one, one)}
    (loss, _), grads = jn.penalized(nothing, l2=1.5)(params, {}, ())
    assert float(loss) == 2 * 1.5 / 2 * 4
    assert jax.tree.map(float, jax.tree.map(lambda a: a[0], grads)) == {
        "wide": {"b": 0.0, "scale": 0.0},
        "deep": [0.0, {"w": 3.0}],
        "pair": Pair(3.0, 0.0),
    }
    assert [gradients.role(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)] == [
        "0", "w", "w", "scale", "b", "scale",
    ]  # fmt: skip
    assert gradients.role(()) == ""
    (loss, _), _ = jn.penalized(nothing, l2=1.5)({"b": one}, {}, ())
    assert float(loss) == 0


def test_a_traced_penalty_gives_the_bits_of_a_static_one():
    def at(alpha, params, batch):
        return jn.penalized(jn.backprop(NET, losses.squared_error), l2=alpha)(params, {}, batch)

    same(jax.jit(at)(0.1, PARAMS, (X, ONE_HOT)), jax.jit(partial(at, 0.1))(PARAMS, (X, ONE_HOT)))


@pytest.mark.source("GB-7.1.1-L2", "M-8.1b")
def test_decay_shrinks_by_one_minus_eps_alpha_a_step():
    """With no gradient from the data w_k = (1 − ε α)ᵏ w₀, and the bias stays."""
    net = serial(dense(3))
    gradient = jn.penalized(jn.backprop(net, losses.squared_error), l2=0.5)
    params, batch = {"dense_0": {"w": drawn(2, 3), "b": drawn(3)}}, (jnp.zeros((4, 2)), jnp.tile(drawn(3), (4, 1)))
    step, now = jax.jit(jn.train_step(gradient, optax.sgd(0.25))), jn.train_state(params, {}, optax.sgd(0.25), KEY)
    for k in range(1, 6):
        now, _ = step(now, batch)
        near(now.params["dense_0"]["w"], (1 - 0.25 * 0.5) ** k * np.asarray(params["dense_0"]["w"], float))
        same(now.params["dense_0"]["b"], params["dense_0"]["b"])


@pytest.mark.parametrize("alpha", [-1, -1e-9, float("nan")])
def test_a_penalty_below_zero_is_refused(alpha):
    with pytest.raises(ValueError, match=r"penalized: got l2=.*; expected a penalty α ≥ 0"):
        jn.penalized(jn.backprop(NET, losses.squared_error), l2=alpha)


# ── keys, states, modes ─────────────────────────────────────────────────────────────────────────────────────────


@both_roads
def test_key_and_mode_reach_the_layers(make):
    net = serial(dense(8), dropout(0.5), dense(3))
    params = {"dense_0": {"w": drawn(2, 8), "b": drawn(8)}, "dense_1": {"w": drawn(8, 3), "b": drawn(3)}}
    gradient = jax.jit(make(net, losses.squared_error), static_argnames="train")
    kept = np.asarray(dropout(0.5).apply({}, {}, jnp.ones((6, 8)), key=jax.random.fold_in(KEY, 1), train=True)[0])
    h = np.asarray(X, float) @ np.asarray(params["dense_0"]["w"], float) + np.asarray(params["dense_0"]["b"], float)
    for train, mask in ((True, kept), (False, np.ones((6, 8)))):
        (_, _), grads = gradient(params, {}, (X, ONE_HOT), key=KEY, train=train)
        w1, b1 = np.asarray(params["dense_1"]["w"], float), np.asarray(params["dense_1"]["b"], float)
        residual = (h * mask) @ w1 + b1 - np.eye(3)[LABELS]
        near(grads["dense_1"]["w"], (h * mask).T @ residual / 6, 10)
        near(grads["dense_0"]["b"], ((residual @ w1.T) * mask).mean(axis=0), 10)


def running_mean():
    """y = x; the state is the mean of the batches seen in training."""

    def apply(params, state, x, *, key=None, train=False):
        return x, {"mean": (state["mean"] + jnp.mean(x)) / 2} if train else state

    def backward(params, state, x, dy, *, key=None, train=False):
        return dy, {}

    return Layer("running_mean", lambda key, spec: ({}, {"mean": jnp.zeros(())}), apply, backward)


@both_roads
def test_the_new_state_comes_back_beside_the_loss(make):
    net = serial(running_mean(), dense(3))
    params, state = net.init(KEY, (2,))
    gradient = make(net, losses.squared_error)
    (_, after), _ = gradient(params, state, (X, ONE_HOT), train=True)
    near(after["running_mean_0"]["mean"], np.mean(np.asarray(X, float)) / 2)
    (_, kept), _ = gradient(params, state, (X, ONE_HOT))
    same(kept, state)


# ── refusals and types ──────────────────────────────────────────────────────────────────────────────────────────


@both_roads
@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (lambda o, y: jnp.mean((o - y) ** 2), r"\(\)"),
        (lambda o, y: (o - y) ** 2, r"\(6, 3\)"),
        (lambda o, y: jnp.sum(o - y, axis=1, keepdims=True), r"\(6, 1\)"),
    ],
    ids=["scalar", "per output", "a column"],
)
def test_a_loss_gives_one_number_per_example(make, value, shape):
    loss = losses.Loss("mine", value, lambda o, y: o - y)
    with pytest.raises(ValueError, match=rf"loss mine: got a result of shape {shape}; expected one number per example"):
        make(NET, loss)(PARAMS, {}, (X, ONE_HOT))


def test_backprop_refuses_a_loss_without_gradient_and_autodiff_takes_it():
    with pytest.raises(
        TypeError, match=r"backprop: loss softmax_cross_entropy has no hand-written gradient; .* use loss_"
    ):
        jn.backprop(NET, optax.softmax_cross_entropy)
    (value, _), grads = jax.jit(jn.loss_and_grad(NET, optax.softmax_cross_entropy))(PARAMS, {}, (X, ONE_HOT))
    want, want_grads = value_and_grads(jn.backprop, losses.softmax_cross_entropy, X, ONE_HOT)
    near(value, want)
    jax.tree.map(near, grads, want_grads)


@both_roads
def test_what_is_no_loss_is_refused(make):
    with pytest.raises(TypeError, match=r"got loss 'mse'; expected a jaxnet Loss or a function"):
        make(NET, "mse")


@pytest.mark.source("GB-6.5.8-DTYPES")
@both_roads
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32] + [jnp.float64] * X64, ids=lambda d: d.__name__)
def test_strict_promotion_and_the_dtypes_of_the_parameters(make, loss, dtype):
    """bfloat16 only for the types: the weights of a batch may be of another one, labels are integers."""
    params, x = jax.tree.map(lambda a: a.astype(dtype), (PARAMS, X))
    y = jnp.asarray(LABELS, jnp.int32) if loss is losses.softmax_cross_entropy else ONE_HOT.astype(dtype)
    gradient = jn.penalized(make(NET, loss), l2=jnp.float32(0.1))
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        results = [jax.eval_shape(gradient, params, {}, (x, y, *w)) for w in ((), (ONE_HOT[:, 0],), (jnp.arange(6),))]
    assert {a.dtype.name for a in jax.tree.leaves(results)} == {jnp.dtype(dtype).name}


@pytest.mark.source("GB-6.5.8-DTYPES")
@both_roads
def test_integer_inputs_and_integer_parameters_are_refused(make):
    with pytest.raises(TypeError, match=r"got inputs of dtype int32; expected floats"):
        make(NET, losses.squared_error)(PARAMS, {}, (X.astype(jnp.int32), ONE_HOT))
    params, _ = NET.init(KEY, (2,))
    assert {a.dtype for a in jax.tree.leaves(params)} == {jnp.result_type(float)}  # no silent float64


# ── directions and second derivatives ───────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-4.3-DIRDER", "GB-2.5-COS")
@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_slopes_along_a_direction(loss):
    """jvp = ⟨gradient, u⟩ on both roads, and in float64 the difference along u."""
    flat, unravel = ravel_pytree(PARAMS)
    u = jnp.asarray(np.random.default_rng(5).normal(0, 1, flat.size), flat.dtype)
    objective = jax.jit(lambda v: jn.loss_and_grad(NET, loss)(unravel(v), {}, (X, ONE_HOT))[0][0])
    _, slope = jax.jvp(objective, (flat,), (u,))
    roads = [ravel_pytree(value_and_grads(make, loss, X, ONE_HOT)[1])[0] for make in ROADS]
    for gradient in roads:
        near(jnp.vdot(gradient, u), slope, 10)
    by_hand, by_autodiff = (np.asarray(g, np.float64) for g in roads)
    assert by_hand @ by_autodiff / np.linalg.norm(by_hand) / np.linalg.norm(by_autodiff) > 1 - TOLERANCE
    if X64:
        h = 1e-4
        difference = (8 * (objective(flat + h * u) - objective(flat - h * u)) - objective(flat + 2 * h * u)) / (12 * h)
        difference += objective(flat - 2 * h * u) / (12 * h)
        np.testing.assert_allclose(difference, slope, rtol=1e-8)


@pytest.mark.source("GB-6.5.5-S2S")
def test_hand_written_gradients_can_be_differentiated_and_are_traced_once():
    net, traces = serial(layers.tanh(), layers.tanh(), layers.tanh()), []

    def slope(w):
        traces.append(w)
        return net.backward({}, {}, w[None, None], jnp.ones((1, 1)))[0][0, 0]

    compiled, curvature = jax.jit(slope), jax.jit(jax.grad(slope))
    for w in (-0.5, 0.25, 1.0):
        x = np.arctanh(np.tanh(w))
        y = [x, np.tanh(x), np.tanh(np.tanh(x)), np.tanh(np.tanh(np.tanh(x)))]
        d = [1 - a**2 for a in y[1:]]
        near(compiled(jnp.asarray(w)), d[0] * d[1] * d[2])
        # (log f′)′ = Σ −2 tₖ · tₖ₋₁′
        second = d[0] * d[1] * d[2] * (-2 * y[1] - 2 * y[2] * d[0] - 2 * y[3] * d[0] * d[1])
        near(curvature(jnp.asarray(w)), second)
    assert len(traces) == 2  # once for each of the compiled functions
    assert "tanh" in str(jax.make_jaxpr(jax.grad(slope))(jnp.asarray(0.5)))
    flat, unravel = ravel_pytree(PARAMS)

    def objective(v):
        return jn.loss_and_grad(NET, losses.squared_error)(unravel(v), {}, (X, ONE_HOT))[0][0]

    def by_hand(v):
        return ravel_pytree(jn.backprop(NET, losses.squared_error)(unravel(v), {}, (X, ONE_HOT))[1])[0]

    near(jax.jit(jax.jacfwd(by_hand))(flat), jax.jit(jax.hessian(objective))(flat), 10)
