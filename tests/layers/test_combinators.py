"""serial: names, order, nesting, states and keys; a network's gradient is its layers' rules, composed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vjp_proof import check_backward

import jaxnet as jn
from jaxnet import layers, losses
from jaxnet.layers import Layer, dense, serial
from jaxnet.layers.combinators import frozen, names, repeat, tapped

TOLERANCE = 1e-12 if jax.config.jax_enable_x64 else 64 * float(np.finfo(np.float32).eps)
KEY = jax.random.key(5)
PARTS = (dense(4), layers.tanh(), dense(3), layers.softplus(), dense(2))


def near(got, want):
    """The same shape, and equal to rounding, for numbers of order 1."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, strict=True)


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def drawn(*shape, seed=0):
    return jax.device_put(np.random.default_rng(seed).normal(0, 1, shape).astype(jnp.result_type(float)))


def chained(parts, part_params, x):
    """The parts called one after the other: the inputs of each, and the output."""
    inputs = []
    for layer, params in zip(parts, part_params, strict=True):
        inputs.append(x)
        x, _ = layer.apply(params, {}, x)
    return inputs, x


def params_of(parts, params):
    return [params.get(name, {}) for name in names(parts)]


# ── composition ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.numerical
@pytest.mark.newer
@pytest.mark.source("GB-6.0-CHAIN", "M-4mod", "M-4", "GB-6.5.2-CHAIN", "GB-6.5-DEF")
def test_a_network_is_its_layers_called_in_turn_and_back():
    net = serial(*PARTS)
    params, state = net.init(KEY, (3,))
    x, dy = drawn(5, 3), drawn(5, 2, seed=1)
    inputs, y = chained(PARTS, params_of(PARTS, params), x)
    same(net.apply(params, state, x)[0], y)
    d, grads = dy, {}
    for name, layer, part, at in reversed(
        list(zip(names(PARTS), PARTS, params_of(PARTS, params), inputs, strict=True))
    ):
        d, part_grads = layer.backward(part, {}, at, d)
        grads |= {name: part_grads} if part_grads else {}
    same(net.backward(params, state, x, dy), (d, grads))
    dx, by_autodiff = jax.jit(lambda x, p: jax.vjp(lambda x, p: net.apply(p, state, x)[0], x, p)[1](dy))(x, params)
    near(d, dx)
    jax.tree.map(near, grads, by_autodiff)


@pytest.mark.numerical
@pytest.mark.source("GB-6.5.2-CHAIN", "GB-4.3.1-JAC")
def test_the_jacobian_of_a_network_is_the_product_of_its_layers_jacobians():
    net = serial(*PARTS)
    params, _ = net.init(KEY, (3,))
    x = drawn(1, 3)
    inputs, _ = chained(PARTS, params_of(PARTS, params), x)
    product = np.eye(3)
    for layer, part, at in zip(PARTS, params_of(PARTS, params), inputs, strict=True):
        product = np.asarray(jax.jit(jax.jacobian(lambda v: layer.apply(part, {}, v[None])[0][0]))(at[0])) @ product

    def f(v):
        return net.apply(params, {}, v[None])[0][0]

    @jax.jit
    def jacobians(v):
        rows, columns = jnp.eye(2), jnp.eye(3)
        return (
            jax.jacfwd(f)(v),
            jax.jacrev(f)(v),
            net.backward(params, {}, jnp.tile(x, (2, 1)), rows)[0],
            jnp.stack([jax.vjp(f, v)[1](row)[0] for row in rows]),
            jnp.stack([jax.jvp(f, (v,), (column,))[1] for column in columns], axis=1),
        )

    for jacobian in jacobians(x[0]):
        near(jacobian, product)


@pytest.mark.source("GB-6.0-CHAIN")
def test_depth_and_width_can_be_read_from_the_parameters():
    params, _ = jn.mlp([5, 7, 2]).init(KEY, (3,))
    assert [params[f"dense_{i}"]["w"].shape for i in range(len(params))] == [(3, 5), (5, 7), (7, 2)]


