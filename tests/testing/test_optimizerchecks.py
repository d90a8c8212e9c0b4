"""The battery for optimizers: optax's pass whole, each planted defect is WRONG in the check that is meant for it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnet.testing import check_optimizer


@pytest.mark.numerical
def test_a_right_one_passes_whole():
    report = check_optimizer(optax.adam(1e-2))
    assert report, report
    assert all(check.verdict == "ok" for check in report.checks)
    assert "11 ok" in str(report)


@pytest.mark.long
@pytest.mark.parametrize(
    "tx", [optax.sgd(1e-2, momentum=0.9), optax.adadelta(1.0), optax.rmsprop(1e-2), optax.lion(1e-2)]
)
def test_no_false_alarm(tx):
    report = check_optimizer(tx)
    assert report, report


@pytest.mark.long
def test_a_line_search_gets_the_value_and_the_function():
    report = check_optimizer(optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(10)))
    assert report["descends"].verdict == "ok", report


def made(init=lambda params: {"n": jnp.zeros((), jnp.int32)}, update=None):
    def counted(grads, state, params=None):
        return jax.tree.map(lambda g: -g / 10, grads), {"n": state["n"] + jnp.int32(1)}

    return optax.GradientTransformation(init, update or counted)


def grown(grads, state, params=None):
    return jax.tree.map(lambda g: -g / 10, grads), {"n": jnp.stack([state["n"]] * 2)}


def scaled(change):
    return lambda grads, state, params=None: (change(grads), state)


def normalized(grads, state, params=None):
    norm = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
    return jax.tree.map(lambda g: -g / norm / 10, grads), state


DEFECTS = {
    "a number in the state": (made(lambda params: {"n": 0}), "state of arrays", "type int"),
    "a function in the state": (made(lambda params: {"n": jnp.tanh}), "state of arrays", "expected arrays only"),
    "a weak type that is lost": (made(lambda params: {"n": jnp.asarray(0)}), "state keeps its form", "weak"),
    "a compilation too many": (made(lambda params: {"n": jnp.asarray(0)}), "compiles once", "2 compilations"),
    "a state that grows": (made(update=grown), "state keeps its form", "expected ((), 'int32'"),
    "updates in float32": (
        made(update=scaled(lambda g: jax.tree.map(lambda a: -a.astype(jnp.float32) / 10, g))),
        "bfloat16", "expected those",
    ),
    "uphill": (optax.sgd(-1e-2), "descends", "expected less"),
    "zero divided by zero": (made(update=normalized), "gradients of zero", "got NaN"),
    "NumPy's randomness": (
        made(update=scaled(lambda g: jax.tree.map(lambda a: -a * jnp.asarray(np.random.rand(), a.dtype), g))),
        "jit = op by op", "expected",
    ),
    "raises": (made(update=lambda grads, state, params=None: 1 / 0), "updates", "ZeroDivisionError"),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_wrong_where_it_should_be(name):
    tx, check, sentence = DEFECTS[name]
    report = check_optimizer(tx)
    assert not report
    assert report[check].verdict == "WRONG", report
    assert sentence in report[check].detail, report[check].detail


def test_parameters_can_be_given_and_what_is_no_optimizer_is_refused():
    assert check_optimizer(optax.sgd(0.1), params={"w": jnp.ones(2)}).subject.endswith("on 1 arrays")
    with pytest.raises(TypeError, match="expected an optax GradientTransformation"):
        check_optimizer(optax.adam)
