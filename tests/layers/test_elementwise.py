"""elementwise layers: each is its activation on both roads, in any place of a network, and has no parameters."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import jaxnet as jn
from jaxnet import activations, layers, losses
from jaxnet.layers import elementwise

pytestmark = pytest.mark.numerical

TOLERANCE = 1e-12 if jax.config.jax_enable_x64 else 64 * float(np.finfo(np.float32).eps)
MAKERS = {
    "identity": layers.identity,
    "relu": layers.relu,
    "sigmoid": layers.sigmoid,
    "tanh": layers.tanh,
    "softplus": layers.softplus,
    "softmax": layers.softmax,
    "log_softmax": elementwise.log_softmax,
    "hard_sigmoid": elementwise.hard_sigmoid,
    "hard_tanh": elementwise.hard_tanh,
    "absolute": elementwise.absolute,
    "leaky_relu": lambda: layers.activation("leaky_relu"),
    "elu": elementwise.elu,
    "selu": elementwise.selu,
    "silu": elementwise.silu,
    "gelu": elementwise.gelu,
    "gelu_tanh": partial(elementwise.gelu, approximate=True),
    "softsign": elementwise.softsign,
    "cosine": elementwise.cosine,
}
FORMULAS = {
    "identity": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "tanh": np.tanh,
    "softplus": lambda z: np.logaddexp(z, 0),
    "softmax": lambda z: np.exp(z) / np.exp(z).sum(-1, keepdims=True),
    "log_softmax": partial(scipy.special.log_softmax, axis=-1),
    "hard_sigmoid": lambda z: np.clip(z / 6 + 0.5, 0, 1),
    "hard_tanh": lambda z: np.clip(z, -1, 1),
    "absolute": np.abs,
    "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.exp(np.minimum(z, 0)) - 1),
    "selu": lambda z: 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * (np.exp(np.minimum(z, 0)) - 1)),
    "silu": lambda z: z * scipy.special.expit(z),
    "gelu": lambda z: z * scipy.stats.norm.cdf(z),
    "gelu_tanh": lambda z: z * scipy.special.expit((8 / np.pi) ** 0.5 * (z + 0.044715 * z**3)),
    "softsign": lambda z: z / (1 + np.abs(z)),
    "cosine": np.cos,
}
X, DY = np.random.default_rng(0).normal(0, 2, (2, 5, 3)).astype(np.float32)
STATE = {"kept": 1}


def near(got, want):
    """The same shape, and equal to rounding, for numbers of order 1."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, strict=True)


@partial(jax.jit, static_argnums=0)
def both(layer, x, dy):
    """y, dx by hand, dx by autodiff."""
    y, pullback = jax.vjp(lambda x: layer.apply({}, {}, x, train=True)[0], x)
    return y, layer.backward({}, {}, x, dy, train=True)[0], pullback(dy)[0]


def test_every_activation_is_a_layer():
    assert set(MAKERS) == set(FORMULAS) == {name for name, f in activations.named.items() if f.differentiable}
    assert {name for name, f in activations.named.items() if not f.differentiable} == {"step"}


@pytest.mark.source("GB-6.3-AFFINE", "GB-6.5.6-BPROP", "M-4mod")
@pytest.mark.parametrize("name", MAKERS)
def test_value_and_both_gradients(name):
    y, by_hand, by_autodiff = both(MAKERS[name](), jnp.asarray(X, float), jnp.asarray(DY, float))
    near(y, FORMULAS[name](X.astype(np.float64)))
    near(by_hand, by_autodiff)


@pytest.mark.parametrize("name", MAKERS)
def test_no_parameters_and_the_state_as_it_came(name):
    layer = MAKERS[name]()
    assert layer.init(jax.random.key(0), (3,)) == ({}, {})
    assert layer.apply({}, STATE, jnp.asarray(X))[1] is STATE
    assert layer.backward({}, STATE, jnp.asarray(X), jnp.asarray(DY))[1] == {}
    assert (layer.name, repr(layer)) == (name, f"{name}()")


def test_an_activation_of_ones_own():
    sine = activations.Activation("sine", jnp.sin, lambda x, dy: dy * jnp.cos(x))
    layer = layers.activation(sine)
    y, by_hand, by_autodiff = both(layer, jnp.asarray(X, float), jnp.asarray(DY, float))
    near(y, np.sin(X.astype(np.float64)))
    near(by_hand, DY.astype(np.float64) * np.cos(X.astype(np.float64)))
    near(by_hand, by_autodiff)
    assert repr(layer) == "sine()"
    assert repr(layers.activation("relu")) == repr(layers.activation(activations.relu)) == "relu()"


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"got activation 'rely'; expected one of"):
        layers.activation("rely")


