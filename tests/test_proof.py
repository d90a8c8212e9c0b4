"""The proof: hand-written back-propagation = jax.grad over drawn networks; defects, alone and in pairs, are caught."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import dense_cases, examples, roads
from hypothesis import HealthCheck, given, settings

import jaxnet as jn
from jaxnet import layers
from jaxnet.testing import Case, cases, compare_gradients, mutants
from jaxnet.testing.strategies import ACTIVATIONS, KINDS, OF_SERIES, TARGETS, batch_from, parameters_from

pytestmark = pytest.mark.numerical
X64 = jax.config.jax_enable_x64
EPS = float(jnp.finfo(jnp.result_type(float)).eps)
L2 = 0.1


def case_of(net, target, in_shape, outputs, n, rng, weights="none"):
    """A case that isn't drawn by Hypothesis."""
    params, state = parameters_from(rng, net, in_shape)
    batch = batch_from(rng, in_shape, outputs, target, n, weights)
    return Case(net, TARGETS[target], params, state, batch, jax.random.key(0))


def agrees(case, **keywords):
    report = compare_gradients(*roads(case), case.params, case.state, case.batch, key=case.key, **keywords)
    assert report, f"{case}\n{report}"


@pytest.mark.source("GB-6.5.4-ALG64", "GB-6.5.4-ALG63", "M-4", "M-4mod", "H-bp")
@settings(max_examples=50)
@given(
    cases(kinds=(*KINDS, "batch_norm") if X64 else KINDS, widths=(1, 4), sizes=(1, 5))
)  # few shapes: compiling takes the time
def test_backprop_equals_automatic_differentiation(case):
    """No false alarm on any drawn network: dense and residual blocks, every activation, norms, dropout, every loss."""
    agrees(case)


@pytest.mark.long
@settings(max_examples=500, suppress_health_check=list(HealthCheck))
@given(cases(kinds=(*KINDS, *OF_SERIES, *["batch_norm"] * X64)))
def test_no_false_alarm_on_500_networks(case):
    """With convolutions, pooling and recurrent layers too."""
    agrees(case)


@pytest.mark.newer
@pytest.mark.parametrize("target", TARGETS)
def test_backprop_under_strict_dtypes_and_ranks(target):
    outputs = 3
    hidden = [part for name in ACTIVATIONS for part in (layers.dense(4), layers.activation(name))]
    net = jn.serial(*hidden, layers.dropout(0.25), layers.dense(outputs))
    case = case_of(net, target, (5,), outputs, 6, np.random.default_rng(0), "random")
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        agrees(case)
        penalties = [jn.penalized(road, l2=jnp.float32(0.1)) for road in roads(case)]
        penalized = compare_gradients(*penalties, case.params, {}, case.batch, key=case.key)
    assert penalized, penalized


@examples(4)
@given(dense_cases(max_depth=2, kinds=("dense",)))
def test_jit_equals_op_by_op(case):
    for gradient in roads(case):
        report = compare_gradients(
            jax.jit(gradient, static_argnames="train"), gradient, case.params, {}, case.batch, bound=16 * EPS
        )
        assert report, f"{case}\n{report}"


def hidden_case(seed):
    """A network in which each of the ten defects changes something."""
    rng = np.random.default_rng(seed)
    width, n = int(rng.choice([2, 3, 8])), int(rng.choice([2, 7, 32]))
    depth = int(rng.integers(1, 4))
    parts = [part for _ in range(depth) for part in (layers.dense(width), layers.tanh())]
    return case_of(jn.serial(*parts, layers.dense(3)), str(rng.choice(list(TARGETS))), (3,), 3, n, rng)


def caught(seed, together):
    """Every defect, or group of them, is rejected, and back-propagation without one accepted."""
    case = hidden_case(seed)
    right = jax.jit(jn.penalized(jn.loss_and_grad(case.net, case.loss), l2=L2), static_argnames="train")
    arguments = right, case.params, {}, case.batch
    assert compare_gradients(jn.penalized(jn.backprop(case.net, case.loss), l2=L2), *arguments)
    wrong = mutants(case.net, case.loss, l2=L2, together=together)
    through = [name for name, gradient in wrong.items() if compare_gradients(gradient, *arguments)]
    assert not through, case
    return len(wrong)


@pytest.mark.newer
@pytest.mark.parametrize("seed", range(3))
def test_planted_defects_are_rejected(seed):
    assert caught(seed, 1) == 10


@pytest.mark.parametrize("seed", [3])
def test_any_two_defects_together_are_rejected(seed):
    assert caught(seed, 2) == 45


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10, 20))
def test_any_two_defects_together_are_rejected_in_ten_networks(seed):
    assert caught(seed, 1) + caught(seed, 2) == 55


def test_mutants_refuse_networks_without_a_place_for_them():
    loss = jn.losses.squared_error
    for net in (jn.dense(2), jn.serial(jn.dense(2)), jn.serial(jn.dense(2, bias=False), jn.tanh())):
        with pytest.raises(ValueError, match=r"expected serial\(dense\(…\), tanh\(\), …\)"):
            mutants(net, loss)
    with pytest.raises(ValueError, match="got together=11; expected 1 to 10"):
        mutants(jn.serial(jn.dense(2), jn.tanh()), loss, together=11)


def test_report_names_the_wrong_leaf():
    case = hidden_case(1)
    right = jn.penalized(jn.loss_and_grad(case.net, case.loss), l2=L2)
    wrong = mutants(case.net, case.loss, l2=L2)["first bias gradient zero"]
    report = compare_gradients(wrong, right, case.params, {}, case.batch)
    assert report.worst.path == "dense_0.b"
    assert [leaf.path for leaf in report.leaves if not leaf.agrees] == ["dense_0.b"]
    assert "dense_0.b" in str(report)
    assert "WRONG" in str(report)


def test_a_gradient_that_is_not_finite_never_agrees():
    case = hidden_case(0)
    right = jn.loss_and_grad(case.net, case.loss)

    def broken(*args, **kwargs):
        value, grads = right(*args, **kwargs)
        return value, jax.tree.map(lambda g: g * jnp.nan, grads)

    assert not compare_gradients(broken, right, case.params, {}, case.batch)
    assert not compare_gradients(broken, broken, case.params, {}, case.batch)
