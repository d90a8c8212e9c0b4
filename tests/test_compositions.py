"""Networks of layers drawn at random: backprop is automatic differentiation, in training and in inference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st

import jaxnet as jn
from jaxnet import layers
from jaxnet.testing import compare_gradients

pytestmark = pytest.mark.numerical

# Layers whose output is like their input, (batch, 2) and (batch, 5, 2).
OF_VECTORS = (
    layers.dense(2),
    layers.tanh(),
    layers.relu(),
    layers.softmax(),
    layers.prelu(),
    layers.rbf(2),
    layers.dropout(0.5),
    layers.gaussian_noise(0.5),
    layers.batch_norm(),
    layers.rms_norm(),
    layers.weight_norm(layers.dense(2)),
    layers.dropconnect(layers.dense(2), 0.5),
    layers.low_rank(layers.dense(2), 1),
    layers.frozen(layers.dense(2)),
    layers.repeat(layers.serial(layers.dense(2), layers.tanh()), 2),
    layers.residual(layers.serial(layers.dense(3), layers.silu(), layers.dense(2))),
    layers.serial(layers.dense(6), layers.maxout(3)),
    layers.serial(layers.branch(layers.dense(1), layers.dense(1)), layers.concatenate()),
    layers.serial(layers.branch(layers.identity(), layers.dense(2)), layers.sum()),
    layers.serial(layers.branch(layers.tanh(), layers.dense(2)), layers.select(1)),
)
OF_SERIES = (
    layers.conv(2, (3,)),
    layers.depthwise_conv((3,)),
    layers.conv_transpose(2, (3,)),
    layers.local(2, (2,)),
    layers.tiled_conv(2, (3,), (2,)),
    layers.max_pool((3,), stride=1, padding="SAME"),
    layers.average_pool((2,), stride=1, padding="SAME"),
    layers.rnn(2),
    layers.lstm(2, reverse=True),
    layers.gru(2),
    layers.output_rnn(3, 2, teacher=0),
    layers.bidirectional(lambda reverse: layers.gru(1, reverse=reverse)),
    layers.time_distributed(layers.dense(2)),
)


@st.composite
def compositions(draw):
    """(network, shape of an example, seed): 2 to 4 drawn layers, each feeding the next, and a dense layer on top."""
    shape = draw(st.sampled_from([(2,), (5, 2)]))
    drawn = st.sampled_from(OF_VECTORS if len(shape) == 1 else OF_VECTORS + OF_SERIES)
    parts = draw(st.lists(drawn, min_size=2, max_size=4))
    return jn.serial(*parts, layers.flatten(), layers.dense(2)), shape, draw(st.integers(0, 2**32 - 1))


@pytest.mark.float64
@examples(4)
@given(compositions(), st.booleans())
def test_backprop_through_any_composition_is_automatic_differentiation(composition, train):
    net, shape, seed = composition
    rng, key = np.random.default_rng(seed), jax.random.key(seed % 2**31)
    params, state = net.init(key, shape)
    params = jax.tree.map(lambda a: jnp.asarray(a + 0.1 * rng.normal(size=a.shape), a.dtype), params)
    batch = tuple(jnp.asarray(rng.normal(size=s), jnp.result_type(float)) for s in ((4, *shape), (4, 2)))
    roads = jn.backprop(net, jn.losses.squared_error), jn.loss_and_grad(net, jn.losses.squared_error)
    report = compare_gradients(*roads, params, state, batch, key=key if train else None, train=train)
    assert report, f"{net}\n{report}"
