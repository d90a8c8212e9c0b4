"""Locally connected and tiled convolutions against loops from the definition, autodiff, and convolution itself."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st

from jaxnet.layers.convolution import conv
from jaxnet.layers.local import local, tiled_conv

pytestmark = pytest.mark.numerical

KEY = jax.random.key(0)
TOLERANCE = 1e-12 if jax.config.jax_enable_x64 else 64 * float(np.finfo(np.float32).eps)


def near(got, want):
    """The same shape, and equal to rounding on the scale of the largest entry."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE * max(1, np.abs(want).max(initial=0)), strict=True)


def drawn(shape, seed=0):
    """Float64 numbers that float32 holds exactly, so that oracles in float64 see the same inputs."""
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32).astype(np.float64)


def arrays(tree):
    """Put on the device in the default float; nothing compiles for it."""
    return jax.tree.map(lambda a: jax.device_put(np.asarray(a, jnp.result_type(float))), tree)


@partial(jax.jit, static_argnums=0)
def both(layer, params, x, dz):
    """z, (dx, dparams) by hand, (dx, dparams) by autodiff."""
    z, pullback = jax.vjp(lambda x, p: layer.apply(p, {}, x)[0], x, params)
    return z, layer.backward(params, {}, x, dz), pullback(dz)


def by_loops(x, w, b, tiles, kernel, stride, dilation, pads):
    """Goodfellow eq. 9.9 and 9.10: place o uses the kernel of index o mod t."""
    padded = np.pad(x, [(0, 0), *pads, (0, 0)])
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    outputs = [(n - e) // s + 1 for n, e, s in zip(padded.shape[1:-1], extent, stride, strict=True)]
    z = np.zeros((x.shape[0], *outputs, w.shape[-1]))
    for o in np.ndindex(*outputs):
        tile = tuple(p % t for p, t in zip(o, tiles or outputs, strict=True))
        z[(slice(None), *o)] = 0 if b is None else b[tile]
        for i in np.ndindex(*kernel):
            at = tuple(p * s + q * d for p, s, q, d in zip(o, stride, i, dilation, strict=True))
            z[(slice(None), *o)] += padded[(slice(None), *at)] @ w[(*tile, *i)]
    return z


@st.composite
def cases(draw):
    """(spatial, kernel, stride, dilation, pads, tiles or None, bias); never fewer outputs than tiles."""
    axes = draw(st.sampled_from([1, 2]))
    each = lambda *values: tuple(draw(st.sampled_from(values)) for _ in range(axes))  # noqa: E731
    pads = tuple((draw(st.integers(0, 2)), draw(st.integers(0, 2))) for _ in range(axes))
    tiles = draw(st.sampled_from([None, each(1, 2)]))
    return each(7, 8), each(1, 2, 3), each(1, 2), each(1, 2), pads, tiles, draw(st.booleans())


@pytest.mark.float64
@pytest.mark.source("GB-9.5-local", "GB-9.5-tiled", "GB-9.5-bias-modes")
@examples(6)
@given(cases())
def test_forward_and_backward_are_the_definition(case):
    spatial, kernel, stride, dilation, pads, tiles, bias = case
    settings = {"stride": stride, "dilation": dilation, "padding": pads, "bias": bias}
    layer = local(3, kernel, **settings) if tiles is None else tiled_conv(3, kernel, tiles, **settings)
    shapes = jax.eval_shape(lambda k: layer.init(k, (*spatial, 2))[0], KEY)
    w = drawn(shapes["w"].shape, 1)
    params = {"w": w, "b": drawn(shapes["b"].shape, 2)} if bias else {"w": w}
    x = drawn((2, *spatial, 2))
    want = by_loops(x, w, params.get("b"), tiles, kernel, stride, dilation, pads)
    z, by_hand, by_autodiff = both(layer, *arrays((params, x, drawn(want.shape, 3))))
    near(z, want)
    jax.tree.map(near, by_hand, by_autodiff)


@pytest.mark.source("GB-9.5-local", "GB-9.5-tiled")
def test_from_convolution_over_tiles_to_locally_connected():
    """One tile: the convolution, its gradients too. As many tiles as outputs, or all kernels tied: both limits."""
    settings = {"stride": (1, 2), "padding": "SAME"}
    shared = {"w": drawn((3, 2, 2, 3), 1), "b": drawn(3, 2)}
    x, dz = drawn((2, 4, 5, 2)), drawn((2, 4, 3, 3), 3)
    z, (dx, grads), _ = both(conv(3, (3, 2), **settings), *arrays((shared, x, dz)))
    one = jax.tree.map(lambda a: a[None, None], shared)
    z_one, (dx_one, grads_one), _ = both(tiled_conv(3, (3, 2), (1, 1), **settings), *arrays((one, x, dz)))
    near(z_one, z)
    near(dx_one, dx)
    jax.tree.map(lambda a, b: near(a[0, 0], b), grads_one, grads)

    tied = jax.tree.map(lambda a: np.broadcast_to(a, (4, 3, *a.shape)), shared)
    z_tied, (dx_tied, grads_tied), _ = both(local(3, (3, 2), **settings), *arrays((tied, x, dz)))
    near(z_tied, z)
    near(dx_tied, dx)
    jax.tree.map(lambda a, b: near(np.asarray(a, np.float64).sum((0, 1)), b), grads_tied, grads)

    free = jax.tree.map(lambda a: drawn(a.shape, 5), tied)
    results = [both(f, *arrays((free, x, dz))) for f in (local(3, (3, 2), **settings),)]
    results.append(both(tiled_conv(3, (3, 2), (4, 3), **settings), *arrays((free, x, dz))))
    jax.tree.map(near, *results)


@pytest.mark.parametrize("layer", [local(3, (3,)), tiled_conv(3, (3,), (2,))], ids=str)
def test_members_side_by_side_are_the_members_alone(layer):
    shapes = jax.eval_shape(lambda k: layer.init(k, (5, 2))[0], KEY)
    params = [jax.tree.map(lambda s: arrays(drawn(s.shape, m)), shapes) for m in range(3)]
    x, dz = arrays((drawn((3, 2, 5, 2)), drawn((3, 2, 5, 3), 1)))
    together = jax.vmap(partial(both, layer))(jax.tree.map(lambda *a: jnp.stack(a), *params), x, dz)
    for m in range(3):
        jax.tree.map(near, jax.tree.map(lambda a: a[m], together), both(layer, params[m], x[m], dz[m]))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, None], ids=["bfloat16", "default"])
