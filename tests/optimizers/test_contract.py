"""Every rule of `jaxnet.optimizers`, and optax's that stand in its table, through one list of checks."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnet import optimizers, schedules

pytestmark = pytest.mark.numerical
FLOAT = jnp.result_type(float)
EPS = float(jnp.finfo(FLOAT).eps)

OURS = {  # name: its rule for a rate; (a rate that suits it on the quadratic below)
    "adadelta": (lambda rate: optimizers.adadelta(epsilon=rate), 1e-4),
    "adagrad": (optimizers.adagrad, 0.5),
    "adam": (optimizers.adam, 0.02),
    "adam, inside": (lambda rate: optimizers.adam(rate, placement="inside"), 0.02),
    "adam, folded": (lambda rate: optimizers.adam(rate, placement="folded"), 0.02),
    "adamax": (optimizers.adamax, 0.02),
    "amsgrad": (optimizers.amsgrad, 0.02),
    "averaged_momentum": (optimizers.averaged_momentum, 0.1),
    "centered_rmsprop": (optimizers.centered_rmsprop, 0.01),
    "momentum": (optimizers.momentum, 0.01),
    "nesterov": (optimizers.nesterov, 0.01),
    "rmsprop": (optimizers.rmsprop, 0.01),
    "rmsprop, outside": (lambda rate: optimizers.rmsprop(rate, placement="outside"), 0.01),
    "rmsprop_nesterov": (lambda rate: optimizers.rmsprop_nesterov(rate, momentum=0.5), 0.01),
}
OPTAX = {
    "optax.adamw": (lambda rate: optax.adamw(rate, weight_decay=0.0), 0.02),
    "optax.lion": (lambda rate: optax.lion(rate, weight_decay=0.0), 0.01),
    "optax.nadam": (optax.nadam, 0.02),
    "optax.sgd": (optax.sgd, 0.1),
}
NOT_RULES = {  # each has tests of its own
    "averaged_parameters", "exponential_average", "lookahead", "max_norm", "nesterov_parameters", "non_negative",
    "norm_ball", "polyak_average", "projected", "proximal_l1", "stochastic_weight_average",
    *(set(optimizers.__all__) & set(optimizers.second_order.__all__)),
}  # fmt: skip
RULES = {**OURS, **OPTAX}
every_rule = pytest.mark.parametrize("name", RULES)


def promotion(name):
    """Ours keep to strict promotion; optax needs jax's standard one."""
    return jax.numpy_dtype_promotion("strict" if name in OURS else "standard")


def start(dtype=FLOAT):
    """Six parameters of three curvatures; the gradient of the last is always 0."""
    rng = np.random.default_rng(0)
    return {"w": jnp.asarray(rng.normal(size=(2, 2)) + 1, dtype), "b": jnp.asarray([1.0, 1.0], dtype)}


def gradient(params):
    curvature = {"w": jnp.asarray([[1.0, 2.0], [4.0, 1.0]]), "b": jnp.asarray([2.0, 0.0])}
    return jax.tree.map(lambda a, c: a * c.astype(a.dtype), params, curvature)


def loss(params):
    return sum(jnp.sum(a * g) for a, g in zip(*map(jax.tree.leaves, (params, gradient(params))), strict=True)) / 2


def one_step(name, rate, params, state):
    updates, state = RULES[name][0](rate).update(gradient(params), state, params)
    with jax.numpy_dtype_promotion("standard"):
        return optax.apply_updates(params, updates), state


def whole_run(name, rate, params, steps):
    def step(carry, _):
        return one_step(name, rate, *carry), None

    state = RULES[name][0](rate).init(params)
    return jax.lax.scan(step, (params, state), None, length=steps)[0]


@functools.cache
def compiled(name, steps):
    """The run, compiled with its rate as an argument."""
    run = jax.jit(lambda rate, params: whole_run(name, rate, params, steps))
    with promotion(name):
        return run.lower(jnp.zeros((), FLOAT), start()).compile()


def test_every_rule_that_is_exported_is_here():
    assert {name.split(",")[0] for name in OURS} | NOT_RULES == set(optimizers.__all__)
    assert optimizers.__all__ == sorted(optimizers.__all__)


