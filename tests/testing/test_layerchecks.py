"""The battery for layers: right layers pass whole, each planted defect is WRONG in the check that is meant for it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import layers
from jaxnet.layers import Layer
from jaxnet.testing import check_layer


def init(key, spec):
    return {"w": jax.random.normal(key, spec.shape[-1:], spec.dtype)}, {"seen": jnp.zeros((), jnp.int32)}


def apply(params, state, x, *, key=None, train=False):
    """y = sin(w x); the state counts the batches of training."""
    return jnp.sin(x * params["w"].reshape(1, -1)), {"seen": state["seen"] + 1} if train else state


def backward(params, state, x, dy, *, key=None, train=False):
    w = params["w"].reshape(1, -1)
    slope = dy * jnp.cos(x * w)
    return slope * w, {"w": jnp.sum(slope * x, axis=0)}


def scaled(f, **keywords):
    """`f` with its first result, y or dx, changed by `change(value, x, params, train, key)`."""
    (change,) = keywords.values()  # the keyword says which

    def changed(params, state, x, *rest, key=None, train=False):
        first, second = f(params, state, x, *rest, key=key, train=train)
        return change(first, x, params, train, key), second

    return changed


@jax.custom_jvp
def cheated(x):
    return x**2


cheated.defjvp(lambda x, dx: (x[0] ** 2, 3 * x[0] * dx[0]))


@jax.custom_batching.custom_vmap
def unmappable(x):
    return 2 * x


unmappable.def_vmap(lambda size, batched, x: (3 * x, True))


@pytest.mark.numerical
def test_a_right_layer_passes_whole():
    report = check_layer(Layer("sine", init, apply, backward), (3,))
    assert report, report
    assert {check.name: check.verdict for check in report.checks if check.verdict != "ok"} == {
        "integer inputs": "skipped"
    }
    assert "sine" in report.subject
    assert "13 ok" not in str(report.checks)
    assert "14 ok, 1 skipped" in str(report)


def test_a_layer_without_backward_is_checked_for_all_else():
    report = check_layer(Layer("sine", init, apply), (3,))
    assert report, report
    skipped = {check.name for check in report.checks if check.verdict == "skipped"}
    assert skipped == {"backward = autodiff, training", "backward = autodiff, inference", "integer inputs"}
    assert report["five-point differences"].verdict == "ok"


SPEC = (jax.ShapeDtypeStruct((3,), jnp.result_type(float)), jax.ShapeDtypeStruct((), jnp.int32))


def of_pairs(integers):
    """y = x sin n of pairs (x, n); dx of n is `integers(n)`."""

    def forward(params, state, x, *, key=None, train=False):
        return x[0] * jnp.sin(x[1].astype(x[0].dtype)).reshape(-1, 1), state

    def rule(params, state, x, dy, *, key=None, train=False):
        return (dy * jnp.sin(x[1].astype(dy.dtype)).reshape(-1, 1), integers(x[1])), {}

    return Layer("pairs", lambda key, spec: ({}, {}), forward, rule)


def test_integers_get_no_gradient():
    report = check_layer(of_pairs(lambda n: None), SPEC)
    assert report, report
    assert report["integer inputs"].verdict == "ok"
    report = check_layer(of_pairs(jnp.zeros_like), SPEC)
    assert "None for integers" in report["integer inputs"].detail
    assert "None for integers" in report["backward = autodiff, training"].detail


def test_inputs_can_be_drawn():
    log = layers.parameterless("log", lambda x, key, train: jnp.log(x), lambda x, dy, key, train: dy / x)
    assert not check_layer(log, (3,))
    dtype = jnp.result_type(float)
    report = check_layer(log, (3,), draw=lambda rng, size: rng.uniform(0.5, 2, (size, 3)).astype(dtype))
    assert report, report
    assert report["inputs of zero"].verdict == "skipped"


def test_what_refuses_a_derivative_on_both_roads_has_none():
    report = check_layer(layers.step(), (3,))
    assert report, report
    assert "no derivative on either road" in report["backward = autodiff, training"].detail


def test_training_may_refuse_a_batch_of_one():
    report = check_layer(layers.batch_norm(), (3,))
    assert report, report
    assert "training refuses: batch_norm" in report["batch of one"].detail


@pytest.mark.numerical
@pytest.mark.parametrize("make", [lambda: layers.dropout(0.5), lambda: layers.dense(2), lambda: layers.embedding(4, 2)])
def test_our_own(make):
    integers = jax.ShapeDtypeStruct((2,), jnp.int32)
    report = check_layer(make(), integers if "embedding" in repr(make()) else (3,))
    assert report, report


def with_count(after):
    return lambda params, state, x, *, key=None, train=False: (apply(params, state, x)[0], after(state, train))


def raising(*args, **keywords):
    raise RuntimeError("out of order")


# name: (what replaces the right init, apply or backward; the check that must see it; its sentence, in part)
DEFECTS = {
    "dw without the batch's sum": (
        {"backward": lambda p, s, x, dy, **k: (backward(p, s, x, dy)[0], {"w": backward(p, s, x, dy)[1]["w"] / 4})},
        "backward = autodiff, training",
        "params.w at",
    ),
    "dx off in one unit": (
        {"backward": scaled(backward, dx=lambda dx, x, p, train, key: dx.at[:, 1].multiply(1.001))},
        "backward = autodiff, training",
        "dx.x at",
    ),
    "dx off in inference": (
        {"backward": scaled(backward, dx=lambda dx, x, p, train, key: dx if train else 2 * dx)},
        "backward = autodiff, inference",
        "dx.x at",
    ),
    "dparams of another tree": (
        {"backward": lambda p, s, x, dy, **k: (backward(p, s, x, dy)[0], {})},
        "backward = autodiff, training",
        "params.w",
    ),
    "dx alone": (
        {"backward": lambda p, s, x, dy, **k: backward(p, s, x, dy)[0]},
        "backward = autodiff, training",
        "expected the pair (dx, dparams)",
    ),
    "backward raises": ({"backward": raising}, "backward = autodiff, training", "RuntimeError: out of order"),
    "both derivatives wrong": (
        {
            "apply": scaled(apply, y=lambda y, x, p, train, key: cheated(y)),
            "backward": lambda p, s, x, dy, **k: backward(p, s, x, dy * 3 * jnp.sin(x * p["w"].reshape(1, -1))),
        },
        "five-point differences",
        "expected",
    ),
    "NaN at zero": (
        {
            "apply": scaled(apply, y=lambda y, x, p, train, key: jnp.sqrt(y**2)),
            "backward": lambda p, s, x, dy, **k: backward(p, s, x, dy * jnp.sign(jnp.sin(x * p["w"].reshape(1, -1)))),
        },
        "inputs of zero",
        "aren't finite",
    ),
    "a float32 constant": (
        {"apply": scaled(apply, y=lambda y, x, p, train, key: y * np.ones((1, 3), np.float32))},
        "bfloat16",
        "promotion",
    ),
    "a rank promoted": (
        {"apply": scaled(apply, y=lambda y, x, p, train, key: y * p["w"])},
        "bfloat16",
        "rank_promotion",
    ),
    "always float32 parameters": (
        {"init": lambda key, spec: ({"w": jnp.ones(spec.shape, jnp.float32)}, init(key, spec)[1])},
        "bfloat16",
        "float32",
    ),
    "a number for an array": ({"init": lambda key, spec: (init(key, spec)[0], {"seen": 0})}, "init", "type int"),
    "a weak type": ({"init": lambda key, spec: ({"w": jnp.asarray(1.0)}, {"seen": jnp.int32(0)})}, "init", "weak type"),
    "empty dicts": ({"init": lambda key, spec: ({"w": {}}, {})}, "init", "expected {}"),
    "parameters alone": ({"init": lambda key, spec: init(key, spec)[0]}, "init", "pair (params, state)"),
    "hidden randomness": (
        {"init": lambda key, spec: ({"w": jnp.asarray(np.random.normal(size=3), spec.dtype)}, init(key, spec)[1])},
        "init",
        "one key gave two different results",
    ),
    "init raises": ({"init": raising}, "init", "RuntimeError: out of order"),
    "no batch axis": ({"apply": scaled(apply, y=lambda y, x, p, train, key: y[0])}, "output", "batch axis"),
    "another shape in training": (
        {"apply": scaled(apply, y=lambda y, x, p, train, key: y[:, :2] if train else y)},
        "output",
        "different outputs",
    ),
    "inference with a key": (
        {
            "apply": scaled(
                apply, y=lambda y, x, p, train, key: y * jax.random.bernoulli(key, 0.5, y.shape).astype(y.dtype)
            )
        },
        "inference without a key",
        "",
    ),
    "a state that grows": (
        {"apply": with_count(lambda s, train: {"seen": jnp.stack([s["seen"]] * 2)} if train else s)},
        "state in training",
        "expected the form",
    ),
    "inference counts": (
        {"apply": with_count(lambda s, train: {"seen": s["seen"] + 1})},
        "state in inference",
        "changed",
    ),
    "NumPy's randomness": (
        {"apply": scaled(apply, y=lambda y, x, p, train, key: y * jnp.asarray(np.random.normal(), y.dtype))},
        "jit = op by op",
        "y at",
    ),
    "another result under vmap": (
        {"apply": scaled(apply, y=lambda y, x, p, train, key: y + unmappable(jax.lax.stop_gradient(x)))},
        "vmap over members = alone",
        ".y at",
    ),
    "n - 1 examples": (
        {
            "apply": scaled(apply, y=lambda y, x, p, train, key: y / max(len(x) - 1, 0.0)),
            "backward": scaled(backward, dx=lambda dx, x, p, train, key: dx / (len(x) - 1)),
        },
        "batch of one",
        "",
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_planted_defect_is_wrong_where_it_should_be(name):
    changes, check, sentence = DEFECTS[name]
    report = check_layer(Layer("sine", **{"init": init, "apply": apply, "backward": backward, **changes}), (3,))
    assert not report
    assert report[check].verdict == "WRONG", report
    assert sentence in report[check].detail, report[check].detail
    assert check in str(report)


def test_a_layer_that_is_none_is_refused():
    with pytest.raises(TypeError, match=r"expected a Layer: call the constructor, relu\(\)"):
        check_layer(layers.relu, (3,))
