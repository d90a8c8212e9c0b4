"""program_full_batch: its objective, how its runs end, minibatches, what is refused, populations and studies."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from studies import assert_same, assert_same_members, flat, leaves

import jaxnet as jn
from jaxnet import losses, outcomes
from jaxnet.optimizers.second_order.lbfgs import lbfgs
from jaxnet.optimizers.second_order.levenberg_marquardt import levenberg_marquardt
from jaxnet.optimizers.second_order.method import Move, method
from jaxnet.optimizers.second_order.minimization import minimize
from jaxnet.optimizers.second_order.newton import newton
from jaxnet.optimizers.second_order.of_network import of_network
from jaxnet.testing.guards import compiles, no_leaks
from jaxnet.training.batches import cuts, shuffled
from jaxnet.training.full_batch import program_full_batch

DTYPE = jnp.result_type(float)
EPS = float(jnp.finfo(DTYPE).eps)
KEY = jax.random.key(5)
RUNNING = np.int32(outcomes.RUNNING)
NET = jn.mlp([4, 1], activation="tanh")
LINE = jn.mlp([1])


def descent(rate):
    """θ ← θ − rate · g."""

    def move(problem, state):
        params = jax.tree.map(lambda p, g: p - jnp.asarray(rate, p.dtype) * g, state.params, state.gradient)
        return Move(params, *problem.value_and_grad(params), (), 1)

    return method("descent", lambda *_: (), move)


SLOW = descent(0.1)


def waves(n=40, seed=0, weights=False):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, size=(n, 2))
    y = np.sin(3 * x[:, :1]) * x[:, 1:] + 0.05 * rng.normal(size=(n, 1))
    parts = (x, y, rng.uniform(0.1, 2.0, n))[: 3 if weights else 2]
    return tuple(a.astype(DTYPE) for a in parts)


def line(n=20):
    x = np.linspace(-1, 1, n)[:, None].astype(DTYPE)
    return x, 3 * x


def regression(how=SLOW, net=NET, loss=losses.squared_error, **options):
    return program_full_batch(net, loss, method=how, **options)


def at(tree, i):
    return jax.tree.map(lambda a: np.asarray(a)[i], tree)


# ── the objective and the rules of a run ────────────────────────────────────────────────────────────────────────


@pytest.mark.numerical
@pytest.mark.float64
def test_a_run_is_a_minimization_of_the_objective_written_out():
    """Of weighted examples picked by rows, with repeats; l2 on the weights alone; the same path as `minimize`."""
    x, y, w = waves(weights=True)
    rows = np.array([*range(25), 3, 3, 7])

    def objective(params):
        first, last = params["dense_0"], params["dense_1"]
        output = jnp.tanh(x[rows] @ first["w"] + first["b"]) @ last["w"] + last["b"]
        squares = jnp.sum(w[rows] * jnp.sum((output - y[rows]) ** 2, axis=1)) / 2
        return squares / w[rows].sum() + 0.1 / 2 * (jnp.sum(first["w"] ** 2) + jnp.sum(last["w"] ** 2))

    how = descent(0.5)
    fitted = jn.fit(KEY, regression(how, l2=0.1, gradient_tolerance=3e-3), jn.Data((x, y, w), rows=rows), epochs=200)
    params, _ = jax.jit(partial(NET.init, spec=(2,)))(jax.random.fold_in(KEY, 0))
    found = minimize(objective, params, method=how, steps=200, gradient_tolerance=3e-3)
    assert int(fitted.outcome) == int(found.outcome) == outcomes.CONVERGED
    ran = int(fitted.epochs_run)
    assert int(fitted.best_epoch) == ran == int(found.iterations) < 200
    for name, other in (("train_loss", "value"), ("gradient_norm", "gradient_norm")):
        np.testing.assert_allclose(fitted.history[name], found.history[other][1:], rtol=1e-9)
    np.testing.assert_allclose(fitted.history["train_loss"][ran - 1], objective(fitted.params), rtol=50 * EPS)
    gradient = jax.jit(jax.grad(objective))(fitted.params)
    assert max(float(jnp.max(jnp.abs(g))) for g in jax.tree.leaves(gradient)) <= 3e-3 * (1 + 1e-3)
    assert np.isnan(fitted.history["train_loss"][ran:]).all()
    assert fitted.metrics["gradient_norm"] == fitted.history["gradient_norm"][ran - 1] <= 3e-3
    sentence = outcomes.describe(fitted.outcome, fitted.epochs_run)
    assert sentence == f"converged at iteration {ran}: no entry of the gradient exceeds gradient_tolerance"


@pytest.fixture(scope="module")
def patient():
    """Descent towards the line 3 x, on the way past 1.5 x, which the validation set has; its program, data, start."""
    run = regression(descent(0.3), net=LINE, patience=4)
    data = jn.Data(line(), (line()[0], line()[1] / 2))
    params = {"dense_0": {"w": np.zeros((1, 1), DTYPE), "b": np.zeros(1, DTYPE)}}
    return jn.fit(KEY, run, data, epochs=40, params=params), run, data, params


def test_patience_keeps_the_best_validated_parameters_as_in_program(patient):
    fitted, _, data, _ = patient
    best, ran = int(fitted.best_epoch), int(fitted.epochs_run)
    curvature = float(np.mean(data.train[0] ** 2))
    slopes = 3 * (1 - (1 - 0.3 * curvature) ** np.arange(41))
    assert best == int(np.argmin(np.abs(slopes - 1.5)))
    assert (int(fitted.outcome), ran) == (outcomes.STOPPED_EARLY, best + 4)
    np.testing.assert_allclose(fitted.params["dense_0"]["w"], slopes[best], rtol=1e-5)
    np.testing.assert_allclose(
        fitted.history["train_loss"][:ran], curvature / 2 * (slopes[1 : ran + 1] - 3) ** 2, rtol=1e-5
    )
    np.testing.assert_allclose(
        fitted.history["valid_loss"][:ran], curvature / 2 * (slopes[1 : ran + 1] - 1.5) ** 2, rtol=1e-4
    )
    assert set(fitted.metrics) == {"train_loss", "gradient_norm", "valid_loss", "valid_r2"}
    for name, value in fitted.metrics.items():
        assert value == fitted.history[name][best - 1]


def test_run_equals_fit_bitwise(patient):
    fitted, run, data, params = patient
    seen = []
    one = jn.run(KEY, run, data, epochs=40, params=params, report=lambda epoch, row: seen.append(epoch))
    chex.assert_trees_all_equal(one, fitted)
    assert seen == list(range(1, int(fitted.epochs_run) + 1))


def test_a_second_fit_compiles_nothing_and_nothing_carried_is_weak(patient):
    _, run, data, params = patient
    other, params["dense_0"]["b"] = jax.random.fold_in(KEY, 1), params["dense_0"]["b"] + 1
    with compiles(at_most=0):
        jn.fit(other, run, data, epochs=40, params=params)
    carry = jax.jit(run.start)(KEY, data)
    after, row = jax.jit(run.epoch)(carry, data)
    for before, now in zip(jax.tree.leaves(carry), jax.tree.leaves(after), strict=True):
        assert (before.dtype, before.shape) == (now.dtype, now.shape)
        assert jax.dtypes.issubdtype(before.dtype, jax.dtypes.prng_key) or not (before.weak_type or now.weak_type)
    assert set(row) == {"train_loss", "gradient_norm", "valid_loss", "valid_r2"}
    with no_leaks():
        jn.fit(KEY, regression(descent(0.1), net=LINE), jn.Data(data.train), epochs=1)


def test_until(patient):
    data, params = patient[2:]
    run = jn.until(regression(descent(0.3), net=LINE), "train_loss", 0.05)
    ended = jn.fit(KEY, run, jn.Data(data.train), epochs=30, params=params)
    assert int(ended.outcome) == outcomes.TARGET_REACHED
    assert ended.metrics["train_loss"] <= 0.05 < ended.history["train_loss"][int(ended.epochs_run) - 2]


# ── outcomes ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_start_that_is_a_minimum_has_converged_at_epoch_0():
    params = {"dense_0": {"w": np.full((1, 1), 3.0, DTYPE), "b": np.zeros(1, DTYPE)}}
    data = jn.Data(line(), line())
    run = regression(newton(), net=LINE)
    for drive in (jn.fit, jn.run):
        fitted = drive(KEY, run, data, epochs=3, params=params)
        assert (int(fitted.outcome), int(fitted.epochs_run), int(fitted.best_epoch)) == (outcomes.CONVERGED, 0, 0)
        assert all(np.isnan(rows).all() for rows in fitted.history.values())
        assert fitted.metrics["train_loss"] == fitted.metrics["valid_loss"] == 0
        chex.assert_trees_all_equal(fitted.params, params)
        assert outcomes.describe(fitted.outcome, fitted.epochs_run).startswith("converged at iteration 0: ")


def shrinking(factor, ended=outcomes.RUNNING, after=10**6):
    """θ ← factor · θ; from the iteration `after` on nothing is taken and the outcome is `ended`."""

    def move(problem, state):
        params = jax.tree.map(lambda p: p * jnp.asarray(factor, p.dtype), state.params)
        over = state.iteration >= after
        found = (params, *problem.value_and_grad(params))
        kept = jax.tree.map(lambda new, old: jnp.where(over, old, new), found, state[:3])
        return Move(*kept, (), 1, jnp.where(over, ended, outcomes.RUNNING))

    return method("shrinking", lambda *_: (), move)


@pytest.mark.parametrize(
    ("how", "options", "outcome", "ran"),
    [
        (shrinking(0.5, outcomes.STALLED, 2), {}, outcomes.STALLED, 3),
        (shrinking(0.5, outcomes.DAMPING_EXHAUSTED, 0), {}, outcomes.DAMPING_EXHAUSTED, 1),
        (shrinking(0.99), {"step_tolerance": 0.02}, outcomes.STEP_BELOW_TOLERANCE, 1),
        (shrinking(1.0), {"value_tolerance": 1e-4}, outcomes.CHANGE_BELOW_TOLERANCE, 1),
        (shrinking(1e15), {}, outcomes.NON_FINITE, 2),
        (shrinking(1.0), {}, outcomes.EPOCHS_EXHAUSTED, 9),
    ],
    ids=["stalled", "damping", "step", "value", "non-finite", "epochs"],
)
def test_each_outcome_of_a_method_ends_the_run(how, options, outcome, ran):
    fitted = jn.fit(KEY, regression(how, net=LINE, **options), jn.Data(line()), epochs=9)
    assert (int(fitted.outcome), int(fitted.epochs_run)) == (outcome, ran)
    assert all(np.isfinite(a).all() for a in jax.tree.leaves((fitted.params, fitted.metrics)))
    assert np.isnan(fitted.history["train_loss"][ran:]).all()
    assert "converged" not in outcomes.describe(fitted.outcome, fitted.epochs_run)
    if outcome == outcomes.NON_FINITE:
        assert int(fitted.best_epoch) == ran - 1
        assert fitted.metrics["train_loss"] == fitted.history["train_loss"][ran - 2]


def test_a_validation_loss_that_is_not_finite_is_a_divergence_whatever_the_method_says():
    x, y = line()
    fitted = jn.fit(KEY, regression(newton(), net=LINE), jn.Data((x, y), (x * 1e30, y * 1e30)), epochs=9)
    assert int(fitted.outcome) == outcomes.DIVERGED


# ── minibatches ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.numerical
@pytest.mark.float64
@pytest.mark.parametrize(
    ("how", "count"),
    [(lbfgs(3), 16), pytest.param(levenberg_marquardt(), 15, marks=pytest.mark.long)],
    ids=["lbfgs", "lm"],
)
def test_minibatches_equal_a_python_loop(how, count):
    """Each batch's own value and gradient before the step; all that a method remembers goes on with it."""
    weights = count % 2 == 0
    examples = waves(count, weights=weights)
    fitted = jn.fit(KEY, regression(how, batch_size=8, l2=0.01), jn.Data(examples), epochs=2)

    @jax.jit
    def step(state, batch):
        problem = of_network(NET, losses.squared_error, {}, batch, 0.01)
        value, gradient = problem.value_and_grad(state.params)
        return how.step(problem, state._replace(value=value, gradient=gradient, outcome=RUNNING)), value

    first = of_network(NET, losses.squared_error, {}, tuple(a[:8] for a in examples), 0.01)
    state = jax.jit(partial(how.init, first))(jax.jit(partial(NET.init, spec=(2,)))(jax.random.fold_in(KEY, 0))[0])
    for epoch in (1, 2):
        order = np.asarray(shuffled(jax.random.fold_in(jax.random.fold_in(KEY, 1), epoch), count))
        total = weight = 0.0
        for cut in cuts(count, 8):
            for i in range(cut.batches):
                batch = tuple(a[order[cut.start + i * cut.size :][: cut.size]] for a in examples)
                state, value = step(state, batch)
                w = float(batch[2].sum()) if weights else cut.size
                total, weight = total + float(value) * w, weight + w
        np.testing.assert_allclose(fitted.history["train_loss"][epoch - 1], total / weight, rtol=1e-8)
    for one, other in zip(jax.tree.leaves(fitted.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7, atol=1e-8)
    assert set(fitted.history) == {"train_loss"} | ({"method_damping"} if how.name.startswith("lev") else set())
    assert int(fitted.outcome) == outcomes.EPOCHS_EXHAUSTED


def test_a_batch_that_gives_nothing_does_not_end_a_run_of_minibatches():
    """The method takes every second step only, and at the other ones says that it has stalled."""

    def move(problem, state):
        taken = state.iteration % 2 == 1
        params = jax.tree.map(lambda p, g: p - 0.3 * g * taken, state.params, state.gradient)
        code = jnp.where(taken, outcomes.RUNNING, outcomes.STALLED)
        return Move(params, *problem.value_and_grad(params), (), 1, code)

    every_second = method("every_second", lambda *_: (), move)
    fitted = jn.fit(KEY, regression(every_second, net=LINE, batch_size=5), jn.Data(line()), epochs=40)
    assert (int(fitted.outcome), int(fitted.epochs_run)) == (outcomes.EPOCHS_EXHAUSTED, 40)
    assert fitted.history["train_loss"][-1] < 1e-3 * fitted.history["train_loss"][0]
    exact = {"dense_0": {"w": np.full((1, 1), 3.0, DTYPE), "b": np.zeros(1, DTYPE)}}
    fitted = jn.fit(KEY, regression(every_second, net=LINE, batch_size=5), jn.Data(line()), epochs=3, params=exact)
    assert int(fitted.outcome) == outcomes.EPOCHS_EXHAUSTED  # a gradient of 0 on a minibatch proves nothing


def test_a_minibatch_of_zero_weights_changes_nothing():
    x, y = line()
    half = np.r_[np.zeros(10), np.ones(10)].astype(DTYPE)
    params = {"dense_0": {"w": np.ones((1, 1), DTYPE), "b": np.zeros(1, DTYPE)}}
    one = regression(shrinking(0.5), net=LINE, batch_size=1)
    fitted = jn.fit(KEY, one, jn.Data((x, y, half)), epochs=2, params=params)
    assert fitted.params["dense_0"]["w"] == 0.5**20  # 2 epochs of 10 examples that count
    assert np.isfinite(fitted.history["train_loss"]).all()


def test_a_minibatch_that_is_not_finite_ends_the_run_with_the_epoch_before():
    """The loss of the example whose target is 9 becomes NaN when w falls below 0.1."""
    x = np.ones((4, 1), DTYPE)
    y = np.array([[0], [0], [9], [0]], DTYPE)
    params = {"dense_0": {"w": np.ones((1, 1), DTYPE), "b": np.zeros(1, DTYPE)}}

    def loss(output, target):
        return jnp.where(target[:, 0] == 9, jnp.sqrt(output[:, 0] - 0.1), output[:, 0])

    one = regression(shrinking(0.7), net=LINE, loss=loss, batch_size=1)
    fitted = jn.fit(KEY, one, jn.Data((x, y)), epochs=9, params=params)
    assert (int(fitted.outcome), int(fitted.epochs_run), int(fitted.best_epoch)) == (outcomes.DIVERGED, 2, 1)
    assert np.isnan(fitted.history["train_loss"]).tolist() == [False] + [True] * 8
    np.testing.assert_allclose(fitted.params["dense_0"]["w"], 0.7**4, rtol=1e-6)


# ── layers, losses, heads ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "net",
    [jn.mlp([4, 1], dropout=0.2), jn.serial(jn.layers.gaussian_noise(0.1), jn.dense(1))],
    ids=["dropout", "noise"],
)
def test_networks_that_are_random_in_training_are_refused(net):
    message = "got a network that is random in training .*; expected one without dropout and noise"
    for drive in (jn.fit, jn.run):
        with compiles(at_most=0), pytest.raises(ValueError, match=message):
            drive(KEY, regression(net=net), jn.Data(waves()), epochs=1)
    jn.fit(KEY, regression(descent(0.1), net=jn.mlp([4, 1], dropout=0.0)), jn.Data(waves()), epochs=1)


