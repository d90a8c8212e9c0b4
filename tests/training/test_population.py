"""A population is the `vmap` of `fit`: what a member is in any company, and what a compile serves."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from drawing import dense_cases, examples
from hypothesis import given

import jaxnet as jn
from jaxnet import losses, outcomes
from jaxnet.testing import compare_gradients

X64 = jax.config.jax_enable_x64
DTYPE = jnp.result_type(float)
EPS = float(jnp.finfo(DTYPE).eps)
SEEDS = [jax.random.fold_in(jax.random.key(3), seed) for seed in range(6)]


def labelled(n, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return jnp.asarray(rng.normal(size=(n, 4)) + np.eye(3, 4)[y], DTYPE), jnp.asarray(y, jnp.int32)


DATA = jn.Data(labelled(40, 0), labelled(30, 1))


def build(hp):
    net = jn.mlp([8, 3], dropout=hp["dropout"])
    optimizer = optax.adamw(hp["lr"], weight_decay=1e-3)
    return jn.program(net, losses.softmax_cross_entropy, optimizer, batch_size=16, patience=3)


def member(key, hp, data):
    return jn.fit(key, build(hp), data, epochs=8)


population = jax.jit(jax.vmap(member, in_axes=(0, 0, None)))


def hyperparameters(lr, dropout):
    return {"lr": jnp.asarray(lr, DTYPE), "dropout": jnp.asarray(dropout, DTYPE)}


HP = hyperparameters([1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5])


def at(tree, i):
    return jax.tree.map(lambda a: np.asarray(a)[i], tree)


@pytest.mark.numerical
@pytest.mark.newer
def test_a_member_in_any_order_and_beside_a_diverging_neighbour_equals_itself_bitwise():
    keys = jnp.stack(SEEDS)
    together = population(keys, HP, DATA)
    assert len(set(np.asarray(together.epochs_run).tolist())) > 1  # members end at different epochs
    order = np.array([4, 2, 0, 5, 1, 3])
    reordered = population(keys[order], at(HP, order), DATA)
    for place, i in enumerate(order):
        chex.assert_trees_all_equal(at(reordered, place), at(together, i))
    beside = population(keys, HP | {"lr": HP["lr"].at[2].set(1e30)}, DATA)
    assert int(beside.outcome[2]) == outcomes.DIVERGED
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(at(beside.params, 2)))
    for i in (0, 1, 3, 4, 5):
        chex.assert_trees_all_equal(at(beside, i), at(together, i))


@pytest.mark.parametrize("device", range(2))
def test_a_member_on_another_device_equals_itself_bitwise(device):
    keys = jnp.stack(SEEDS)
    moved = jax.device_put((keys, HP, DATA), jax.devices()[device])
    chex.assert_trees_all_equal(population(*moved), population(keys, HP, DATA))


def test_a_swept_hyperparameter_equals_a_fixed_one_bitwise():
    keys = jnp.stack(SEEDS)
    swept = population(keys, hyperparameters([0.02] * 6, [0.25] * 6), DATA)
    fixed = jax.jit(jax.vmap(lambda k, d: member(k, {"lr": 0.02, "dropout": 0.25}, d), in_axes=(0, None)))(keys, DATA)
    chex.assert_trees_all_equal(swept, fixed)


@pytest.mark.numerical
@pytest.mark.float64
@examples(4)
@given(dense_cases(max_depth=2, sizes=(1, 7)))
def test_one_gradient_at_another_width(case):
    """A member of a population of three and the same network alone differ by rounding only."""
    gradient = jn.loss_and_grad(case.net, case.loss)

    def of_three(params, state, batch, *, key=None, train=False):
        tripled = jax.tree.map(lambda a: jnp.stack([a, 2 * a, a]), params)
        (loss, state), grads = jax.vmap(lambda p: gradient(p, state, batch, key=key, train=train))(tripled)
        return (loss[2], state), jax.tree.map(lambda g: g[2], grads)

    report = compare_gradients(of_three, gradient, case.params, {}, case.batch, key=case.key, bound=64 * EPS)
    assert report, f"{case}\n{report}"


@pytest.mark.numerical
@pytest.mark.float64
def test_twenty_steps_at_another_width():
    one = jax.jit(lambda k, d: jn.fit(k, build(at(HP, 3)), d, epochs=7))
    many = jax.jit(jax.vmap(lambda k, d: jn.fit(k, build(at(HP, 3)), d, epochs=7), in_axes=(0, None)))
    alone, company = one(SEEDS[1], DATA), at(many(jnp.stack(SEEDS), DATA), 1)  # 7 epochs of 3 steps
    for a, b in zip(jax.tree.leaves(alone.history), jax.tree.leaves(company.history), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9 if X64 else 1e-3)


@pytest.mark.numerical
@pytest.mark.float64
@examples(8)
@given(dense_cases(max_depth=3, sizes=(2, 7), kinds=("dense",)))
def test_metamorphic_equalities_of_one_gradient(case):
    """Permuting the batch, and giving it twice, change nothing but rounding."""
    gradient = jn.backprop(case.net, case.loss)
    n = case.batch[0].shape[0]

    def on(rows):
        return lambda p, s, batch, *, key=None, train=False: gradient(p, s, jax.tree.map(lambda a: a[rows], batch))

    for rows in (np.arange(n)[::-1], np.concatenate([np.arange(n), np.arange(n)])):
        report = compare_gradients(on(rows), gradient, case.params, {}, case.batch)
        assert report, f"{case}\n{report}"


@pytest.mark.numerical
def test_permuted_and_rescaled_hidden_units():
    """Hidden units in another order give the same loss and the gradients in that order; a ReLU unit scaled by c > 0
    on its way in and 1/c on its way out computes the same."""
    net, loss = jn.mlp([8, 3]), losses.softmax_cross_entropy
    params, _ = net.init(SEEDS[0], (4,))
    gradient = jn.backprop(net, loss)
    order = np.random.default_rng(0).permutation(8)
    (value, _), grads = gradient(params, {}, DATA.train)

    def moved(tree):
        first, last = tree["dense_0"], tree["dense_1"]
        return {
            "dense_0": {"w": first["w"][:, order], "b": first["b"][order]},
            "dense_1": last | {"w": last["w"][order]},
        }

    (other, _), permuted = gradient(moved(params), {}, DATA.train)
    tolerance = {"rtol": 1e-12 if X64 else 64 * EPS, "atol": 1e-13 if X64 else 1e-7}
    np.testing.assert_allclose(other, value, **tolerance)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), permuted, moved(grads))

    c = 3.7
    scaled = {
        "dense_0": {k: v * c for k, v in params["dense_0"].items()},
        "dense_1": params["dense_1"] | {"w": params["dense_1"]["w"] / c},
    }
    np.testing.assert_allclose(
        net.apply(scaled, {}, DATA.train[0])[0], net.apply(params, {}, DATA.train[0])[0], **tolerance
    )


def compiles(function):
    """How often XLA compiled while `function()` ran."""
    count = []

    def listener(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            count.append(event)

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.block_until_ready(function())
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    return len(count)


def test_one_compile_serves_fifty_learning_rates():
    one = jax.jit(lambda key, lr, data: member(key, {"lr": lr, "dropout": 0.1}, data))
    rates = [jnp.asarray(r, DTYPE) for r in np.geomspace(1e-4, 1e-1, 50)]
    assert compiles(lambda: one(SEEDS[0], rates[0], DATA)) == 1
    assert compiles(lambda: [one(SEEDS[0], rate, DATA) for rate in rates[1:]]) == 0


@pytest.mark.newer
def test_a_second_fit_compiles_nothing():
    prog = build({"lr": 1e-2, "dropout": 0.0})
    jn.fit(SEEDS[0], prog, DATA, epochs=2)
    assert compiles(lambda: jn.fit(SEEDS[1], prog, DATA, epochs=2)) == 0
    numpy_data = jn.Data(*(tuple(np.asarray(a) for a in part) for part in (DATA.train, DATA.valid)))
    assert compiles(lambda: jn.fit(SEEDS[1], prog, numpy_data, epochs=2)) == 0


def test_no_key_is_used_twice():
    with jax.debug_key_reuse(True):
        jn.fit(SEEDS[0], build({"lr": 1e-2, "dropout": 0.5}), DATA, epochs=2)


def test_no_tracer_leaks():
    net = jn.serial(jn.dropout(0.5), jn.dense(3))  # each trace is searched for leaks: few equations
    prog = jn.program(net, losses.softmax_cross_entropy, optax.sgd(1e-2), batch_size=20, patience=3)
    with jax.checking_leaks():
        fitted = jn.fit(SEEDS[0], prog, DATA, epochs=1)
    assert int(fitted.epochs_run) == 1


def test_fit_takes_nothing_from_and_gives_nothing_to_the_host_while_it_runs():
    prog = build({"lr": 1e-2, "dropout": 0.5})
    jn.fit(SEEDS[0], prog, DATA, epochs=2)
    compiled = next(iter(prog.compiled.values()))
    with jax.transfer_guard("disallow"):
        jax.block_until_ready(compiled(SEEDS[0], DATA, None, epochs=2))


def test_carried_state_has_no_weak_types():
    prog = build({"lr": 1e-2, "dropout": 0.5})
    carry = jax.jit(prog.start)(SEEDS[0], DATA)
    after, _ = jax.jit(prog.epoch)(carry, DATA)
    for (path, before), now in zip(jax.tree_util.tree_leaves_with_path(carry), jax.tree.leaves(after), strict=True):
        name = jax.tree_util.keystr(path)
        assert (before.dtype, before.shape) == (now.dtype, now.shape), name
        assert jax.dtypes.issubdtype(before.dtype, jax.dtypes.prng_key) or not (before.weak_type or now.weak_type), name


def test_a_seed_decides_alone():
    prog = build({"lr": 1e-2, "dropout": 0.5})
    chex.assert_trees_all_equal(
        jn.fit(SEEDS[0], prog, DATA, epochs=2), jn.fit(SEEDS[0], build({"lr": 1e-2, "dropout": 0.5}), DATA, epochs=2)
    )
    other = jn.fit(SEEDS[1], prog, DATA, epochs=2)
    assert not np.array_equal(other.history["train_loss"], jn.fit(SEEDS[0], prog, DATA, epochs=2).history["train_loss"])


def test_eager_vmap_over_a_closed_over_rate():
    """Without jit around it, and with tracers in the Program's closure."""
    rates = jnp.asarray([1e-3, 1e-2], DTYPE)
    fitted = jax.vmap(lambda lr: jn.fit(SEEDS[0], build({"lr": lr, "dropout": 0.0}), DATA, epochs=3))(rates)
    alone = jn.fit(SEEDS[0], build({"lr": rates[1], "dropout": 0.0}), DATA, epochs=3)
    np.testing.assert_allclose(fitted.history["train_loss"][1], alone.history["train_loss"], rtol=1e-3)
    assert fitted.history["train_loss"][0, -1] > fitted.history["train_loss"][1, -1]
