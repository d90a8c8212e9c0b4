"""Averages of parameters and lookahead: their sums written out, optax's and the program that returns them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnet as jn
from jaxnet.optimizers import averaging
from jaxnet.optimizers.lookahead import lookahead

pytestmark = pytest.mark.numerical
FLOAT = jnp.result_type(float)
RTOL = 1e-12 if jax.config.jax_enable_x64 else 1e-5


def walk(optimizer, steps=20):
    """Parameters after each step, and the average then; gradients drawn."""
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(2, 3)), FLOAT), "b": jnp.asarray(rng.normal(size=3), FLOAT)}
    grads = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=(steps, *a.shape)), FLOAT), params)

    def step(carry, g):
        params, state = carry
        updates, state = optimizer.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), (params, averaging.averaged_parameters(state, params))

    with jax.numpy_dtype_promotion("standard"):
        _, (path, average) = jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), grads))(params)
    return np.asarray(path["w"], np.float64), np.asarray(average["w"], np.float64)


@pytest.mark.source("GB-8.7.3-EMA")
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_the_exponential_average_is_its_sum(decay):
    path, average = walk(optax.chain(optax.sgd(0.1), averaging.exponential_average(decay)))
    for t in (0, 1, 19):
        w = decay ** np.arange(t, -1, -1, dtype=float)
        np.testing.assert_allclose(average[t], np.tensordot(w / w.sum(), path[: t + 1], 1), rtol=RTOL, atol=RTOL)


@pytest.mark.source("GB-8.7.3-EMA")
def test_it_is_optaxs_average_with_its_bias_corrected():
    optimizer, reference = optax.chain(optax.sgd(0.1), averaging.exponential_average(0.9)), optax.ema(0.9, debias=True)
    path, average = walk(optimizer)
    state = reference.init(jnp.asarray(path[0], FLOAT))
    for theta, ours in zip(path, average, strict=True):
        with jax.numpy_dtype_promotion("standard"):
            theirs, state = reference.update(jnp.asarray(theta, FLOAT), state)
        np.testing.assert_allclose(ours, theirs, rtol=10 * RTOL, atol=10 * RTOL)


@pytest.mark.source("GB-8.7.3-polyak", "M-7.2.1")
def test_polyak_is_the_mean_of_all_and_weight_averaging_of_some():
    path, average = walk(optax.chain(optax.sgd(0.1), averaging.polyak_average()))
    for t in (0, 4, 19):
        np.testing.assert_allclose(average[t], path[: t + 1].mean(axis=0), rtol=RTOL, atol=RTOL)
    path, average = walk(optax.chain(optax.sgd(0.1), averaging.stochastic_weight_average(5, every=3)))
    np.testing.assert_array_equal(average[3], path[3])  # none yet: the parameters
    np.testing.assert_allclose(average[4], path[4], rtol=RTOL, atol=RTOL)
    np.testing.assert_array_equal(average[6], average[4])
    np.testing.assert_allclose(average[19], path[[4, 7, 10, 13, 16, 19]].mean(axis=0), rtol=RTOL, atol=RTOL)


@pytest.mark.source("GB-8.7.3-polyak")
def test_the_mean_finds_the_bottom_that_a_noisy_step_leaps_across():
    """On ½ w² with noisy gradients and a constant rate, w keeps its spread and its mean doesn't."""
    optimizer = optax.chain(optax.sgd(0.5), averaging.polyak_average())

    def run(key):
        def step(carry, noise):
            w, state = carry
            updates, state = optimizer.update(w + noise, state, w)
            return (optax.apply_updates(w, updates), state), None

        start = jnp.zeros((), FLOAT)
        carry, _ = jax.lax.scan(step, (start, optimizer.init(start)), jax.random.normal(key, (400,), FLOAT))
        return carry[0], averaging.averaged_parameters(carry[1], carry[0])

    last, mean = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 200))
    # var w → η/(2 − η) = 1/3; var of the mean → 1/T
    np.testing.assert_allclose(np.var(last), 1 / 3, rtol=0.4)
    np.testing.assert_allclose(np.var(mean), 1 / 400, rtol=0.4)


def test_a_program_validates_and_returns_the_average():
    """Against a hand-written loop over the same steps: here the mean of all parameters of one epoch."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)).astype(FLOAT), rng.normal(size=(12, 1)).astype(FLOAT)
    net, optimizer = jn.mlp([1]), optax.chain(optax.sgd(0.1), averaging.polyak_average())
    program = jn.program(net, jn.losses.squared_error, optimizer, batch_size=12, averaged=averaging.averaged_parameters)
    fitted = jn.fit(jax.random.key(0), program, jn.Data((x, y)), epochs=3)
    start = jn.fit(jax.random.key(0), jn.program(net, jn.losses.squared_error, optax.sgd(0.0), batch_size=12),
                   jn.Data((x, y)), epochs=1).params  # fmt: skip
    w, b = (np.asarray(start["dense_0"][name], np.float64) for name in "wb")
    path = []
    for _ in range(3):
        error = x @ w + b - y
        w, b = w - 0.1 * x.T @ error / 12, b - 0.1 * error.mean(axis=0)
        path.append(w)
    np.testing.assert_allclose(fitted.params["dense_0"]["w"], np.mean(path, axis=0), rtol=1e-5)


def test_lookahead_is_optaxs():
    rng = np.random.default_rng(1)
    start = jnp.asarray(rng.normal(size=5), FLOAT)
    grads = jnp.asarray(rng.normal(size=(13, 5)), FLOAT)
    ours = optax.chain(optax.sgd(0.1, momentum=0.9), lookahead(4, 0.3))
    theirs = optax.lookahead(optax.sgd(0.1, momentum=0.9), 4, 0.3)
    params, state = start, ours.init(start)
    pair = optax.LookaheadParams.init_synced(start)
    reference = theirs.init(pair)
    for g in grads:
        with jax.numpy_dtype_promotion("standard"):
            updates, state = ours.update(g, state, params)
            params = optax.apply_updates(params, updates)
            updates, reference = theirs.update(g, reference, pair)
            pair = optax.apply_updates(pair, updates)
        np.testing.assert_allclose(params, pair.fast, rtol=RTOL, atol=RTOL)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"got decay=1\.0"):
        averaging.exponential_average(1.0)
    with pytest.raises(ValueError, match="got every=0"):
        averaging.stochastic_weight_average(1, every=0)
    with pytest.raises(ValueError, match="got steps=0"):
        lookahead(0)
    params = jnp.zeros(2)
    two = optax.chain(averaging.polyak_average(), averaging.exponential_average(0.9))
    for optimizer, count in ((optax.adam(0.1), 0), (two, 2)):
        with pytest.raises(ValueError, match=f"got an optimizer with {count} averages"):
            averaging.averaged_parameters(optimizer.init(params), params)
    for transformation in (averaging.polyak_average(), lookahead(2)):
        with pytest.raises(ValueError, match="got params=None"):
            transformation.update(params, transformation.init(params))