@pytest.mark.numerical
@pytest.mark.source("GB-6.5.6-DISTINCT", "GB-7.9-sharing")
def test_uses_of_one_weight_add_up():
    """A layer used twice with the same parameters: the gradient is the sum of those of two separate copies."""
    twice = serial(dense(3), layers.tanh(), dense(3))

    def copies(p):
        return {"dense_0": p, "dense_1": p}

    def backward(p, state, x, dy, *, key=None, train=False):
        dx, grads = twice.backward(copies(p), state, x, dy)
        return dx, jax.tree.map(jnp.add, grads["dense_0"], grads["dense_1"])

    tied = Layer(
        "tied",
        lambda key, spec: dense(3).init(key, spec),
        lambda p, state, x, *, key=None, train=False: twice.apply(copies(p), state, x),
        backward,
    )
    params, _ = tied.init(KEY, (3,))
    assert sum(a.size for a in jax.tree.leaves(params)) == 12  # of 24 when untied
    batch = drawn(5, 3), drawn(5, 3, seed=1)
    (_, _), untied = jax.jit(jn.loss_and_grad(twice, losses.squared_error))(copies(params), {}, batch)
    total = jax.tree.map(jnp.add, untied["dense_0"], untied["dense_1"])
    for make in (jn.backprop, jn.loss_and_grad):
        jax.tree.map(near, jax.jit(make(tied, losses.squared_error))(params, {}, batch)[1], total)
    x, ones = drawn(4, 1), jnp.ones((4, 1))  # x · x: each factor gives x, together 2x
    product = layers.parameterless("product", lambda x, key, train: x * x, lambda x, dy, key, train: dy * x + x * dy)
    near(serial(product).backward({}, {}, x, ones)[0], 2 * x)
    near(jax.vjp(lambda x: serial(product).apply({}, {}, x)[0], x)[1](ones)[0], 2 * x)


@pytest.mark.source("GB-6.5.3-FIG69")
def test_recomputed_intermediates_give_the_same_gradient_from_less_memory():
    net, x = serial(*[layers.tanh()] * 6), drawn(50, 4)

    def kept(f):
        y, pullback = jax.vjp(f, x)
        return pullback(jnp.ones_like(y))[0], sum(a.size for a in jax.tree.leaves(pullback) if hasattr(a, "size"))

    stored, many = kept(lambda x: net.apply({}, {}, x)[0])
    recomputed, few = kept(jax.checkpoint(lambda x: net.apply({}, {}, x)[0]))
    near(recomputed, stored)
    near(net.backward({}, {}, x, jnp.ones((50, 4)))[0], stored)
    assert few == x.size < many


@pytest.mark.source("M-3b", "GB-6.1-COLLAPSE")
def test_linear_layers_collapse_to_one():
    linear = serial(dense(4), layers.identity(), dense(3), dense(2))
    params, _ = linear.init(KEY, (3,))
    params = jax.tree.map(lambda a: drawn(*a.shape, seed=a.size), params)
    (w0, b0), (w1, b1), (w2, b2) = [(np.asarray(p["w"], float), np.asarray(p["b"], float)) for p in params.values()]
    x = drawn(5, 3)
    one = {"w": jnp.asarray(w0 @ w1 @ w2), "b": jnp.asarray((b0 @ w1 + b1) @ w2 + b2)}
    near(linear.apply(params, {}, x)[0], np.asarray(x, float) @ np.asarray(one["w"]) + np.asarray(one["b"]))
    bent = serial(dense(4), layers.relu(), dense(3), dense(2))
    assert np.abs(bent.apply(params, {}, x)[0] - linear.apply(params, {}, x)[0]).max() > 0.1


# ── names and order ─────────────────────────────────────────────────────────────────────────────────────────────


def test_names_count_each_kind():
    parts = (dense(2), layers.relu(), dense(3), serial(), layers.relu(), serial(dense(1)), layers.dropout(0.5))
    assert names(parts) == ("dense_0", "relu_0", "dense_1", "serial_0", "relu_1", "serial_1", "dropout_0")
    assert names(()) == ()


