"""prelu, maxout and rbf against explicit loops, autodiff and torch; their ties, identities and errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnet as jn
from jaxnet import initializers, losses
from jaxnet.layers import elementwise
from jaxnet.layers.units import maxout, prelu, rbf

pytestmark = pytest.mark.numerical

X64 = jax.config.jax_enable_x64
TOLERANCE = 1e-12 if X64 else 64 * float(np.finfo(np.float32).eps)
RNG = np.random.default_rng(0)
X, DY = RNG.normal(0, 1, (2, 5, 6)).astype(np.float32).astype(np.float64)
SLOPE, CENTERS, BETA = RNG.normal(0, 1, 6), RNG.normal(0, 1, (6, 4)), RNG.uniform(0.2, 0.6, 4)


def arrays(tree):
    return jax.tree.map(lambda a: jnp.asarray(a, float), tree)


def near(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, strict=True)


@partial(jax.jit, static_argnums=0)
def both(layer, params, x, dy):
    """y, (dx, dparams) by hand, (dx, dparams) by autodiff."""
    y, pullback = jax.vjp(lambda x, p: layer.apply(p, {}, x)[0], x, params)
    return y, layer.backward(params, {}, x, dy), pullback(dy)


# ── parametric ReLU ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.newer
@pytest.mark.source("GB-6.3.1-PRELU")
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("axes", [(), (2,)], ids=str)
def test_prelu_is_the_formula_and_torch(shared, axes):
    torch = pytest.importorskip("torch")
    x, dy = RNG.normal(0, 1, (2, 5, *axes, 6))
    x.flat[0] = 0  # the slope at 0 is α
    slope = SLOPE[:1] if shared else SLOPE
    y, by_hand, by_autodiff = both(prelu(shared=shared), *arrays(({"slope": slope}, x, dy)))
    near(y, np.maximum(x, 0) + slope * np.minimum(x, 0))
    dx, dslope = np.where(x > 0, dy, slope * dy), (dy * np.minimum(x, 0)).reshape(-1, 6).sum(axis=0)
    for roads in (by_hand, by_autodiff):
        jax.tree.map(near, roads, (dx, {"slope": dslope.sum(keepdims=True) if shared else dslope}))
    t, w = (torch.tensor(a.reshape(-1, a.shape[-1]) if a.ndim > 1 else a, requires_grad=True) for a in (x, slope))
    torch.nn.functional.prelu(t, w).backward(torch.tensor(dy.reshape(-1, 6)))
    bound = 1e-10 if X64 else 1e-5
    np.testing.assert_allclose(by_hand[0], t.grad.numpy().reshape(x.shape), rtol=bound, atol=bound)
    np.testing.assert_allclose(by_hand[1]["slope"], w.grad, rtol=bound, atol=bound)


@pytest.mark.source("GB-6.3.1-PRELU")
def test_prelu_learns_the_slopes_of_a_teacher():
    layer, teacher = prelu(), jnp.array([0.1, -0.5, 0.8])
    params, state = layer.init(jax.random.key(0), (3,))
    assert params["slope"].tolist() == [0.25] * 3
    x = jax.random.normal(jax.random.key(1), (64, 3))
    gradient = jn.backprop(layer, losses.squared_error)
    batch = x, layer.apply({"slope": teacher}, state, x)[0]

    def descend(params, _):
        return jax.tree.map(lambda p, g: p - g, params, gradient(params, state, batch)[1]), None

    learned, _ = jax.jit(lambda p: jax.lax.scan(descend, p, length=100))(params)
    np.testing.assert_allclose(learned["slope"], teacher, atol=1e-4)


# ── maxout ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-6.3.1-MAXOUT", "GB-6.5.8-MULTIOUT")
@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_maxout_takes_the_largest_of_each_group(pieces):
    dy = DY[:, : 6 // pieces]
    y, dx = np.zeros(dy.shape), np.zeros(X.shape)
    for n in range(5):
        for i in range(6 // pieces):
            group = range(i * pieces, (i + 1) * pieces)
            best = max(group, key=lambda j: X[n, j])
            y[n, i], dx[n, best] = X[n, best], dy[n, i]
    got, by_hand, by_autodiff = both(maxout(pieces), *arrays(({}, X, dy)))
    near(got, y)
    for roads in (by_hand, by_autodiff):
        jax.tree.map(near, roads, (dx, {}))


@pytest.mark.source("GB-6.3.1-MAXOUT", "GB-6.3-NONDIFF")
def test_of_equal_pieces_the_first_takes_the_whole_gradient():
    x, dy = jnp.array([[2.0, 2.0, 1.0], [0.0, -0.0, 0.0], [1.0, 3.0, 3.0]]), jnp.array([[1.0], [2.0], [3.0]])
    _, by_hand, by_autodiff = both(maxout(3), {}, x, dy)
    for dx, _ in (by_hand, by_autodiff):
        assert dx.tolist() == [[1, 0, 0], [2, 0, 0], [0, 3, 0]]
    shared = jax.grad(lambda x: jnp.sum(jnp.max(x, axis=-1)))(x)  # jax's own rule divides
    assert shared[0].tolist() == [0.5, 0.5, 0]
    assert np.isnan(maxout(3).apply({}, {}, jnp.array([[1.0, jnp.nan, 2.0]]))[0]).all()


@pytest.mark.source("GB-6.3.1-MAXOUTEQ")
@pytest.mark.parametrize(("name", "slope"), [("relu", 0.0), ("absolute", -1.0), ("leaky_relu", 0.01), ("prelu", 0.3)])
def test_two_pieces_are_every_rectifier(name, slope):
    """Pieces z and αz, α < 1, are max(0, z) + α min(0, z)."""
    z = arrays(X)
    pieces = jnp.stack([z, slope * z], axis=-1).reshape(5, 12)
    unit = prelu(slope) if name == "prelu" else jn.layers.activation(name)
    want, _ = unit.apply(*unit.init(jax.random.key(0), (6,)), z)
    near(maxout(2).apply({}, {}, pieces)[0], want)


@pytest.mark.source("GB-9.3-cross-channel")
def test_a_maxout_unit_answers_alike_to_each_of_its_templates():
    templates = np.linalg.qr(RNG.normal(0, 1, (6, 3)))[0]
    net = jn.serial(jn.dense(3, bias=False), maxout(3))
    y, _ = net.apply({"dense_0": {"w": arrays(templates)}}, {}, arrays(templates.T))
    near(y, np.ones((3, 1)))


# ── radial basis units ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.newer
@pytest.mark.source("GB-6.3.3-RBF")
def test_rbf_is_the_explicit_loops():
    y, dx, dc, db = np.zeros((5, 4)), np.zeros((5, 6)), np.zeros((6, 4)), np.zeros(4)
    dy = DY[:, :4]
    for n in range(5):
        for i in range(4):
            away = X[n] - CENTERS[:, i]
            y[n, i] = np.exp(-(away @ away) * BETA[i] ** 2)  # no ½
            slope = -2 * BETA[i] ** 2 * away * y[n, i] * dy[n, i]
            dx[n] += slope
            dc[:, i] -= slope
            db[i] -= 2 * BETA[i] * (away @ away) * y[n, i] * dy[n, i]
    got, by_hand, by_autodiff = both(rbf(4), *arrays(({"centers": CENTERS, "inverse_width": BETA}, X, dy)))
    near(got, y)
    for roads in (by_hand, by_autodiff):
        jax.tree.map(near, roads, (dx, {"centers": dc, "inverse_width": db}))


@pytest.mark.source("GB-6.3.3-RBF")
def test_rbf_is_one_at_its_template_and_flat_far_away():
    params = arrays({"centers": CENTERS, "inverse_width": BETA})
    y, (dx, _), _ = both(rbf(4), params, params["centers"].T, jnp.eye(4))
    assert np.diagonal(y).tolist() == [1.0] * 4
    assert not np.any(dx)
    y, by_hand, by_autodiff = both(rbf(4), params, arrays(np.full((1, 6), 1e4)), jnp.ones((1, 4)))
    assert not np.any(y)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves((by_hand, by_autodiff)))


def test_rbf_starts_with_answers_near_one_over_e():
    params, _ = rbf(50).init(jax.random.key(0), (64,))
    near(params["inverse_width"], np.full(50, 128**-0.5))
    y, _ = rbf(50).apply(params, {}, jax.random.normal(jax.random.key(1), (100, 64)))
    assert abs(float(y.mean()) - np.exp(-1)) < 0.05
    at_each_step, _ = rbf(50).init(jax.random.key(0), (7, 64))
    near(at_each_step["inverse_width"], params["inverse_width"])
    assert at_each_step["centers"].shape == (64, 50)
    own, _ = rbf(3, width=2.0, center_init=initializers.constant(0.5)).init(jax.random.key(0), (2,))
    assert (own["centers"].tolist(), own["inverse_width"].tolist()) == ([[0.5] * 3] * 2, [0.5] * 3)


# ── all of them ─────────────────────────────────────────────────────────────────────────────────────────────────

UNITS = {"prelu": prelu(), "shared": prelu(shared=True), "maxout": maxout(2), "rbf": rbf(4)}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32], ids=["bfloat16", "float32"])
@pytest.mark.parametrize("name", UNITS)
def test_strict_promotion_zeros_and_the_dtype_of_the_spec(name, dtype):
    layer, x = UNITS[name], jnp.zeros((3, 6), dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        params, state = layer.init(jax.random.key(0), jax.ShapeDtypeStruct((6,), dtype))
        y, _ = layer.apply(params, state, x)
        results = both(layer, params, x, jnp.ones_like(y))
    assert {(a.dtype, a.weak_type) for a in jax.tree.leaves((params, results))} == {(jnp.dtype(dtype), False)}
    assert all(np.isfinite(np.asarray(a, np.float32)).all() for a in jax.tree.leaves(results))


@pytest.mark.parametrize("name", UNITS)
def test_a_member_of_a_population_is_itself(name):
    layer = UNITS[name]
    params, _ = jax.vmap(lambda key: layer.init(key, (6,)))(jax.random.split(jax.random.key(0), 3))
    x = arrays(X)
    together = jax.vmap(lambda p: layer.apply(p, {}, x)[0], axis_size=3)(params)
    for i in range(3):
        near(together[i], layer.apply(jax.tree.map(lambda a: a[i], params), {}, x)[0])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: maxout(0), r"got maxout\(0\); expected a positive integer"),
        (lambda: rbf(2.5), r"got rbf\(units=2\.5\); expected a positive integer"),
        (lambda: rbf(2, width=0), r"got rbf\(width=0\); expected a width σ > 0"),
        (lambda: maxout(4).apply({}, {}, jnp.ones((2, 6))), r"maxout\(4\): got inputs of shape \(2, 6\)"),
        (lambda: prelu().init(jax.random.key(0), ()), r"prelu: got an example of spec \(\)"),
        (lambda: prelu().apply({"slope": jnp.ones(3)}, {}, jnp.ones((2, 6))), r"prelu: got inputs of shape \(2, 6\)"),
        (
            lambda: rbf(2).apply({"centers": jnp.ones((3, 2)), "inverse_width": jnp.ones(2)}, {}, jnp.ones((2, 6))),
            r"rbf: got inputs of shape \(2, 6\); expected \(batch, …, 3\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_integers_are_refused_and_settings_are_shown():
    for layer in (prelu(), rbf(2)):
        with pytest.raises(TypeError, match="got inputs of dtype int32; expected floats"):
            layer.init(jax.random.key(0), jax.ShapeDtypeStruct((3,), jnp.int32))
    shown = [repr(u) for u in (prelu(), prelu(0.1, shared=True), maxout(3), rbf(5), elementwise.leaky_relu(0.2))]
    assert shown == ["prelu(0.25)", "prelu(0.1, shared=True)", "maxout(3)", "rbf(5)", "leaky_relu(0.2)"]
