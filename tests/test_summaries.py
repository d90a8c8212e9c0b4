"""`summary` and `count_parameters` against closed forms, the trees that init makes, and XLA's own count of FLOPs."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st

import jaxnet as jn
from jaxnet import layers
from jaxnet.summaries import count_parameters, summary

FLOAT = jnp.result_type(float)


def array(*shape, dtype=FLOAT):
    return jax.ShapeDtypeStruct(shape, dtype)


SEQUENCE = jn.Sequence(array(7, 3), array(dtype=jnp.int32))
PAIR = array(3), array(4)


@given(st.lists(st.integers(1, 9), min_size=2, max_size=5))
@examples(10)
def test_an_mlp(sizes):
    """Each dense layer has in·out + out parameters and multiplies in·out times."""
    told = summary(jn.mlp(sizes[1:]), (sizes[0],))
    dense = [row for row in told.rows if row.kind == "dense"]
    pairs = list(itertools.pairwise(sizes))
    assert [row.parameters for row in dense] == [a * b + b for a, b in pairs]
    assert [row.flops for row in dense] == [2 * a * b for a, b in pairs]
    assert [row.output.shape for row in dense] == [(b,) for _, b in pairs]
    assert told.parameters == sum(a * b + b for a, b in pairs)
    assert told.flops == sum(2 * a * b for a, b in pairs)
    assert told.bytes() == told.parameters * FLOAT.itemsize
    assert [(leaf.path, leaf.role, leaf.shape) for leaf in told.leaves] == [
        leaf
        for i, (a, b) in enumerate(pairs)
        for leaf in ((f"dense_{i}.b", "bias", (b,)), (f"dense_{i}.w", "weight", (a, b)))
    ]


NETS = {
    "batch_norm and frozen": (
        layers.serial(layers.frozen(layers.dense(4)), layers.batch_norm(), layers.dense(2)),
        (3,),
    ),
    "conv": (
        layers.serial(layers.conv(4, (3, 3)), layers.max_pool((2, 2)), layers.flatten(), layers.dense(3)),
        (8, 6, 1),
    ),
    "embedding": (layers.serial(layers.embedding(9, 4), layers.lstm(2)), array(5, dtype=jnp.int32)),
    "heads": (jn.heads.gaussian(2).on(layers.serial(layers.dense(4), layers.relu())), (3,)),
    "pair": (layers.serial(layers.parallel(layers.dense(2), layers.dense(2)), layers.sum(), layers.prelu()), PAIR),
    "residual": (layers.residual(layers.serial(layers.dense(3), layers.layer_norm()), layers.dense(3)), (5,)),
    "sequence": (
        layers.serial(layers.time_distributed(layers.dense(3)), layers.bidirectional(partial(layers.gru, 2))),
        SEQUENCE,
    ),
    "repeat in repeat": (layers.repeat(layers.repeat(layers.serial(layers.dense(3), layers.batch_norm()), 2), 3), (3,)),
    "low rank": (layers.low_rank(layers.serial(layers.dense(6), layers.tanh(), layers.dense(5)), 2), (4,)),
    "tied": (
        layers.tied(layers.serial(layers.dense(2), layers.dense(5)), {"dense_1.w": "dense_0.w"}, transpose=True),
        (5,),
    ),
    "nested": (
        layers.serial(layers.serial(layers.serial(layers.dense(2))), layers.frozen(layers.serial(layers.batch_norm()))),
        (3,),
    ),
    "one layer": (layers.dense(4), (3,)),
}


@pytest.mark.parametrize("name", NETS)
def test_every_array_is_told_once_and_numbers_are_those_of_all_that_a_layer_holds(name):
    net, spec = NETS[name]
    told = summary(net, spec)
    params, state = jax.eval_shape(lambda key: net.init(key, spec), jax.random.key(0))

    def sizes(tree):
        return [
            (jax.tree_util.keystr(path, simple=True, separator="."), a.shape, a.dtype.name)
            for path, a in jax.tree_util.tree_leaves_with_path(tree)
        ]

    def of(*kinds):
        return [(leaf.path, leaf.shape, leaf.dtype) for leaf in told.leaves if leaf.kind in kinds]

    assert sorted(of("parameter")) == sorted(sizes(params))
    # the state's paths go through "params" and "state" of what is frozen
    assert sorted(shape for _, *shape in of("frozen", "state")) == sorted(shape for _, *shape in sizes(state))
    assert told.parameters == count_parameters(params) == told.rows[0].parameters
    assert told.size("frozen") + told.size("state") == count_parameters(state)
    assert told.bytes("parameter") == sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(params))
    for row in told.rows:
        inside = [other for other in told.rows if other.depth == row.depth + 1 and other.path.startswith(row.path)]
        if inside:
            assert row.parameters == sum(other.parameters for other in inside)
            assert row.flops >= sum(other.flops for other in inside)
    output, _ = jax.eval_shape(lambda p, s, x: net.apply(p, s, x), params, state, layers.batch_of(spec, 2))
    assert jax.tree.map(lambda a: (2, *a.shape), told.rows[0].output) == jax.tree.map(jnp.shape, output)


def test_flops_are_xlas_own():
    """Without bias, activations and padding (whose products XLA leaves out) a network is products XLA counts alike."""
    net = layers.serial(
        layers.conv(4, (3, 2), stride=2, padding="VALID", bias=False),
        layers.conv(3, (2, 2), padding="VALID", bias=False),
        layers.flatten(),
        layers.dense(7, bias=False),
        layers.dense(2, bias=False),
    )
    told = summary(net, (9, 8, 2))
    params, state = jax.eval_shape(lambda key: net.init(key, (9, 8, 2)), jax.random.key(0))
    lowered = jax.jit(lambda p, x: net.apply(p, state, x)[0]).lower(params, array(1, 9, 8, 2))
    assert told.flops == lowered.cost_analysis()["flops"]
    assert told.flops == sum(row.flops for row in told.rows[1:])


def test_flops_of_what_runs_often():
    features, units, time = 3, 5, 7
    assert summary(layers.lstm(units), (time, features)).flops == time * 2 * 4 * units * (features + units)
    rows = summary(
        layers.serial(layers.time_distributed(layers.serial(layers.dense(6), layers.dense(2)))), SEQUENCE
    ).rows
    assert [row.flops for row in rows[1:]] == [time * 2 * (3 * 6 + 6 * 2), time * 2 * 3 * 6, time * 2 * 6 * 2]
    rows = summary(layers.repeat(layers.serial(layers.dense(4), layers.relu()), 3), (4,)).rows
    assert [(row.path, row.flops, row.parameters) for row in rows] == [
        ("", 96, 60),
        ("dense_0", 96, 60),
        ("relu_0", 0, 0),
    ]
    low = summary(layers.low_rank(layers.serial(layers.dense(6), layers.dense(5)), 2), (4,)).rows
    factors = 2 * 2 * (4 * 6 + 6 * 5)  # w = u v, beside the layers' own products
    assert [row.flops for row in low] == [factors + 2 * (4 * 6 + 6 * 5), 2 * 4 * 6, 2 * 6 * 5]


@pytest.mark.parametrize(("pieces", "factor"), [(2, 2), (5, 5)])
def test_a_maxout_unit_has_the_weights_of_its_pieces(pieces, factor):
    plain = summary(layers.serial(layers.dense(4)), (3,)).parameters
    assert summary(layers.serial(layers.dense(4 * pieces), layers.maxout(pieces)), (3,)).parameters == factor * plain


def test_roles():
    """The last name that is known decides; of a name that isn't, the role is the name."""
    net = layers.serial(jn.heads.layers.beside({"scale": layers.dense(2), "a": layers.rbf(3)}), layers.layer_norm())
    assert [(leaf.path, leaf.role) for leaf in summary(layers.low_rank(net, 1), (3,)).leaves] == [
        ("beside_0.scale.b", "bias"),
        ("beside_0.scale.w.u", "weight"),
        ("beside_0.scale.w.v", "weight"),
        ("beside_0.a.centers", "centers"),
        ("beside_0.a.inverse_width", "inverse_width"),
        ("layer_norm_0.scale", "scale"),
        ("layer_norm_0.shift", "shift"),
    ]


