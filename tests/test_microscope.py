"""The microscope: twenty planted places are named by layer, operation and example; healthy networks stay silent."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import jaxnet as jn
from jaxnet import heads, layers, losses
from jaxnet.testing import cases

RNG = np.random.default_rng(0)
N = 5
X = RNG.normal(size=(N, 4)).astype(np.float32)
Y = RNG.normal(size=(N, 1)).astype(np.float32)
LABELS = RNG.integers(0, 3, N).astype(np.int32)
KEY = jax.random.key(0)


def elementwise(name, function):
    """A user's layer without parameters or backward."""
    return layers.Layer(name, lambda key, spec: ({}, {}), lambda p, s, x, *, key=None, train=False: (function(x), s))


def made(*parts, outputs=1, spec=(4,)):
    net = jn.serial(*parts, jn.dense(outputs))
    params, state = net.init(KEY, spec)
    return net, params, state


def changed(tree, path, change):
    """The tree with the leaf at `path` replaced."""
    name, *rest = path
    return {**tree, name: changed(tree[name], rest, change) if rest else change(tree[name])}


def row(at, value):
    """X with one example's first input set."""
    return np.concatenate([X[:at], [[value, *X[at, 1:]]], X[at + 1 :]]).astype(np.float32)


def exploding():
    net, params, state = made(jn.dense(8), jn.relu(), jn.dense(8), jn.relu())
    for name, factor in (("dense_0", 1e25), ("dense_1", 1e25)):
        params = changed(params, (name, "w"), lambda w, f=factor: jnp.abs(w) * f)
    return net, params, state, (np.abs(X), Y), losses.squared_error


def log_of_zero():
    net, params, state = made(elementwise("log", jnp.log))
    return net, params, state, (np.where(np.arange(N)[:, None] == 3, 0.0, np.abs(X) + 1).astype(np.float32), Y), None


def log_of_negative():
    net, params, state = made(elementwise("shift", lambda x: x - 10.0), elementwise("log", jnp.log))
    return net, params, state, (X, Y), None


def square_root_of_zero():
    """The root of 0 is 0, its slope isn't finite."""
    net, params, state = made(jn.dense(3, bias=False), elementwise("root", jnp.sqrt))
    return net, changed(params, ("dense_0", "w"), jnp.zeros_like), state, (X, Y), None


def norm_at_zero():
    unit = elementwise("length", lambda x: jnp.sqrt(jnp.sum(x**2, axis=1, keepdims=True)))
    net, params, state = made(jn.dense(3, bias=False), unit)
    return net, params, state, (np.where(np.arange(N)[:, None] == 2, 0.0, X).astype(np.float32), Y), None


def masked_branch():
    """The where trap: the value is masked, the gradient isn't."""
    trap = elementwise("trap", lambda x: jnp.where(x > 0, jnp.log(x), 0.0))
    net, params, state = made(jn.dense(3, bias=False), trap)
    return net, changed(params, ("dense_0", "w"), jnp.zeros_like), state, (X, Y), None


def no_variance():
    standard = elementwise("standard", lambda x: (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True))
    net, params, state = made(standard)
    return net, params, state, (np.where(np.arange(N)[:, None] == 1, 1.0, X).astype(np.float32), Y), None


def exponential():
    net, params, state = made(elementwise("exp", jnp.exp))
    return net, params, state, (row(4, 100.0), Y), None


def infinity_minus_infinity():
    net, params, state = made(elementwise("softmax", lambda x: jnp.exp(x) / jnp.sum(jnp.exp(x), axis=1, keepdims=True)))
    return net, params, state, (row(0, 90.0), Y), None


def bfloat16():
    net = layers.compute_dtype(jn.serial(jn.dense(4), elementwise("cube", lambda x: x**3), jn.dense(1)), jnp.bfloat16)
    net = jn.serial(net)
    params, state = net.init(KEY, (4,))
    return net, params, state, (row(2, 3e13), Y), None


def float16():
    half = elementwise("half", lambda x: (1e3 * x.astype(jnp.float16)).astype(jnp.float32))
    net, params, state = made(half)
    return net, params, state, (row(1, 100.0), Y), None


