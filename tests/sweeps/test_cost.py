"""What `cost.operations` reads off a jaxpr against closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnet as jn
from jaxnet import losses
from jaxnet.sweeps.cost import Operations, live_bytes, operations, seconds


@given(st.lists(st.integers(1, 9), min_size=2, max_size=4), st.integers(1, 6))
def test_a_step_of_an_mlp(sizes, batch):
    """Each layer multiplies three times, 2·B·in·out each: forward, for the weights, for its input; the first layer's
    input needs no gradient."""
    net = jn.mlp(sizes[1:])
    gradient = jn.loss_and_grad(net, losses.softmax_cross_entropy)
    params, state = jax.eval_shape(lambda key: net.init(key, (sizes[0],)), jax.random.key(0))
    shape = jax.ShapeDtypeStruct((batch, sizes[0]), jnp.result_type(float))
    pair = shape, jax.ShapeDtypeStruct((batch,), jnp.int32)
    cost = operations(lambda p, pair: gradient(p, state, pair, train=True), params, pair)
    products = [a * b for a, b in itertools.pairwise(sizes)]
    assert cost.flops == 2 * batch * (3 * sum(products) - products[0])
    assert cost.products == 3 * len(products) - 1
    assert cost.numbers > 0


def test_an_epoch_of_a_program():
    """37 examples forward and back, 11 forward."""
    program = jn.program(jn.mlp([8, 3]), losses.softmax_cross_entropy, optax.adam(1e-2), batch_size=8)
    train, valid = ((np.zeros((n, 4), "float32"), np.zeros(n, "int32")) for n in (37, 11))
    data = jn.Data(train, valid)
    cost = operations(program.epoch, jax.eval_shape(program.start, jax.random.key(0), data), data)
    first, last = 4 * 8, 8 * 3
    assert cost.flops == 2 * 37 * (2 * first + 3 * last) + 2 * 11 * (first + last)


@given(st.integers(1, 20), st.integers(1, 5))
def test_a_scan_counts_as_often_as_it_runs(length, inner):
    def twice(x, w):
        def step(x, _):
            return jax.lax.scan(lambda x, _: (x @ w, None), x, length=inner)[0] + 1.0, None

        return jax.lax.scan(step, x, length=length)[0]

    x, w = np.zeros((2, 3), "float32"), np.zeros((3, 3), "float32")
    assert operations(twice, x, w) == Operations(length * inner * 2 * 2 * 3 * 3, length * 2 * 3, length * inner)


def test_of_a_cond_the_dearer_branch():
    def chosen(which, x):
        return jax.lax.cond(which, lambda x: x @ x @ x, lambda x: x @ x, x)

    cost = operations(chosen, np.bool_(True), np.zeros((5, 5), "float32"))
    assert (cost.flops, cost.products) == (2 * 2 * 5**3, 2)

    def switched(i, x):
        return jax.lax.switch(i, [lambda x: x + 1, lambda x: x @ x, lambda x: x], x)

    assert operations(switched, np.int32(0), np.zeros((5, 5), "float32")).flops == 2 * 5**3


def test_a_while_loop_counts_once():
    def doubled(x):
        return jax.lax.while_loop(lambda x: x[0, 0] < 9, lambda x: x @ x, x)

    assert operations(doubled, np.zeros((5, 5), "float32")).flops == 2 * 5**3


def test_inside_jit_vmap_and_custom_rules():
    @jax.custom_vjp
    def product(x, y):
        return x @ y

    product.defvjp(lambda x, y: (x @ y, (x, y)), lambda saved, d: (d @ saved[1].T, saved[0].T @ d))
    x, y = np.zeros((2, 3), "float32"), np.zeros((3, 4), "float32")
    assert operations(jax.jit(product), x, y).flops == 2 * 24
    assert operations(jax.grad(lambda x, y: jnp.sum(product(x, y)), (0, 1)), x, y).flops == 3 * 2 * 24
    assert operations(jax.checkpoint(jax.vmap(product)), np.zeros((7, 2, 3)), np.zeros((7, 3, 4))).flops == 7 * 2 * 24


@pytest.mark.parametrize("groups", [1, 2])
def test_a_convolution(groups):
    """2 · batch · output pixels · output features · window · input features of the group."""
    x, w = np.zeros((5, 9, 8, 4), "float32"), np.zeros((3, 2, 4 // groups, 6), "float32")

    def convolved(x, w):
        return jax.lax.conv_general_dilated(
            x, w, (2, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=groups
        )

    assert operations(convolved, x, w) == Operations(2 * 5 * (4 * 7) * 6 * (3 * 2) * (4 // groups), 0.0, 1.0)


def test_seconds_add_up():
    parts = Operations(1e9, 0, 0), Operations(0, 1e6, 0), Operations(0, 0, 100)
    whole = Operations(1e9, 1e6, 100)
    assert seconds(whole) == pytest.approx(sum(map(seconds, parts)))
    assert min(map(seconds, parts)) > 0


@given(st.integers(1, 6), st.integers(2, 9))
def test_live_bytes(steps, n):
    """A chain needs what it reads and what it makes; results stay."""
    x = np.zeros(n, "float32")

    def chain(x):
        for _ in range(steps):
            x = jnp.sin(x)
        return x

    def fan(x):
        return [jnp.sin(x) for _ in range(steps)]

    assert live_bytes(chain, x) == 4 * n * min(steps, 2)
    assert live_bytes(fan, x) == 4 * n * steps
    assert live_bytes(lambda x: jax.lax.fori_loop(0, 9, lambda _, x: chain(x), x), x) >= live_bytes(chain, x)
