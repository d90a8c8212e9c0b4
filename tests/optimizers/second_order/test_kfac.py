"""K-FAC against the exact natural gradient, a transcription in NumPy, and what is known of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jaxnet as jn
from jaxnet import layers, losses, outcomes
from jaxnet.optimizers.second_order.factors import factor
from jaxnet.optimizers.second_order.kfac import kfac
from jaxnet.optimizers.second_order.kronecker import factors
from jaxnet.optimizers.second_order.minimization import minimize
from jaxnet.optimizers.second_order.natural_gradient import natural_gradient
from jaxnet.optimizers.second_order.of_network import of_network

pytestmark = [pytest.mark.numerical, pytest.mark.float64]
FLOAT = jnp.result_type(float)
RTOL = 1e-10 if jax.config.jax_enable_x64 else 1e-3
RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(12, 3)), FLOAT)
LABELS = jnp.asarray(RNG.integers(0, 3, 12))
VALUES = jnp.asarray(RNG.normal(size=(12, 3)), FLOAT)
WEIGHT = jnp.asarray(RNG.random(12), FLOAT)
NET = jn.serial(jn.dense(4), jn.tanh(), jn.dense(3))
PARAMS, STATE = NET.init(jax.random.key(0), (3,))


def steps(method, problem, params, count=1):
    """The states after 0, 1, … steps, stacked."""

    def run(params):
        def body(state, _):
            after = method.step(problem, state)
            return after, after

        first = method.init(problem, params)
        _, path = jax.lax.scan(body, first, None, count)
        return jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, path)

    return jax.jit(run)(params)


def test_one_linear_layer_is_the_exact_natural_gradient():
    net = jn.dense(3)
    params, state = net.init(jax.random.key(1), (3,))
    problem = of_network(net, losses.squared_error, state, (X, VALUES, WEIGHT))
    ours, exact = (steps(m, problem, params).params for m in (kfac(damping=0.0), natural_gradient(damping=0.0)))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, rtol=RTOL, atol=RTOL)


# ── a transcription ─────────────────────────────────────────────────────────────────────────────────────────────


def transcribed(theta, count, damping, l2, decay):
    """(parameters, factors) after each step on NET with softmax cross-entropy, by Martens & Grosse §3–7 in NumPy."""
    x, w = np.asarray(X), np.asarray(WEIGHT / WEIGHT.sum())
    names = ["dense_0", "dense_1"]
    w_, b_ = ({n: np.asarray(theta[n][k]) for n in names} for k in ("w", "b"))
    last = {n: np.zeros((len(w_[n]) + 1, w_[n].shape[1])) for n in names}
    ones, path, average = np.ones((len(x), 1)), [], None

    def joined(w_, b_):
        return {n: np.vstack([w_[n], b_[n]]) for n in names}

    def loss(m):
        h = np.tanh(np.hstack([x, ones]) @ m["dense_0"])
        z = np.hstack([h, ones]) @ m["dense_1"]
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        penalty = l2 / 2 * sum((m[n][:-1] ** 2).sum() for n in names)
        return -np.log(p[np.arange(len(x)), LABELS]) @ w + penalty, h, p

    m = joined(w_, b_)
    for k in range(count):
        value, h, p = loss(m)
        inputs = {"dense_0": np.hstack([x, ones]), "dense_1": np.hstack([h, ones])}

        def backward(dz, m=m, h=h):
            return {"dense_0": dz @ m["dense_1"][:-1].T * (1 - h**2), "dense_1": dz}

        slopes = backward((p - np.eye(3)[np.asarray(LABELS)]) * w[:, None])
        mask = {n: np.vstack([np.ones_like(m[n][:-1]), np.zeros((1, m[n].shape[1]))]) for n in names}
        g = {n: inputs[n].T @ slopes[n] + l2 * mask[n] * m[n] for n in names}
        by_class = [backward(p - np.eye(3)[c]) for c in range(3)]
        new = {
            n: (
                inputs[n].T @ (w[:, None] * inputs[n]),
                sum(d[n].T @ ((w * p[:, c])[:, None] * d[n]) for c, d in enumerate(by_class)),
            )
            for n in names
        }
        e = min(1 - 1 / (k + 1), decay)
        average = new if k == 0 else {n: [e * o + (1 - e) * v for o, v in zip(average[n], new[n])] for n in names}  # noqa: B905
        direction = {}
        for n in names:
            a, s = average[n]
            pi = np.sqrt((np.trace(a) / len(a)) / (np.trace(s) / len(s)))
            root = np.sqrt(damping + l2)
            direction[n] = (
                -np.linalg.inv(a + pi * root * np.eye(len(a))) @ g[n] @ np.linalg.inv(s + root / pi * np.eye(len(s)))
            )

        def outputs_along(d, m=m, h=h, inputs=inputs):
            dh = (inputs["dense_0"] @ d["dense_0"]) * (1 - h**2)
            return inputs["dense_1"] @ d["dense_1"] + dh @ m["dense_1"][:-1]

        def inner(u, v, p=p, mask=mask):
            ju, jv = outputs_along(u), outputs_along(v)
            bent = p * jv - p * (p * jv).sum(1, keepdims=True)
            return (ju * bent).sum(1) @ w + l2 * sum((mask[n] * u[n] * v[n]).sum() for n in names)

        pair = [direction, last] if k else [direction]
        c = np.array([[inner(u, v) for v in pair] for u in pair])
        gram = np.array([[sum((u[n] * v[n]).sum() for n in names) for v in pair] for u in pair])
        slope = np.array([sum((g[n] * u[n]).sum() for n in names) for u in pair])
        weights = -np.linalg.solve(c + damping * gram, slope)
        last = {n: sum(a * u[n] for a, u in zip(weights, pair, strict=True)) for n in names}
        m = {n: m[n] + last[n] for n in names}
        gain = (value - loss(m)[0]) / (-(weights @ slope) - weights @ c @ weights / 2)
        assert gain > 0
        damping = damping / 4 if gain > 0.75 else damping * 10 if gain < 0.25 else damping
        path.append((m, average, damping))
    return path


def test_steps_and_factors_are_the_transcription():
    method = kfac(damping=0.5, decay=0.7)
    problem = of_network(NET, losses.softmax_cross_entropy, STATE, (X, LABELS, WEIGHT), 0.02)
    found = steps(method, problem, PARAMS, 4)
    for k, (m, average, damping) in enumerate(transcribed(PARAMS, 4, 0.5, 0.02, 0.7), 1):
        for name in PARAMS:
            ours = np.vstack([found.params[name]["w"][k], found.params[name]["b"][k]])
            np.testing.assert_allclose(ours, m[name], rtol=100 * RTOL, atol=100 * RTOL)
            for one, other in zip(found.memory.pairs[name], average[name], strict=True):
                np.testing.assert_allclose(one[k], other, rtol=100 * RTOL, atol=100 * RTOL)
        np.testing.assert_allclose(found.memory.damping[k], damping, rtol=RTOL)


# ── what is known of it ─────────────────────────────────────────────────────────────────────────────────────────


def test_affine_changes_of_the_inputs_change_nothing():
    """Without damping (Martens & Grosse thm. 1): the outputs after each step are the same."""
    net = jn.serial(jn.dense(2), jn.tanh(), jn.dense(3))
    rng = np.random.default_rng(1)
    m, c = rng.normal(size=(3, 3)) + 2 * np.eye(3), rng.normal(size=3)
    z = (np.asarray(X) - c) @ np.linalg.inv(m)  # X = z m + c
    teacher, start = (net.init(jax.random.key(k), (3,))[0] for k in (1, 2))
    first = start["dense_0"]
    other = start | {"dense_0": {"w": jnp.asarray(m @ first["w"]), "b": jnp.asarray(c @ first["w"] + first["b"])}}
    targets = net.apply(teacher, {}, X)[0]

    @jax.jit
    def outputs(x, params):
        path = steps(kfac(damping=0.0), of_network(net, losses.squared_error, {}, (x, targets)), params, 3)
        return jax.vmap(lambda p: net.apply(p, {}, x)[0])(path.params), path.memory.damping

    ends, dampings = zip(outputs(X, start), outputs(jnp.asarray(z, FLOAT), other), strict=True)
    assert np.all(np.asarray(dampings) == 0)
    assert np.min(np.max(np.abs(ends[0][1:] - ends[0][:-1]), axis=(1, 2))) > 0.02
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e4 * RTOL, atol=1e4 * RTOL)


@pytest.mark.long
def test_digits_are_learned_in_fewer_steps_than_by_gradient_descent():
    """64-16-10 on 300 digits, float32: after 15 steps a third of what the best of six rates reaches, never uphill."""
    x, y = jn.data.load("digits")
    batch = jnp.asarray(x[:300], jnp.float32) / np.float32(np.max(x)), jnp.asarray(y[:300], jnp.int32)
    net = jn.mlp([16, 10], activation="tanh")
    params, state = net.init(jax.random.key(0), (64,))
    params = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    problem = of_network(net, losses.softmax_cross_entropy, state, batch)
    path = steps(kfac(), problem, params, 15)
    assert path.value.dtype == jnp.float32
    assert np.all(np.diff(path.value) < 0)

    def descended(rate):
        def body(p, _):
            value, g = problem.value_and_grad(p)
            return jax.tree.map(lambda p, g: p - rate * g, p, g), value

        return jax.lax.scan(body, params, None, 16)[1][-1]

    rates = jnp.asarray(2.0 ** np.arange(-2, 4), jnp.float32)
    best = np.nanmin(jax.jit(jax.vmap(descended))(rates))
    assert path.value[-1] < best / 3, (path.value[-1], best)


@pytest.mark.long
def test_nested_networks_and_many_outputs():
    """Random mixtures of the outputs have the expectation's factors on average; every step goes down."""
    net = jn.serial(
        layers.residual(jn.serial(jn.dense(3), jn.tanh())),
        jn.branch(jn.dense(2), jn.identity()),
        layers.concatenate(),
        layers.frozen(jn.dense(4)),
        jn.dense(3, bias=False),
    )
    params, state = net.init(jax.random.key(0), (3,))
    y = (VALUES > 0).astype(FLOAT)
    problem = of_network(net, losses.sigmoid_cross_entropy, state, (X, y), 0.01)
    path = steps(kfac(samples=3000), problem, params, 2)
    assert np.all(np.diff(path.value) < 0)
    assert jax.tree.structure(path.params) == jax.tree.structure(params)
    columns, _ = factor(losses.sigmoid_cross_entropy, net.apply(params, state, X)[0], y)
    exact = jax.jit(lambda p: factors(net, p, state, X, columns, ()))(params)
    assert sorted(exact) == ["branch_0/dense_0", "dense_0", "residual_0/serial_0/dense_0"]
    for name, pair in exact.items():
        np.testing.assert_allclose(path.memory.pairs[name].a[1], pair.a, rtol=RTOL)
        np.testing.assert_allclose(path.memory.pairs[name].g[1], pair.g, atol=0.1 * np.abs(pair.g).max())


