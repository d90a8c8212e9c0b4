"""Layers side by side: graphs that aren't chains, against explicit formulas and automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vjp_proof import BOUND, agree, check_backward, drawn

import jaxnet as jn
from jaxnet import layers
from jaxnet.layers import dense, dropout, graph, identity, serial, tanh
from jaxnet.layers.graph import branch, concatenate, parallel, residual, select
from jaxnet.layers.layer import Layer, spec_of
from jaxnet.layers.sequences import Sequence

pytestmark = pytest.mark.numerical
KEY = jax.random.key(3)


def near(got, want):
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=8 * BOUND, atol=8 * BOUND, strict=True)


def started(layer, x, key=KEY):
    params, state = jax.eval_shape(lambda: layer.init(key, spec_of(x)))
    return jax.tree.map(lambda a: drawn(*a.shape, seed=a.size), params), state


def weights(*names_and_params):
    return [(np.asarray(p["w"], np.float64), np.asarray(p.get("b", 0.0), np.float64)) for p in names_and_params]


@pytest.mark.source("H-skip")
def test_hagan_p3_2_an_input_that_also_feeds_the_second_layer():
    """n² = W³ p + W² a¹ + b², so ∂F/∂W³ = s² pᵀ, and s¹ = f′(n¹) W²ᵀ s² as without the extra input."""
    net = serial(
        branch(serial(dense(4), tanh()), identity()), parallel(dense(2), dense(2, bias=False)), graph.sum(), tanh()
    )
    p, dy = drawn(5, 3), drawn(5, 2, seed=100)
    params, state = started(net, p)
    inner, outer = params["branch_0"]["serial_0"]["dense_0"], params["parallel_0"]
    (w1, b1), (w2, b2), (w3, _) = weights(inner, outer["dense_0"], outer["dense_1"])
    x, d = np.asarray(p, np.float64), np.asarray(dy, np.float64)
    a1 = np.tanh(x @ w1 + b1)
    a2 = np.tanh(x @ w3 + a1 @ w2 + b2)
    near(net.apply(params, state, p)[0], a2.astype(p.dtype))
    s2 = d * (1 - a2**2)
    s1 = (1 - a1**2) * (s2 @ w2.T)
    [dx], grads = check_backward(net, params, state, p)
    want = {
        "branch_0": {"serial_0": {"dense_0": {"w": x.T @ s1, "b": s1.sum(0)}}},
        "parallel_0": {"dense_0": {"w": a1.T @ s2, "b": s2.sum(0)}, "dense_1": {"w": x.T @ s2}},
    }
    agree(grads, jax.tree.map(lambda a: a.astype(p.dtype), want), 8 * BOUND)
    near(dx, (s1 @ w1.T + s2 @ w3.T).astype(p.dtype))


@pytest.mark.source("H-skip", "GB-6.5.6-DISTINCT")
def test_hagan_e3_4_a_layer_that_feeds_two_whose_outputs_add():
    """s¹ is the sum of what comes back on the two paths: f′(n¹) (W²ᵀ s² + W³ᵀ s³)."""
    net = serial(dense(4), tanh(), branch(serial(dense(3), tanh()), serial(dense(3), tanh())), graph.sum(), dense(2))
    p, s4 = drawn(5, 3), drawn(5, 2, seed=100)
    params, state = started(net, p)
    two = params["branch_0"]
    two["serial_1"] = jax.tree.map(lambda a: a + 1, two["serial_1"])
    (w1, b1), (w4, b4), (w2, b2), (w3, b3) = weights(
        params["dense_0"], params["dense_1"], two["serial_0"]["dense_0"], two["serial_1"]["dense_0"]
    )
    x, d = np.asarray(p, np.float64), np.asarray(s4, np.float64)
    a1 = np.tanh(x @ w1 + b1)
    a2, a3 = np.tanh(a1 @ w2 + b2), np.tanh(a1 @ w3 + b3)
    near(net.apply(params, state, p)[0], ((a2 + a3) @ w4 + b4).astype(p.dtype))
    s2, s3 = (1 - a2**2) * (d @ w4.T), (1 - a3**2) * (d @ w4.T)
    s1 = (1 - a1**2) * (s2 @ w2.T + s3 @ w3.T)
    [dx], grads = check_backward(net, params, state, p)
    want = {
        "dense_0": {"w": x.T @ s1, "b": s1.sum(0)},
        "branch_0": {
            "serial_0": {"dense_0": {"w": a1.T @ s2, "b": s2.sum(0)}},
            "serial_1": {"dense_0": {"w": a1.T @ s3, "b": s3.sum(0)}},
        },
        "dense_1": {"w": (a2 + a3).T @ d, "b": d.sum(0)},
    }
    agree(grads, jax.tree.map(lambda a: a.astype(p.dtype), want), 8 * BOUND)
    near(dx, (s1 @ w1.T).astype(p.dtype))


def test_any_graph_can_be_routed():
    """a → b, (a, b) → c, (a, c) → y, with select: y = a + 2c, c = a b, b = 3a."""
    product = layers.parameterless(
        "product", lambda x, key, train: x[0] * x[1], lambda x, dy, key, train: (dy * x[1], dy * x[0])
    )

    def times(k):
        return layers.parameterless("times", lambda x, key, train: k * x, lambda x, dy, key, train: k * dy)

    net = serial(
        branch(identity(), times(3.0)), branch(select(0), product), parallel(identity(), times(2.0)), graph.sum()
    )
    a = drawn(2, 3)
    near(net.apply({}, {}, a)[0], a + 6 * a * a)
    near(net.backward({}, {}, a, jnp.ones_like(a))[0], 1 + 12 * a)
    check_backward(net, {}, {}, a)


@pytest.mark.source("GB-6.4.2-SKIP", "GB-8.7.5-skip")
def test_residual_is_its_formula_and_keeps_the_gradient_alive():
    x = drawn(5, 3)
    block = residual(serial(dense(3), tanh()))
    params, state = started(block, x)
    near(block.apply(params, state, x)[0], x + jnp.tanh(dense(3).apply(params["serial_0"]["dense_0"], {}, x)[0]))
    check_backward(block, params, state, x)
    projected = residual(serial(dense(2), tanh()), shortcut=dense(2, bias=False))
    params, state = started(projected, x)
    straight = x @ params["dense_0"]["w"]
    near(
        projected.apply(params, state, x)[0],
        straight + jnp.tanh(dense(2).apply(params["serial_0"]["dense_0"], {}, x)[0]),
    )
    check_backward(projected, params, state, x)
    small = layers.parameterless("small", lambda x, key, train: x / 2, lambda x, dy, key, train: dy / 2)
    ones = jnp.ones_like(x)
    near(serial(*[small] * 30).backward({}, {}, x, ones)[0], 0.5**30 * ones)
    with_skips = serial(*[residual(small)] * 30)
    near(with_skips.backward({}, {}, x, ones)[0] / 1.5**30, ones)


def test_a_residual_block_of_another_width_needs_a_shortcut():
    x = drawn(5, 3)
    with pytest.raises(ValueError, match=r"sum: got parts of shapes .*a dense layer changes the width"):
        residual(dense(2)).apply(*started(residual(dense(2)), x), x)


def test_merges_split_their_gradient():
    a, b = drawn(5, 3), drawn(5, 2, seed=1)
    near(concatenate().apply({}, {}, (a, b))[0], np.concatenate([a, b], axis=1))
    dy = drawn(5, 5, seed=2)
    da, db = concatenate().backward({}, {}, (a, b), dy)[0]
    near(da, dy[:, :3])
    near(db, dy[:, 3:])
    da, db, dc = concatenate().backward({}, {}, (a[:, :1], b, a), jnp.concatenate([dy, a[:, :1]], axis=1))[0]
    near(da, dy[:, :1])
    near(db, dy[:, 1:3])
    near(dc, jnp.concatenate([dy[:, 3:], a[:, :1]], axis=1))
    one, two = graph.sum().backward({}, {}, (a, a), a)[0]
    assert one is a
    assert two is a
    zero, passed = select(1).backward({}, {}, (a, b), b)[0]
    assert not np.asarray(zero).any()
    assert passed is b


def test_sequences_pass_through_the_merges_with_their_lengths():
    x = Sequence(drawn(2, 4, 3), jnp.array([4, 2], jnp.int32))
    for net in (
        serial(branch(identity(), identity()), graph.sum()),
        serial(branch(identity(), identity()), concatenate()),
    ):
        y, _ = net.apply({}, {}, x)
        np.testing.assert_array_equal(y.lengths, x.lengths)
        assert net.backward({}, {}, x, Sequence(y.values, None))[0].lengths is None
        check_backward(net, {}, {}, x)


def test_each_side_has_a_name_a_key_of_its_own_and_a_state():
    counting = Layer(
        "counting",
        lambda key, spec: ({}, {"calls": jnp.zeros(())}),
        lambda p, s, x, *, key=None, train=False: (x, {"calls": s["calls"] + 1}),
        lambda p, s, x, dy, *, key=None, train=False: (dy, {}),
    )
    net = branch(dropout(0.5), dropout(0.5), counting, dense(2), dense(2))
    x = jnp.ones((4, 30))
    params, state = net.init(KEY, (30,))
    assert sorted(params) == ["dense_0", "dense_1"]
    assert list(state) == ["counting_0"]
    assert np.abs(np.asarray(params["dense_0"]["w"]) - np.asarray(params["dense_1"]["w"])).max() > 0
    y, state = net.apply(params, state, x, key=KEY, train=True)
    assert float(state["counting_0"]["calls"]) == 1
    for i in (0, 1):
        alone, _ = dropout(0.5).apply({}, {}, x, key=jax.random.fold_in(KEY, i), train=True)
        np.testing.assert_array_equal(y[i], alone)
    check_backward(net, params, state, x, key=KEY, train=True)


def test_graphs_train_and_batch_like_any_layer():
    net = serial(branch(dense(3), dense(3)), graph.sum(), residual(dense(3)))
    x = drawn(5, 4)
    params, state = started(net, x)
    lone = jax.vmap(lambda row: net.apply(params, state, row[None])[0][0])(x)
    near(lone, net.apply(params, state, x)[0])
    no_rule = Layer("no_rule", lambda key, spec: ({}, {}), lambda p, s, x, *, key=None, train=False: (x, s))
    assert branch(no_rule, dense(2)).backward is None
    assert residual(no_rule).backward is None
    with pytest.raises(TypeError, match="layer without a hand-written backward"):
        jn.backprop(branch(no_rule), jn.losses.squared_error)


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: branch(), ValueError, "branch: got no layers"),
        (lambda: branch(tanh), TypeError, r"branch: got <function tanh.*expected a Layer: call it"),
        (lambda: parallel(tanh(), tanh()).apply({}, {}, jnp.ones(2)), ValueError, "got one input .* use branch"),
        (lambda: parallel(tanh()).init(KEY, (jax.ShapeDtypeStruct((2,), "float32"),) * 2), ValueError, "got 2 inputs"),
        (lambda: select(2).apply({}, {}, (1, 2)), ValueError, r"select\(2\): got 2 inputs; expected a tuple of more"),
        (lambda: graph.sum().apply({}, {}, (jnp.ones(2), jnp.ones(1))), ValueError, "sum: got parts of shapes"),
        (lambda: concatenate().apply({}, {}, (jnp.ones((2, 1)), jnp.ones((1, 1)))), ValueError, "last axis only"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()
