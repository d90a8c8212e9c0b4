"""The strategies draw what they say, and only they need Hypothesis."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import find, given
from hypothesis import strategies as st

import jaxnet as jn
from jaxnet.testing import batches, cases, networks, parameters, pytrees
from jaxnet.testing.strategies import KINDS, OF_SERIES, TARGETS

SHAPES = {
    "dropout": "dropout(", "norm": "_norm(", "batch_norm": "batch_norm(", "residual": "residual(", "conv": "conv(",
    "pool": "_pool(", "rnn": "rnn(",
}  # fmt: skip


@pytest.mark.parametrize("kind", SHAPES)
def test_every_kind_is_drawn(kind):
    net = find(networks((5, 3), 2, kinds=("dense", kind)), lambda net: SHAPES[kind] in str(net))
    params, _ = jax.eval_shape(lambda key: net.init(key, (5, 3)), jax.random.key(0))
    assert params
    with pytest.raises(ValueError, match=r"got kinds \['mlp'\]"):
        find(networks(kinds=("mlp",)), lambda net: True)


@examples(8)
@given(st.data())
def test_networks_parameters_and_batches_fit_together(data):
    in_shape = data.draw(st.sampled_from([(3,), (5, 3)]))
    net = data.draw(networks(in_shape, 4, kinds=(*KINDS, *OF_SERIES)))
    params, state = data.draw(parameters(net, in_shape))
    targets = data.draw(st.sampled_from(list(TARGETS)))
    x, y, *weight = data.draw(batches(in_shape, 4, targets=targets, sizes=(3,)))
    assert jax.tree.all(jax.tree.map(lambda a: bool(np.any(np.asarray(a) != 0)), params))  # biases too
    output, _ = jax.eval_shape(lambda *a: net.apply(*a), params, state, x)
    assert output.shape == (3, 4)
    loss = TARGETS[targets]
    loss.check(jax.ShapeDtypeStruct(output.shape, output.dtype), np.asarray(y))
    assert jax.eval_shape(loss.value, output, y).shape == (3,)
    assert all(w.shape == (3,) for w in weight)


@examples(8)
@given(cases())
def test_a_case_is_what_a_gradient_function_takes(case):
    (loss, state), grads = jax.eval_shape(
        lambda *a: jn.backprop(case.net, case.loss)(*a, key=case.key, train=True), case.params, case.state, case.batch
    )
    assert loss.shape == ()
    assert jax.tree.structure(grads) == jax.tree.structure(case.params)
    assert jax.tree.structure(state) == jax.tree.structure(case.state)


@pytest.mark.parametrize(
    "wanted",
    [
        lambda leaves, tree: not leaves and isinstance(tree, (dict, list, tuple)),
        lambda leaves, tree: isinstance(tree, dict) and len(leaves) > 1,
        lambda leaves, tree: any(a.size == 0 for a in leaves),
        lambda leaves, tree: any(a.dtype == jnp.bfloat16 for a in leaves),
        lambda leaves, tree: any(isinstance(part, dict) for part in tree) if isinstance(tree, tuple) else False,
    ],
)
def test_pytrees_of_every_sort(wanted):
    find(pytrees(), lambda tree: wanted(jax.tree.leaves(tree), tree))


def test_only_the_strategies_need_hypothesis():
    code = """
import sys
sys.modules["hypothesis"] = None
import jaxnet as jn
jn.testing.tolerance("float32")
try:
    jn.testing.networks
except ImportError as error:
    print(error)
try:
    jn.testing.nothing
except AttributeError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "need Hypothesis, which isn't installed: pip install hypothesis" in told
    assert "module 'jaxnet.testing' has no attribute 'nothing'" in told
