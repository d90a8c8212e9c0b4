"""Constraints: kept after every step of every optimizer, nearest points, exact zeros."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnet.optimizers import constraints

pytestmark = pytest.mark.numerical
FLOAT = jnp.result_type(float)
EPS = float(jnp.finfo(FLOAT).eps)
KEPT = {
    "norm_ball": (constraints.norm_ball(0.7), lambda w: np.sqrt(sum(np.sum(a**2) for a in w)) <= 0.7 * (1 + 16 * EPS)),
    "max_norm": (
        constraints.max_norm(0.7),
        lambda w: all(np.all(np.linalg.norm(a, axis=0) <= 0.7 * (1 + 16 * EPS)) for a in w),
    ),
    "non_negative": (constraints.non_negative(), lambda w: all(np.all(a >= 0) for a in w)),
}
OPTIMIZERS = {"sgd": optax.sgd(0.5), "momentum": optax.sgd(0.5, momentum=0.9), "adam": optax.adam(0.3)}


def drawn(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return {
        "dense_0": {
            "w": jnp.asarray(scale * rng.normal(size=(3, 4)), FLOAT),
            "b": jnp.asarray(rng.normal(size=4), FLOAT),
        },
        "dense_1": {
            "w": jnp.asarray(scale * rng.normal(size=(4, 2)), FLOAT),
            "b": jnp.asarray(rng.normal(size=2), FLOAT),
        },
    }


def weights(params):
    return [np.asarray(layer["w"], np.float64) for layer in params.values()]


def path(optimizer, params, steps=5):
    """The parameters after each step, on gradients drawn anew."""

    @jax.jit
    def step(params, state, grads):
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for seed in range(steps):
        params, state = step(params, state, drawn(100 + seed, 3.0))
        yield params


@pytest.mark.source("GB-7.2-projection", "GB-7.2-maxnorm-col", "GB-4.4-PROJ")
@pytest.mark.parametrize("inner", OPTIMIZERS)
@pytest.mark.parametrize("name", KEPT)
def test_after_any_step_of_any_optimizer_the_constraint_holds_and_biases_are_free(name, inner):
    constraint, kept = KEPT[name]
    constrained = path(optax.chain(OPTIMIZERS[inner], constraint), drawn(0))
    unconstrained = list(path(OPTIMIZERS[inner], drawn(0)))
    for params, free in zip(constrained, unconstrained, strict=True):
        assert kept(weights(params))
        assert not kept(weights(free))
        for layer in params:
            np.testing.assert_allclose(params[layer]["b"], free[layer]["b"], rtol=64 * EPS)  # another program


@pytest.mark.source("GB-7.2-projection")
@pytest.mark.parametrize("constraint", [constraints.norm_ball(1e3), constraints.max_norm(1e3)])
def test_inside_nothing_changes_a_bit(constraint):
    params, updates = drawn(0), drawn(1)
    jax.tree.map(np.testing.assert_array_equal, constraint.update(updates, constraint.init(params), params)[0], updates)


@pytest.mark.source("GB-7.2-maxnorm-col")
def test_a_capped_column_keeps_its_direction_and_the_others_their_bits():
    w = np.array([[3.0, 0.1], [4.0, 0.1]])
    params = {"w": jnp.asarray(w, FLOAT)}
    updates, _ = constraints.max_norm(1.0).update({"w": jnp.zeros((2, 2), FLOAT)}, optax.EmptyState(), params)
    after = np.asarray(params["w"] + updates["w"])
    np.testing.assert_allclose(after[:, 0], [0.6, 0.8], rtol=16 * EPS)
    np.testing.assert_array_equal(after[:, 1], np.asarray(params["w"])[:, 1])


@pytest.mark.source("GB-4.4-PROJ")
def test_projected_descent_ends_at_the_constrained_least_squares_solution():
    """On the sphere's surface (AᵀA + λI)x = Aᵀb for the λ of its KKT conditions, found by bisection."""
    rng = np.random.default_rng(0)
    a, b, radius = rng.normal(size=(20, 3)), rng.normal(size=20), 0.2
    low, high = 0.0, 1e6
    for _ in range(200):
        multiplier = (low + high) / 2
        x = np.linalg.solve(a.T @ a + multiplier * np.eye(3), a.T @ b)
        low, high = (multiplier, high) if np.linalg.norm(x) > radius else (low, multiplier)
    optimizer = optax.chain(optax.sgd(0.01), constraints.norm_ball(radius))
    A, B = jnp.asarray(a, FLOAT), jnp.asarray(b, FLOAT)

    def step(params, _):
        grads = {"w": A.T @ (A @ params["w"] - B)}
        updates, _ = optimizer.update(grads, optimizer.init(params), params)
        return optax.apply_updates(params, updates), None

    params, _ = jax.lax.scan(step, {"w": jnp.zeros(3, FLOAT)}, None, length=500)
    np.testing.assert_allclose(params["w"], x, rtol=1e-9 if jax.config.jax_enable_x64 else 1e-4)


@pytest.mark.source("GB-7.1.2-soft-threshold")
@pytest.mark.parametrize("scheduled", [False, True])
def test_proximal_descent_ends_at_the_soft_threshold_with_exact_zeros(scheduled):
    """½ Σ h_i (w_i − w*_i)² + α ‖w‖₁ with a diagonal Hessian: both signs, above and below α/h."""
    h, best, alpha, rate = np.array([1.0, 2.0, 0.5, 1.0]), np.array([2.0, -1.0, 0.8, -0.3]), 0.5, 0.2
    threshold = rate * alpha
    optimizer = optax.chain(
        optax.sgd(rate), constraints.proximal_l1((lambda step: threshold + 0 * step) if scheduled else threshold)
    )
    H, W = jnp.asarray(h, FLOAT), jnp.asarray(best, FLOAT)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update({"w": H * (params["w"] - W)}, state, params)
        return (optax.apply_updates(params, updates), state), None

    start = {"w": jnp.ones(4, FLOAT)}
    with jax.numpy_dtype_promotion("standard"):
        (params, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), None, length=400)
    expected = np.sign(best) * np.maximum(np.abs(best) - alpha / h, 0)
    np.testing.assert_allclose(params["w"], expected, rtol=64 * EPS, atol=64 * EPS)
    assert np.all(np.asarray(params["w"])[expected == 0] == 0)
    assert (expected == 0).sum() == 2


def test_constraints_may_be_swept_and_keep_dtypes():
    params = {"w": jnp.full((2, 2), 3, jnp.bfloat16)}

    def capped(limit):
        optimizer = constraints.max_norm(limit)
        return optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)[0]["w"]

    updates = jax.vmap(capped)(jnp.asarray([1.0, 100.0]))
    assert updates.dtype == jnp.bfloat16
    assert np.all(np.asarray(updates[0], float) < 0)
    assert np.all(np.asarray(updates[1], float) == 0)


def test_a_zero_column_stays_zero_and_parameters_are_needed():
    params = {"w": jnp.zeros((3, 2), FLOAT)}
    for make in (constraints.max_norm, constraints.norm_ball):
        updates, _ = make(1.0).update(params, optax.EmptyState(), params)
        assert np.all(updates["w"] == 0)
        with pytest.raises(ValueError, match="got params=None"):
            make(1.0).update(params, optax.EmptyState())
        with pytest.raises(ValueError, match=r"got matrices named \['kernel'\]; expected weights named 'w'"):
            make(1.0).update({"kernel": jnp.ones((2, 2))}, optax.EmptyState(), {"kernel": jnp.ones((2, 2))})
