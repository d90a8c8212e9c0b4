"""embedding against loops, one-hot products, torch and autodiff; ids out of range."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import initializers
from jaxnet.layers import dense, serial
from jaxnet.layers.embedding import embedding
from jaxnet.layers.reshaping import flatten

pytestmark = pytest.mark.numerical

TOLERANCE = 1e-12 if jax.config.jax_enable_x64 else 64 * float(np.finfo(np.float32).eps)
W, DY = np.random.default_rng(0).normal(0, 1, (5, 3)), np.random.default_rng(1).normal(0, 1, (2, 4, 3))
W, DY = W.astype(np.float32).astype(np.float64), DY.astype(np.float32).astype(np.float64)
IDS = np.array([[0, 4, 4, 1], [4, 2, 0, 0]], np.int32)
LAYER = embedding(5, 3)


def near(got, want):
    """The same shape, and equal to rounding, for numbers of order 1; NaN equals NaN."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, strict=True)


def arrays(tree):
    return jax.tree.map(lambda a: jax.device_put(np.asarray(a, jnp.result_type(float))), tree)


@partial(jax.jit, static_argnums=0)
def both(layer, params, x, dy):
    """y, dx and dw by hand, dw by autodiff."""
    y, pullback = jax.vjp(lambda p: layer.apply(p, {}, x)[0], params)
    dx, grads = layer.backward(params, {}, x, dy)
    return y, dx, grads["w"], pullback(dy)[0]["w"]


def test_rows_and_their_summed_gradients():
    y, dw = np.zeros((2, 4, 3)), np.zeros((5, 3))
    for n, t in np.ndindex(2, 4):
        y[n, t] = W[IDS[n, t]]
        dw[IDS[n, t]] += DY[n, t]
    got, dx, *roads = both(LAYER, arrays({"w": W}), jnp.asarray(IDS), arrays(DY))
    near(got, y)
    assert dx is None
    one_hot = np.eye(5)[IDS]
    near(got, one_hot @ W)
    torch = pytest.importorskip("torch")
    w = torch.tensor(W, requires_grad=True)
    torch.nn.functional.embedding(torch.tensor(IDS), w).backward(torch.tensor(DY))
    for road in roads:
        near(road, dw)
        near(road, one_hot.reshape(-1, 5).T @ DY.reshape(-1, 3))
        near(road, w.grad.numpy())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint32, np.int64])
def test_every_integer_type_indexes_even_beyond_its_own_range(dtype):
    """A layer of 300 ids takes uint8 ids; each number means itself."""
    w = np.arange(300.0)[:, None]
    for ids in (np.array([0, 7, 100], dtype), jnp.asarray(np.array([0, 7, 100], np.int32)).astype(jnp.uint8)):
        assert embedding(300, 1).apply({"w": arrays(w)}, {}, ids)[0].ravel().tolist() == [0, 7, 100]


@pytest.mark.parametrize("wrong", [5, -1, 99])
def test_ids_out_of_range_are_refused_or_nan_in_a_trace(wrong):
    ids = IDS.copy()
    ids[0, 0] = wrong
    with pytest.raises(ValueError, match=r"embedding\(5, 3\): got ids from .* to .*; expected 0 to 4: number the ids"):
        LAYER.apply({"w": jnp.asarray(W)}, {}, ids)
    y, _, *roads = both(LAYER, arrays({"w": W}), jnp.asarray(ids), arrays(DY))
    want = W[np.clip(ids, 0, 4)]
    want[0, 0] = np.nan
    near(y, want)
    nearest = 0 if wrong < 0 else 4
    for dw in roads:
        assert np.isnan(np.asarray(dw)).all(axis=1).tolist() == [r == nearest for r in range(5)]


@pytest.mark.float64
def test_a_sentence_classifier_by_both_roads():
    net = serial(embedding(5, 3), flatten(), dense(2))
    params, state = net.init(jax.random.key(0), jax.ShapeDtypeStruct((4,), "int32"))
    assert state == {}
    dy = jnp.asarray([[1.0, -2.0], [0.5, 3.0]], params["dense_0"]["w"].dtype)
    _, pullback = jax.vjp(lambda p: net.apply(p, {}, jnp.asarray(IDS))[0], params)
    dx, grads = net.backward(params, {}, jnp.asarray(IDS), dy)
    assert dx is None
    jax.tree.map(near, grads, pullback(dy)[0])


def test_members_side_by_side_are_the_members_alone():
    params = arrays({"w": np.stack([W, -W, 2 * W])})
    together = jax.vmap(lambda p, x: LAYER.apply(p, {}, x)[0], in_axes=(0, None))(params, jnp.asarray(IDS))
    near(together, np.stack([W[IDS], -W[IDS], 2 * W[IDS]]))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, None], ids=["bfloat16", "default"])
def test_strict_promotion_and_dtypes(dtype):
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        params, _ = LAYER.init(jax.random.key(0), jax.ShapeDtypeStruct((4,), "uint8"))
        assert params["w"].dtype == jnp.result_type(float)
        params = {"w": params["w"].astype(dtype)}
        y, _, *roads = both(LAYER, params, jnp.asarray(IDS).astype(jnp.uint8), jnp.asarray(DY, dtype))
    assert {(a.dtype, a.weak_type) for a in (y, *roads)} == {(dtype, False)}


def test_rows_start_as_standard_normal_unless_told():
    params, _ = embedding(200, 100).init(jax.random.key(0), jax.ShapeDtypeStruct((), "int32"))
    assert abs(float(params["w"].std()) - 1) < 0.02
    own = embedding(2, 3, weight_init=initializers.constant(0.5))
    near(own.init(jax.random.key(0), jax.ShapeDtypeStruct((), "int32"))[0]["w"], np.full((2, 3), 0.5))


def test_what_is_not_ids_is_refused():
    for wrong in [(0, 3), (5, 0), (5, 2.0), (True, 3)]:
        with pytest.raises(ValueError, match="expected a positive number of ids and of units"):
            embedding(*wrong)
    with pytest.raises(TypeError, match=r"got inputs of dtype float.*; expected integer ids: x.astype"):
        LAYER.init(jax.random.key(0), (4,))
    for dtype in (float, bool):
        with pytest.raises(TypeError, match="expected integer ids"):
            LAYER.apply({"w": jnp.asarray(W)}, {}, jnp.zeros((2, 4), dtype))
    with pytest.raises(ValueError, match=r"got weights of shape \(4, 3\); expected \(5, 3\)"):
        LAYER.apply({"w": jnp.zeros((4, 3))}, {}, IDS)
    assert repr(LAYER) == "embedding(5, 3)"
