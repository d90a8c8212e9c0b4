"""reparameterized and what goes through it: formulas, torch, expectations, and the proof of each backward rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vjp_proof import BOUND, agree, check_backward, drawn

import jaxnet as jn
from jaxnet import losses
from jaxnet.layers import dense, dropout, serial, tanh
from jaxnet.layers.reparameterized import compute_dtype, reparameterized, tied
from jaxnet.layers.weights import dropconnect, low_rank, weight_noise, weight_norm

pytestmark = pytest.mark.numerical
KEY = jax.random.key(8)
NET = serial(dense(4), tanh(), dense(3))
X = drawn(5, 3)


def near(got, want, bound=8 * BOUND):
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=bound, atol=bound, strict=True)


def started(layer, spec=(3,), seed=0):
    """Parameters drawn at random, biases too, in the tree of the layer's own."""
    shapes, state = jax.eval_shape(lambda: layer.init(KEY, spec))
    numbers = iter(range(100))
    return jax.tree.map(lambda a: drawn(*a.shape, seed=seed + next(numbers)), shapes), state


# ── every transformation ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "net",
    [
        tied(serial(dense(2), tanh(), dense(3)), {"dense_1.w": "dense_0.w"}, transpose=True),
        tied(serial(dense(3), tanh(), dense(3), tanh(), dense(3)), {"dense_1": "dense_0", "dense_2.b": "dense_0.b"}),
        low_rank(NET, 2),
        weight_norm(NET),
        dropconnect(NET, 0.25),
        weight_noise(serial(dense(4), dropout(0.5), dense(3)), 0.3),
        serial(weight_norm(dense(4)), tanh(), low_rank(dense(3), 1)),
    ],
    ids=repr,
)
def test_the_backward_rule_is_the_vjp(net):
    params, state = started(net)
    check_backward(net, params, state, X, key=KEY, train=True)
    y, _ = jax.eval_shape(net.apply, params, state, X)  # inference, without a key
    assert y.shape == (5, 3)


def test_an_expansion_gets_a_key_only_when_random_and_only_in_training():
    seen = []

    def expand(params, key):
        seen.append(key)
        return params

    def pullback(params, key, grads):
        seen.append(key)
        return grads

    params, _ = started(dense(2))
    fixed, drawing = (reparameterized(dense(2), expand, pullback, random=random) for random in (False, True))
    for train in (False, True):
        fixed.apply(params, {}, X, key=KEY, train=train)
    assert seen == [None, None]
    del seen[:]
    drawing.apply(params, {}, X, key=KEY)
    drawing.backward(params, {}, X, drawn(5, 2), key=KEY)
    assert seen == []
    drawing.apply(params, {}, X, key=KEY, train=True)
    drawing.backward(params, {}, X, drawn(5, 2), key=KEY, train=True)
    data = [jax.random.key_data(key).tolist() for key in seen]
    assert data == [jax.random.key_data(jax.random.fold_in(KEY, 1)).tolist()] * 3  # expand twice, pullback: one draw
    with pytest.raises(ValueError, match=r"reparameterized in training got key=None; expected a key"):
        drawing.apply(params, {}, X, train=True)
    assert reparameterized(dense(2), expand, None).backward is None


# ── tying ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-7.9-sharing", "GB-6.5.6-DISTINCT")
def test_the_gradient_of_a_tied_weight_is_the_sum_of_its_uses():
    free = serial(dense(2), tanh(), dense(3))
    auto = tied(free, {"dense_1.w": "dense_0.w"}, transpose=True)
    params, _ = started(auto)
    assert sorted(params["dense_1"]) == ["b"]
    untied = params | {"dense_1": {"b": params["dense_1"]["b"], "w": params["dense_0"]["w"].T}}
    near(auto.apply(params, {}, X)[0], free.apply(untied, {}, X)[0])
    [dx], grads = check_backward(auto, params, {}, X)
    [dx_free], parts = check_backward(free, untied, {}, X)
    near(dx, dx_free)
    near(grads["dense_0"]["w"], parts["dense_0"]["w"] + parts["dense_1"]["w"].T)
    near(grads["dense_1"]["b"], parts["dense_1"]["b"])
    whole = tied(serial(dense(3), dense(3), dense(3)), {"dense_1": "dense_0", "dense_2": "dense_0"})
    params, _ = started(whole)
    assert list(params) == ["dense_0"]
    _, grads = check_backward(whole, params, {}, X)
    _, parts = check_backward(
        serial(dense(3), dense(3), dense(3)), {f"dense_{i}": params["dense_0"] for i in range(3)}, {}, X
    )
    agree(grads["dense_0"], jax.tree.map(lambda *a: sum(a[1:], a[0]), *parts.values()), 8 * BOUND)


