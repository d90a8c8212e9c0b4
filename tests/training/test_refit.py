"""The second pass of early stopping, ends at a target, and parameters taken over from another network."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnet as jn
from jaxnet import outcomes

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)
Y = (X @ np.array([[1.0], [-2.0], [0.5]]) + 0.1 * RNG.normal(size=(40, 1))).astype(np.float32)
DATA = jn.Data((X[:30], Y[:30]), (X[30:], Y[30:]))
LOSS, NET, KEY = jn.losses.squared_error, jn.mlp([1]), jax.random.key(0)
PROGRAM = jn.program(NET, LOSS, optax.sgd(0.05), batch_size=10)


@pytest.fixture(scope="module")
def first():
    return jn.fit(KEY, PROGRAM, DATA, epochs=4)


@pytest.mark.source("GB-7.8-alg7.2")
def test_retraining_is_a_fresh_run_on_everything_for_as_many_epochs(first):
    again = jn.retrained(jax.random.key(5), PROGRAM, DATA, first)
    expected = jn.fit(jax.random.key(5), PROGRAM, jn.Data((X, Y)), epochs=int(first.best_epoch))
    jax.tree.map(np.testing.assert_array_equal, again.params, expected.params)
    assert again.epochs_run == first.best_epoch == 4


@pytest.mark.source("GB-7.8-alg7.2")
def test_or_for_as_many_updates(first):
    """4 epochs of 30 by 10 are 12 updates: 3 epochs of 40 by 10."""
    again = jn.retrained(jax.random.key(5), PROGRAM, DATA, first, batch_size=10)
    assert again.epochs_run == 3
    expected = jn.fit(jax.random.key(5), PROGRAM, jn.Data((X, Y)), epochs=3)
    jax.tree.map(np.testing.assert_array_equal, again.params, expected.params)


def test_rows_are_resolved_in_the_whole_set():
    data = jn.Data((X, Y), rows=np.array([3, 1, 1]), valid_rows=np.array([0, 2]))
    for whole, part in zip(jn.merged(data).train, (X, Y), strict=True):
        np.testing.assert_array_equal(whole, part[[3, 1, 1, 0, 2]])
    with pytest.raises(ValueError, match="without a validation set"):
        jn.merged(jn.Data((X, Y)))


@pytest.mark.source("GB-7.8-alg7.3")
def test_going_on_until_the_validation_loss_is_down_at_the_old_training_loss(first):
    """Written out: epochs of the same program, one by one, until the loss is there."""
    target = 0.5 * float(jn.evaluate(NET, first, DATA.train, LOSS)["loss"])
    everything = jn.Data((X, Y), (X[30:], Y[30:]))
    got = jn.fit(jax.random.key(3), jn.until(PROGRAM, "valid_loss", target), everything, epochs=50, params=first.params)
    plain = jn.fit(jax.random.key(3), PROGRAM, everything, epochs=50, params=first.params)
    losses = np.asarray(plain.history["valid_loss"])
    stop = int(np.argmax(losses <= target)) + 1
    assert 1 < stop < 50
    assert got.epochs_run == got.best_epoch == stop
    assert got.outcome == outcomes.TARGET_REACHED
    np.testing.assert_array_equal(got.history["valid_loss"][:stop], losses[:stop])
    assert np.isnan(got.history["valid_loss"][stop:]).all()


@pytest.mark.source("GB-7.8-alg7.3")
def test_it_may_never_get_there_and_says_so(first):
    got = jn.fit(KEY, jn.until(PROGRAM, "train_loss", -1.0), DATA, epochs=3)
    assert got.outcome == outcomes.EPOCHS_EXHAUSTED
    assert got.epochs_run == 3
    wild = jn.program(NET, LOSS, optax.sgd(1e20), batch_size=10)
    assert jn.fit(KEY, jn.until(wild, "train_loss", -1.0), DATA, epochs=9).outcome == outcomes.DIVERGED


def test_targets_may_be_swept():
    """Members end at their own epochs."""

    def one(target):
        return jn.fit(KEY, jn.until(PROGRAM, "train_loss", target), DATA, epochs=30)

    swept = jax.jit(jax.vmap(one))(jnp.asarray([1.0, 0.1, -1.0]))
    ran = np.asarray(swept.epochs_run)
    assert ran[0] < ran[1] < ran[2] == 30
    losses = np.asarray(swept.history["train_loss"])
    for member, target in ((0, 1.0), (1, 0.1)):
        assert losses[member, ran[member] - 1] <= target < losses[member, ran[member] - 2]


def test_what_cannot_be_is_refused(first):
    with pytest.raises(ValueError, match="got 'loss'; expected a name of the history"):
        jn.fit(KEY, jn.until(PROGRAM, "loss", 0.1), DATA, epochs=2)
    with pytest.raises(ValueError, match="one piece"):
        jn.until(jn.whole(lambda key, hp, data: {"a": jnp.zeros(())})({}), "a", 0.1)


def test_parameters_by_path():
    small, large = jn.mlp([4, 2]), jn.mlp([4, 4, 2])
    trained, _ = small.init(jax.random.key(1), (3,))
    fresh, _ = large.init(jax.random.key(2), (3,))
    got = jn.transferred(fresh, trained, {"dense_0": "dense_0", "dense_2": "dense_1"})
    for ours, source in (
        ("dense_0", trained["dense_0"]),
        ("dense_1", fresh["dense_1"]),
        ("dense_2", trained["dense_1"]),
    ):
        jax.tree.map(np.testing.assert_array_equal, got[ours], source)
    bias = jn.transferred(fresh, trained, ["dense_0.b"])["dense_0"]
    np.testing.assert_array_equal(bias["w"], fresh["dense_0"]["w"])
    with pytest.raises(ValueError, match="got 'dense_9', which no parameter begins with"):
        jn.transferred(fresh, trained, ["dense_9"])
    with pytest.raises(ValueError, match=r"got 'dense_2\.\w', not in the source"):
        jn.transferred(fresh, trained, ["dense_2"])
    with pytest.raises(ValueError, match=r"got dense_1\.\w of shape"):
        jn.transferred(fresh, trained, ["dense_1"])
