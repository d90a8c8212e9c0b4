"""Penalties on activations and derivatives by inputs: explicit Jacobians, finite differences, eigenvectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnet as jn
from jaxnet import layers
from jaxnet.gradients import activation_penalty, double_backprop, tangent_propagation, virtual_adversarial

pytestmark = pytest.mark.numerical
X64 = jax.config.jax_enable_x64
FLOAT = jnp.result_type(float)
TOLERANCE = 1e-10 if X64 else 1e-4
RNG = np.random.default_rng(0)
NET = jn.serial(layers.dense(6), layers.tanh(), layers.dense(3))
PARAMS = jax.tree.map(lambda a: jnp.asarray(RNG.normal(size=a.shape), FLOAT), NET.init(jax.random.key(0), (4,))[0])
X = jnp.asarray(RNG.normal(size=(5, 4)), FLOAT)
Y = jnp.asarray(RNG.integers(0, 3, 5), jnp.int32)
W = jnp.asarray([1.0, 0.0, 2.0, 1.0, 0.5], FLOAT)


def forward(x):
    return NET.apply(PARAMS, {}, x)[0]


JACOBIANS = np.asarray(jax.vmap(jax.jacrev(lambda x: forward(x[None])[0]))(X), np.float64)  # (5, 3, 4)


def mean(values):
    return float(np.sum(np.asarray(W, np.float64) * values) / np.sum(np.asarray(W, np.float64)))


def slope_by_differences(penalty, name="dense_0", at=(1, 2), **settings):
    """d penalty / d w by autodiff and by central differences."""
    h = 1e-5 if X64 else 1e-2

    def value(t):
        params = PARAMS | {name: PARAMS[name] | {"w": PARAMS[name]["w"].at[at].add(t)}}
        return penalty(params, {}, (X, Y, W), **settings)

    return float(jax.grad(value)(jnp.zeros((), FLOAT))), float((value(h) - value(-h)) / (2 * h))


@pytest.mark.source("GB-7.14-tangent-prop")
def test_tangent_propagation_is_the_explicit_jacobian():
    directions = RNG.normal(size=(2, 5, 4))
    penalty = tangent_propagation(NET, lambda x: jnp.asarray(directions, FLOAT))
    changes = np.einsum("noi,kni->kno", JACOBIANS, directions)
    np.testing.assert_allclose(float(penalty(PARAMS, {}, (X, Y, W))), mean((changes**2).sum((0, 2))), rtol=TOLERANCE)
    by_autodiff, by_differences = slope_by_differences(penalty)
    np.testing.assert_allclose(by_autodiff, by_differences, rtol=1e-6 if X64 else 2e-2)


@pytest.mark.source("GB-7.14-tangent-prop")
def test_directions_that_change_nothing_cost_nothing_and_training_flattens_the_others():
    null = np.stack([np.linalg.svd(j)[2][-1] for j in JACOBIANS])  # 3 outputs of 4 inputs: one direction is free
    free = tangent_propagation(NET, lambda x: jnp.asarray(null[None], FLOAT))
    assert float(free(PARAMS, {}, (X, Y, W))) < (1e-20 if X64 else 1e-8)

    along = jnp.asarray([1.0, 0.0, 0.0, 0.0], FLOAT)
    penalty = tangent_propagation(NET, lambda x: jnp.broadcast_to(along, (1, *x.shape)))
    gradient = jax.jit(jn.regularized(jn.backprop(NET, jn.losses.softmax_cross_entropy), penalty, 1.0))
    params = PARAMS
    for _ in range(200):
        params = jax.tree.map(lambda w, g: w - 0.05 * g, params, gradient(params, {}, (X, Y))[1])

    def change(direction):
        def f(x):
            return NET.apply(params, {}, x)[0]

        return float(jnp.sum(jax.jvp(f, (X,), (jnp.broadcast_to(direction, X.shape),))[1] ** 2))

    across = np.mean([change(jnp.asarray(np.eye(4)[i], FLOAT)) for i in (1, 2, 3)])
    assert change(along) < 0.1 * across


@pytest.mark.source("GB-7.14-double-backprop")
def test_double_backprop_is_the_squared_input_gradient():
    p = np.asarray(jax.nn.softmax(forward(X)), np.float64)
    by_output = p - np.eye(3)[np.asarray(Y)]  # of cross-entropy, by hand
    by_input = np.einsum("no,noi->ni", by_output, JACOBIANS)
    penalty = double_backprop(NET, jn.losses.softmax_cross_entropy)
    np.testing.assert_allclose(float(penalty(PARAMS, {}, (X, Y, W))), mean((by_input**2).sum(1)), rtol=TOLERANCE)
    by_autodiff, by_differences = slope_by_differences(penalty)
    np.testing.assert_allclose(by_autodiff, by_differences, rtol=1e-6 if X64 else 2e-2)


@pytest.mark.source("GB-7.10-activation-penalty")
def test_the_activation_penalty_is_its_sum_and_makes_hidden_units_sparse():
    hidden = np.tanh(np.asarray(X) @ np.asarray(PARAMS["dense_0"]["w"]) + np.asarray(PARAMS["dense_0"]["b"]))
    for measure, each in ((None, np.abs(hidden)), (lambda h: jnp.log1p(h**2), np.log1p(hidden**2))):
        penalty = activation_penalty(NET, ("tanh_0",), measure)
        np.testing.assert_allclose(float(penalty(PARAMS, {}, (X, Y, W))), mean(each.sum(1)), rtol=TOLERANCE)
    net = jn.serial(layers.dense(16), layers.relu(), layers.dense(3))
    start, _ = net.init(jax.random.key(1), (4,))
    x, y = jnp.asarray(RNG.normal(size=(32, 4)), FLOAT), jnp.asarray(RNG.integers(0, 3, 32), jnp.int32)

    def trained(strength):
        gradient = jn.backprop(net, jn.losses.softmax_cross_entropy)
        gradient = jn.regularized(gradient, activation_penalty(net, ("relu_0",)), strength)

        def step(params, _):
            return jax.tree.map(lambda w, g: w - 0.1 * g, params, gradient(params, {}, (x, y))[1]), None

        params, _ = jax.lax.scan(step, start, None, length=300)
        h, _ = layers.serial(layers.dense(16), layers.relu()).apply({"dense_0": params["dense_0"]}, {}, x)
        return jnp.mean(h), jnp.mean(h == 0)

    means, zeros = jax.jit(jax.vmap(trained))(jnp.asarray([0.0, 0.01, 0.1], FLOAT))
    assert np.all(np.diff(means) < 0)
    assert np.all(np.diff(zeros) > 0)


def test_virtual_adversarial_is_the_divergence_along_the_top_eigenvector():
    """For a small ε it is ½ ε² λ_max of the Fisher matrix Jᵀ(diag p − p pᵀ)J."""
    epsilon, key = 1e-3 if X64 else 3e-2, jax.random.key(2)
    p = np.asarray(jax.nn.softmax(forward(X)), np.float64)
    fisher = [j.T @ (np.diag(q) - np.outer(q, q)) @ j for j, q in zip(JACOBIANS, p, strict=True)]
    largest = np.array([np.linalg.eigvalsh(f)[-1] for f in fisher])
    value = virtual_adversarial(NET, epsilon, iterations=60)(PARAMS, {}, (X, Y, W), key=key)
    np.testing.assert_allclose(float(value), mean(epsilon**2 / 2 * largest), rtol=5e-3 if X64 else 5e-2)
    once = virtual_adversarial(NET, epsilon)(PARAMS, {}, (X, Y, W), key=key)
    assert 0 < once < value * (1 + 1e-2)


def test_virtual_adversarial_needs_no_labels_and_leaves_the_prediction_fixed():
    """Its gradient is that of the divergence with p(x) and r held: by differences with both held."""
    key, epsilon = jax.random.key(2), 0.5
    with pytest.raises(ValueError, match="got key=None"):
        virtual_adversarial(NET, epsilon)(PARAMS, {}, (X, None))
    penalty = virtual_adversarial(NET, epsilon, iterations=3)
    grads = jax.grad(lambda params: penalty(params, {}, (X, None), key=key))(PARAMS)
    z, forward_mode = jax.linearize(forward, X)
    p = jax.nn.softmax(z)
    d = jax.random.normal(jax.random.fold_in(key, 3), X.shape, X.dtype)
    for _ in range(3):
        u = forward_mode(d / jnp.linalg.norm(d, axis=1, keepdims=True))
        (d,) = jax.vjp(forward, X)[1](p * u - p * jnp.sum(p * u, axis=1, keepdims=True))
    r = epsilon * d / jnp.linalg.norm(d, axis=1, keepdims=True)

    def held(params):
        log_q = jax.nn.log_softmax(NET.apply(params, {}, X + r)[0])
        return jnp.mean(jnp.sum(p * (jnp.log(p) - log_q), axis=1))

    expected = jax.grad(held)(PARAMS)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE), grads, expected)
