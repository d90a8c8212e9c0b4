"""Convolutions against loops from the definition, torch and autodiff; the equalities of Goodfellow's chapter 9."""

import itertools
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import linalg, signal

from jaxnet.layers import dense, serial, tanh
from jaxnet.layers.convolution import conv, conv_transpose, depthwise_conv
from jaxnet.layers.correlation import convolve, input_gradient, kernel_gradient
from jaxnet.layers.reshaping import flatten
from jaxnet.layers.windows import windows

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


@dataclass(frozen=True)
class Case:
    """What a convolution is given, `pads` being what `padding` stands for."""

    x: tuple[int, ...]
    kernel: tuple[int, ...]
    units: int
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: object
    pads: tuple[tuple[int, int], ...]
    groups: int
    bias: bool

    @property
    def settings(self):
        return {
            "stride": self.stride,
            "dilation": self.dilation,
            "padding": self.padding,
            "groups": self.groups,
            "bias": self.bias,
        }


@st.composite
def cases(draw):
    axes = draw(st.sampled_from([1, 2]))
    each = lambda *values: tuple(draw(st.sampled_from(values)) for _ in range(axes))  # noqa: E731
    spatial, kernel, stride, dilation = each(5, 6, 8), each(1, 2, 3), each(1, 2, 3), each(1, 2)
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = draw(st.sampled_from(["SAME", "VALID", "FULL", "pairs"]))
    if padding == "pairs":
        padding = pads = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(axes))
    elif padding == "FULL":
        pads = tuple((k - 1, k - 1) for k in extent)
    else:
        pads = tuple(jax.lax.padtype_to_pads(spatial, extent, stride, padding))
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    units = groups * draw(st.sampled_from([1, 3]))
    return Case((2, *spatial, 4), kernel, units, stride, dilation, padding, pads, groups, draw(st.booleans()))


# Nothing of it is symmetric: no error in an order of axes, a flip or a side of a padding leaves it as it is.
UNLIKE = Case((2, 8, 6, 4), (3, 2), 6, (2, 1), (1, 2), ((2, 0), (0, 1)), ((2, 0), (0, 1)), 2, True)


