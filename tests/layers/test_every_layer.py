"""What every public layer keeps to: both roads, batching of members, dtypes, zeros, keys and states.

A constructor in `jaxnet.layers.__all__` without a case here fails. Each case is compiled twice, alone and mapped.
"""

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vjp_proof import BOUND, agree, both_roads, floating

from jaxnet import layers
from jaxnet.layers import Sequence, batch_of
from jaxnet.testing import check_layer, no_key_reuse

HELPERS = {"Layer", "Sequence", "as_spec", "batch_of", "lsuv", "output_spec", "pad", "parameterless", "spec_of"}
ELEMENTWISE = """absolute cosine elu gelu hard_sigmoid hard_tanh identity leaky_relu log_softmax relu selu sigmoid silu
softmax softplus softsign step tanh"""
MEMBERS, BATCH = 3, 4  # one member more has zeros for inputs


def array(*shape, dtype=None):
    """The spec of one array, in the default float unless told."""
    return jax.ShapeDtypeStruct(shape, jnp.result_type(float) if dtype is None else dtype)


SERIES, PAIR = (5, 2), (array(3), array(3))
SEQUENCE = Sequence(array(*SERIES), array(dtype=jnp.int32))
IDS = array(2, dtype=jnp.int32)
NORMALIZED = layers.serial(layers.dense(3, bias=False), layers.batch_norm(), layers.dropout(0.5))

CASES = {name: (getattr(layers, name)(), (3,)) for name in ELEMENTWISE.split()} | {
    "activation": (layers.activation("tanh"), (3,)),
    "average_pool": (layers.average_pool((3,), stride=2, padding="SAME"), SERIES),
    "batch_norm": (layers.batch_norm(), (3,)),
    "bidirectional: Sequence": (layers.bidirectional(partial(layers.rnn, 2)), SEQUENCE),
    "branch": (layers.branch(layers.dense(2), layers.dropout(0.5)), (3,)),
    "compute_dtype": (layers.compute_dtype(layers.dense(2), jnp.bfloat16), (3,)),
    "concatenate": (layers.concatenate(), PAIR),
    "conv": (layers.conv(2, (3,), stride=2), SERIES),
    "conv: direct": (layers.conv(2, (2, 2), method="direct"), (3, 4, 2)),
    "conv_transpose": (layers.conv_transpose(3, (3,), stride=2), SERIES),
    "dense": (layers.dense(2), (3,)),
    "depthwise_conv": (layers.depthwise_conv((3,), multiplier=2), SERIES),
    "dropconnect": (layers.dropconnect(layers.dense(2), 0.5), (3,)),
    "dropout": (layers.dropout(0.5), (3,)),
    "embedding": (layers.embedding(4, 2), IDS),
    "flatten": (layers.flatten(), SERIES),
    "flatten: integers": (layers.flatten(), IDS),
    "frozen": (layers.frozen(NORMALIZED), (3,)),
    "gaussian_noise": (layers.gaussian_noise(0.5), (3,)),
    "gaussian_noise: multiplicative": (layers.gaussian_noise(0.5, multiplicative=True), (3,)),
    "global_average_pool": (layers.global_average_pool(), SERIES),
    "global_max_pool": (layers.global_max_pool(), SERIES),
    "gru": (layers.gru(2), SERIES),
    "gru: Sequence": (layers.gru(2, last=True), SEQUENCE),
    "layer_norm": (layers.layer_norm(), (3,)),
    "local": (layers.local(2, (3,)), SERIES),
    "low_rank": (layers.low_rank(layers.dense(3), 2), (3,)),
    "lstm": (layers.lstm(2), SERIES),
    "lstm: Sequence": (layers.lstm(2, reverse=True), SEQUENCE),
    "max_pool": (layers.max_pool((3,), stride=2, padding="SAME"), SERIES),
    "maxout": (layers.maxout(2), (6,)),
    "output_rnn": (layers.output_rnn(2, 2, teacher=0.5), (array(*SERIES), array(5, 2))),
    "output_rnn: inputs alone": (layers.output_rnn(2, 2, teacher=0), SEQUENCE),
    "parallel": (layers.parallel(layers.dense(2), layers.tanh()), PAIR),
    "prelu": (layers.prelu(), (3,)),
    "rbf": (layers.rbf(2), (3,)),
    "reparameterized": (
        layers.reparameterized(
            layers.dense(2),
            lambda params, key: jax.tree.map(lambda a: 2 * a, params),
            lambda params, key, grads: jax.tree.map(lambda a: 2 * a, grads),
        ),
        (3,),
    ),
    "repeat": (
        layers.repeat(layers.serial(layers.dense(3, bias=False), layers.batch_norm(), layers.dropout(0.5)), 2),
        (3,),
    ),
    "residual": (layers.residual(layers.serial(layers.dense(2), layers.tanh()), layers.dense(2)), (3,)),
    "rms_norm": (layers.rms_norm(), (3,)),
    "rnn": (layers.rnn(2, activation="relu"), SERIES),
    "rnn: Sequence": (layers.rnn(2, last=True, reverse=True), SEQUENCE),
    "select": (layers.select(1), PAIR),
    "serial": (layers.serial(layers.dense(2), layers.relu(), layers.dense(3)), (3,)),
    "sum": (layers.sum(), PAIR),
    "tapped": (layers.tapped(layers.serial(layers.dense(2), layers.tanh(), layers.dense(2)), ("tanh_0",)), (3,)),
    "tied": (
        layers.tied(layers.serial(layers.dense(2), layers.dense(3)), {"dense_1.w": "dense_0.w"}, transpose=True),
        (3,),
    ),
    "tiled_conv": (layers.tiled_conv(2, (3,), (2,)), SERIES),
    "time_distributed": (layers.time_distributed(layers.dense(2)), SEQUENCE),
    "weight_noise": (layers.weight_noise(layers.dense(2), 0.5), (3,)),
    "weight_norm": (layers.weight_norm(layers.dense(2)), (3,)),
}
BOUNDS = {"compute_dtype": 2.0**-6}  # it computes in bfloat16, whose ε is 2⁻⁷
every_layer = pytest.mark.parametrize("name", CASES)