@pytest.mark.numerical
def test_the_order_is_the_layers_not_that_of_sorted_names():
    """JAX sorts the keys of dicts: dense_10 before dense_2. Units of 2, 3, 4, … make any confusion an error."""
    depth = 12
    net = serial(*[dense(2 + i) for i in range(depth)])
    shapes, _ = jax.eval_shape(lambda: net.init(KEY, (1,)))
    params = {name: {leaf: drawn(*a.shape, seed=a.size) for leaf, a in layer.items()} for name, layer in shapes.items()}
    sorted_params = jax.tree.map(lambda a: a, params)
    assert list(sorted_params)[:3] == ["dense_0", "dense_1", "dense_10"]
    assert [params[f"dense_{i}"]["w"].shape for i in range(depth)] == [(1 + i, 2 + i) for i in range(depth)]
    x, dy = drawn(4, 1), drawn(4, 1 + depth, seed=1)
    want = np.asarray(x, np.float64)
    for i in range(depth):
        want = want @ np.asarray(params[f"dense_{i}"]["w"], np.float64) + np.asarray(
            params[f"dense_{i}"]["b"], np.float64
        )
    for given in (params, sorted_params, dict(reversed(params.items()))):
        near(jax.jit(net.apply)(given, {}, x)[0], want)
        dx, grads = jax.jit(net.backward)(given, {}, x, dy)
        assert {name: g["w"].shape for name, g in grads.items()} == {n: p["w"].shape for n, p in params.items()}
    product = np.asarray(dy, np.float64)
    for i in reversed(range(depth)):
        product = product @ np.asarray(params[f"dense_{i}"]["w"], np.float64).T
    near(dx, product)
    # equal widths: only the values could tell
    square = serial(*[dense(2, bias=False)] * depth)
    weights = [np.random.default_rng(i).normal(0, 1, (2, 2)) for i in range(depth)]
    params = {f"dense_{i}": {"w": jnp.asarray(w)} for i, w in enumerate(weights)}
    near(square.apply(jax.tree.map(lambda a: a, params), {}, jnp.eye(2))[0], np.linalg.multi_dot(weights))


def test_nesting_changes_the_names_only():
    flat, nested = serial(*PARTS), serial(serial(*PARTS[:2]), serial(serial(PARTS[2]), PARTS[3]), PARTS[4])
    params, _ = flat.init(KEY, (3,))
    d = [params[f"dense_{i}"] for i in range(3)]
    deep = {"serial_0": {"dense_0": d[0]}, "serial_1": {"serial_0": {"dense_0": d[1]}}, "dense_0": d[2]}
    assert jax.tree.structure(nested.init(KEY, (3,))[0]) == jax.tree.structure(deep)
    x, dy = drawn(5, 3), drawn(5, 2, seed=1)
    same(nested.apply(deep, {}, x), flat.apply(params, {}, x))
    dx, grads = nested.backward(deep, {}, x, dy)
    dx_flat, grads_flat = flat.backward(params, {}, x, dy)
    same(dx, dx_flat)
    same(
        [grads["serial_0"]["dense_0"], grads["serial_1"]["serial_0"]["dense_0"], grads["dense_0"]],
        [grads_flat[f"dense_{i}"] for i in range(3)],
    )
    assert repr(nested) == ("serial(serial(dense(4), tanh()), serial(serial(dense(3)), softplus()), dense(2))")


def test_nothing_in_series_is_the_identity():
    empty, x = serial(), drawn(5, 3)
    assert empty.init(KEY, (3,)) == ({}, {})
    assert empty.apply({}, {}, x)[0] is x
    assert empty.backward({}, {}, x, 2 * x)[1] == {}
    near(empty.backward({}, {}, x, 2 * x)[0], 2 * x)
    net = serial(empty, dense(2), serial(serial()))
    params, _ = net.init(KEY, (3,))
    assert list(params) == ["dense_0"]
    near(net.apply(params, {}, x)[0], dense(2).apply(params["dense_0"], {}, x)[0])
    assert repr(empty) == "serial()"


# ── states and keys ─────────────────────────────────────────────────────────────────────────────────────────────


def counting(step):
    """A layer y = x + (calls so far); its state is the count."""

    def apply(params, state, x, *, key=None, train=False):
        return x + state["calls"], {"calls": state["calls"] + step * train}

    return Layer("counting", lambda key, spec: ({}, {"calls": jnp.zeros(())}), apply)


def test_states_are_threaded_by_name_and_kept_in_inference():
    net = serial(counting(1), layers.relu(), serial(counting(10)), counting(100))
    params, state = net.init(KEY, (3,))
    assert params == {}
    assert jax.tree.structure(state) == jax.tree.structure(
        {"counting_0": {"calls": 0}, "serial_0": {"counting_0": {"calls": 0}}, "counting_1": {"calls": 0}}
    )
    x = jnp.zeros((1, 1))
    for calls in range(3):
        y, after = net.apply(params, state, x, train=True)
        assert float(y[0, 0]) == 111 * calls
        same(net.apply(params, state, x)[1], state)
        state = after
    assert [float(state[name]["calls"]) for name in ("counting_0", "counting_1")] == [3, 300]
    assert float(state["serial_0"]["counting_0"]["calls"]) == 30


