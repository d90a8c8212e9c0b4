"""Updates that aren't finite: dropped, and nothing else changed; counted; found again, down to the operation."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnet as jn
from jaxnet import layers, losses, outcomes
from jaxnet.optimizers import averaged_parameters, exponential_average
from jaxnet.training.batches import cuts, shuffled
from jaxnet.training.diagnosis import first_nonfinite
from jaxnet.training.nonfinite import CAUSES, counted, no_faults, policy_of, reduce, skip, sound
from jaxnet.training.step import train_state, train_step

DTYPE = jnp.result_type(float)
KEY = jax.random.key(3)
HUGE = float(jnp.finfo(DTYPE).max)
LARGE = HUGE**0.5 * 1e3  # its square overflows
BATCH = 8
ADAM = optax.adam(0.05)


def examples(n=24, bad=(), value=10.0, weights=False):
    """(x, y[, weight]) of a linear law with |y| < 5, but at `bad` the targets are `value`."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (n, 3))
    y = x @ np.array([[1.0, 0.3], [-2.0, 0.5], [0.5, 1.0]])
    y[list(bad)] = value
    made = jnp.asarray(x, DTYPE), jnp.asarray(y, DTYPE)
    return (*made, jnp.asarray(rng.random(n) + 0.5, DTYPE)) if weights else made


def planted(output, target):
    """The squared error; targets that are finite, but make something overflow: above 9 the loss is NaN, at 9 the
    gradient, at 8 the square of the gradient, at 7 a large step."""
    slope = jnp.where(target == 8, LARGE, jnp.where(target == 7, HUGE / 1e5, 0.0)).astype(output.dtype)
    value = (output - target) ** 2 * jnp.sqrt((9 - target) + (output - output)) / 3 + slope * output
    return jnp.sum(value, axis=1)


NET = jn.mlp([8, 2], activation="tanh")
NORMED = jn.serial(jn.dense(8), jn.batch_norm(), jn.dense(2))
DROPPING = jn.mlp([8, 2], activation="tanh", dropout=0.2)
GRADIENT = jn.loss_and_grad(NET, planted)


def planted_program(optimizer=None, net=NET, **options):
    return jn.program(net, planted, optimizer or ADAM, **{"batch_size": BATCH} | options)


@cache
def steps(net, optimizer):
    """The step that takes everything and the one that doesn't, compiled."""
    gradient = jn.loss_and_grad(net, planted)
    return tuple(jax.jit(train_step(gradient, optimizer, policy)) for policy in ("stop", "skip"))


def epochs_of(start, epoch, data, count):
    """The carry after each epoch and its row, driven from the host."""
    carry, found = start(KEY, data), []
    for _ in range(count):
        found.append(epoch(carry, data))
        carry = found[-1][0]
    return found


CASES = {  # cause -> (network, optimizer, the bad target, the factor of its inputs)
    "loss": (NET, ADAM, 10.0, 1.0),
    "layer state": (NORMED, ADAM, 1.0, LARGE),
    "gradient": (NET, ADAM, 9.0, 1.0),
    "optimizer state": (NET, ADAM, 8.0, 1.0),
    "parameters": (NET, optax.sgd(1e6), 7.0, 1.0),
}


@pytest.mark.numerical
@pytest.mark.parametrize("cause", CASES)
def test_a_bad_update_changes_nothing_but_the_counts(cause):
    net, optimizer, value, factor = CASES[cause]
    x, y = examples(BATCH)
    bad = x.at[2].multiply(factor), y.at[2].set(value)
    params, state = net.init(KEY, (3,))
    plain, guarded = steps(net, optimizer)
    one, two = (train_state(params, state, optimizer, KEY, policy) for policy in ("stop", "skip"))
    alone = cause == "parameters"  # such a rate suits no other batch
    for batch in (bad,) if alone else ((x, y), bad, (x, y)):
        before, (two, row) = two, guarded(two, batch)
        assert row["skipped"] == (batch is bad)
        if batch is bad:
            one = one._replace(step=one.step + 1)
            chex.assert_trees_all_equal(two._replace(faults=()), before._replace(faults=(), step=one.step))
        else:
            one, _ = plain(one, batch)
    if net is NORMED:  # one sum of squares is fused otherwise
        chex.assert_trees_all_close(two._replace(faults=(), key=()), one._replace(key=()), rtol=1e-5)
    else:
        chex.assert_trees_all_equal(two._replace(faults=()), one)
    poisoned, _ = plain(one, bad)
    assert not all(np.isfinite(a).all() for a in jax.tree.leaves((poisoned.params, poisoned.state, poisoned.opt_state)))
    faults = two.faults
    assert CAUSES[int(faults.cause)] == cause
    assert (int(faults.skipped), int(faults.longest)) == (1, 1)
    assert (int(faults.first), int(faults.in_a_row)) == ((0, 1) if alone else (1, 0))