def the_losses_log():
    def value(output, target):
        return -jnp.log(jax.nn.relu(output[:, 0]))

    net, params, state = made(jn.dense(3))
    params = changed(params, ("dense_1", "w"), jnp.zeros_like)
    return net, params, state, (X, Y), losses.Loss("surprise", value)


def the_losses_power():
    net, params, state = made()
    x = row(3, 1e25)
    return net, changed(params, ("dense_0", "w"), lambda w: jnp.abs(w) + 1), state, (x, Y), losses.squared_error


def in_a_scan():
    """A recurrence that squares its state: it overflows at one step of the sequence."""

    def apply(params, state, x, *, key=None, train=False):
        h, _ = jax.lax.scan(lambda h, x_t: (h * h + x_t, None), jnp.zeros_like(x[:, 0]), jnp.moveaxis(x, 1, 0))
        return h, state

    x = np.zeros((N, 9, 2), np.float32)
    x[2, 0] = 1e10
    net = jn.serial(layers.Layer("squares", lambda key, spec: ({}, {}), apply), jn.dense(1))
    params, state = net.init(KEY, (9, 2))
    return net, params, state, (x, Y), None


def in_a_residual():
    inner = jn.serial(jn.dense(4), elementwise("reciprocal", lambda x: 1 / x))
    net, params, state = made(layers.residual(inner))
    params = changed(params, ("residual_0", "serial_0", "dense_0", "w"), jnp.zeros_like)
    return net, params, state, (X, Y), None


def in_a_repeat():
    net, params, state = made(layers.repeat(jn.serial(jn.dense(4), elementwise("exp", jnp.exp)), 3))
    return net, params, state, (np.abs(X) + 2, Y), None


def batch_norm_of_huge_inputs():
    net, params, state = made(jn.batch_norm())
    return net, params, state, (row(1, 1e25), Y), None


def masked_softmax():
    """Minus infinity written into the code: harmless, until a whole row is masked."""
    net, params, state = made(elementwise("masked", lambda x: jax.nn.softmax(jnp.where(x > 0, x, -jnp.inf))))
    x = np.abs(X)
    x[:, 0] *= -1
    x[4] = -1
    return net, params, state, (x, Y), None


def bad_row():
    return *made(jn.dense(3), jn.relu()), (row(3, np.nan), Y), None


def bad_parameter():
    net, params, state = made(jn.dense(3), jn.relu())
    return net, changed(params, ("dense_0", "w"), lambda w: w.at[1, 2].set(jnp.nan)), state, (X, Y), None


def bad_state():
    net, params, state = made(jn.dense(3), jn.batch_norm())
    return net, params, changed(state, ("batch_norm_0", "mean"), lambda m: m.at[0].set(jnp.inf)), (X, Y), None


def bad_target():
    y = Y.copy()
    y[4] = np.inf
    return *made(jn.dense(3), jn.relu()), (X, y), None


def bad_weight():
    return *made(jn.dense(3)), (X, Y, np.array([1, np.nan, 1, 1, 1], np.float32)), None


def bad_label():
    return *made(jn.dense(3), outputs=3), (X, np.array([0, 1, 7, 2, 1], np.int32)), losses.softmax_cross_entropy


def gaussian_head():
    """A scale of its own that ran away."""
    net = jn.serial(jn.dense(3))
    head = heads.gaussian(1)
    whole = head.on(net)
    params, state = whole.init(KEY, (4,))
    params = jax.tree.map(lambda a: a * 1e30 if a.ndim == 2 else a, params)
    return net, params, state, (X, Y), head


