"""Norms of single examples' gradients are those of the gradients; the gradients those of batches of one."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from vjp_proof import agree

import jaxnet as jn
from jaxnet import layers, losses
from jaxnet.testing import cases

pytestmark = [pytest.mark.numerical, pytest.mark.float64]
FLOAT = jnp.result_type(float)
RTOL = 1e-12 if jax.config.jax_enable_x64 else 1e-4
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
NETS = {
    "nested": (jn.serial(jn.serial(jn.dense(4), jn.tanh()), jn.dense(2, bias=False)), (3,)),
    "residual": (jn.serial(layers.residual(jn.serial(jn.dense(3), jn.tanh())), jn.dense(2)), (3,)),
    "shortcut": (jn.serial(layers.residual(jn.dense(4), jn.dense(4)), jn.relu(), jn.dense(2)), (3,)),
    "branches": (
        jn.serial(
            jn.branch(jn.dense(2), jn.identity()),
            layers.parallel(jn.tanh(), jn.dense(2)),
            layers.concatenate(),
            jn.dense(2),
        ),
        (3,),
    ),
    "norms": (jn.serial(jn.dense(4), jn.layer_norm(), jn.relu(), jn.batch_norm(), jn.dense(2)), (3,)),
    "frozen": (jn.serial(layers.frozen(jn.dense(4)), jn.relu(), jn.dense(2)), (3,)),
    "convolution": (jn.serial(jn.conv(3, (3,)), jn.relu(), jn.flatten(), jn.dense(2)), (5, 2)),
    "recurrence": (jn.serial(jn.gru(3, last=True), jn.dense(2)), (4, 2)),
    "over time": (jn.serial(jn.dense(3), jn.tanh(), jn.flatten(), jn.dense(2)), (4, 2)),
    "tied": (layers.tied(jn.serial(jn.dense(3), jn.dense(3), jn.dense(2)), {"dense_1.w": "dense_0.w"}), (3,)),
}


def norms_of(gradients):
    leaves = [np.asarray(g, np.float64) for g in jax.tree.leaves(gradients)]
    return np.sqrt(sum(np.square(g).reshape(len(g), -1).sum(1) for g in leaves))


@pytest.mark.parametrize(("name", "by_hand"), [*((name, True) for name in NETS), ("nested", False)])
def test_norms_are_those_of_the_gradients(name, by_hand):
    net, spec = NETS[name]
    net = net if by_hand else dataclasses.replace(net, backward=None)
    params, state = net.init(KEY, spec)
    batch = jnp.asarray(RNG.normal(size=(6, *spec)), FLOAT), jnp.asarray(RNG.normal(size=(6, 2)), FLOAT)
    loss = losses.squared_error if by_hand else lambda z, y: jnp.sum((z - y) ** 2, axis=1) / 2

    @jax.jit
    def both(params):
        values, gradients = jn.per_example_gradients(net, losses.squared_error)(params, state, batch)
        return values, gradients, jn.per_example_norms(net, loss)(params, state, batch)

    values, gradients, norms = both(params)
    np.testing.assert_allclose(norms, norms_of(gradients), rtol=RTOL)
    z, _ = net.apply(params, state, batch[0])
    np.testing.assert_allclose(values, losses.squared_error(z, batch[1]), rtol=RTOL)
    mean = jn.loss_and_grad(net, losses.squared_error)(params, state, batch)[1]
    agree(jax.tree.map(lambda g: g.mean(axis=0), gradients), mean)


@settings(max_examples=3)
@given(cases(kinds=("dense", "norm", "residual")))
def test_drawn_networks(case):
    @jax.jit
    def both(params):
        arguments = params, case.state, case.batch
        gradients = jn.per_example_gradients(case.net, case.loss)(*arguments)[1]
        return gradients, jn.per_example_norms(case.net, case.loss)(*arguments)

    gradients, norms = both(case.params)
    largest = max(norms_of(gradients).max(), 1e-30)
    np.testing.assert_allclose(norms, norms_of(gradients), rtol=10 * RTOL, atol=RTOL * largest)


def test_dropout_draws_as_the_step_does():
    """The examples' gradients at the step's masks, written out by its own backward on one-hot weights."""
    net = jn.serial(jn.dense(8), jn.dropout(0.5), jn.dense(2))
    params, state = net.init(KEY, (3,))
    batch = jnp.asarray(RNG.normal(size=(4, 3)), FLOAT), jnp.asarray(RNG.normal(size=(4, 2)), FLOAT)
    norms = jax.jit(lambda p: jn.per_example_norms(net, losses.squared_error)(p, state, batch, key=KEY, train=True))(
        params
    )
    gradient = jax.jit(jn.backprop(net, losses.squared_error), static_argnames="train")
    for i in range(4):
        chosen = (*batch, jnp.zeros(4, FLOAT).at[i].set(1))
        grads = gradient(params, state, chosen, key=KEY, train=True)[1]
        np.testing.assert_allclose(norms[i], norms_of(jax.tree.map(lambda g: g[None], grads))[0], rtol=RTOL)


@pytest.mark.parametrize("make", [jn.per_example_gradients, jn.per_example_norms])
def test_what_mixes_examples_is_refused(make):
    net, spec = NETS["norms"]
    params, state = net.init(KEY, spec)
    batch = jnp.ones((6, 3)), jnp.ones((6, 2))
    with pytest.raises(ValueError, match="batch norm in training"):
        make(net, losses.squared_error)(params, state, batch, train=True)