def looped(net, optimizer, train, epochs):
    """The run in plain Python with the step that takes everything; bad updates are looked for by NumPy and undone."""
    step, _ = steps(net, optimizer)
    params, state = jax.jit(net.init, static_argnums=1)(jax.random.fold_in(KEY, 0), (3,))
    now = train_state(params, state, optimizer, jax.random.fold_in(KEY, 2))
    dropped, history = [], []
    for epoch in range(1, epochs + 1):
        order = np.asarray(shuffled(jax.random.fold_in(jax.random.fold_in(KEY, 1), epoch), len(train[1])))
        seen = []
        for cut in cuts(len(order), BATCH):
            for rows in order[cut.start :][: cut.batches * cut.size].reshape(-1, cut.size):
                batch = tuple(a[rows] for a in train)
                after, row = step(now, batch)
                if all(np.isfinite(a).all() for a in jax.tree.leaves((row, after.params))):
                    now = after
                    seen.append((float(row["loss"]), float(batch[2].sum()) if len(batch) == 3 else len(rows)))
                else:
                    dropped.append((epoch, int(now.step) - 3 * (epoch - 1) + 1, rows))
                    now = now._replace(step=now.step + 1)
        losses_seen, counts = zip(*seen, strict=True) if seen else ([np.nan], [1])
        history.append(np.average(losses_seen, weights=counts))
    return now, dropped, history


@pytest.mark.numerical
def test_skip_is_the_same_training_without_that_batchs_update():
    train = examples(23, bad=[5])  # in batches of 8, 8 and 7
    now, dropped, history = looped(DROPPING, ADAM, train, 3)
    assert len(dropped) == 3
    program, data = planted_program(ADAM, DROPPING, nonfinite="skip"), jn.Data(train)
    start, epoch = jax.jit(program.start), jax.jit(program.epoch)
    carries, rows = zip(*epochs_of(start, epoch, data, 3), strict=True)
    carry = carries[-1]
    chex.assert_trees_all_equal((carry.params, carry.train.opt_state), (now.params, now.opt_state))
    np.testing.assert_allclose([row["train_loss"] for row in rows], history, rtol=1e-5)
    assert [int(row["skipped"]) for row in rows] == [1, 2, 3]
    assert carry.metrics["skipped"] == 3
    assert carry.outcome == outcomes.EPOCHS_EXHAUSTED
    assert int(carry.train.faults.first) == dropped[0][1] - 1

    healthy = examples(23)
    now, dropped, history = looped(DROPPING, ADAM, healthy, 3)
    carry, row = epochs_of(start, epoch, jn.Data(healthy), 3)[-1]
    assert not dropped
    chex.assert_trees_all_equal((carry.params, carry.train.opt_state), (now.params, now.opt_state))
    np.testing.assert_allclose(row["train_loss"], history[-1], rtol=1e-5)
    assert row["skipped"] == 0


@pytest.mark.long
def test_a_batch_is_dropped_and_found_again_and_one_without_weight_is_neither():
    train = examples(23, bad=[5], weights=True)
    now, dropped, history = looped(NET, ADAM, train, 1)
    program = planted_program(nonfinite="skip")
    start, epoch = jax.jit(program.start), jax.jit(program.epoch)
    for weight, skipped in ((train[2], 1), (train[2].at[dropped[0][2]].set(0), 0)):
        carry, row = epochs_of(start, epoch, jn.Data((*train[:2], weight)), 1)[0]
        chex.assert_trees_all_equal((carry.params, carry.train.opt_state), (now.params, now.opt_state))
        np.testing.assert_allclose(row["train_loss"], history[0], rtol=1e-5)
        assert row["skipped"] == skipped
    found = first_nonfinite(KEY, program, jn.Data(train), epochs=3)
    assert (found.epoch, found.step, found.cause, found.row) == (*dropped[0][:2], "loss", 5)
    np.testing.assert_array_equal(found.rows, dropped[0][2])
    assert "sqrt(-1) = nan in the forward pass of the loss" in str(found)


def test_stop_carries_and_computes_nothing_for_it():
    data = jn.Data(examples())
    default, stop = planted_program(), planted_program(nonfinite="stop")
    carry = jax.eval_shape(default.start, KEY, data)
    assert carry.train.faults == ()
    assert carry.metrics.keys() == {"train_loss"}
    one, other = (jax.jit(p.epoch).lower(carry, data).as_text() for p in (default, stop))
    assert one == other