def noisy(seen):
    """A layer that adds a draw of its key, on both roads, and notes the keys it's given."""

    def draw(x, key):
        seen.append(jax.random.key_data(key).tolist())
        return jax.random.normal(key, x.shape, x.dtype)

    return layers.parameterless(
        "noisy", lambda x, key, train: x + draw(x, key), lambda x, dy, key, train: draw(dy, key)
    )


def test_each_layer_has_the_key_folded_with_its_position_on_both_roads():
    seen = []
    net = serial(noisy(seen), layers.relu(), noisy(seen))
    x = jnp.zeros((2, 3))
    want = [jax.random.key_data(jax.random.fold_in(KEY, i)).tolist() for i in (0, 2)]
    net.apply({}, {}, x, key=KEY, train=True)
    assert seen == want
    del seen[:]
    net.backward({}, {}, x, x, key=KEY, train=True)
    assert seen == [*want, *reversed(want)]  # forward again, then back
    params, _ = serial(dense(3), dense(3)).init(KEY, (3,))
    same(params["dense_1"], dense(3).init(jax.random.fold_in(KEY, 1), (3,))[0])


def test_the_first_layer_of_a_network_sees_the_spec_of_its_inputs():
    specs = []

    def init(key, spec):
        specs.append((spec.shape, spec.dtype.name))
        return {}, {}

    spy = Layer("spy", init, lambda params, state, x, *, key=None, train=False: (x, state))
    serial(spy, dense(4), spy, layers.relu(), dense(2), spy).init(KEY, jax.ShapeDtypeStruct((7, 3), jnp.bfloat16))
    assert specs == [((7, 3), "bfloat16"), ((7, 4), "bfloat16"), ((7, 2), "bfloat16")]


# ── refusals ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((dense(2), layers.relu), r"serial: got <function relu.*> at position 1; expected a Layer: call it, relu\(\)"),
        (([dense(2)],), r"serial: got \[dense\(2\)\] at position 0; expected a Layer: write serial\(\*layers\)"),
        ((dense(2), "relu"), r"serial: got 'relu' at position 1; expected a Layer: write serial\(\*layers\)"),
    ],
)
def test_arguments_that_are_not_layers_are_refused(arguments, sentence):
    with pytest.raises(TypeError, match=sentence):
        serial(*arguments)


def test_without_all_rules_there_is_no_backward_but_still_a_gradient():
    doubled = Layer("doubled", lambda key, spec: ({}, {}), lambda p, s, x, *, key=None, train=False: (2 * x, s))
    net = serial(dense(2), serial(doubled), dense(1))
    assert net.backward is None
    assert serial(dense(2), serial(layers.relu())).backward is not None
    with pytest.raises(
        TypeError, match=r"backprop: serial\(dense\(2\), serial\(doubled\(\)\), dense\(1\)\) has a layer"
    ):
        jn.backprop(net, losses.squared_error)
    params, state = net.init(KEY, (3,))
    batch = drawn(5, 3), drawn(5, 1, seed=1)
    (loss, _), grads = jax.jit(jn.loss_and_grad(net, losses.squared_error))(params, state, batch)
    w0, w1 = (np.asarray(params[f"dense_{i}"]["w"], float) for i in (0, 1))
    residual = np.asarray(batch[0], float) @ w0 @ (2 * w1) - np.asarray(batch[1], float)
    near(loss, np.mean(residual**2) / 2)
    near(grads["dense_1"]["w"], 2 * (np.asarray(batch[0], float) @ w0).T @ residual / 5)


# ── repeat, tapped, frozen ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.numerical
def test_repeat_is_the_serial_of_its_copies():
    block = serial(dense(3), layers.tanh(), layers.dropout(0.5))
    deep, flat = repeat(block, 4), serial(*[block] * 4)
    (params, state), (copies, _) = jax.jit(lambda: (deep.init(KEY, (3,)), flat.init(KEY, (3,))))()
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *[copies[f"serial_{i}"] for i in range(4)])
    same(params, stacked)  # the same draws
    x = drawn(5, 3)
    for key, train in ((KEY, True), (None, False)):
        y, y_flat = jax.jit(
            lambda key, train=train: [
                net.apply(p, {}, x, key=key, train=train)[0] for net, p in ((deep, params), (flat, copies))
            ]
        )(key)
        near(y, y_flat)
        dx, grads = check_backward(deep, params, state, x, key=key, train=train)
        dx_flat, grads_flat = check_backward(flat, copies, {}, x, key=key, train=train)
        near(dx[0], dx_flat[0])
        jax.tree.map(near, grads, jax.tree.map(lambda *a: jnp.stack(a), *[grads_flat[f"serial_{i}"] for i in range(4)]))