def test_batch_norm_trains_on_the_batch_and_averages_the_state():
    net = jn.serial(jn.dense(2, bias=False), jn.batch_norm(momentum=0.5), jn.dense(1))
    x, y = waves()
    fitted = jn.fit(KEY, regression(descent(0.2), net=net), jn.Data((x, y), (x, y)), epochs=3)
    params, state = jax.jit(partial(net.init, spec=(2,)))(jax.random.fold_in(KEY, 0))
    gradient = jax.jit(partial(jn.loss_and_grad(net, losses.squared_error), train=True))
    for epoch in range(3):
        (_, _), grads = gradient(params, state, (x, y))
        params = jax.tree.map(lambda p, g: p - 0.2 * g, params, grads)
        (value, state), _ = gradient(params, state, (x, y))
        np.testing.assert_allclose(fitted.history["train_loss"][epoch], value, rtol=1e-5)
    for one, other in zip(jax.tree.leaves(fitted.state), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert not np.allclose(fitted.state["batch_norm_0"]["mean"], 0)
    with (
        compiles(at_most=0),
        pytest.raises(ValueError, match=r"state changes in training .* levenberg_marquardt"),
    ):
        jn.fit(KEY, regression(levenberg_marquardt(), net=net), jn.Data((x, y)), epochs=1)


def test_heads_bare_functions_and_frozen_layers():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 2)).astype(DTYPE)
    labels = (x[:, 0] > x[:, 1]).astype(np.int32)
    head = jn.heads.multiclass(2)
    net = jn.serial(jn.layers.frozen(jn.dense(6)), jn.tanh())
    run = regression(descent(1.0), net=net, loss=head, l2=1e-2, gradient_tolerance=1e-2)
    fitted = jn.fit(KEY, run, jn.Data((x, labels), (x, labels)), epochs=90)
    assert int(fitted.outcome) == outcomes.CONVERGED
    assert fitted.metrics["valid_accuracy"] > 0.9
    bare = regression(descent(0.5), net=LINE, loss=lambda output, y: (output[:, 0] - y[:, 0]) ** 2)
    fitted = jn.fit(KEY, bare, jn.Data(line(), line()), epochs=90)
    assert abs(float(fitted.params["dense_0"]["w"][0, 0]) - 3) < 0.1
    assert set(fitted.metrics) == {"train_loss", "gradient_norm", "valid_loss"}
    with pytest.raises(ValueError, match=r"got a result of shape \(20, 1\); expected one number per example"):
        jn.fit(KEY, regression(loss=lambda output, y: (output - y) ** 2, net=LINE), jn.Data(line()), epochs=1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"how": optax.adam(0.1)},
            TypeError,
            "got method .*; expected a Method .*; optax .* are for jn.program",
        ),
        ({"net": 3}, TypeError, "got net 3; expected a Layer"),
        ({"loss": 3}, TypeError, "got loss 3"),
        ({"l2": -1.0}, ValueError, "got l2=-1.0; expected a number ≥ 0"),
        ({"gradient_tolerance": -1}, ValueError, "got gradient_tolerance=-1"),
        ({"value_tolerance": float("nan")}, ValueError, "got value_tolerance=nan"),
        ({"batch_size": 0}, ValueError, "got batch_size=0"),
        ({"batch_size": 8, "gradient_tolerance": 1e-3}, ValueError, "got gradient_tolerance with batch_size=8"),
        ({"batch_size": 8, "step_tolerance": 1e-3}, ValueError, "got step_tolerance with batch_size=8"),
        ({"patience": 0}, ValueError, "got patience=0"),
        ({"metrics": {"loss": min}}, ValueError, 'got a metric named "loss"'),
    ],
)
def test_arguments_that_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        regression(**options)


