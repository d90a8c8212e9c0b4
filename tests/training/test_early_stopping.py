"""Early stopping by a scripted validation curve; what it leaves untouched; restarts, bagging, clipped mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnet as jn
from jaxnet import heads, layers, losses, outcomes
from jaxnet.data import bootstrap
from jaxnet.sweeps import ensembles

KEY = jax.random.key(0)


def scripted(curve, patience):
    """A run whose validation loss after epoch k is curve[k]: its one parameter counts the steps, one an epoch."""

    def init(key, spec):
        return {"count": jnp.zeros(())}, {}

    def apply(params, state, x, *, key=None, train=False):
        return jnp.broadcast_to(params["count"], (x.shape[0], 1)), state

    def value(output, target):
        return jnp.asarray(curve, jnp.float32)[jnp.round(output[:, 0]).astype(jnp.int32)]

    def gradient(params, state, batch, *, key=None, train=False):
        return (jnp.zeros(()), state), {"count": -jnp.ones(())}

    loss = losses.Loss("scripted", value)
    program = jn.program(
        layers.Layer("counter", init, apply), loss, optax.sgd(1.0), batch_size=4, patience=patience, gradient=gradient
    )
    examples = jnp.zeros((4, 1)), jnp.zeros((4, 1))
    return jn.fit(KEY, program, jn.Data(examples, examples), epochs=len(curve) - 1)


@pytest.mark.source("GB-7.8-alg7.1")
@pytest.mark.parametrize(
    ("curve", "best", "ran"),
    [
        ((9, 5, 4, 3, 3.5, 3.2, 2.9, 3, 3.1, 3.2, 1), 6, 9),  # the book's patience of 3
        ((9, 5, 4, 4, 4, 4, 1), 2, 5),  # a tie is no improvement
        ((9, 5, 6, 7, 4, 8, 8, 8, 1), 4, 7),  # the third wait is rewarded
    ],
)
def test_a_scripted_curve_ends_where_the_algorithm_does(curve, best, ran):
    fitted = scripted(curve, 3)
    assert (int(fitted.best_epoch), int(fitted.epochs_run)) == (best, ran)
    assert fitted.params["count"] == best  # the copy of then, not the last
    assert fitted.outcome == outcomes.STOPPED_EARLY
    np.testing.assert_allclose(fitted.history["valid_loss"][:ran], curve[1 : ran + 1])


@pytest.mark.source("GB-7.8-cheap")
def test_it_changes_no_update_until_the_stop():
    rng = np.random.default_rng(0)
    train, valid = ((rng.normal(size=(n, 3)).astype(np.float32), rng.integers(0, 2, n)) for n in (40, 20))
    data = jn.Data(train, valid)

    def run(patience, epochs):
        program = jn.program(
            jn.mlp([8, 2], dropout=0.2), losses.softmax_cross_entropy, optax.adam(0.05), batch_size=8, patience=patience
        )
        return jn.fit(KEY, program, data, epochs=epochs)

    stopped = run(2, 40)
    ran = int(stopped.epochs_run)
    assert ran < 40
    free = run(None, 40)
    for name in stopped.history:
        np.testing.assert_array_equal(stopped.history[name][:ran], free.history[name][:ran])


@pytest.mark.long
@pytest.mark.source("B-7.2")
def test_of_several_starts_the_study_returns_the_best_validated():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 2)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int32)

    def build(hp):
        return jn.program(
            jn.mlp([3, 2], activation="tanh"), losses.softmax_cross_entropy, optax.adam(0.05), batch_size=20
        )

    study = jn.sweep(build, {}, data=jn.Data((x[:60], y[:60]), (x[60:], y[60:])), epochs=30, seeds=6)
    values = np.asarray([study.replay(member).metrics["valid_loss"] for member in range(6)])
    best = study.best("valid_loss")
    assert best.member == int(np.argmin(values))
    assert values.max() > 1.05 * values.min()  # the starts do differ
    np.testing.assert_allclose(best.value, values.min(), rtol=1e-6)


@pytest.mark.source("GB-7.11-bagging")
def test_bagging_is_one_program_and_errs_no_more_than_its_members():
    """Bootstrap sets of equal size, 1 − (1 − 1/N)^N of each unique; the averaged prediction's error is at most the
    members' mean error, and less by the mean of their variance about it."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, size=(100, 1)).astype(np.float32)
    y = (np.sin(2 * x) + 0.3 * rng.normal(size=(100, 1))).astype(np.float32)
    test = np.linspace(-2, 2, 50, dtype=np.float32)[:, None]
    bags = bootstrap((x, y), 8, key=KEY)
    rows = np.stack([bag.rows for bag in bags])
    assert rows.shape == (8, 100)
    unique = np.mean([len(np.unique(r)) / 100 for r in rows])
    np.testing.assert_allclose(unique, 1 - (1 - 1 / 100) ** 100, atol=0.03)
    program = jn.program(jn.mlp([16, 1], activation="tanh"), losses.squared_error, optax.adam(0.02), batch_size=25)
    net = jn.mlp([16, 1], activation="tanh")

    def member(key, rows):
        fitted = jn.fit(key, program, jn.Data((x, y), rows=rows), epochs=60)
        return net.apply(fitted.params, fitted.state, test)[0]

    outputs = np.asarray(jax.jit(jax.vmap(member))(jax.random.split(KEY, 8), rows), np.float64)
    truth = np.sin(2 * test)
    average = ensembles.average_predictions(outputs)
    errors, together = ((outputs - truth) ** 2).mean((1, 2)), ((average.mean - truth) ** 2).mean()
    assert together < errors.mean()
    np.testing.assert_allclose(errors.mean() - together, outputs.var(axis=0).mean(), rtol=1e-5)


@pytest.mark.long
@pytest.mark.source("GB-6.2.2.4-MDNSTAB", "GB-8.2.4-clip")
def test_clipping_steadies_mixtures_whose_variance_shrinks():
    """Targets on two lines without noise: a component's variance shrinks and its gradient grows. 50 starts."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, size=(64, 1)).astype(np.float32)
    y = np.where(rng.random((64, 1)) < 0.5, x, -x).astype(np.float32)
    head = heads.mixture(2, 1)

    def run(key, clipping):
        chain = [optax.clip_by_global_norm(1.0)] if clipping else []
        program = jn.program(
            jn.mlp([8, 8], activation="tanh"), head, optax.chain(*chain, optax.sgd(0.05)), batch_size=64
        )
        return jn.fit(key, program, jn.Data((x, y)), epochs=400)

    keys = jax.random.split(KEY, 50)
    ends = {clipping: jax.jit(jax.vmap(lambda key, c=clipping: run(key, c)))(keys) for clipping in (True, False)}
    assert all(np.all(np.asarray(end.outcome) == outcomes.EPOCHS_EXHAUSTED) for end in ends.values())
    losses_of = {clipping: np.asarray(end.history["train_loss"]) for clipping, end in ends.items()}
    rises = {clipping: np.median(np.diff(values, axis=1).max(axis=1)) for clipping, values in losses_of.items()}
    assert rises[False] > 10 * rises[True]  # 0.39 and 0.008
    assert losses_of[True][:, -1].mean() < losses_of[False][:, -1].mean()