def test_repeat_threads_the_state_of_each_copy_and_refuses_a_change_of_shape():
    net = repeat(counting(1), 3)
    params, state = net.init(KEY, (1,))
    assert params == {}
    training = jax.jit(lambda state: net.apply(params, state, jnp.zeros((1, 1)), train=True))
    y, state = training(state)
    y, state = training(state)
    assert float(y[0, 0]) == 3
    assert state["calls"].tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match=r"repeat\(dense\(2\)\): got an output like .*; expected the same"):
        repeat(dense(2), 3).init(KEY, (3,))
    with pytest.raises(ValueError, match=r"got repeat\(times=0\); expected a positive integer"):
        repeat(dense(2), 0)


@pytest.mark.numerical
@pytest.mark.source("GB-7.10-activation-penalty", "GB-8.7.5-aux-heads")
def test_tapped_shows_hidden_outputs_and_takes_their_gradients():
    net = serial(*PARTS)
    seen = tapped(net, ("tanh_0", "dense_2"))
    params, state = seen.init(KEY, (3,))
    x, dy, dh = drawn(5, 3), drawn(5, 2, seed=1), drawn(5, 4, seed=2)
    inputs, y = chained(PARTS, params_of(PARTS, params), x)
    (got, taps), _ = seen.apply(params, state, x)
    same((got, taps), (y, {"tanh_0": inputs[2], "dense_2": y}))
    check_backward(seen, params, state, x)
    # dh reaches what is below the tap, and nothing above it
    zero = jnp.zeros_like(dy)
    dx, grads = seen.backward(params, state, x, (zero, {"tanh_0": dh, "dense_2": zero}))
    dx_head, head = serial(*PARTS[:2]).backward({"dense_0": params["dense_0"]}, {}, x, dh)
    near(dx, dx_head)
    jax.tree.map(near, grads["dense_0"], head["dense_0"])
    assert not np.asarray(grads["dense_1"]["w"]).any()
    same(seen.backward(params, state, x, (dy, {"tanh_0": 0 * dh, "dense_2": zero})), net.backward(params, state, x, dy))
    for taps in (("tanh_1",), "tanh_0"):
        with pytest.raises(ValueError, match=r"tapped: got .*; expected a tuple of names .*'dense_0', 'tanh_0'"):
            tapped(net, taps)


def test_frozen_parameters_stay_through_a_fit_with_weight_decay():
    x = np.asarray(drawn(64, 3))
    data = jn.Data((x, x[:, :1]))
    given = {"w": drawn(3, 4), "b": drawn(4, seed=1)}
    trained = dataclasses.replace(dense(4), init=lambda key, spec: (given, {}))

    def after(first):
        net = serial(first, layers.tanh(), dense(1))
        program = jn.program(net, losses.squared_error, optax.adamw(0.1, weight_decay=0.5), batch_size=16)
        return jn.fit(KEY, program, data, epochs=2)

    free, kept = after(trained), after(frozen(trained))
    assert np.abs(np.asarray(free.params["dense_0"]["w"] - given["w"])).max() > 0.01
    assert list(kept.params) == ["dense_0"]
    assert kept.params["dense_0"]["w"].shape == (4, 1)  # the one that's free
    same(kept.state, {"frozen_0": {"params": given}})


@pytest.mark.numerical
def test_frozen_passes_the_gradient_by_its_inputs():
    net, free = (
        serial(dense(4), frozen(serial(dense(3), layers.tanh()))),
        serial(dense(4), serial(dense(3), layers.tanh())),
    )
    params, state = net.init(KEY, (3,))
    x = drawn(5, 3)
    dx, grads = check_backward(net, params, state, x)
    dx_free, grads_free = check_backward(free, params | {"serial_0": state["frozen_0"]["params"]}, {}, x)
    near(dx[0], dx_free[0])
    assert list(grads) == ["dense_0"]
    jax.tree.map(near, grads["dense_0"], grads_free["dense_0"])
    params, state = frozen(counting(1)).init(KEY, (1,))
    assert float(frozen(counting(1)).apply(params, state, x, train=True)[1]["state"]["calls"]) == 1
    assert frozen(counting(1)).backward is None
