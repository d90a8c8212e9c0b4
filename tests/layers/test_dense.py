"""dense against explicit loops, autodiff and closed formulas; its shapes, types and errors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jaxnet as jn
from jaxnet import initializers, losses
from jaxnet.layers import dense, serial

pytestmark = pytest.mark.numerical

TOLERANCE = 1e-12 if jax.config.jax_enable_x64 else 64 * float(np.finfo(np.float32).eps)


def near(got, want):
    """The same shape, and equal to rounding, for numbers of order 1."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, strict=True)


def drawn(shape, seed=0):
    """Float64 numbers that float32 holds exactly, so that oracles in float64 see the same inputs."""
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32).astype(np.float64)


X, W, B, DZ = drawn((5, 3)), drawn((3, 4), 1), drawn(4, 2), drawn((5, 4), 3)


def arrays(tree):
    """Put on the device in the default float; nothing compiles for it."""
    return jax.tree.map(lambda a: jax.device_put(np.asarray(a, jnp.result_type(float))), tree)


@partial(jax.jit, static_argnums=0)
def both(layer, params, x, dz):
    """z, (dx, dparams) by hand, (dx, dparams) by autodiff."""
    z, pullback = jax.vjp(lambda x, p: layer.apply(p, {}, x)[0], x, params)
    return z, layer.backward(params, {}, x, dz), pullback(dz)


# ── values and gradients ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.newer
@pytest.mark.source("M-2", "GB-2.1-BCAST", "GB-2.2-MATMUL", "GB-6.5.6-MATMULB", "GB-6.5.6-BPROP")
def test_forward_and_backward_are_the_explicit_loops():
    z, dx, dw, db = np.zeros((5, 4)), np.zeros((5, 3)), np.zeros((3, 4)), np.zeros(4)
    for i in range(5):
        for j in range(4):
            z[i, j] = B[j]
            db[j] += DZ[i, j]
            for k in range(3):
                z[i, j] += X[i, k] * W[k, j]
                dx[i, k] += DZ[i, j] * W[k, j]
                dw[k, j] += X[i, k] * DZ[i, j]
    got, by_hand, by_autodiff = both(dense(4), *arrays(({"w": W, "b": B}, X, DZ)))
    near(got, z)
    for roads in (by_hand, by_autodiff):
        jax.tree.map(near, roads, (dx, {"w": dw, "b": db}))