def test_scanned_is_looped_and_a_nan_member_ends_alone():
    method = kfac(decay=0.5)

    def problem(x):
        return of_network(NET, losses.softmax_cross_entropy, STATE, (x, LABELS))

    first = jax.jit(jax.vmap(lambda x: method.init(problem(x), PARAMS)))
    step = jax.vmap(lambda s, x: method.step(problem(x), s))
    scanned = jax.jit(lambda s, x: jax.lax.scan(lambda s, _: (step(s, x), None), s, None, 4)[0])
    xs = X + 0.1 * jnp.arange(4, dtype=FLOAT)[:, None, None]
    bad = xs.at[2, 5, 1].set(jnp.nan)
    sound, hurt = (scanned(first(x), x) for x in (xs, bad))
    assert hurt.outcome.tolist() == [outcomes.RUNNING, outcomes.RUNNING, outcomes.NON_FINITE, outcomes.RUNNING]
    for a, b in zip(jax.tree.leaves(sound), jax.tree.leaves(hurt), strict=True):
        np.testing.assert_array_equal(np.delete(a, 2, 0), np.delete(b, 2, 0))
    looped, once = first(xs), jax.jit(step)
    for _ in range(4):
        looped = once(looped, xs)
    for a, b in zip(jax.tree.leaves(sound), jax.tree.leaves(looped), strict=True):
        np.testing.assert_array_equal(a, b)