# place -> (what makes it, layer, operation, example, whether on the way back, a piece of the sentence)
PLACES = {
    "exploding layer": (exploding, "dense_1", "dot_general", 0, False, "an overflow of float32"),
    "log of zero": (log_of_zero, "log_0", "log", 3, False, "log(0) = -inf"),
    "log of a negative number": (log_of_negative, "log_0", "log", None, False, "= nan"),
    "square root's slope at zero": (
        square_root_of_zero,
        "root_0",
        "div",
        None,
        True,
        "in the gradient of layer root_0",
    ),
    "norm at zero": (norm_at_zero, "length_0", "div", 2, True, "in the gradient of layer length_0"),
    "masked branch": (masked_branch, "trap_0", "div", None, True, "in the gradient of layer trap_0"),
    "no variance": (no_variance, "standard_0", "div", 1, False, "div(0, 0) = nan"),
    "exponential": (exponential, "exp_0", "exp", 4, False, "exp(100) = inf"),
    "softmax by hand": (infinity_minus_infinity, "softmax_0", "exp", 0, False, "exp(90) = inf"),
    "overflow of float16": (float16, "half_0", "mul", 1, False, "an overflow of float16"),
    "the loss's log": (the_losses_log, "loss", "log", None, False, "of the loss"),
    "the loss's square": (the_losses_power, "loss", "square", 3, False, "of the loss"),
    "a step of a scan": (in_a_scan, "squares_0", "mul", 2, False, "step 2"),
    "in a residual": (in_a_residual, "residual_0.serial_0.reciprocal_0", "div", 0, False, "div(1, 0) = inf"),
    "in a repeat": (in_a_repeat, "repeat_0.exp_0", "exp", None, False, "exp("),
    "batch norm": (batch_norm_of_huge_inputs, "batch_norm_0", "square", 1, False, "an overflow of float32"),
    "a row that is masked": (masked_softmax, "masked_0", "_where", 4, False, "= -inf"),
    "bad row": (bad_row, "", "", 3, False, "input of example 3 is nan"),
    "bad parameter": (bad_parameter, "", "", None, False, "parameter dense_0.w is nan at [1, 2]"),
    "bad state": (bad_state, "", "", None, False, "state batch_norm_0.mean is inf at [0]"),
    "bad target": (bad_target, "", "", 4, False, "target of example 4 is inf"),
    "bad weight": (bad_weight, "", "", 1, False, "weight of example 1 is nan"),
    "bad label": (bad_label, "loss", "", 2, False, "label 7"),
}


def explained(place):
    net, params, state, batch, loss = place()
    return jn.explain(net, params, state, batch, loss=loss or losses.squared_error, key=KEY)


@pytest.mark.parametrize("name", PLACES)
def test_the_first_non_finite_number_is_named(name):
    place, layer, operation, example, backward, piece = PLACES[name]
    found = explained(place)
    assert not found
    assert piece in found.sentence, found.sentence
    if example is None and operation:
        example = found.example
    assert (found.layer, found.operation, found.example, found.backward) == (layer, operation, example, backward), str(
        found
    )


def test_a_computation_in_bfloat16_is_named_by_its_dtype():
    found = explained(bfloat16)
    assert "bfloat16" in found.sentence
    assert found.operation in ("integer_pow", "mul")
    assert found.layer.endswith("cube_0")


def test_a_heads_own_layer_counts():
    found = explained(gaussian_head)
    assert not found
    assert found.operation


def test_a_hand_written_backward_that_alone_is_not_finite_is_named():
    """The slope of the root is written without the care that the root itself takes."""

    def backward(params, state, x, dy, *, key=None, train=False):
        return dy / (2 * jnp.sqrt(x)), {}

    root = dataclasses.replace(elementwise("root", lambda x: jnp.sqrt(jnp.maximum(x, 1e-6))), backward=backward)
    net, params, state = made(jn.dense(3), root)
    by_hand = jn.backprop(net, losses.squared_error)
    found = jn.explain(net, params, state, (X, Y), loss=losses.squared_error, gradient=by_hand)
    assert (found.layer, found.operation, found.backward) == ("root_0", "sqrt", True)
    assert "nan in the gradient of layer root_0" in found.sentence
    positive = changed(params, ("dense_0", "b"), lambda b: b + 50)
    assert jn.explain(net, positive, state, (X, Y), loss=losses.squared_error, gradient=by_hand)
    assert jn.explain(net, params, state, (X, Y), loss=losses.squared_error)


def test_a_wrapped_gradient_is_looked_into():
    """A penalty whose slope isn't finite; network and loss are."""
    net, params, state = made(jn.dense(3))
    plain = jn.loss_and_grad(net, losses.squared_error)

    def rooted(params, state, batch, *, key=None, train=False):
        (loss, state), grads = plain(params, state, batch, key=key, train=train)
        slopes = jax.tree.map(lambda w: 0.5 / jnp.sqrt(w), params)
        return (loss, state), jax.tree.map(jnp.add, grads, slopes)

    found = jn.explain(net, params, state, (X, Y), loss=losses.squared_error, gradient=rooted)
    assert (found.layer, found.operation) == ("", "div")  # 0.5 / √0, of a bias
    assert found.backward