def test_nothing_is_computed():
    """The weights of this network would take 40 TB."""
    told = summary(layers.serial(layers.dense(10**7), layers.dropout(0.5), layers.dense(10**6)), (10**4,))
    assert told.parameters == 10**4 * 10**7 + 10**7 + 10**7 * 10**6 + 10**6
    assert told.flops == 2 * (10**4 * 10**7 + 10**7 * 10**6)


def test_a_layer_from_elsewhere_is_one_row():
    inner = layers.dense(4)
    hidden = jn.Layer(
        "twice",
        lambda key, spec: ({"inner": inner.init(key, spec)[0]}, {"calls": jnp.zeros((), jnp.int32)}),
        lambda params, state, x, *, key=None, train=False: (inner.apply(params["inner"], {}, x)[0], state),
        settings=(("", inner),),
    )
    row, held = summary(layers.serial(hidden), (3,)).rows
    assert (row.depth, held.depth, held.path, held.kind, held.flops) == (0, 1, "twice_0", "twice", 24)
    assert [(leaf.path, leaf.kind) for leaf in held.leaves] == [
        ("twice_0.inner.b", "parameter"),
        ("twice_0.inner.w", "parameter"),
        ("twice_0.calls", "state"),
    ]
    # one with the name of a combinator of ours, that keeps its parameters in a way of its own
    mine = jn.Layer("serial", hidden.init, hidden.apply, settings=(("", inner),))
    (row,) = summary(mine, (3,)).rows
    assert [leaf.path for leaf in row.leaves] == ["inner.b", "inner.w", "calls"]


def test_paths_are_those_of_compare_gradients():
    net = layers.serial(layers.dense(4), layers.batch_norm(), layers.residual(layers.dense(4)), layers.dense(2))
    params, state = jax.jit(net.init, static_argnums=1)(jax.random.key(0), (3,))
    batch = jnp.ones((4, 3)), jnp.zeros(4, jnp.int32)
    gradient = jax.jit(jn.loss_and_grad(net, jn.losses.softmax_cross_entropy), static_argnames="train")
    compared = jn.testing.compare_gradients(gradient, gradient, params, state, batch).leaves
    told = [leaf.path for leaf in summary(net, (3,)).leaves if leaf.kind == "parameter"]
    assert sorted(told) == sorted(leaf.path for leaf in compared[1:])


TABLE = """\
layer                             output         parameters  FLOPs
net             serial            (1000,), (2,)       3,004  8,000
  frozen_0      frozen(dense(2))  (2,)                    0  4,000
    .b          frozen bias       (2,)
    .w          frozen weight     (1000, 2)
  batch_norm_0  batch_norm        (2,)                    4      0
    .scale      scale             (2,)                    2
    .shift      shift             (2,)                    2
    .mean       state mean        (2,)
    .variance   state variance    (2,)
  branch_0      branch            (1000,), (2,)       3,000  4,000
    dense_0     dense(1000)       (1000,)             3,000  4,000
      .b        bias              (1000,)             1,000
      .w        weight            (2, 1000)           2,000
    tanh_0      tanh              (2,)                    0      0
3,004 parameters (12,016 bytes), 8,000 FLOPs per example, forward
2,002 frozen parameters (8,008 bytes)
4 numbers of state (16 bytes)"""