def test_where_nothing_lowers_the_value_it_says_so():
    """At a linear layer's minimum in float32 the steps end; the next batch starts with the λ that was."""
    net = jn.dense(3)
    params, state = net.init(jax.random.key(1), (3,))
    batch = X.astype(jnp.float32), VALUES.astype(jnp.float32)
    problem = of_network(net, losses.squared_error, state, batch)
    path = steps(kfac(), problem, jax.tree.map(lambda p: p.astype(jnp.float32), params), 60)
    assert path.outcome[-1] == outcomes.DAMPING_EXHAUSTED
    assert np.all(np.diff(path.value) <= 0)
    assert path.memory.damping[-1] < 1
    assert np.max(np.abs(ravel_pytree(jax.tree.map(lambda g: g[-1], path.gradient))[0])) < 1e-5


@pytest.mark.parametrize(
    ("net", "spec", "loss", "message"),
    [
        (jn.serial(jn.dense(3), jn.layer_norm()), (3,), "squared_error", r"layer_norm.*layer_norm_0.*dense layers"),
        (jn.serial(jn.dense(3), jn.flatten()), (2, 3), "squared_error", r"dense\(3\) on inputs of shape \(12, 2, 3\)"),
        (NET, (3,), "absolute_error", "absolute_error; expected one whose curvature"),
    ],
    ids=["layer", "rows", "loss"],
)
def test_what_does_not_fit_is_refused(net, spec, loss, message):
    params, state = net.init(jax.random.key(0), spec)
    x = jnp.ones((12, *spec), FLOAT)
    y = jnp.zeros(net.apply(params, state, x)[0].shape, FLOAT)
    method, problem = kfac(), of_network(net, getattr(losses, loss), state, (x, y))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda p: method.init(problem, p), params)


def test_settings_out_of_range_are_refused():
    for arguments in ({"damping": -1.0}, {"decay": 1.0}, {"samples": 0}, {"samples": True}, {"damping": float("nan")}):
        with pytest.raises(ValueError, match="kfac: got"):
            kfac(**arguments)
    with pytest.raises(ValueError, match="kfac, which needs network"):
        minimize(lambda p: jnp.sum(p**2), jnp.ones(2), method=kfac())