KERNEL = jn.adapters.function(lambda key, spec: {"kernel": jnp.ones((2, 1))}, lambda p, x: x @ p["kernel"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 41}, "got batch_size=41 for 40 training examples"),
        ({"patience": 2}, "got patience=2 without a validation set"),
        ({"how": newton(), "net": jn.mlp([10**5, 1])}, "newton: got arrays of .* together; expected at most"),
        ({"how": levenberg_marquardt(memory_limit=1000)}, "levenberg_marquardt, primal form, 17 parameters and 40"),
        ({"net": KERNEL, "l2": 0.1}, "got matrices named .*kernel.*; expected weights named 'w'"),
    ],
)
def test_data_networks_and_methods_that_do_not_fit_are_refused_before_any_compile(options, message):
    with compiles(at_most=0), pytest.raises(ValueError, match=message):
        jn.fit(KEY, regression(**options), jn.Data(waves()), epochs=1)


# ── populations and studies ─────────────────────────────────────────────────────────────────────────────────────

EXAMPLES, HELD = waves(30), waves(20, seed=1)


def build(hp):
    how = levenberg_marquardt(hp["damping"])
    return program_full_batch(NET, losses.squared_error, method=how, l2=hp["l2"], patience=3, gradient_tolerance=1e-3)


def test_a_member_beside_bad_starts_and_bad_data_is_itself_bitwise():
    """64 starts, one of NaN, one of NaN data, one that is at a minimum from the start: the others don't notice."""

    @jax.jit
    @jax.vmap
    def population(key, params, x):
        run = regression(descent(0.5), gradient_tolerance=2e-2)
        return jn.fit(key, run, jn.Data((x, EXAMPLES[1]), HELD), epochs=30, params=params)

    keys = jax.random.split(KEY, 64)
    params = jax.jit(jax.vmap(lambda key: NET.init(key, (2,))[0]))(keys)
    x = jnp.broadcast_to(EXAMPLES[0], (64, *EXAMPLES[0].shape))
    healthy = population(keys, params, x)
    bad = jax.tree.map(lambda a: a.at[9].set(jnp.nan).at[11].set(0.0), params)
    bad["dense_1"]["b"] = bad["dense_1"]["b"].at[11].set(np.mean(EXAMPLES[1]))
    beside = population(keys, bad, x.at[10, 3, 1].set(jnp.nan))
    assert beside.outcome[9:11].tolist() == [outcomes.NON_FINITE] * 2
    assert beside.epochs_run[9:12].tolist()[:2] == [0, 0]
    others = np.setdiff1d(np.arange(64), [9, 10, 11])
    chex.assert_trees_all_equal(at(beside, others), at(healthy, others))
    assert len(set(healthy.epochs_run.tolist())) > 1