@pytest.mark.parametrize(
    ("ties", "sentence"),
    [
        (
            {"dense_2.w": "dense_0.w"},
            r"got path 'dense_2.w'; .* where 'dense_2' is asked, has names \['dense_0', 'dense_1'\]",
        ),
        ({"dense_1.w.x": "dense_0.w"}, "where 'x' is asked, has an array"),
        (
            {"dense_1.w": "dense_0.w"},
            r"got 'dense_1.w' of shape \(4, 3\) and 'dense_0.w' of \(3, 4\); expected the same",
        ),
        ({"dense_1.w": "dense_0.w", "dense_0": "dense_1"}, "is itself tied; expected a stored parameter"),
        ({"dense_1.w": "dense_1"}, "is itself tied"),
    ],
)
def test_ties_that_cannot_be_are_refused(ties, sentence):
    with pytest.raises(ValueError, match=sentence):
        tied(NET, ties).init(KEY, (3,))


# ── factors ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-2.8-SVD")
def test_low_rank_starts_as_the_best_approximation():
    w = np.asarray(dense(6).init(KEY, (5,))[0]["w"])
    for rank in (2, 5):
        params, _ = low_rank(dense(6), rank).init(KEY, (5,))
        u, s, v = np.linalg.svd(w.astype(np.float64), full_matrices=False)
        best = (u[:, :rank] * s[:rank]) @ v[:rank]
        near(params["w"]["u"] @ params["w"]["v"], best.astype(w.dtype), 32 * BOUND)
    for rank, sentence in ((6, r"got a weight of shape \(5, 6\); expected a matrix with sides of at least 6"),):
        with pytest.raises(ValueError, match=sentence):
            low_rank(dense(6), rank).init(KEY, (5,))
    with pytest.raises(ValueError, match="expected a positive integer"):
        low_rank(dense(6), 0)


def test_low_rank_is_a_narrow_linear_layer():
    params, _ = started(low_rank(dense(6), 2))
    narrow = serial(dense(2, bias=False), dense(6))
    same = {"dense_0": {"w": params["w"]["u"]}, "dense_1": {"w": params["w"]["v"], "b": params["b"]}}
    [dx], grads = check_backward(low_rank(dense(6), 2), params, {}, X)
    [dx_narrow], grads_narrow = check_backward(narrow, same, {}, X)
    near(dx, dx_narrow, 32 * BOUND)
    agree(grads["w"], {"u": grads_narrow["dense_0"]["w"], "v": grads_narrow["dense_1"]["w"]}, 8 * BOUND)


def test_weight_norm_is_torchs():
    torch = pytest.importorskip("torch")
    net = weight_norm(dense(4))
    params, _ = started(net)
    dy = drawn(5, 4, seed=100)
    [dx], grads = check_backward(net, params, {}, X)
    there = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(3, 4, dtype=torch.float64))

    def tensor(a):
        return torch.from_numpy(np.array(a, np.float64))

    g, v = there.parametrizations.weight.original0, there.parametrizations.weight.original1
    with torch.no_grad():
        g.copy_(tensor(params["w"]["g"]).reshape(4, 1))
        v.copy_(tensor(params["w"]["v"]).T)
        there.bias.copy_(tensor(params["b"]))
    x = tensor(X).requires_grad_()
    y = there(x)
    y.backward(tensor(dy))
    bound = 1e-10 if jax.config.jax_enable_x64 else 64 * BOUND
    for ours, torchs in (
        (net.apply(params, {}, X)[0], y.detach()),
        (dx, x.grad),
        (grads["b"], there.bias.grad),
        (grads["w"]["g"], g.grad.reshape(4)),
        (grads["w"]["v"], v.grad.T),
    ):
        np.testing.assert_allclose(np.asarray(ours, np.float64), torchs.numpy(), rtol=bound, atol=bound)


def test_weight_norm_starts_as_the_plain_network_and_survives_a_unit_of_zeros():
    plain, normed = dense(4), weight_norm(dense(4))
    params, _ = normed.init(KEY, (3,))
    near(normed.apply(params, {}, X)[0], plain.apply(plain.init(KEY, (3,))[0], {}, X)[0])
    [dx], grads = check_backward(normed, params, {}, X)
    assert np.abs(np.sum(np.asarray(grads["w"]["v"] * params["w"]["v"]), axis=0)).max() < 100 * BOUND  # orthogonal
    params["w"]["v"] = params["w"]["v"].at[:, 1].set(0)
    [dx], grads = check_backward(normed, params, {}, X)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((dx, grads)))
    near(normed.apply(params, {}, X)[0][:, 1], jnp.zeros(5, X.dtype))


