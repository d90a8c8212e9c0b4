"""The proof: hand-written back-propagation = jax.grad over drawn networks; defects are caught."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import ACTIVATIONS, LOSSES, case_of, cases, examples, roads
from hypothesis import given
from mutants import defects, reference

import jaxnet as jn
from jaxnet import layers
from jaxnet.testing import compare_gradients

pytestmark = pytest.mark.numerical
X64 = jax.config.jax_enable_x64
EPS = float(jnp.finfo(jnp.result_type(float)).eps)


@pytest.mark.source("GB-6.5.4-ALG64", "GB-6.5.4-ALG63", "M-4", "M-4mod", "H-bp")
@examples(200 if X64 else 30)
@given(cases())
def test_backprop_equals_automatic_differentiation(case):
    report = compare_gradients(*roads(case), case.params, {}, case.batch, key=case.key)
    assert report, f"{case}\n{report}"


@pytest.mark.newer
@pytest.mark.parametrize("loss_name", LOSSES)
def test_backprop_under_strict_dtypes_and_ranks(loss_name):
    outputs = 3
    hidden = [part for name in ACTIVATIONS for part in (layers.dense(4), layers.activation(name))]
    parts = (*hidden, layers.dropout(0.25), layers.dense(outputs))
    case = case_of(parts, loss_name, 5, outputs, 6, np.random.default_rng(0), "random")
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        report = compare_gradients(*roads(case), case.params, {}, case.batch, key=case.key)
        penalties = [jn.penalized(road, l2=jnp.float32(0.1)) for road in roads(case)]
        penalized = compare_gradients(*penalties, case.params, {}, case.batch, key=case.key)
    assert report, report
    assert penalized, penalized


@examples(4)
@given(cases(max_depth=2, dropout=False))
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
    return case_of((*parts, layers.dense(3)), str(rng.choice(LOSSES)), 3, 3, n, rng)


@pytest.mark.newer
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("defect", list(defects(hidden_case(0), 0.1)))
def test_planted_defect_is_rejected(defect, seed):
    case, l2 = hidden_case(seed), 0.1
    right = jn.penalized(jn.loss_and_grad(case.net, case.loss), l2=l2)
    assert compare_gradients(reference(case, l2), right, case.params, {}, case.batch)
    report = compare_gradients(defects(case, l2)[defect], right, case.params, {}, case.batch)
    assert not report, f"{defect} went through\n{report}"


def test_report_names_the_wrong_leaf():
    case = hidden_case(1)
    right = jn.penalized(jn.loss_and_grad(case.net, case.loss), l2=0.1)
    report = compare_gradients(defects(case, 0.1)["first bias gradient zero"], right, case.params, {}, case.batch)
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
