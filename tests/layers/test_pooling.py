"""Pooling and flatten against loops from the definition, torch and autodiff, with ties; examples of the book."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st

from jaxnet.layers import serial
from jaxnet.layers.pooling import average_pool, global_average_pool, global_max_pool, max_pool
from jaxnet.layers.reshaping import flatten
from jaxnet.layers.windows import windows

pytestmark = pytest.mark.numerical

TOLERANCE = 1e-12 if jax.config.jax_enable_x64 else 64 * float(np.finfo(np.float32).eps)


def near(got, want):
    """The same shape, and equal to rounding for numbers of order 1."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, strict=True)


def drawn(shape, seed=0):
    """Float64 numbers that float32 holds exactly, so that oracles in float64 see the same inputs."""
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32).astype(np.float64)


def arrays(tree):
    """Put on the device in the default float; nothing compiles for it."""
    return jax.tree.map(lambda a: jax.device_put(np.asarray(a, jnp.result_type(float))), tree)


@partial(jax.jit, static_argnums=0)
def both(layer, x, dy):
    """y, dx by hand, dx by autodiff."""
    y, pullback = jax.vjp(lambda x: layer.apply({}, {}, x)[0], x)
    return y, layer.backward({}, {}, x, dy)[0], pullback(dy)[0]