ONE = jax.local_devices()[:1]
SPACE = {"damping": [1e-3, 1.0], "l2": [0.0, 1e-2]}


def swept(space=SPACE, seeds=3, data=None, **others):
    data = data or jn.Data(EXAMPLES, HELD)
    return jn.sweep(
        build, space, data=data, epochs=12, seeds=seeds, width=4, keep="all", quiet=True, devices=ONE, **others
    )


@pytest.fixture(scope="module")
def study():
    return swept()


def test_a_study_over_damping_l2_and_seeds_is_one_program_and_each_member_itself(study):
    assert study.finished.all()
    assert len(study.plan.buckets) == 1
    table = study.table()
    words = set(table["outcome"])
    np.testing.assert_array_equal(table["damping"], np.tile([1e-3, 1e-3, 1.0, 1.0], 3))
    first = study.history("method_damping").values[:, 0]
    assert (first[:2] < first[2:4]).all()  # what the method remembers is a history
    assert words <= {"converged", "stopped early", "epochs exhausted", "stalled"}
    assert "stopped early" in words
    other = swept({"damping": [1.0, 5.0], "l2": [1e-2]}, seeds=[2, 0])
    assert_same_members(other, study, at_least=2)


def test_a_member_replayed_is_itself(study):
    again = study.replay(5)
    values = {f"history/{n}": v for n, v in again.history.items()} | {
        f"metrics/{n}": v for n, v in again.metrics.items()
    }
    values |= {n: getattr(again, n) for n in ("best_epoch", "epochs_run", "outcome")}
    assert_same(values | flat({"params": again.params, "state": again.state}), leaves(study, 5))
