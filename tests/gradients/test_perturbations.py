"""Gradients of transformed batches, of pieces of batches and of moved parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples, roads
from hypothesis import given
from hypothesis import strategies as st
from vjp_proof import agree

import jaxnet as jn
from jaxnet import layers
from jaxnet.testing import Case
from jaxnet.testing import cases as any_cases

pytestmark = pytest.mark.numerical
FLOAT = jnp.result_type(float)


def simple():
    net, rng = jn.serial(layers.dense(3), layers.tanh(), layers.dense(2)), np.random.default_rng(0)
    params = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), FLOAT), net.init(jax.random.key(0), (4,))[0])
    batch = jnp.asarray(rng.normal(size=(7, 4)), FLOAT), jnp.asarray(rng.normal(size=(7, 2)), FLOAT)
    return Case(net, jn.losses.squared_error, params, {}, batch, jax.random.key(0))


@pytest.mark.source("GB-6.5.8-ACCUM")
@pytest.mark.float64
@examples(3)
@given(any_cases(max_depth=1, kinds=("dense",)), st.integers(1, 9))
def test_pieces_add_up_to_the_batch(case, pieces):
    for gradient in roads(case):
        whole, summed = (g(case.params, {}, case.batch) for g in (gradient, jn.accumulated(gradient, pieces)))
        agree(summed, whole)


@pytest.mark.source("GB-6.5.8-ACCUM")
def test_pieces_need_less_memory():
    net = jn.mlp([256, 2], activation="tanh")
    params, _ = net.init(jax.random.key(0), (64,))
    batch = jax.ShapeDtypeStruct((512, 64), FLOAT), jax.ShapeDtypeStruct((512, 2), FLOAT)
    gradient = jn.backprop(net, jn.losses.squared_error)

    def temporary(gradient):
        compiled = jax.jit(lambda p, b: gradient(p, {}, b)).lower(params, batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary(jn.accumulated(gradient, 16)) < temporary(gradient) / 4


def test_pieces_pass_the_state_on_and_fold_the_key():
    """By hand: batch norm sees one piece after the other, dropout another key in each."""
    net = jn.serial(layers.dense(3, bias=False), layers.batch_norm(), layers.dropout(0.5), layers.dense(2))
    key = jax.random.key(3)
    params, state = net.init(key, (4,))
    rng = np.random.default_rng(1)
    x, y, w = (jnp.asarray(rng.random(s), FLOAT) for s in ((5, 4), (5, 2), (5,)))
    gradient = jn.backprop(net, jn.losses.squared_error)
    got = jn.accumulated(gradient, 2)(params, state, (x, y, w), key=key, train=True)
    (first, state), g1 = gradient(params, state, (x[:3], y[:3], w[:3]), key=jax.random.fold_in(key, 0), train=True)
    (second, state), g2 = gradient(params, state, (x[3:], y[3:], w[3:]), key=jax.random.fold_in(key, 1), train=True)
    a, b = jnp.sum(w[:3]) / jnp.sum(w), jnp.sum(w[3:]) / jnp.sum(w)
    agree(got, ((a * first + b * second, state), jax.tree.map(lambda p, q: a * p + b * q, g1, g2)))


def test_a_batch_of_zero_weights_stays_zero():
    case = simple()
    batch = (*case.batch, jnp.zeros(7, FLOAT))
    (loss, _), grads = jn.accumulated(roads(case)[0], 3)(case.params, {}, batch)
    assert loss == 0
    assert not any(np.any(g) for g in jax.tree.leaves(grads))


def test_sam_is_the_gradient_uphill():
    case = simple()
    gradient = roads(case)[1]
    (loss, _), g = gradient(case.params, {}, case.batch)
    flat, back = jax.flatten_util.ravel_pytree(g)
    place, _ = jax.flatten_util.ravel_pytree(case.params)
    expected = gradient(back(place + 0.3 * flat / jnp.linalg.norm(flat)), {}, case.batch)[1]
    (got, _), grads = jn.sam(roads(case)[0], 0.3)(case.params, {}, case.batch)
    agree((got, grads), (loss, expected))


def test_sam_stays_where_the_gradient_is_zero():
    case = simple()
    batch = (*case.batch, jnp.zeros(7, FLOAT))
    _, grads = jn.sam(roads(case)[0], 0.3)(case.params, {}, batch)
    assert all(np.all(g == 0) for g in jax.tree.leaves(grads))


@pytest.mark.source("GB-7.4-input-noise", "M-8.1c")
def test_augmentation_is_for_training_alone_and_input_noise_is_ridge():
    """A linear net on x + σn: the mean gradient over many keys is that of the loss plus ½σ²‖w‖² (½ squared error)."""
    net = jn.serial(layers.dense(1, bias=False))
    rng = np.random.default_rng(0)
    x, y = jnp.asarray(rng.normal(size=(64, 3)), FLOAT), jnp.asarray(rng.normal(size=(64, 1)), FLOAT)
    params = {"dense_0": {"w": jnp.asarray(rng.normal(size=(3, 1)), FLOAT)}}
    sigma, gradient = 0.5, jn.backprop(net, jn.losses.squared_error)

    def noisy(key, x, y):
        return x + sigma * jax.random.normal(key, x.shape, x.dtype), y

    augmented = jn.augmented(gradient, noisy)
    keys = jax.random.split(jax.random.key(1), 2000)
    drawn = jax.jit(jax.vmap(lambda key: augmented(params, {}, (x, y), key=key, train=True)[1]))(keys)
    drawn = np.asarray(drawn["dense_0"]["w"], np.float64)[..., 0]
    ridge = jn.penalized(gradient, l2=sigma**2)(params, {}, (x, y))[1]["dense_0"]["w"][:, 0]
    error = drawn.std(axis=0) / np.sqrt(len(keys))
    assert np.all(np.abs(drawn.mean(axis=0) - ridge) < 5 * error)
    plain = gradient(params, {}, (x, y))
    assert np.all(np.abs(plain[1]["dense_0"]["w"][:, 0] - ridge) > 5 * error)  # it would show
    jax.tree.map(np.testing.assert_array_equal, augmented(params, {}, (x, y)), plain)
    with pytest.raises(ValueError, match="expected a key"):
        augmented(params, {}, (x, y), train=True)


@pytest.mark.parametrize("pieces", [0, -1, 2.0, True])
def test_numbers_of_pieces_that_cannot_be_are_refused(pieces):
    with pytest.raises(ValueError, match="expected a whole number of microbatches"):
        jn.accumulated(roads(simple())[0], pieces)
