"""gradcheck: right derivatives pass, wrong ones don't, kinks are no alarm, and bounds are honest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.testing import gradcheck
from jaxnet.testing.differences import offsets, slopes

pytestmark = pytest.mark.numerical
X64 = jax.config.jax_enable_x64
X = np.array([0.3, -2.0, 1.1])


def rows(report):
    return {leaf.path: leaf for leaf in report.leaves}


RIGHT = {
    "tanh": (jnp.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "exp": (jnp.exp, np.exp),
    "relu": (jax.nn.relu, lambda x: (x > 0) * 1.0),
    "sine of 5x": (lambda x: jnp.sin(5 * x), lambda x: 5 * np.cos(5 * x)),
    "constant": (lambda x: 0 * x + 3, lambda x: 0 * x),
}


@pytest.mark.parametrize("name", RIGHT)
def test_closed_forms_pass_and_one_per_cent_off_does_not(name):
    f, slope = RIGHT[name]
    x = jnp.asarray(X, jnp.result_type(float))
    assert gradcheck(f, x)
    right = gradcheck(f, x, backward=lambda x, dy: dy * jnp.asarray(slope(X), dy.dtype))
    assert right, right
    wrong = gradcheck(f, x, backward=lambda x, dy: dy * jnp.asarray(1.01 * slope(X) + 0.01, dy.dtype))
    assert rows(wrong)["x (five-point)"].verdict == "WRONG", wrong
    assert rows(wrong)["directions"].verdict == "WRONG", wrong


def test_trees_several_arguments_integers_and_keys():
    def f(params, n, key, x):
        return {"y": jnp.tanh(x @ params["w"]) * n, "kept": jax.random.bernoulli(key, 0.5, x.shape)}

    params, x = {"w": jnp.asarray(X)[:, None], "unused": jnp.ones(2)}, jnp.ones((2, 3))
    report = gradcheck(f, params, jnp.int32(2), jax.random.key(0), x)
    assert report, report
    assert [path for path in rows(report) if "five" in path] == [
        f"{name} (five-point)" for name in ("0.unused", "0.w", "3")
    ]
    back = gradcheck(
        lambda p, x: x @ p["w"], {"w": params["w"]}, x, backward=lambda p, x, dy: ({"w": x.T @ dy}, dy @ p["w"].T)
    )
    assert back, back
    with pytest.raises(ValueError, match=r"got gradients of shapes \[\(3, 1\)\] from the rule; expected"):
        gradcheck(lambda p, x: x @ p["w"], {"w": params["w"]}, x, backward=lambda p, x, dy: {"w": x.T @ dy})


def test_a_kink_is_left_out_and_counted_not_an_alarm():
    x = jnp.asarray([0.0, 1.0, -1e-9, 2.0], jnp.result_type(float))
    report = gradcheck(jnp.abs, x)
    assert report, report
    row = rows(report)["x (five-point)"]
    assert row.note == "2 of 4 left out, at a kink or the edge of the domain"
    assert row.verdict == "ok"
    assert rows(report)["complex step"].note.startswith("not analytic")
    wrong = gradcheck(jnp.abs, x, backward=lambda x, dy: 2 * dy * jnp.sign(x))
    assert rows(wrong)["x (five-point)"].verdict == "WRONG"


def test_a_kink_near_by_is_stepped_around():
    x = jnp.asarray([1e-3, -2e-3] if X64 else [0.08, -0.1], jnp.result_type(float))
    row = rows(gradcheck(jnp.abs, x))["x (five-point)"]
    assert (row.verdict, row.note) == ("ok", "")


def test_everything_at_kinks_is_skipped_not_passed():
    report = gradcheck(jax.nn.relu, jnp.zeros(3))
    assert report.verdict == "skipped"
    assert "3 of 3 left out" in report.summary


def test_the_edge_of_a_domain():
    x = jnp.asarray([1e-6, 2.0], jnp.result_type(float))
    report = gradcheck(jnp.log, x)
    assert report, report
    assert "1 of 2" in rows(report)["x (five-point)"].note
    with pytest.raises(ValueError, match="isn't finite at x"):
        gradcheck(jnp.log, -x)


def test_complex_step_where_analytic():
    x = jnp.asarray(X, jnp.result_type(float))
    row = rows(gradcheck(lambda x: jnp.sin(x) * x**3, x))["x (complex step)"]
    assert row.verdict == "ok"
    assert row.error < 1e-15 or not X64
    report = gradcheck(lambda x: jnp.sin(x), x, backward=lambda x, dy: dy * jnp.cos(x) * (1 + (1e-11 if X64 else 1e-4)))
    assert rows(report)["x (complex step)"].verdict == "WRONG"  # finer than differences can tell
    assert rows(report)["x (five-point)"].verdict == "ok"
    assert "complex step" not in rows(gradcheck(jnp.sin, x, complex_step=False))
    refused = gradcheck(lambda x: jnp.floor(x * 0) + x, x)
    assert rows(refused)["complex step"].note.startswith("refused")


def test_directions_see_what_drawn_entries_miss():
    x = jnp.asarray(np.random.default_rng(0).normal(size=500), jnp.result_type(float))

    def backward(x, dy):
        return (dy * jnp.cos(x)).at[499].add(5.0)

    report = rows(gradcheck(jnp.sin, x, backward=backward, entries=3))
    assert report["x (five-point)"].verdict == "ok"
    assert report["directions"].verdict == "WRONG"


def test_forward_mode_rules_are_checked_and_may_be_missing():
    @jax.custom_vjp
    def reverse_only(x):
        return x**2

    reverse_only.defvjp(lambda x: (x**2, x), lambda x, dy: (2 * x * dy,))
    x = jnp.asarray(X, jnp.result_type(float))
    report = gradcheck(reverse_only, x)
    assert report, report
    assert rows(report)["directions (jvp)"].note == "no forward-mode derivative"

    @jax.custom_jvp
    def wrong(x):
        return x**2

    wrong.defjvp(lambda x, dx: (x[0] ** 2, 2.1 * x[0] * dx[0]))
    assert [leaf.verdict for leaf in gradcheck(wrong, x).leaves[:3]] == ["WRONG"] * 3


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_bounds_of_narrow_dtypes_are_honest(dtype):
    """Right derivatives pass; what is allowed is 1 % or less in float32, and less than a tenth of that in float64."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=20), dtype)
    report = gradcheck(lambda x: jnp.tanh(x) ** 2 + x, x)
    assert report, report
    row = rows(report)["x (five-point)"]
    assert row.bound < (0.2 if dtype == jnp.bfloat16 else 1e-4 if X64 else 1e-2)