def by_loops(x, w, stride, dilation, pads, groups):
    """Goodfellow eq. 9.8 as it's written: sums over the kernel for each output."""
    padded = np.pad(x, [(0, 0), *pads, (0, 0)])
    kernel, block, per_group = w.shape[:-2], w.shape[-2], w.shape[-1] // groups
    starts = [
        [p for p in range(0, n, s) if p + (k - 1) * d < n]
        for n, s, k, d in zip(padded.shape[1:-1], stride, kernel, dilation, strict=True)
    ]
    z = np.zeros((x.shape[0], *map(len, starts), w.shape[-1]))
    for o in np.ndindex(*z.shape[1:-1]):
        for i in np.ndindex(*kernel):
            at = tuple(starts[a][o[a]] + i[a] * dilation[a] for a in range(len(kernel)))
            for u in range(w.shape[-1]):
                channels = slice(u // per_group * block, (u // per_group + 1) * block)
                z[(slice(None), *o, u)] += padded[(slice(None), *at, channels)] @ w[(*i, slice(None), u)]
    return z


def params_of(case):
    w = drawn((*case.kernel, case.x[-1] // case.groups, case.units), 1)
    return {"w": w, "b": drawn(case.units, 2)} if case.bias else {"w": w}


def torch_gradients(z, dz, leaves):
    z.backward(dz)
    return [leaf.grad for leaf in leaves]


def to_torch(a):
    """Channels last to channels first, float64."""
    torch = pytest.importorskip("torch")
    return torch.tensor(np.moveaxis(a, -1, 1).copy(), dtype=torch.float64, requires_grad=True)


def kernel_to_torch(w):
    torch = pytest.importorskip("torch")
    return torch.tensor(np.moveaxis(w, (-1, -2), (0, 1)).copy(), dtype=torch.float64, requires_grad=True)


def from_torch(t):
    return np.moveaxis(t.detach().numpy(), 1, -1)


def kernel_from_torch(t):
    return np.moveaxis(t.detach().numpy(), (0, 1), (-1, -2))


# ── values and gradients ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.float64
@pytest.mark.source(
    "GB-9.5-multichannel", "GB-9.5-stride", "GB-9.5-padding", "GB-9.5-channel-groups", "GB-9.5-grad-kernel"
)
@pytest.mark.source("GB-9.5-grad-input", "GB-9.5-bias-modes", "GB-9.7-data-types")
@examples(5)
@example(UNLIKE, "patches")
@given(cases(), st.sampled_from(["patches", "direct"]))
def test_convolution_is_the_definition_torch_and_autodiff(case, method):
    params, x = params_of(case), drawn(case.x)
    want = by_loops(x, params["w"], case.stride, case.dilation, case.pads, case.groups) + params.get("b", 0)
    dz = drawn(want.shape, 3)
    layer = conv(case.units, case.kernel, method=method, **case.settings)
    z, by_hand, by_autodiff = both(layer, *arrays((params, x, dz)))
    near(z, want)
    jax.tree.map(near, by_hand, by_autodiff)

    torch = pytest.importorskip("torch")
    function = torch.nn.functional.conv1d if len(case.kernel) == 1 else torch.nn.functional.conv2d
    leaves = [to_torch(x), kernel_to_torch(params["w"])] + ([torch.tensor(params["b"])] if case.bias else [])
    leaves[-1].requires_grad_()
    padded = torch.nn.functional.pad(leaves[0], [n for pair in reversed(case.pads) for n in pair])
    b = leaves[2] if case.bias else None
    result = function(padded, leaves[1], b, case.stride, 0, case.dilation, case.groups)
    near(z, from_torch(result))
    dx, dw, *db = torch_gradients(result, to_torch(dz).detach(), leaves)
    near(by_hand[0], from_torch(dx))
    near(by_hand[1]["w"], kernel_from_torch(dw))
    if case.bias:
        near(by_hand[1]["b"], db[0])


@pytest.mark.float64
@pytest.mark.source("GB-9.5-grad-input", "GB-9.5-conv-AE")
@examples(4)
@example(UNLIKE, "direct")
@given(cases(), st.sampled_from(["patches", "direct"]))
def test_transposed_convolution_is_the_adjoint_and_torchs(case, method):
    """<c(w, v), x> = <v, h(w, x)> for any v, whatever size the convolution came from; forward by the loops."""
    w = drawn((*case.kernel, case.x[-1] // case.groups, case.units), 1)
    v = drawn(case.x)
    down = by_loops(v, w, case.stride, case.dilation, case.pads, case.groups)
    x, b, dz = drawn(down.shape, 4), drawn(case.x[-1], 2), drawn(case.x, 3)
    settings = case.settings | {"padding": case.pads, "output": case.x[1:-1]}
    layer = conv_transpose(case.x[-1], case.kernel, method=method, **settings)
    params = {"w": w, "b": b} if case.bias else {"w": w}
    z, by_hand, by_autodiff = both(layer, *arrays((params, x, dz)))
    jax.tree.map(near, by_hand, by_autodiff)
    plain = np.asarray(z, np.float64) - params.get("b", 0)
    near(np.sum(down * x) / down.size, np.sum(v * plain) / down.size)

    torch = pytest.importorskip("torch")
    function = torch.nn.functional.conv_transpose1d if len(case.kernel) == 1 else torch.nn.functional.conv_transpose2d
    whole = function(to_torch(x), kernel_to_torch(w), None, case.stride, 0, 0, case.groups, case.dilation)
    image = np.zeros((case.x[0], *(n + low + high for n, (low, high) in zip(case.x[1:-1], case.pads, strict=True)), 4))
    image[tuple(slice(0, n) for n in from_torch(whole).shape)] = from_torch(whole)
    crop = tuple(slice(low, low + n) for n, (low, _) in zip(case.x[1:-1], case.pads, strict=True))
    near(plain, image[(slice(None), *crop)])


@pytest.mark.source("GB-9.5-padding")
@pytest.mark.parametrize(("padding", "stride", "size"), [("SAME", 2, 10), ("VALID", 2, 11), ("FULL", 2, 7)])
def test_transposed_convolution_has_a_size_of_its_own(padding, stride, size):
    layer = conv_transpose(2, (3,), stride=stride, padding=padding)
    params, state = layer.init(KEY, (5, 3))
    assert state == {}
    assert {k: v.shape for k, v in params.items()} == {"w": (3, 2, 3), "b": (2,)}
    z = jax.eval_shape(lambda x: layer.apply(params, {}, x)[0], jnp.zeros((1, 5, 3)))
    assert z.shape == (1, size, 2)
    assert windows("", (3,), stride, 1, padding).outputs((size,)) == (5,)


@pytest.mark.parametrize("method", ["patches", "direct"])
def test_depthwise_is_a_convolution_per_channel(method):
    layer = depthwise_conv((3,), multiplier=2, stride=2, method=method)
    params = {"w": drawn((3, 1, 6), 1), "b": drawn(6, 2)}
    x, dz = drawn((2, 7, 3)), drawn((2, 4, 6), 3)
    z, by_hand, by_autodiff = both(layer, *arrays((params, x, dz)))
    for c in range(3):
        one = by_loops(x[..., [c]], params["w"][..., 2 * c : 2 * c + 2], (2,), (1,), ((1, 1),), 1)
        near(np.asarray(z)[..., 2 * c : 2 * c + 2], one + params["b"][2 * c : 2 * c + 2])
    jax.tree.map(near, by_hand, by_autodiff)


@pytest.mark.source("GB-9.5-conv-AE")
def test_an_autoencoder_with_one_kernel():
    """R = h(K, H): dK = g(H, E), dH = c(K, E), with E the gradient by R; strides and all."""
    geometry = windows("", (3, 2), (2, 1), 1, "SAME")
    k, h, e = arrays((drawn((3, 2, 2, 3)), drawn((2, 3, 4, 3), 1), drawn((2, 6, 4, 2), 2)))
    reconstruction, pullback = jax.vjp(lambda k, h: input_gradient(k, h, geometry, (6, 4)), k, h)
    dk, dh = pullback(e)
    assert reconstruction.shape == e.shape
    near(dk, kernel_gradient(e, h, geometry))
    near(dh, convolve(e, k, geometry))


@pytest.mark.parametrize("method", ["patches", "direct"])
def test_members_side_by_side_are_the_members_alone(method):
    layer = conv(2, (3, 3), stride=2, groups=2, method=method)
    params = {"w": drawn((4, 3, 3, 1, 2)), "b": drawn((4, 2), 1)}
    params, x, dz = arrays((params, drawn((4, 2, 5, 5, 2), 2), drawn((4, 2, 3, 3, 2), 3)))
    together = jax.vmap(partial(both, layer))(params, x, dz)
    for m in range(4):
        alone = both(layer, *jax.tree.map(lambda a: a[m], (params, x, dz)))
        jax.tree.map(near, jax.tree.map(lambda a: a[m], together), alone)


@pytest.mark.parametrize("method", ["patches", "direct"])
def test_forward_mode_is_the_map_itself(method):
    """Linear in x: the tangent of z is the convolution of the tangent."""
    layer = conv(2, (3,), bias=False, method=method)
    w, x, t = arrays((drawn((3, 4, 2)), drawn((1, 6, 4), 1), drawn((1, 6, 4), 2)))
    apply = lambda x: layer.apply({"w": w}, {}, x)[0]  # noqa: E731
    near(jax.jvp(apply, (x,), (t,))[1], by_loops(np.asarray(t), np.asarray(w), (1,), (1,), ((1, 1),), 1))


@pytest.mark.parametrize("make", [conv, conv_transpose], ids=["conv", "conv_transpose"])
def test_both_methods_agree_in_second_derivatives(make):
    """Hessian times vector, forward over reverse and reverse over reverse, alone and side by side; mixed terms too."""
    params, x, dp, dx = arrays(
        ({"w": drawn((3, 2, 2))}, drawn((1, 5, 2), 1), {"w": drawn((3, 2, 2), 2)}, drawn((1, 5, 2), 3))
    )

    def products(method):
        layer = make(2, (3,), stride=2, bias=False, method=method)
        gradient = jax.grad(lambda p, x: jnp.sum(jnp.sin(layer.apply(p, {}, x)[0])), (0, 1))
        forward = lambda p, x: jax.jvp(gradient, (p, x), (dp, dx))[1]  # noqa: E731

        def reverse(p, x):
            along = lambda p, x: sum(map(jnp.vdot, jax.tree.leaves(gradient(p, x)), jax.tree.leaves((dp, dx))))  # noqa: E731
            return jax.grad(along, (0, 1))(p, x)

        members = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), params)
        shared = jax.vmap(reverse, (0, None))(members, x)
        return forward(params, x), reverse(params, x), shared, jax.vmap(reverse)(members, jnp.stack([x, -x]))

    got, want = (jax.jit(products, static_argnums=0)(method) for method in ("direct", "patches"))
    jax.tree.map(near, got, want)
    jax.tree.map(near, got[0], got[1])


@pytest.mark.float64
def test_a_small_network_by_both_roads():
    net = serial(conv(3, (3, 3), stride=2), tanh(), conv_transpose(2, (2, 2)), flatten(), dense(4))
    params, _ = jax.jit(net.init, static_argnums=1)(KEY, (6, 5, 1))
    assert set(params) == {"conv_0", "conv_transpose_0", "dense_0"}
    x, dz = arrays((drawn((3, 6, 5, 1)), drawn((3, 4), 1)))
    _, by_hand, by_autodiff = both(net, params, x, dz)
    jax.tree.map(near, by_hand, by_autodiff)


# ── what the book says of convolution ───────────────────────────────────────────────────────────────────────────


def plainly(x, w, padding):
    """One image through one kernel, no batch and no channels; two axes."""
    layer = conv(1, w.shape, padding=padding, bias=False)
    return np.asarray(layer.apply({"w": arrays(w[..., None, None])}, {}, arrays(x[None, ..., None]))[0])[0, ..., 0]


@pytest.mark.source("GB-9.1-xcorr", "GB-9.1-conv2d", "GB-9.1-fig9.1")
def test_it_is_the_cross_correlation_and_convolution_flips():
    image, kernel = drawn((3, 4)), drawn((2, 2), 1)
    got = plainly(image, kernel, "VALID")
    near(got, signal.correlate2d(image, kernel, "valid"))
    (a, b), (e, f) = image[0, :2], image[1, :2]
    near(got[0, 0], a * kernel[0, 0] + b * kernel[0, 1] + e * kernel[1, 0] + f * kernel[1, 1])
    flipped = plainly(image, kernel[::-1, ::-1], "FULL")
    near(flipped, signal.convolve2d(image, kernel))
    near(flipped, plainly(kernel, image[::-1, ::-1], "FULL"))  # convolution commutes, correlation doesn't
    assert not np.allclose(got, signal.convolve2d(image, kernel, "valid"))


@pytest.mark.source("GB-9.1-conv-def")
def test_smoothing_a_signal():
    x, w = drawn(9), np.array([0.5, 0.3, 0.2])  # w[age]
    layer = conv(1, (3,), padding=((2, 0),), bias=False)
    params = {"w": arrays(w[::-1].reshape(3, 1, 1))}
    near(layer.apply(params, {}, arrays(x.reshape(1, 9, 1)))[0].ravel(), np.convolve(x, w)[:9])
    near(layer.apply(params, {}, arrays(np.ones((1, 9, 1))))[0].ravel()[2:], np.ones(7))


@pytest.mark.source("GB-9.1-toeplitz", "GB-9.2-sparse-cost", "GB-9.2-param-sharing")
def test_it_is_a_product_with_a_sparse_toeplitz_matrix():
    n, k = 8, 3
    w, x, dz = drawn(k), drawn(n, 1), drawn(n - k + 1, 2)
    matrix = linalg.toeplitz(np.r_[w[0], np.zeros(n - k)], np.r_[w, np.zeros(n - k)])
    layer = conv(1, (k,), padding="VALID", bias=False)
    params = {"w": w.reshape(k, 1, 1)}
    z, (dx, grads), _ = both(layer, *arrays((params, x.reshape(1, n, 1), dz.reshape(1, -1, 1))))
    near(z.ravel(), matrix @ x)
    near(dx.ravel(), matrix.T @ dz)
    dense_gradient = np.outer(dz, x)  # of the matrix, as if its entries were free; the kernel ties its diagonals
    near(grads["w"].ravel(), [np.trace(dense_gradient[:, i:]) for i in range(k)])
    jacobian = jax.jacobian(lambda x: layer.apply(arrays(params), {}, x.reshape(1, n, 1))[0].ravel())(arrays(x))
    near(jacobian, matrix)
    assert ((np.asarray(jacobian) != 0).sum(axis=1) == k).all()


@pytest.mark.source("GB-9.2-equivariance", "GB-9.5-border-share")
def test_shifts_commute_with_it_away_from_borders():
    image, kernel = drawn((7, 8)), drawn((3, 3), 1)
    shift = partial(np.roll, shift=(1, 2), axis=(0, 1))
    inside = slice(2, -1), slice(3, -1)
    left, right = plainly(shift(image), kernel, "SAME"), shift(plainly(image, kernel, "SAME"))
    near(left[inside], right[inside])
    assert not np.allclose(left, right)
    square = image[:, :7]
    turned = plainly(np.rot90(square), kernel, "SAME"), np.rot90(plainly(square, kernel, "SAME"))
    assert not np.allclose(*turned)


@pytest.mark.source("GB-9.5-border-share")
def test_how_many_inputs_border_outputs_see():
    count = lambda padding: plainly(np.ones((1, 5)), np.ones((1, 3)), padding)[0].tolist()  # noqa: E731
    assert count("VALID") == [3, 3, 3]
    assert count("SAME") == [2, 3, 3, 3, 2]
    assert count("FULL") == [1, 2, 3, 3, 3, 2, 1]


@pytest.mark.source("GB-9.5-padding")
def test_sizes_of_outputs():
    """Fig. 9.13: width 16, kernel 6: 11, 6, 1 by valid layers, always 16 by same ones, 21 by a full one."""
    valid = windows("", (6,), 1, 1, "VALID")
    assert [valid.outputs((n,)) for n in (16, 11, 6)] == [(11,), (6,), (1,)]
    for n, k, s, d in itertools.product((7, 16), (1, 2, 6), (1, 2, 3), (1, 2)):
        extent = (k - 1) * d + 1
        if extent <= n:
            assert windows("", (k,), s, d, "VALID").outputs((n,)) == (-(-(n - extent + 1) // s),)
        assert windows("", (k,), s, d, "SAME").outputs((n,)) == (-(-n // s),)
        assert windows("", (k,), s, d, "FULL").outputs((n,)) == (-(-(n + extent - 1) // s),)
        pads = windows("", (k,), s, d, "SAME").pads((n,))
        assert list(pads) == jax.lax.padtype_to_pads((n,), (extent,), (s,), "SAME")


@pytest.mark.source("GB-9.5-stride")
def test_a_stride_subsamples():
    params, x = arrays(({"w": drawn((3, 2, 2, 2)), "b": drawn(2, 1)}, drawn((1, 8, 7, 2), 2)))
    dense_z, _ = conv(2, (3, 2), padding="VALID").apply(params, {}, x)
    near(conv(2, (3, 2), padding="VALID", stride=(2, 3)).apply(params, {}, x)[0], dense_z[:, ::2, ::3])


@pytest.mark.source("GB-9.2-receptive-field")
def test_receptive_fields_grow_with_depth():
    x = arrays(np.ones((1, 11, 1)))
    layer = conv(1, (3,), bias=False)
    for depth in (1, 2, 3):
        net = serial(*[layer] * depth)
        params = {f"conv_{i}": {"w": arrays(np.ones((3, 1, 1)))} for i in range(depth)}
        seen = jax.grad(lambda x: net.apply(params, {}, x)[0][0, 5, 0])(x)
        assert int((seen != 0).sum()) == 1 + 2 * depth


@pytest.mark.source("GB-9.8-separable", "GB-9.5-commute-channels")
def test_separable_kernels_and_channels_that_do_not_commute():
    image, rows, columns = drawn((6, 6)), drawn(3, 1), drawn(3, 2)
    once = plainly(image, np.outer(rows, columns), "VALID")
    near(plainly(plainly(image, rows[:, None], "VALID"), columns[None], "VALID"), once)
    x, a, b = arrays((drawn((1, 6, 2)), drawn((2, 2, 2), 1), drawn((2, 2, 2), 2)))
    full = windows("", (2,), 1, 1, "FULL")
    assert not np.allclose(convolve(convolve(x, a, full), b, full), convolve(convolve(x, b, full), a, full), atol=0.1)


# ── parameters, dtypes, errors ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dtype", [jnp.bfloat16, None], ids=["bfloat16", "default"])
@pytest.mark.parametrize("method", ["patches", "direct"])
def test_strict_promotion_and_the_dtype_of_the_spec(dtype, method):
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    for layer in (conv(4, (3,), groups=2, method=method), conv_transpose(4, (3,), groups=2, method=method)):
        x, dz = jnp.asarray(drawn((2, 5, 2)), dtype), jnp.asarray(drawn((2, 5, 4), 1), dtype)
        with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
            params, _ = jax.jit(layer.init, static_argnums=1)(KEY, jax.ShapeDtypeStruct((5, 2), dtype))
            results = both(layer, params, x, dz)
        assert {(a.dtype, a.weak_type) for a in jax.tree.leaves((params, results))} == {(dtype, False)}


def test_initial_kernels_have_the_fans_of_their_windows():
    for layer in (conv(40, (5, 5)), conv_transpose(40, (5, 5))):
        params, _ = layer.init(KEY, (8, 8, 20))
        bound = (6 / (25 * 60)) ** 0.5
        assert 0.99 * bound < float(jnp.abs(params["w"]).max()) <= bound * (1 + 1e-6)
        assert np.all(np.asarray(params["b"]) == 0)
    asked = []
    own = lambda key, shape, dtype: asked.append(shape) or jnp.zeros(shape, dtype)  # noqa: E731
    params, _ = conv_transpose(6, (3,), groups=2, weight_init=own).init(KEY, (8, 4))
    assert (asked, params["w"].shape) == ([(3, 2, 6)], (3, 3, 4))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: conv(4, 3), TypeError, r"got a window of 3; expected a tuple"),
        (lambda: conv(4, (0,)), ValueError, r"got a window \(0,\); expected 1 positive integers"),
        (lambda: conv(4, ()), ValueError, r"got a window of \(\); expected one to three axes"),
        (lambda: conv(0, (3,)), ValueError, r"got units=0; expected a positive integer"),
        (lambda: conv(3, (3,), groups=2), ValueError, r"got 3 units in 2 groups; expected a multiple"),
        (lambda: conv(4, (3,), stride=(1, 1)), ValueError, r"got stride \(1, 1\); expected 1 positive"),
        (lambda: conv(4, (3,), dilation=0), ValueError, r"got dilation \(0,\); expected 1 positive"),
        (lambda: conv(4, (3,), padding="same"), ValueError, r"got padding 'same'; expected \"SAME\""),
        (lambda: conv(4, (3, 3), padding=(1, 1)), ValueError, r"got padding \(1, 1\); expected 2 pairs"),
        (lambda: conv(4, (3,), padding=((-1, 0),)), ValueError, r"expected 1 pairs \(low, high\), no entry negative"),
        (lambda: conv(4, (3,), padding=1), ValueError, r"got padding 1; expected 1 pairs"),
        (
            lambda: conv(4, (3,), method="fft"),
            ValueError,
            r"got method 'fft'; expected \"patches\", \"direct\" or None",
        ),
        (lambda: conv_transpose(4, (3,), output=9), ValueError, r"got output=9; expected the outputs' spatial shape"),
        (lambda: depthwise_conv((3,), multiplier=0), ValueError, r"expected a positive integer"),
    ],
)
def test_settings_out_of_range_are_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    ("layer", "spec", "match"),
    [
        (conv(4, (3, 3)), (28, 28), r"got an example of shape \(28, 28\); expected \(height, width, channels\)"),
        (conv(4, (3,), groups=2), (9, 3), r"got 3 channels in 2 groups; expected a multiple"),
        (conv(4, (3,), padding="VALID"), (2, 1), r"got inputs of spatial shape \(2,\), smaller than"),
        (conv_transpose(4, (3,), output=(9,)), (4, 1), r"expected outputs whose convolution has the inputs' shape"),
    ],
    ids=str,
)
def test_examples_that_do_not_fit_are_refused(layer, spec, match):
    with pytest.raises(ValueError, match=match):
        layer.init(KEY, spec)


@pytest.mark.parametrize("layer", [conv(4, (3,)), conv_transpose(4, (3,))], ids=str)
def test_inputs_that_do_not_fit_are_refused_in_a_trace(layer):
    params, _ = layer.init(KEY, (9, 2))
    apply = lambda shape, dtype="float32": jax.eval_shape(  # noqa: E731
        lambda x: layer.apply(params, {}, x)[0], jax.ShapeDtypeStruct(shape, dtype)
    )
    with pytest.raises(ValueError, match=r"got inputs of shape \(5, 9, 3\) .*; expected 2 channels"):
        apply((5, 9, 3))
    with pytest.raises(ValueError, match=r"expected \(length, channels\)"):
        apply((5, 9))
    with pytest.raises(ValueError, match="bfloat16; expected 2 channels, float"):
        apply((5, 9, 2), "bfloat16")
    with pytest.raises(TypeError, match="got inputs of dtype int32; expected floats"):
        apply((5, 9, 2), "int32")


def test_repr_shows_what_was_set():
    assert repr(conv(4, (3, 3))) == "conv(4, (3, 3))"
    assert repr(conv(4, (3,), stride=2, groups=2, bias=False)) == "conv(4, (3,), stride=(2,), groups=2, bias=False)"
    assert repr(depthwise_conv((3,), multiplier=2)) == "depthwise_conv((3,), multiplier=2)"
    assert repr(conv_transpose(4, (3,), padding="FULL")) == "conv_transpose(4, (3,), padding=FULL)"