def test_strict_promotion_and_the_dtype_of_the_spec(dtype):
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    layer = tiled_conv(4, (3,), (2,))
    x, dz = jnp.asarray(drawn((2, 5, 2)), dtype), jnp.asarray(drawn((2, 5, 4), 1), dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        params, state = jax.jit(layer.init, static_argnums=1)(KEY, jax.ShapeDtypeStruct((5, 2), dtype))
        results = both(layer, params, x, dz)
    assert state == {}
    assert {(a.dtype, a.weak_type) for a in jax.tree.leaves((params, results))} == {(dtype, False)}


def test_each_kernel_is_drawn_on_its_own_with_the_fans_of_one():
    params, _ = jax.jit(local(30, (5,)).init, static_argnums=1)(KEY, (7, 20))
    w, bound = np.asarray(params["w"]), (6 / (5 * 50)) ** 0.5
    assert w.shape == (7, 5, 20, 30)
    assert all(0.99 * bound < np.abs(kernel).max() <= bound * (1 + 1e-6) for kernel in w)
    assert not np.any(w[0] == w[1])


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"got units=0; expected a positive integer"):
        local(0, (3,))
    with pytest.raises(ValueError, match=r"tiled_conv\(4, \(3,\), \(2, 2\)\): got tiles \(2, 2\); expected 1 positive"):
        tiled_conv(4, (3,), (2, 2))
    with pytest.raises(TypeError, match=r"tiles: got a window of 2; expected a tuple"):
        tiled_conv(4, (3,), 2)
    with pytest.raises(ValueError, match=r"got tiles \(9,\) for outputs of shape \(5,\); expected no more"):
        tiled_conv(4, (3,), (9,)).init(KEY, (5, 2))
    layer = local(4, (3,))
    params = {"w": jnp.zeros((5, 3, 2, 4)), "b": jnp.zeros((5, 4))}
    with pytest.raises(
        ValueError, match=r"got inputs of shape \(1, 6, 2\) .*; expected weights of shape \(6, 3, 2, 4\)"
    ):
        jax.eval_shape(lambda x: layer.apply(params, {}, x)[0], jnp.zeros((1, 6, 2)))
    with pytest.raises(TypeError, match="got inputs of dtype int32; expected floats"):
        layer.apply(params, {}, jnp.zeros((1, 5, 2), "int32"))


def test_repr_shows_what_was_set():
    assert repr(local(4, (3,), stride=2)) == "local(4, (3,), stride=(2,))"
    assert repr(tiled_conv(4, (3,), (2,), bias=False)) == "tiled_conv(4, (3,), (2,), bias=False)"