def test_no_false_alarms_and_no_blindness_over_random_functions():
    """Four random networks of sines and kinks: right gradients pass, 2 % off in one leaf never does."""

    @jax.jit
    def f(w, v):
        return jnp.sum(v @ jnp.where(jnp.arange(3)[:, None] == 0, jnp.abs(w), jnp.sin(3 * w)) ** 2)

    rng = np.random.default_rng(2)
    for seed in range(4):
        w, v = (jnp.asarray(rng.normal(size=s), jnp.result_type(float)) for s in ((3, 4), (2, 3)))
        right = gradcheck(f, w, v, complex_step=False, seed=seed)
        assert right, right

        def wrong(w, v, dy):
            dw, dv = jax.grad(f, (0, 1))(w, v)
            return dw, dv * 1.02

        assert not gradcheck(f, w, v, backward=wrong, complex_step=False, seed=seed)


def test_slopes_and_doubts_of_polynomials_and_corners():
    t = offsets("float64")
    slope, doubt = slopes(3 * t + t**4, np.abs(t), "float64")
    assert abs(slope - 3) < 1e-12
    assert doubt < 1e-8
    _, doubt = slopes(np.maximum(t, 0), np.abs(t), "float64")
    assert doubt > 0.5
    _, doubt = slopes(np.where(t < 0, np.nan, t), np.abs(t), "float64")
    assert doubt == np.inf