def test_more_in_a_row_than_the_limit_end_the_run():
    """Three batches an epoch, all bad: five in a row are allowed, the sixth ends the second epoch."""
    train = examples(bad=range(24))
    fitted = jn.fit(KEY, planted_program(nonfinite=skip(limit=5)), jn.Data(train), epochs=5)
    assert (int(fitted.epochs_run), int(fitted.best_epoch), int(fitted.outcome)) == (2, 1, outcomes.DIVERGED)
    chex.assert_trees_all_equal(fitted.params, NET.init(jax.random.fold_in(KEY, 0), (3,))[0])
    np.testing.assert_array_equal(fitted.history["skipped"], [3, 6, np.nan, np.nan, np.nan])
    assert np.isnan(fitted.history["train_loss"]).all()
    assert fitted.metrics["skipped"] == 6


def test_the_limit_is_of_those_in_a_row():
    """Bad and good updates as written: the most bad ones in a row are 3, and 2 at the end."""
    faults = no_faults(skip())
    for t, bad in enumerate((0, 1, 1, 1, 0, 0, 1, 0, 1, 1)):
        faults = counted(skip(), faults, jnp.int32(2 * bad), jnp.int32(t))
    assert [int(a) for a in (faults.skipped, faults.in_a_row, faults.longest, faults.first)] == [6, 2, 3, 1]
    assert [bool(sound(skip(limit), jnp.ones(()), faults)) for limit in (2, 3)] == [False, True]
    assert not sound(skip(3), jnp.array(jnp.inf), faults)  # the mean of finite losses overflowed


@pytest.mark.float64
@pytest.mark.numerical
def test_reduced_steps_are_those_of_the_algorithm():
    """Linear regression by SGD transcribed in NumPy: s ← f s after a bad batch, s ← min(1, s f^(−1/r)) after a good."""
    policy, rate = reduce(factor=0.25, recovery=2), 0.1
    net = jn.serial(jn.dense(2, bias=False))

    def value(output, target):
        return jnp.sum((output - target) ** 2 * jnp.where(target > 9, jnp.nan, 1.0), axis=1)

    optimizer = optax.sgd(rate)
    step = jax.jit(train_step(jn.loss_and_grad(net, value), optimizer, policy))
    params, state = net.init(KEY, (3,))
    now = train_state(params, state, optimizer, KEY, policy)
    x, y = (np.asarray(a) for a in examples(BATCH))
    w, s = np.asarray(params["dense_0"]["w"]), 1.0
    for bad in (0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0):
        now, row = step(now, (x, y + 20.0 * bad))
        assert bool(row["skipped"]) == bool(bad)
        if bad:
            s *= 0.25
        else:
            w = w - s * rate * 2 * x.T @ (x @ w - y) / BATCH
            s = min(1.0, 2.0 * s)
        np.testing.assert_allclose(now.params["dense_0"]["w"], w, rtol=1e-12)
        np.testing.assert_allclose(now.faults.scale, s, rtol=1e-12)
    assert s == 1


def test_reduce_in_a_run():
    """The scale after three epochs of three batches, one of them bad."""
    train = examples(bad=[5])
    _, dropped, _ = looped(NET, ADAM, train, 3)
    at, s = [3 * (epoch - 1) + step for epoch, step, _ in dropped], 1.0
    for t in range(1, 10):
        s = 0.5 * s if t in at else min(1.0, s * 2**0.25)
    program, data = planted_program(nonfinite=reduce(recovery=4)), jn.Data(train)
    carry, row = epochs_of(jax.jit(program.start), jax.jit(program.epoch), data, 3)[-1]
    np.testing.assert_allclose(carry.train.faults.scale, s, rtol=1e-6)
    assert row["skipped"] == 3


def test_a_members_policy_leaves_its_neighbours_alone():
    data = jn.Data(examples())

    @jax.jit
    def population(rates):
        def member(rate):
            return jn.fit(KEY, planted_program(optax.sgd(rate), nonfinite="reduce"), data, epochs=3)

        return jax.vmap(member)(rates)

    alone, beside = (population(jnp.array([0.01, wild, 0.03], DTYPE)) for wild in (0.02, HUGE / 10))
    np.testing.assert_array_equal(alone.metrics["skipped"], 0)
    assert beside.metrics["skipped"][1] > 0
    one, other = (jax.tree.map(lambda a: a[jnp.array([0, 2])], fitted) for fitted in (alone, beside))
    chex.assert_trees_all_equal(one, other)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(beside.params))


def test_a_batch_without_weight_is_never_judged():
    x, y = examples(BATCH, bad=[0])
    params, state = NET.init(KEY, (3,))
    step = jax.jit(train_step(GRADIENT, optax.adam(0.1), "reduce"))
    before, row = step(train_state(params, state, optax.adam(0.1), KEY, "reduce"), (x, y, jnp.ones(BATCH, DTYPE)))
    assert row["skipped"]
    after, row = step(before, (x, y, jnp.zeros(BATCH, DTYPE)))
    assert not row["skipped"]
    chex.assert_trees_all_equal(after, before._replace(step=before.step + 1))