@pytest.mark.source("GB-6.5.2-TENSOR", "GB-6.5.6-MATMULB")
@pytest.mark.parametrize("axes", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_further_axes_are_rows(bias, axes):
    """On (batch, …, inputs) the layer does what it does on the rows, flattened."""
    x, dz = drawn((5, *axes, 3)), drawn((5, *axes, 4), 3)
    params = {"w": W, "b": B} if bias else {"w": W}
    z, by_hand, by_autodiff = both(dense(4, bias=bias), *arrays((params, x, dz)))
    rows, dz_rows = x.reshape(-1, 3), dz.reshape(-1, 4)
    grads = {"w": rows.T @ dz_rows} | ({"b": dz_rows.sum(0)} if bias else {})
    near(z, (rows @ W + (B if bias else 0)).reshape(z.shape))
    for roads in (by_hand, by_autodiff):
        jax.tree.map(near, roads, ((dz_rows @ W.T).reshape(x.shape), grads))


@pytest.mark.source("GB-6.5.2-TENSOR")
def test_the_gradient_of_raveled_parameters_is_the_raveled_gradient():
    params, x, y = arrays(({"w": W, "b": B}, X, DZ))
    flat, unravel = ravel_pytree(params)

    def loss(p):
        return jnp.sum(losses.squared_error(dense(4).apply(p, {}, x)[0], y))

    near(jax.grad(lambda v: loss(unravel(v)))(flat), ravel_pytree(jax.grad(loss)(params))[0])


@pytest.mark.source("GB-6.0-UNITVIEW", "GB-6.3-AFFINE")
def test_a_layer_is_its_units_side_by_side():
    params, x = arrays(({"w": W, "b": B}, X))
    unit = jax.vmap(lambda w, b: jnp.tanh(x @ w + b), in_axes=(1, 0), out_axes=1)
    near(serial(dense(4), jn.tanh()).apply({"dense_0": params}, {}, x)[0], unit(params["w"], params["b"]))


@pytest.mark.source("GB-2.2-MATMUL")
def test_the_matrix_product_is_not_the_elementwise_one():
    square = np.array([[1.0, 2.0], [3.0, 4.0]])
    z, _ = dense(2, bias=False).apply({"w": jnp.asarray(square)}, {}, jnp.asarray(square))
    assert z.tolist() == [[7.0, 10.0], [15.0, 22.0]]
    assert (square * square).tolist() != z.tolist()


@pytest.mark.source("GB-5.1.4-BIAS", "GB-5.1.4-LIN")
def test_a_bias_is_a_feature_that_is_always_one():
    z, (dx, grads), _ = both(dense(4), *arrays(({"w": W, "b": B}, X, DZ)))
    appended = np.concatenate([X, np.ones((5, 1))], axis=1), np.concatenate([W, B[None]])
    plain, (dx_plain, grads_plain), _ = both(dense(4, bias=False), *arrays(({"w": appended[1]}, appended[0], DZ)))
    near(z, plain)
    near(plain, appended[0] @ appended[1])
    near(dx, dx_plain[:, :3])
    near(np.concatenate([grads["w"], grads["b"][None]]), grads_plain["w"])


@pytest.mark.source("M-1")
@pytest.mark.parametrize(
    ("activation", "loss", "outputs", "want"),
    [
        (
            "sigmoid",
            losses.sigmoid_cross_entropy,
            [0.5374298453437496, 0.289050497374996],
            [0.6209570477895321, 0.3411538747320878],
        ),
        ("identity", losses.squared_error, [0.15, -0.9], [0.36125, 0.405]),
    ],
)
def test_one_unit_is_the_single_neuron(activation, loss, outputs, want):
    """a = f(wᵀx + w₀) with w = (1, −2), w₀ = ½ at (¼, 0.3) and (0.6, 1): z = 0.15, −0.9; a classifier, a regressor."""
    params = {"w": jnp.array([[1.0], [-2.0]]), "b": jnp.array([0.5])}
    x = jnp.array([[0.25, 0.3], [0.6, 1.0]])
    z, _ = dense(1).apply(params, {}, x)
    a, _ = serial(dense(1), jn.layers.activation(activation)).apply({"dense_0": params}, {}, x)
    near(z, [[0.15], [-0.9]])
    near(a[:, 0], outputs)
    near(loss(z, jnp.array([1.0, 0.0])), want)


@pytest.mark.source("GB-6.3.3-LINEAR", "M-3b")
def test_a_linear_hidden_layer_is_a_low_rank_weight():
    u, v = drawn((6, 2), 4), drawn((2, 5), 5)
    params, x = arrays(({"dense_0": {"w": u}, "dense_1": {"w": v}}, drawn((7, 6))))
    factored = serial(dense(2, bias=False), dense(5, bias=False))
    near(factored.apply(params, {}, x)[0], np.asarray(x, float) @ (u @ v))
    assert np.linalg.matrix_rank(u @ v) == 2
    made, _ = factored.init(jax.random.key(0), (6,))
    assert sum(a.size for a in jax.tree.leaves(made)) == (6 + 5) * 2 < 6 * 5


@pytest.mark.source("GB-6.5-DEF")
def test_the_gradient_by_the_inputs_is_available():
    params, x, y = arrays(({"w": W, "b": B}, X, DZ))
    layer = dense(4)

    def loss(x):
        return jnp.sum(losses.squared_error(layer.apply(params, {}, x)[0], y))

    dx, _ = layer.backward(params, {}, x, losses.squared_error.gradient(layer.apply(params, {}, x)[0], y))
    near(dx, (X @ W + B - DZ) @ W.T)
    near(jax.grad(loss)(x), dx)


# ── parameters ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("M-2", "GB-2.1-SHAPES")
@pytest.mark.parametrize("spec", [(3,), (7, 3), jax.ShapeDtypeStruct((3,), jnp.float32)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_weights_are_inputs_by_units(bias, spec):
    params, state = dense(4, bias=bias).init(jax.random.key(0), spec)
    assert state == {}
    assert {name: a.shape for name, a in params.items()} == {"w": (3, 4)} | ({"b": (4,)} if bias else {})


@pytest.mark.source("GB-6.5.8-DTYPES")
@pytest.mark.parametrize("dtype", [None, jnp.bfloat16, jnp.float32], ids=["default", "bfloat16", "float32"])
def test_strict_promotion_and_the_dtype_of_the_spec(dtype):
    spec = (3,) if dtype is None else jax.ShapeDtypeStruct((3,), dtype)
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    x, dz = jnp.asarray(X, dtype), jnp.asarray(DZ, dtype)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        params, _ = dense(4).init(jax.random.key(0), spec)
        results = both(dense(4), params, x, dz)
    assert {(a.dtype, a.weak_type) for a in jax.tree.leaves((params, results))} == {(dtype, False)}


def test_weights_start_as_glorot_and_biases_as_zero_unless_told():
    wide, _ = dense(300).init(jax.random.key(0), (200,))
    bound = (6 / 500) ** 0.5
    assert 0.999 * bound < float(jnp.abs(wide["w"]).max()) <= bound * (1 + 1e-6)
    assert np.all(np.asarray(wide["b"]) == 0)
    own, _ = dense(4, weight_init=jax.nn.initializers.ones, bias_init=initializers.constant(0.1)).init(
        jax.random.key(0), (3,)
    )
    near(own["w"], np.ones((3, 4)))
    near(own["b"], np.full(4, 0.1))
    random, _ = dense(3, weight_init=initializers.normal(1.0), bias_init=initializers.normal(1.0)).init(
        jax.random.key(0), (1,)
    )
    assert not np.any(np.asarray(random["w"])[0] == np.asarray(random["b"]))  # a key for each


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("units", [0, -3, 2.5, "4", None])
def test_units_are_a_positive_integer(units):
    with pytest.raises(ValueError, match=r"got dense\(units=.*\); expected a positive integer number of units"):
        dense(units)


@pytest.mark.parametrize("spec", [(), {"a": jax.ShapeDtypeStruct((3,), jnp.float32)}], ids=["rank 0", "a tree"])
def test_an_example_is_one_array_with_axes(spec):
    with pytest.raises(ValueError, match=r"dense\(4\): got an example of spec .*; expected one array of shape"):
        dense(4).init(jax.random.key(0), spec)


@pytest.mark.source("GB-2.1-SHAPES")
@pytest.mark.parametrize("shape", [(5, 2), (3,), (5, 3, 2)], ids=str)
def test_inputs_of_another_width_are_refused_in_a_trace(shape):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    with pytest.raises(ValueError, match=r"dense\(4\): got inputs of shape .*; expected \(batch, …, 3\) for weights"):
        jax.eval_shape(lambda x: dense(4).apply({"w": jnp.asarray(W), "b": jnp.asarray(B)}, {}, x), x)


@pytest.mark.source("GB-6.5.8-DTYPES")
@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, bool])
def test_inputs_that_are_not_floats_are_refused(dtype):
    with pytest.raises(TypeError, match=r"dense\(4\): got inputs of dtype .*; expected floats: convert them"):
        dense(4).apply({"w": jnp.asarray(W), "b": jnp.asarray(B)}, {}, jnp.zeros((5, 3), dtype))


def test_repr_shows_what_was_set():
    assert [repr(dense(4)), repr(dense(4, bias=False))] == ["dense(4)", "dense(4, bias=False)"]