@partial(jax.jit, static_argnums=0)
def everything(layer, params, state, x, dy, key):
    """Training and, in the state that it leaves, keyless inference: (y, state, both roads' gradients or None)."""
    results = []
    for train in (True, False):
        y, after = layer.apply(params, state, x, key=key if train else None, train=train)
        differentiable = layer.name != "step"
        roads = both_roads(layer, params, state, x, dy, key if train else None, train) if differentiable else None
        results.append((y, after, roads))
        state = after
    return results


def strictly(function, *args):
    """function(*args) where no dtype and no rank is promoted silently."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        return function(*args)


def values(spec, rng):
    """Arrays like a tree of shapes: normal floats, small integers."""

    def leaf(a):
        draw = rng.normal(size=a.shape) if floating(a) else rng.integers(0, 4, a.shape)
        return np.asarray(draw, a.dtype)

    return jax.tree.map(leaf, spec)


@cache
def members(name):
    """Arguments of `everything` for each member: parameters away from their initial values, and the last x zeros."""
    layer, spec = CASES[name]
    rng, made = np.random.default_rng(0), []
    for key in jax.random.split(jax.random.key(1), MEMBERS + 1):
        params, state = layer.init(key, spec)
        params = jax.tree.map(lambda a: np.asarray(a + 0.3 * rng.normal(size=a.shape), a.dtype), params)
        x = values(batch_of(spec, BATCH), rng)
        y = jax.eval_shape(lambda *args: layer.apply(*args)[0], params, state, x)
        dy = [values(a, rng) for a in jax.tree.leaves(y) if floating(a)]
        made.append((params, jax.tree.map(np.asarray, state), x, dy, key))
    params, state, x, *rest = made[-1]
    zeros = jax.tree.map(lambda a: np.zeros_like(a) if floating(a) else a, x)
    return [*made[:-1], (params, state, zeros, *rest)]


@cache
def alone(name):
    """The results of each member by itself."""
    return [strictly(everything, CASES[name][0], *member) for member in members(name)]


def shapes(tree):
    """The tree with a (shape, dtype) for each array."""
    return jax.tree.map(lambda a: (a.shape, jnp.dtype(a.dtype).name), tree)


def test_every_public_layer_has_a_case():
    assert {name.split(":")[0] for name in CASES} == set(layers.__all__) - HELPERS
    assert set(layers.__all__) >= HELPERS


@pytest.mark.numerical
@every_layer
def test_both_roads_give_one_finite_gradient(name):
    """In training and inference, for drawn inputs and for zeros, where kinks and ties are."""
    for member in alone(name):
        for y, _, roads in member:
            assert all(np.isfinite(a).all() for a in jax.tree.leaves(y))
            if name != "step":
                by_hand, by_autodiff = roads
                agree(by_hand, by_autodiff, BOUNDS.get(name, BOUND))
                assert all(np.isfinite(np.asarray(a, float)).all() for a in jax.tree.leaves(roads))


def test_step_has_no_derivative_on_either_road():
    layer: Any = layers.step()
    x = jnp.ones((1, 3))
    with pytest.raises(TypeError, match="step"):
        layer.backward({}, {}, x, x)
    with pytest.raises(TypeError, match="step"):
        jax.grad(lambda x: layer.apply({}, {}, x)[0].sum())(x)


@every_layer
def test_members_mapped_are_the_members_alone(name):
    layer = CASES[name][0]
    *arguments, keys = (list(column) for column in zip(*members(name), strict=True))
    stacked = [jax.tree.map(lambda *a: np.stack(a), *argument) for argument in arguments]
    mapped = jax.vmap(partial(everything, layer))(*stacked, jnp.stack(keys))
    for i, member in enumerate(alone(name)):
        agree(jax.tree.map(lambda a, i=i: a[i], mapped), member, BOUNDS.get(name, BOUND))


@pytest.mark.source("GB-6.5.8-DTYPES")
@every_layer
def test_bfloat16_stays_and_nothing_is_promoted(name):
    """With bfloat16 inputs everything is bfloat16, gradients too; what has integers alone for inputs is as it was."""
    layer, spec = CASES[name]
    dtype = jnp.dtype(jnp.bfloat16)

    def low(tree):
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, dtype) if floating(a) else a, tree)

    spec = low(layers.as_spec(spec))
    if not any(floating(a) for a in jax.tree.leaves(spec)):
        dtype = jnp.result_type(float)
    key = jax.random.key(0)
    params, state = strictly(jax.eval_shape, lambda key: layer.init(key, spec), key)
    x, dy = batch_of(spec, BATCH), low(members(name)[0][3])
    results = strictly(jax.eval_shape, partial(everything, layer), params, state, x, dy, key)
    assert {a.dtype for a in jax.tree.leaves(params)} <= {dtype}
    for y, after, roads in results:
        assert {(a.dtype, a.weak_type) for a in jax.tree.leaves((y, roads)) if floating(a)} <= {(dtype, False)}
        assert shapes(after) == shapes(state)


@every_layer
def test_the_state_keeps_its_form_and_inference_its_values(name):
    for (_, state, *_), ((_, trained, _), (_, tested, _)) in zip(members(name), alone(name), strict=True):
        assert shapes(trained) == shapes(state)
        jax.tree.map(np.testing.assert_array_equal, tested, trained)


@every_layer
def test_no_key_is_used_twice(name):
    layer, spec = CASES[name]
    with no_key_reuse():
        params, state = layer.init(jax.random.key(5), spec)
        layer.apply(
            params, state, values(batch_of(spec, 2), np.random.default_rng(0)), key=jax.random.key(6), train=True
        )


@every_layer
def test_the_key_decides_the_initial_values(name):
    layer, spec = CASES[name]
    one, two = (layer.init(jax.random.key(5), spec) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, two)


@pytest.mark.long
@pytest.mark.numerical
@every_layer
def test_the_public_battery_accepts_it(name):
    report = check_layer(*CASES[name], bound=BOUNDS.get(name))
    assert report, report
