"""The battery for losses: right ones pass whole, and each planted defect is WRONG in the check that is meant for it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnet import losses
from jaxnet.losses import Loss
from jaxnet.testing import check_loss

TARGET = np.random.default_rng(0).normal(size=(5, 3))


def value(output, target):
    return jnp.sum(jnp.square(output - target), axis=1)


def gradient(output, target):
    return 2 * (output - target)


@pytest.mark.numerical
@pytest.mark.parametrize("loss", [losses.squared_error, losses.hinge, losses.softmax_cross_entropy])
def test_targets_are_drawn_from_what_the_outputs_are(loss):
    report = check_loss(loss, 3)
    assert report, report
    assert all(check.verdict == "ok" for check in report.checks)


def test_a_function_without_gradient_is_checked_for_all_else():
    report = check_loss(optax.softmax_cross_entropy, target=np.eye(3))
    assert report, report
    assert [check.name for check in report.checks if check.verdict == "skipped"] == ["gradient = autodiff"]


def test_a_loss_that_is_infinite_far_out_is_told_how_far():
    report = check_loss(losses.poisson, target=np.ones((5, 3), int), extremes=(-1e4, 0))
    assert report, report


def mixing(output, target):
    """Each example gets the batch's mean."""
    return value(output, target) * 0 + jnp.mean(value(output, target))


# name: (what replaces the right value or gradient; the check that must see it; its sentence, in part)
DEFECTS = {
    "a factor": ({"gradient": lambda o, y: o - y}, "gradient = autodiff", "autodiff at"),
    "one output": ({"gradient": lambda o, y: gradient(o, y).at[:, 0].multiply(1.001)}, "gradient = autodiff", "at"),
    "another shape": ({"gradient": lambda o, y: gradient(o, y)[:, :1]}, "gradient = autodiff", "shape (5, 1)"),
    "raises": ({"gradient": lambda o, y: o.missing}, "gradient = autodiff", "AttributeError"),
    "a mean": ({"value": lambda o, y: jnp.mean(value(o, y))}, "one number per example", "leave the mean"),
    "a column": ({"value": lambda o, y: value(o, y)[:, None]}, "one number per example", "shape (5, 1)"),
    "mixes examples": ({"value": mixing, "gradient": None}, "examples under vmap = together", "value at"),
    "overflows": (
        {"value": lambda o, y: jnp.log(jnp.sum(jnp.exp(o), 1)), "gradient": lambda o, y: jax.nn.softmax(o)},
        "extreme outputs", "values that aren't finite",
    ),
    "float32": (
        {"value": lambda o, y: value(o, y).astype(jnp.float32)}, "bfloat16", "float32 for outputs of bfloat16",
    ),
    "promotes": ({"value": lambda o, y: value(o, y) * np.ones(5, np.float32)}, "bfloat16", "promotion"),
    "wrong on both roads": (
        {"value": lambda o, y: value(o + jax.lax.stop_gradient(o), y), "gradient": lambda o, y: gradient(2 * o, y)},
        "five-point differences", "expected",
    ),
    "not of the weights": (
        {"value": lambda o, y: value(o, y) / len(o), "gradient": lambda o, y: gradient(o, y) / len(o)},
        "weights = repetitions", "",
    ),
    "refuses right targets": ({"check": lambda spec, target: 1 / 0}, "the check of targets", "ZeroDivisionError"),
}  # fmt: skip


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_wrong_where_it_should_be(name):
    changes, check, sentence = DEFECTS[name]
    report = check_loss(Loss("mine", **{"value": value, "gradient": gradient, **changes}), target=TARGET)
    assert not report
    assert report[check].verdict == "WRONG", report
    assert sentence in report[check].detail, report[check].detail


def test_refusals():
    with pytest.raises(ValueError, match="got target=None for <loss gaussian"):
        check_loss(losses.gaussian(), 4)
    with pytest.raises(TypeError, match="expected a jaxnet Loss or a function"):
        check_loss("mse")