def test_parameters_in_bfloat16():
    x, y = (a.astype(jnp.bfloat16) for a in examples(BATCH))
    params, state = jax.tree.map(lambda a: a.astype(jnp.bfloat16), NET.init(KEY, (3,)))
    optimizer = optax.adam(0.05)
    step = jax.jit(train_step(jn.loss_and_grad(NET, losses.squared_error), optimizer, "reduce"))
    before = train_state(params, state, optimizer, KEY, "reduce")
    after, row = step(before, (x, y))
    assert not row["skipped"]
    chex.assert_trees_all_equal_shapes_and_dtypes(after, before)
    spoiled, row = step(after, (x, y.at[0].set(3e38)))
    assert row["skipped"]
    chex.assert_trees_all_equal(spoiled.opt_state, after.opt_state)


@pytest.mark.parametrize("name", ["line search", "infinity as none yet"])
def test_optimizers_that_look_at_the_loss(name):
    """A line search calls the loss again; a plateau's best value is inf before there is one."""
    optimizer = {
        "line search": optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(5)),
        "infinity as none yet": optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(accumulation_size=4)),
    }[name]
    params, state = NET.init(KEY, (3,))
    step = jax.jit(train_step(GRADIENT, optimizer, "skip"))
    before = train_state(params, state, optimizer, KEY, "skip")
    x, y = examples(BATCH)
    after, row = step(before, (x, y))
    assert not row["skipped"]
    assert not np.array_equal(after.params["dense_0"]["w"], params["dense_0"]["w"])
    spoiled, row = step(after, (x, y.at[0].set(10.0)))
    assert row["skipped"]
    chex.assert_trees_all_equal(spoiled.opt_state, after.opt_state)


def backward_of_root(params, state, x, dy, *, key=None, train=False):
    return dy * 0.5 / jnp.sqrt(x), {}  # not finite below 0, where apply takes care


ROOT = layers.Layer(
    "root",
    lambda key, spec: ({}, {}),
    lambda params, state, x, *, key=None, train=False: (jnp.sqrt(jnp.maximum(x, 1e-3)), state),
    backward_of_root,
)


def test_what_only_a_hand_written_backward_makes_is_found():
    net, optimizer = jn.serial(jn.dense(4), ROOT, jn.dense(2)), optax.sgd(0.01)
    program = jn.program(
        net, losses.squared_error, optimizer, batch_size=BATCH, gradient=jn.backprop(net, losses.squared_error)
    )
    found = first_nonfinite(KEY, program, jn.Data(examples()), epochs=2)
    assert (found.epoch, found.step, found.cause) == (1, 1, "gradient")
    assert found.path.startswith("dense_0/")
    assert (found.explanation.layer, found.explanation.operation) == ("root_0", "sqrt")
    assert found.explanation.backward
    by_grad = jn.program(net, losses.squared_error, optimizer, batch_size=BATCH)
    assert first_nonfinite(KEY, by_grad, jn.Data(examples()), epochs=2) is None


def test_what_the_optimizer_makes_is_said():
    data = jn.Data(examples(bad=[7], value=8.0))
    found = first_nonfinite(KEY, planted_program(optax.adam(1e-30)), data, epochs=2)
    assert (found.epoch, found.cause, found.value) == (1, "optimizer state", np.inf)
    assert found.path.startswith("0/nu/")
    assert 7 in found.rows
    assert "in the optimizer's update" in str(found)
    assert found.explanation  # the gradient is finite


@pytest.mark.long
def test_a_studys_table_has_the_number():
    def build(hp):
        return planted_program(optax.sgd(hp["lr"]), nonfinite=skip(3))

    study = jn.sweep(build, {"lr": [0.01, HUGE / 10]}, data=jn.Data(examples()), epochs=2, seeds=1)
    assert study.columns["skipped"][0] == 0
    assert study.columns["skipped"][1] > 3


def test_settings_are_checked():
    for make in (lambda: skip(0), lambda: reduce(1.0), lambda: reduce(recovery=0), lambda: policy_of("raise")):
        with pytest.raises(ValueError, match="got"):
            make()
    for make in (lambda: skip(1.5), lambda: policy_of(True), lambda: policy_of(None)):
        with pytest.raises(TypeError, match="got"):
            make()
    averaging = optax.chain(optax.sgd(0.1), exponential_average(0.9))
    with pytest.raises(ValueError, match='got nonfinite="reduce" with averaged parameters'):
        planted_program(averaging, averaged=averaged_parameters, nonfinite="reduce")
    with pytest.raises(ValueError, match="isn't made of steps"):
        first_nonfinite(KEY, jn.whole(lambda key, hp, data: {"a": 1.0})({}), jn.Data(examples()), epochs=1)