@pytest.mark.newer
@pytest.mark.source("GB-6.2.2-ANYUNIT", "GB-6.3-AFFINE", "GB-6.3.3-SOFTPLUS", "GB-6.3.3-COS", "GB-6.3.1-ABS")
@pytest.mark.parametrize("name", MAKERS)
def test_any_unit_in_any_place_under_strict_promotion(name):
    """As the first, a hidden and the last layer, against NumPy and on both roads."""
    unit = MAKERS[name]
    net = jn.serial(unit(), jn.dense(4), unit(), jn.dense(3), unit())
    rng = np.random.default_rng(1)
    w0, w1 = rng.normal(0, 1, (3, 4)).astype(np.float32), rng.normal(0, 1, (4, 3)).astype(np.float32)
    b0, b1 = rng.normal(0, 1, (2, 4)).astype(np.float32)
    params = {"dense_0": {"w": w0, "b": b0}, "dense_1": {"w": w1, "b": b1[:3]}}
    params = jax.tree.map(lambda a: jnp.asarray(a, float), params)
    batch = jnp.asarray(X, float), jnp.asarray(DY, float)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        roads = [make(net, losses.squared_error) for make in (jn.backprop, jn.loss_and_grad)]
        y, *results = jax.jit(lambda p, b: (net.apply(p, {}, b[0])[0], *[r(p, {}, b) for r in roads]))(params, batch)
    f = FORMULAS[name]
    want = f(f(f(X.astype(np.float64)) @ w0 + b0) @ w1 + b1[:3])
    near(y, want)
    near(results[0][0][0], np.mean(np.sum((want - DY) ** 2, axis=1)) / 2)
    jax.tree.map(near, *results)


@pytest.mark.source("GB-6.3.1-LEAKY", "GB-6.3.1-GENREL")
def test_leaky_relu_of_another_slope_fixed_or_traced():
    x, dy = jnp.asarray(X, float), jnp.asarray(DY, float)
    layer = elementwise.leaky_relu(0.25)
    y, by_hand, by_autodiff = both(layer, x, dy)
    np.testing.assert_array_equal(y, np.where(X > 0, X, X / 4))
    np.testing.assert_array_equal(by_hand, np.where(X > 0, DY, DY / 4))
    np.testing.assert_array_equal(by_hand, by_autodiff)
    np.testing.assert_array_equal(jax.jit(lambda a: elementwise.leaky_relu(a).apply({}, {}, x)[0])(0.25), y)
    assert [repr(layer), repr(elementwise.leaky_relu())] == ["leaky_relu(0.25)", "leaky_relu(0.01)"]
    near(elementwise.leaky_relu().apply({}, {}, x)[0], FORMULAS["leaky_relu"](X.astype(np.float64)))


@pytest.mark.source("M-3a")
def test_the_step_is_for_the_forward_pass_and_both_roads_say_so():
    net = jn.serial(jn.dense(3), elementwise.step(), jn.dense(1))
    params, state = net.init(jax.random.key(0), (3,))
    x, y = jnp.asarray(X, float), jnp.ones((5, 1))
    assert set(np.unique(elementwise.step().apply({}, {}, x)[0])) == {0, 1}
    for road in (jn.backprop, jn.loss_and_grad):
        with pytest.raises(TypeError, match="step: got asked for its derivative"):
            jax.jit(road(net, losses.squared_error))(params, state, (x, y))
    first = jn.serial(elementwise.step(), jn.dense(1))  # nothing is learned before it, so nothing is asked
    params, state = first.init(jax.random.key(0), (3,))
    _, grads = jax.jit(jn.loss_and_grad(first, losses.squared_error))(params, state, (x, y))
    assert float(jnp.abs(grads["dense_0"]["w"]).max()) > 0


@pytest.mark.source("GB-6.3.1-ABS")
def test_one_absolute_value_unit_is_exclusive_or():
    net = jn.serial(jn.dense(1, bias=False), elementwise.absolute())
    x = jnp.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    y, _ = net.apply({"dense_0": {"w": jnp.array([[1.0], [-1.0]])}}, {}, x)
    assert y[:, 0].tolist() == [0, 1, 1, 0]