@st.composite
def cases(draw):
    """(x, window, stride, padding, pads); x is quantised, so that windows hold ties."""
    axes = draw(st.sampled_from([1, 2]))
    each = lambda *values: tuple(draw(st.sampled_from(values)) for _ in range(axes))  # noqa: E731
    spatial, window, stride = each(5, 6, 7), each(1, 2, 3), each(1, 2, 3)
    padding = draw(st.sampled_from(["SAME", "VALID", "pairs"]))
    if padding == "pairs":
        padding = pads = tuple((min(k // 2, 1),) * 2 for k in window)
    else:
        pads = tuple(jax.lax.padtype_to_pads(spatial, window, stride, padding))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(-1, 2, (2, *spatial, 2)) / 2, window, stride, padding, pads


def by_loops(x, dy_of, window, stride, pads, kind):
    """y and dx from the definition; of equal maxima the first in row-major order gets dy."""
    outputs = [
        (n + low + high - k) // s + 1 for n, k, s, (low, high) in zip(x.shape[1:-1], window, stride, pads, strict=True)
    ]
    y, dx = np.zeros((x.shape[0], *outputs, x.shape[-1])), np.zeros(x.shape)
    dy = dy_of(y.shape)
    for n, *o, c in np.ndindex(*y.shape):
        places = []
        for i in np.ndindex(*window):
            at = tuple(p * s + q - low for p, s, q, (low, _) in zip(o, stride, i, pads, strict=True))
            if all(0 <= p < size for p, size in zip(at, x.shape[1:-1], strict=True)):
                places.append((n, *at, c))
        seen = [x[p] for p in places]
        if kind == "max":
            y[(n, *o, c)] = max(seen)
            dx[places[seen.index(max(seen))]] += dy[(n, *o, c)]
        else:
            y[(n, *o, c)] = sum(seen) / len(seen)
            for p in places:
                dx[p] += dy[(n, *o, c)] / len(places)
    return y, dy, dx


@pytest.mark.float64
@pytest.mark.source("GB-9.3-pool-types", "GB-9.3-pool-stride")
@pytest.mark.parametrize(("make", "kind"), [(max_pool, "max"), (average_pool, "average")])
@examples(5)
@given(case=cases())
def test_pooling_is_the_definition_torch_and_autodiff(make, kind, case):
    x, window, stride, padding, pads = case
    y, dy, dx = by_loops(x, partial(drawn, seed=3), window, stride, pads, kind)
    results = both(make(window, stride=stride, padding=padding), *arrays((x, dy)))
    for got, want in zip(results, (y, dx, dx), strict=True):
        near(got, want)
    if all(low == high <= k // 2 for (low, high), k in zip(pads, window, strict=True)):  # what torch can pad
        torch = pytest.importorskip("torch")
        functions = torch.nn.functional
        name = f"{'max' if kind == 'max' else 'avg'}_pool{len(window)}d"
        leaf = torch.tensor(np.moveaxis(x, -1, 1).copy(), requires_grad=True)
        options = {} if kind == "max" else {"count_include_pad": False}
        result = getattr(functions, name)(leaf, window, stride, tuple(low for low, _ in pads), **options)
        result.backward(torch.tensor(np.moveaxis(dy, -1, 1).copy()))
        near(results[0], np.moveaxis(result.detach().numpy(), 1, -1))
        near(results[1], np.moveaxis(leaf.grad.numpy(), 1, -1))


@pytest.mark.parametrize("window", [(2, 3), (3, 2)], ids=str)
def test_averages_of_windows_that_tile_and_that_do_not(window):
    x = drawn((2, 4, 6, 2))  # (2, 3) tiles it; of (3, 2) a last row is in no window
    outputs = 4 // window[0], 6 // window[1]
    assert windows("", window, window, 1, "VALID").tiles((4, 6)) == (window == (2, 3))
    dy = drawn((2, *outputs, 2), 1)
    want = by_loops(x, lambda shape: dy, window, window, ((0, 0), (0, 0)), "average")
    for got, expected in zip(both(average_pool(window), *arrays((x, dy))), (want[0], want[2], want[2]), strict=True):
        near(got, expected)


@pytest.mark.parametrize("layer", [max_pool((2, 3)), global_max_pool()], ids=str)
def test_the_first_of_equal_maxima_gets_the_gradient(layer):
    x, dy = arrays((np.zeros((1, 2, 3, 1)), np.ones((1, 1, 1, 1))))
    dy = dy if layer.settings else dy[:, 0, 0]
    for first in [(0, 0), (0, 2), (1, 1)]:
        image = x.at[0, first[0], first[1], 0].set(1).at[0, 1, 2, 0].set(1)
        _, *roads = both(layer, image, dy)
        for dx in roads:
            assert np.argwhere(np.asarray(dx[0, ..., 0])).tolist() == [list(first)]
    for dx in both(layer, x, dy)[1:]:
        assert np.asarray(dx[0, ..., 0]).tolist() == [[1, 0, 0], [0, 0, 0]]
    tangent = arrays(np.arange(1.0, 7).reshape(x.shape))
    assert float(jax.jvp(lambda x: layer.apply({}, {}, x)[0].sum(), (x,), (tangent,))[1]) == 1


@examples(4)
@given(st.sampled_from([(4,), (3, 2)]), st.integers(0, 2**32 - 1))
def test_global_pooling_is_the_definition(spatial, seed):
    x = np.random.default_rng(seed).integers(-1, 2, (2, *spatial, 3)) / 2
    dy = drawn((2, 3), 1)
    rows = x.reshape(2, -1, 3)
    first = np.zeros(rows.shape)
    for n, c in np.ndindex(2, 3):
        first[n, rows[n, :, c].tolist().index(rows[n, :, c].max()), c] = dy[n, c]
    y, *roads = both(global_max_pool(), *arrays((x, dy)))
    near(y, rows.max(1))
    for dx in roads:
        near(dx, first.reshape(x.shape))
    y, *roads = both(global_average_pool(), *arrays((x, dy)))
    near(y, rows.mean(1))
    for dx in roads:
        near(dx, np.broadcast_to(dy[:, None] / rows.shape[1], rows.shape).reshape(x.shape))


@pytest.mark.parametrize("layer", [max_pool((2,)), average_pool((2,)), global_max_pool()], ids=str)
def test_a_nan_is_never_hidden(layer):
    x = jnp.asarray([1.0, jnp.nan, 2.0, jnp.nan]).reshape(1, 4, 1)
    assert np.isnan(np.asarray(layer.apply({}, {}, x)[0])).all()
    big, _ = layer.apply({}, {}, jnp.asarray([1e4, -1e4, -1e4, 1e4]).reshape(1, 4, 1))
    assert np.isfinite(np.asarray(big)).all()


@pytest.mark.source("GB-9.3-max-invariance")
def test_a_shift_changes_every_unit_but_half_of_the_maxima():
    x = np.array([0, 0.3, 0.1, 1, 0.2, 0.1, 0])
    shown, before = x[2:6], x[1:5]  # the four middle units, and as the shift by one makes them
    pool = lambda x: max_pool((3,), stride=1).apply({}, {}, arrays(x.reshape(1, -1, 1)))[0].ravel()  # noqa: E731
    near(pool(x[1:]), [1, 1, 1, 0.2])
    near(pool(x[:6]), [0.3, 1, 1, 1])
    assert (shown != before).all()
    assert int((pool(x[1:]) != pool(x[:6])).sum()) == 2


@pytest.mark.source("GB-9.3-pool-stride")
def test_the_last_smaller_window_is_kept():
    x = arrays(np.array([1.0, 5, 2, 4, 3, 6]).reshape(1, 6, 1))
    assert max_pool((3,), stride=2, padding="SAME").apply({}, {}, x)[0].ravel().tolist() == [5, 4, 6]
    assert average_pool((3,), stride=2, padding="SAME").apply({}, {}, x)[0].ravel().tolist()[-1] == 4.5


@pytest.mark.source("GB-9.3-variable-size")
@pytest.mark.parametrize("shape", [(1, 3, 2), (1, 4, 5, 2), (1, 1, 1, 2)], ids=str)
def test_inputs_of_any_size_give_a_fixed_one(shape):
    for layer in (global_max_pool(), global_average_pool()):
        assert layer.apply({}, {}, jnp.ones(shape))[0].tolist() == [[1.0, 1.0]]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, None], ids=["bfloat16", "default"])
def test_strict_promotion_and_the_dtype_of_the_input(dtype):
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    for layer, shape in [
        (max_pool((2,), padding="SAME"), (2, 3, 4)),
        (average_pool((2,), padding="SAME"), (2, 3, 4)),
        (global_max_pool(), (2, 4)),
        (global_average_pool(), (2, 4)),
        (flatten(), (2, 20)),
    ]:
        x, dy = jnp.asarray(drawn((2, 5, 4)), dtype), jnp.asarray(drawn(shape, 1), dtype)
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            assert layer.init(jax.random.key(0), jax.ShapeDtypeStruct((5, 4), dtype)) == ({}, {})
            results = both(layer, x, dy)
        assert {(a.dtype, a.weak_type) for a in results} == {(dtype, False)}
        near(np.asarray(results[1], np.float64), np.asarray(results[2], np.float64))


def test_members_side_by_side_are_the_members_alone():
    for layer, shape in [(max_pool((2,)), (3, 2, 2, 2)), (global_max_pool(), (3, 2, 2))]:
        x, dy = arrays((np.round(drawn((3, 2, 5, 2))), drawn(shape, 1)))
        together = jax.vmap(partial(both, layer))(x, dy)
        for m in range(3):
            jax.tree.map(near, jax.tree.map(lambda a: a[m], together), both(layer, x[m], dy[m]))


def test_flatten_is_row_major_and_goes_back():
    x, dy = arrays((drawn((2, 3, 2)), drawn((2, 6), 1)))
    y, *roads = both(flatten(), x, dy)
    near(y, np.asarray(x, np.float64).reshape(2, 6))
    for dx in roads:
        near(dx, np.asarray(dy, np.float64).reshape(2, 3, 2))
    assert flatten().apply({}, {}, jnp.zeros((3,)))[0].shape == (3, 1)
    assert flatten().apply({}, {}, jnp.zeros((0, 2, 2)))[0].shape == (0, 4)
    assert flatten().backward({}, {}, jnp.zeros((2, 3), int), jnp.zeros((2, 3))) == (None, {})
    net = serial(max_pool((2, 2)), flatten())
    assert net.init(jax.random.key(0), (4, 4, 3)) == ({}, {})


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: max_pool(2), TypeError, r"max_pool\(2\): got a window of 2; expected a tuple"),
        (lambda: average_pool((2, 0)), ValueError, r"got a window \(2, 0\); expected 2 positive integers"),
        (lambda: max_pool((2,), stride=0), ValueError, r"got stride \(0,\); expected 1 positive"),
        (lambda: max_pool((2,), padding="same"), ValueError, r"got padding 'same'; expected \"SAME\""),
    ],
)
def test_settings_out_of_range_are_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "match"),
    [
        (max_pool((2, 2)), (4, 4), r"got an example of shape \(4, 4\); expected \(height, width, channels\)"),
        (max_pool((3,)), (2, 1), r"got inputs of spatial shape \(2,\), smaller than"),
        (max_pool((2,), padding=((2, 0),)), (4, 1), "expected no window of padding only: pad less"),
        (average_pool((2,), padding=((0, 2),)), (4, 1), "expected no window of padding only: pad less"),
        (global_average_pool(), (4,), r"expected \(…, channels\) with a spatial axis"),
    ],
    ids=str,
)
def test_examples_that_do_not_fit_are_refused(layer, shape, match):
    with pytest.raises(ValueError, match=match):
        layer.init(jax.random.key(0), shape)
    with pytest.raises(ValueError, match=match):
        jax.eval_shape(lambda x: layer.apply({}, {}, x)[0], jnp.zeros((1, *shape)))


@pytest.mark.parametrize("layer", [max_pool((2,)), average_pool((2,)), global_max_pool()], ids=str)
def test_inputs_that_are_not_floats_are_refused(layer):
    with pytest.raises(TypeError, match="got inputs of dtype int32; expected floats"):
        layer.apply({}, {}, jnp.zeros((1, 4, 1), "int32"))


def test_repr_shows_what_was_set():
    assert repr(max_pool((2, 2))) == "max_pool((2, 2))"
    assert repr(average_pool((3,), stride=2, padding="SAME")) == "average_pool((3,), stride=(2,), padding=SAME)"
    assert [repr(f()) for f in (global_max_pool, global_average_pool, flatten)] == [
        "global_max_pool()",
        "global_average_pool()",
        "flatten()",
    ]