# ── noise on the weights ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
@pytest.mark.source("GB-7.12-dropconnect")
def test_dropconnect_drops_weights_scales_the_others_and_keeps_the_mean():
    rate, n = 0.25, 4000
    net = dropconnect(dense(2), rate)
    params, _ = started(net)
    eye = jnp.eye(3, dtype=X.dtype)

    @jax.jit
    def weights(keys):
        return jax.vmap(lambda key: net.apply(params, {}, eye, key=key, train=True)[0] - params["b"].reshape(1, 2))(
            keys
        )

    w = np.asarray(params["w"], np.float64)
    ratio = np.asarray(weights(jax.random.split(KEY, n)), np.float64) / w
    kept = np.abs(ratio) > 0.5
    np.testing.assert_allclose(ratio, np.where(kept, 1 / (1 - rate), 0), atol=1e-4)
    sd = (rate * (1 - rate) / n) ** 0.5
    assert np.abs(kept.mean(0) - (1 - rate)).max() < 5 * sd
    assert abs(np.corrcoef(kept[:, 0, 0], kept[:, 0, 1])[0, 1]) < 5 / n**0.5  # weights drop one by one
    near(net.apply(params, {}, X)[0], dense(2).apply(params, {}, X)[0])
    # one mask per example: batches of one, each with its key
    masks = jax.vmap(lambda x, key: net.apply(params, {}, x[None], key=key, train=True)[0][0])(
        jnp.ones((50, 3), X.dtype), jax.random.split(KEY, 50)
    )
    assert len(np.unique(np.asarray(masks), axis=0)) > 10


@pytest.mark.source("GB-7.5-weight-noise")
def test_weight_noise_adds_the_penalty_of_its_formula():
    """Exact for a linear model: E ½ ‖y − t‖² grows by ½ η ‖∂y/∂w‖², η = std²: here ½ η · outputs · ‖x‖²."""
    std, n = 0.3, 20000
    net = weight_noise(dense(2), std)
    params, _ = started(net)
    x, t = X[:1], drawn(1, 2, seed=9)

    @jax.jit
    def loss(keys):
        def one(key):
            return losses.squared_error(net.apply(params, {}, x, key=key, train=True)[0], t)[0]

        return jax.vmap(one)(keys)

    values = np.asarray(loss(jax.random.split(KEY, n)), np.float64)
    still = float(losses.squared_error(net.apply(params, {}, x)[0], t)[0])
    growth = 0.5 * std**2 * 2 * float(jnp.sum(x**2))
    assert abs(values.mean() - still - growth) < 5 * values.std() / n**0.5
    assert growth > 10 * values.std() / n**0.5  # the test can tell


def test_rates_can_be_swept():
    params, _ = started(dense(2))
    for make in (dropconnect, weight_noise):
        swept = jax.jit(lambda rate: make(dense(2), rate).apply(params, {}, X, key=KEY, train=True)[0])
        near(swept(0.25), make(dense(2), 0.25).apply(params, {}, X, key=KEY, train=True)[0])


@pytest.mark.parametrize("value", [-0.1, float("nan"), True, "much"])
def test_rates_that_cannot_be_are_refused(value):
    with pytest.raises(ValueError, match=r"got dropconnect\(rate=.*; expected the probability to drop a weight"):
        dropconnect(dense(2), value)
    with pytest.raises(ValueError, match=r"got weight_noise\(std=.*; expected a standard deviation"):
        weight_noise(dense(2), value)
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        dropconnect(dense(2), 1.0)


# ── compute dtype ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-6.5.8-DTYPES")
def test_compute_dtype_computes_in_bfloat16_and_keeps_everything_outside():
    seen = []

    def spy(x, key, train):
        seen.append(x.dtype.name)
        return x

    net = serial(jn.layers.parameterless("spy", spy, lambda x, dy, key, train: dy), NET)
    low = compute_dtype(net, jnp.bfloat16)
    params, state = low.init(KEY, (3,))
    assert {a.dtype for a in jax.tree.leaves(params)} == {X.dtype}
    y, _ = low.apply(params, state, X)
    assert seen[-1] == "bfloat16"
    assert y.dtype == X.dtype
    rounded = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (params, X))
    np.testing.assert_array_equal(y, net.apply(rounded[0], state, rounded[1])[0].astype(X.dtype))
    [dx], grads = check_backward(low, params, state, X, bound=4 * float(jnp.finfo(jnp.bfloat16).eps))
    assert dx.dtype == X.dtype
    exact = net.backward(params, state, X, drawn(5, 3, seed=100))[1]
    agree(grads, exact, 8 * float(jnp.finfo(jnp.bfloat16).eps))
    assert np.abs(np.asarray(grads["serial_0"]["dense_0"]["w"] - exact["serial_0"]["dense_0"]["w"])).max() > 1e-4
    with pytest.raises(TypeError, match="expected a floating one"):
        compute_dtype(net, "int32")