@every_rule
def test_a_quadratic_decreases_and_a_scan_is_the_loop_of_one_compiled_step(name):
    rate = jnp.asarray(RULES[name][1], FLOAT)
    params, state = compiled(name, 200)(rate, start())
    assert float(loss(params)) < 0.2 * float(loss(start()))
    traces = []

    def step(rate, params, state):
        traces.append(None)
        return one_step(name, rate, params, state)

    stepped, (now, memory) = jax.jit(step), (start(), RULES[name][0](rate).init(start()))
    with promotion(name):
        for _ in range(200):
            now, memory = stepped(rate, now, memory)
    assert len(traces) == 1, "compiled anew: a dtype, a weak type or the state's structure changed"
    for a, b in zip(*map(jax.tree.leaves, ((now, memory), (params, state))), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(isinstance(leaf, jax.Array) and not leaf.weak_type for leaf in jax.tree.leaves(memory))


@every_rule
def test_compiled_is_op_by_op_and_a_coordinate_without_gradient_stays(name):
    rate = jnp.asarray(RULES[name][1], FLOAT)
    params, _ = compiled(name, 3)(rate, start())
    now, state = start(), RULES[name][0](rate).init(start())
    with promotion(name):
        for _ in range(3):
            now, state = one_step(name, rate, now, state)
    for a, b in zip(*map(jax.tree.leaves, (now, params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=64 * EPS, atol=64 * EPS)
    assert float(now["b"][1]) == 1.0


@every_rule
def test_members_of_a_population_with_rates_of_their_own_are_the_runs_alone(name):
    rates = jnp.asarray([0.5, 1.0, 2.0], FLOAT) * RULES[name][1]
    with promotion(name):
        params, state = jax.jit(jax.vmap(lambda rate: whole_run(name, rate, start(), 3)))(rates)
    for i, rate in enumerate(rates):
        alone = compiled(name, 3)(rate, start())
        for a, b in zip(*map(jax.tree.leaves, ((params, state), alone)), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=256 * EPS, atol=64 * EPS)


@every_rule
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_parameters_keep_their_dtype(name, dtype):
    """Whatever the rate's; the state's dtypes don't change from step to step."""
    for rate in (0.01, jnp.asarray(0.01, jnp.float32)):
        optimizer = RULES[name][0](rate)
        state = jax.eval_shape(optimizer.init, start(dtype))
        with promotion(name):
            updates, after = jax.eval_shape(optimizer.update, start(dtype), state, start(dtype))
        if name in OURS:
            assert {u.dtype for u in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
            assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(
                lambda a: (a.shape, a.dtype), state
            )
        moved = jax.eval_shape(optax.apply_updates, start(dtype), updates)
        assert {p.dtype for p in jax.tree.leaves(moved)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize("name", OURS)
def test_gradients_of_zero_alone_move_nothing(name):
    """From the first step on, and in half precision, where ε vanishes beside nothing."""
    for dtype in (FLOAT, jnp.bfloat16):
        optimizer, zeros = RULES[name][0](RULES[name][1]), jnp.zeros(3, dtype)
        state = optimizer.init(zeros)
        for _ in range(2):
            updates, state = optimizer.update(zeros, state)
            np.testing.assert_array_equal(np.asarray(updates, np.float32), 0.0)


def test_averages_of_bfloat16_gradients_are_averages():
    """In bfloat16 0.999 is 1 and a sum soon stops growing; the state is float32."""
    optimizer, g = optimizers.adam(0.5), jnp.full(1, 2.0, jnp.bfloat16)
    state = optimizer.init(g)
    step = jax.jit(optimizer.update)
    for _ in range(300):
        update, state = step(g, state)
    np.testing.assert_allclose(np.asarray(update, np.float32), -0.5)
    np.testing.assert_allclose(state.slots["squares"], 4 * (1 - 0.999**300), rtol=1e-4)


@pytest.mark.parametrize("name", OURS)
def test_a_constant_schedule_is_its_number(name):
    rate = RULES[name][1]
    if name == "adadelta":
        pytest.skip("it has no rate")
    one, other = RULES[name][0](rate), RULES[name][0](schedules.constant(rate))
    states = one.init(start()), other.init(start())
    for _ in range(2):
        (u, first), (v, second) = one.update(start(), states[0]), other.update(start(), states[1])
        states = first, second
        for a, b in zip(*map(jax.tree.leaves, (u, v)), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.source("GB-8.3.2-alpha-schedule")
def test_schedules_count_steps_from_zero_and_momentum_may_be_one():
    rate, grow = schedules.power(1.0, -1.0), schedules.linear(0.0, 0.8, 2)
    optimizer, g = optimizers.momentum(rate, grow), jnp.ones(())
    state, seen = optimizer.init(g), []
    for _ in range(3):
        update, state = optimizer.update(g, state)
        seen.append(float(update))
    second = -(0.4 * 1 + 1 / 2)
    np.testing.assert_allclose(seen, [-1, second, 0.8 * second - 1 / 3], rtol=1e-6)


BAD = {
    "a negative rate": (lambda: optimizers.momentum(-0.1), "learning_rate=-0.1"),
    "a rate that is no number": (lambda: optimizers.adam(float("nan")), "learning_rate=nan"),
    "momentum 1": (lambda: optimizers.nesterov(0.1, 1.0), r"decay=1.0; expected 0 ≤ decay < 1"),
    "a decay of 1, which Goodfellow's algorithm 8.7 allows": (lambda: optimizers.adam(b2=1.0), "b2=1.0"),
    "epsilon 0": (lambda: optimizers.adagrad(0.1, 0.0), "epsilon=0.0; expected a number > 0"),
    "no such placement": (lambda: optimizers.adam(placement="above"), "placement='above'"),
    "no such placement either": (lambda: optimizers.rmsprop(0.1, placement="folded"), "placement='folded'"),
    "no look-ahead": (lambda: optimizers.nesterov_parameters(optax.sgd(0.1).init(1.0), 1.0), "0 look-aheads"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_sense_is_refused(case):
    function, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        function()