def test_an_infinity_that_a_softmax_removes_is_silent():
    net, params, state, (x, y), _ = masked_softmax()
    assert jn.explain(net, params, state, (x[:4], y[:4]), loss=losses.squared_error)


def test_what_a_later_layer_hides_is_said():
    net, params, state = made(jn.dense(3), jn.tanh())
    params = changed(params, ("dense_0", "w"), lambda w: w * 1e30)
    found = jn.explain(net, params, state, (1e20 * X, Y), loss=losses.squared_error)
    assert found
    assert "though numbers of dense_0" in found.sentence


@settings(max_examples=3)
@given(cases())
def test_healthy_networks_are_silent(case):
    found = jn.explain(case.net, case.params, case.state, case.batch, loss=case.loss, key=case.key)
    assert found, str(found)


@pytest.mark.long
@settings(max_examples=200)
@given(cases())
def test_two_hundred_healthy_networks_are_silent(case):
    found = jn.explain(case.net, case.params, case.state, case.batch, loss=case.loss, key=case.key)
    assert found, str(found)


def test_the_table_is_the_step_by_hand():
    """Outputs by NumPy; gradients by the layers' own backward; dead and saturated units counted."""
    net = jn.serial(jn.dense(6), jn.relu(), jn.dense(5), jn.tanh(), jn.dense(3))
    params, state = net.init(KEY, (4,))
    params = changed(params, ("dense_0", "b"), lambda b: b.at[2].set(-100.0))
    params = changed(params, ("dense_1", "b"), lambda b: b.at[:2].set(50.0))
    found = jn.explain(net, params, state, (X, LABELS), loss=losses.softmax_cross_entropy)
    assert found
    assert [row.path for row in found.rows] == ["dense_0", "relu_0", "dense_1", "tanh_0", "dense_2"]
    w = {k: np.asarray(v["w"], np.float64) for k, v in params.items()}
    b = {k: np.asarray(v["b"], np.float64) for k, v in params.items()}
    z0 = X @ w["dense_0"] + b["dense_0"]
    h0 = np.maximum(z0, 0)
    z1 = h0 @ w["dense_1"] + b["dense_1"]
    h1 = np.tanh(z1)
    z2 = h1 @ w["dense_2"] + b["dense_2"]
    p = np.exp(z2 - z2.max(1, keepdims=True))
    d2 = (p / p.sum(1, keepdims=True) - np.eye(3)[LABELS]) / N
    dh1 = d2 @ w["dense_2"].T
    dz1 = dh1 * (1 - h1**2)
    dh0 = dz1 @ w["dense_1"].T
    expected = [(z0, dh0 * (z0 > 0)), (h0, dh0), (z1, dz1), (h1, dh1), (z2, d2)]
    for row, (h, dh) in zip(found.rows, expected, strict=True):
        assert row.shape == h.shape
        got = row.output, row.deviation, row.largest, row.gradient
        want = np.abs(h).mean(), h.std(), np.abs(h).max(), np.abs(dh).mean() * N
        np.testing.assert_allclose(got, want, rtol=1e-4)
    dense, relu, _, tanh, last = found.rows
    assert relu.dead == np.mean(np.all(h0 == 0, axis=0)) >= 1 / 6
    assert tanh.saturated == np.mean(np.abs(h1) > 0.98) >= 2 / 5
    flat = np.concatenate([w["dense_2"].ravel(), b["dense_2"]])
    slopes = np.concatenate([(h1.T @ d2).ravel(), d2.sum(0)])
    np.testing.assert_allclose((last.weights, last.slope), (np.abs(flat).mean(), np.abs(slopes).mean()), rtol=1e-4)
    assert np.isnan(relu.weights)
    assert dense.dead == 0
    assert "dense_2" in str(found)


def test_a_layer_without_backward_and_a_plain_loss_do():
    net = dataclasses.replace(jn.mlp([4, 1]), backward=None)
    params, state = net.init(KEY, (4,))
    found = jn.explain(net, params, state, (X, Y), loss=lambda z, y: (z - y)[:, 0] ** 2)
    assert found
    assert len(found.rows) == 3
