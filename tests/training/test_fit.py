"""`fit` and `run`: the rules of a run, against a plain Python loop written here."""

import gc
import weakref

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnet as jn
from jaxnet import losses, outcomes
from jaxnet.training.batches import cuts, shuffled
from jaxnet.training.step import train_state, train_step

DTYPE = jnp.result_type(float)
KEY = jax.random.key(7)


def blobs(n=60, classes=3, seed=0, weights=False):
    """Overlapping Gaussian blobs: (x, labels[, weights])."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.normal(size=(n, 4)) + 1.0 * np.eye(classes, 4)[y]
    examples = (jnp.asarray(x, DTYPE), jnp.asarray(y, jnp.int32))
    return (*examples, jnp.asarray(rng.random(n) + 0.1, DTYPE)) if weights else examples


def classifier(optimizer=None, net=None, **options):
    net = net or jn.mlp([8, 3])
    options = {"batch_size": 16} | options
    return jn.program(net, losses.softmax_cross_entropy, optimizer or optax.adam(1e-2), **options)


def looped(key, net, optimizer, train, valid, *, epochs, batch_size, patience=None):
    """The run in plain Python, with the jitted step: what `fit` has to equal."""
    gradient = jn.loss_and_grad(net, losses.softmax_cross_entropy)
    step = jax.jit(train_step(gradient, optimizer))
    params, _ = jax.jit(net.init, static_argnums=1)(jax.random.fold_in(key, 0), train[0].shape[1:])
    now = train_state(params, {}, optimizer, jax.random.fold_in(key, 2))

    def valid_loss(params):
        output, _ = net.apply(params, {}, valid[0])
        return float(jn.gradients.weighted_mean(losses.softmax_cross_entropy(output, valid[1]), *valid[2:]))

    best, best_params, best_epoch, history = valid_loss(params), params, 0, []
    for epoch in range(1, epochs + 1):
        order = np.asarray(shuffled(jax.random.fold_in(jax.random.fold_in(key, 1), epoch), len(train[1])))
        total, weight = 0.0, 0.0
        for cut in cuts(len(order), batch_size):
            for i in range(cut.batches):
                rows = order[cut.start + i * cut.size :][: cut.size]
                batch = tuple(a[rows] for a in train)
                now, metrics = step(now, batch)
                w = float(batch[2].sum()) if len(batch) == 3 else len(rows)
                total, weight = total + float(metrics["loss"]) * w, weight + w
        history.append((total / weight, valid_loss(now.params)))
        if history[-1][1] < best:
            best, best_params, best_epoch = history[-1][1], now.params, epoch
        if patience is not None and epoch - best_epoch >= patience:
            break
    return now.params, best_params, best_epoch, np.array(history)


@pytest.mark.numerical
@pytest.mark.source("B-Alg7.1", "GB-5.9-COST")
@pytest.mark.parametrize("weights", [False, True])
def test_fit_equals_a_python_loop_of_the_jitted_step_bitwise(weights):
    train, valid, net, optimizer = (
        blobs(59, weights=weights),
        blobs(30, seed=1),
        jn.mlp([8, 3], dropout=0.2),
        optax.adam(3e-2),
    )
    fitted = jn.fit(KEY, classifier(optimizer, net), jn.Data(train), epochs=3)
    params, *_, history = looped(KEY, net, optimizer, train, valid, epochs=3, batch_size=16)
    chex.assert_trees_all_equal(fitted.params, params)
    np.testing.assert_allclose(fitted.history["train_loss"], history[:, 0], rtol=1e-6)


@pytest.mark.numerical
@pytest.mark.newer
@pytest.mark.source("M-8.1a")
def test_patience_keeps_the_best_validated_parameters():
    train, valid = blobs(40), blobs(30, seed=1)
    net, optimizer, patience = jn.mlp([8, 3]), optax.adam(0.1), 3
    fitted = jn.fit(KEY, classifier(optimizer, net, patience=patience), jn.Data(train, valid), epochs=60)
    _, params, best_epoch, history = looped(
        KEY, net, optimizer, train, valid, epochs=60, batch_size=16, patience=patience
    )
    ran = len(history)
    assert 0 < best_epoch < ran == best_epoch + patience < 60
    assert (int(fitted.best_epoch), int(fitted.epochs_run)) == (best_epoch, ran)
    assert int(fitted.outcome) == outcomes.STOPPED_EARLY
    chex.assert_trees_all_equal(fitted.params, params)
    np.testing.assert_allclose(fitted.history["valid_loss"][:ran], history[:, 1], rtol=1e-5)
    assert np.isnan(fitted.history["valid_loss"][ran:]).all()
    assert np.isnan(fitted.history["train_loss"][ran:]).all()
    np.testing.assert_array_equal(fitted.metrics["valid_loss"], fitted.history["valid_loss"][best_epoch - 1])
    predicted = np.argmax(np.asarray(jn.predict(net, fitted, valid[0])), axis=1)
    assert float(fitted.metrics["valid_accuracy"]) == pytest.approx(np.mean(predicted == np.asarray(valid[1])))


def test_epoch_zero_counts_as_the_best_when_nothing_improves():
    train, valid = blobs(40), blobs(30, seed=1)
    prog = classifier(optax.sgd(-0.1), patience=2)  # uphill
    fitted = jn.fit(KEY, prog, jn.Data(train, valid), epochs=9)
    assert (int(fitted.best_epoch), int(fitted.epochs_run)) == (0, 2)
    chex.assert_trees_all_equal(fitted.params, jax.jit(prog.start)(KEY, jn.Data(train, valid)).train.params)


def test_infinite_patience_equals_none():
    data = jn.Data(blobs(40), blobs(30, seed=1))
    never, none = (jn.fit(KEY, classifier(patience=p), data, epochs=6) for p in (100, None))
    chex.assert_trees_all_equal(never, none)
    assert int(none.outcome) == outcomes.EPOCHS_EXHAUSTED


@pytest.mark.parametrize("patience", [None, 50])
@pytest.mark.parametrize("validated", [False, True])
def test_a_diverged_run_ends_and_returns_finite_parameters(patience, validated):
    if patience is not None and not validated:
        patience = None
    data = jn.Data(blobs(40), blobs(30, seed=1) if validated else None)
    # The rate grows tenfold each epoch, so that the first epochs are healthy.
    optimizer = optax.sgd(lambda count: 0.1 * 1e4 ** (count // 3))
    fitted = jn.fit(
        KEY, classifier(optimizer, net=jn.mlp([8, 3], activation="identity"), patience=patience), data, epochs=60
    )
    ran = int(fitted.epochs_run)
    assert int(fitted.outcome) == outcomes.DIVERGED
    assert 1 < ran < 60
    assert all(np.isfinite(a).all() for a in jax.tree.leaves(fitted.params))
    assert all(np.isnan(np.asarray(v)[ran:]).all() for v in fitted.history.values())
    best = int(fitted.best_epoch)
    healthy = jn.fit(KEY, classifier(optimizer, net=jn.mlp([8, 3], activation="identity")), data, epochs=max(best, 1))
    if validated:
        assert best == 1 + int(
            np.nanargmin(np.where(np.isfinite(fitted.history["valid_loss"]), fitted.history["valid_loss"], np.inf))
        )
    else:
        assert best == ran - 1
    if best:
        chex.assert_trees_all_equal(fitted.params, healthy.params)


def test_parameters_that_end_an_epoch_non_finite_are_a_divergence_though_the_loss_is_finite():
    """The last of epoch 2's three updates, the sixth, is infinite: no loss of that epoch has seen it."""
    optimizer = optax.sgd(lambda count: jnp.where(count == 5, jnp.inf, 0.1))
    fitted = jn.fit(KEY, classifier(optimizer), jn.Data(blobs(40)), epochs=5)
    assert int(fitted.outcome) == outcomes.DIVERGED
    assert (int(fitted.epochs_run), int(fitted.best_epoch)) == (2, 1)
    assert np.isfinite(fitted.history["train_loss"][:2]).all()
    assert np.isnan(fitted.history["train_loss"][2:]).all()
    chex.assert_trees_all_equal(
        fitted.params, jn.fit(KEY, classifier(optax.sgd(0.1)), jn.Data(blobs(40)), epochs=1).params
    )


def test_run_equals_fit_bitwise():
    data = jn.Data(blobs(41, weights=True), blobs(30, seed=1))
    prog = classifier(optax.adam(0.1), net=jn.mlp([8, 3], dropout=0.3), patience=3)
    seen = []
    one, other = (
        jn.run(KEY, prog, data, epochs=25, report=lambda e, row: seen.append((e, row))),
        jn.fit(KEY, prog, data, epochs=25),
    )
    chex.assert_trees_all_equal(one, other)
    ran = int(one.epochs_run)
    assert [epoch for epoch, _ in seen] == list(range(1, ran + 1))
    np.testing.assert_array_equal(
        np.array([row["valid_loss"] for _, row in seen], DTYPE), one.history["valid_loss"][:ran]
    )


@pytest.mark.newer
@pytest.mark.source("B-Alg7.1")
@pytest.mark.parametrize("members", [1, 3])
def test_every_example_counts_once_per_epoch(members):
    """The inputs are row ids, one-hot; the gradient function adds up those it is given."""
    n, size = 1437, 32
    ids = np.eye(n, dtype=np.float32)
    net = jn.mlp([1], weight_init=jn.initializers.zeros())
    data = jn.Data((ids, np.full((n, 1), 1.0, np.float32)))

    def counting(params, state, batch, *, key=None, train=False):
        w = -jnp.sum(batch[0], axis=0)[:, None]
        return (jnp.zeros(()), state), {"dense_0": {"w": w, "b": jnp.zeros(1)}}

    prog = jn.program(net, losses.squared_error, optax.sgd(1.0), batch_size=size, gradient=counting, metrics={})
    keys = jax.random.split(KEY, members)
    fitted = jax.jit(jax.vmap(lambda k: jn.fit(k, prog, data, epochs=2)))(keys)
    np.testing.assert_array_equal(fitted.params["dense_0"]["w"][..., 0], np.full((members, n), 2.0))


def test_orders_are_permutations_and_differ():
    for n in (1, 2, 3, 1437, 65536, 70000):
        orders = np.asarray(jax.vmap(lambda k, n=n: shuffled(k, n))(jax.random.split(KEY, 2)))
        np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(n), (2, 1)))
        assert n < 4 or (orders[0] != orders[1]).any()


def test_orders_are_uniform():
    """All 24 orders of 4 examples equally often (χ², 23 degrees of freedom, fixed keys); so each place of 100."""
    orders = np.asarray(jax.jit(jax.vmap(lambda k: shuffled(k, 4)))(jax.random.split(KEY, 24_000)))
    _, counts = np.unique(orders @ [64, 16, 4, 1], return_counts=True)
    assert counts.size == 24
    assert ((counts - 1000) ** 2 / 1000).sum() < 49.7  # the 99.9 % quantile
    places = np.asarray(jax.jit(jax.vmap(lambda k: shuffled(k, 100)))(jax.random.split(KEY, 20_000)))
    first = np.bincount(places[:, 0], minlength=100)
    assert ((first - 200) ** 2 / 200).sum() < 148.2  # 99 degrees of freedom


@pytest.mark.parametrize("n", [1, 2, 31, 32, 33, 63, 64, 65, 1437])
@pytest.mark.parametrize("size", [1, 2, 31, 32])
def test_cuts_cover_and_differ_by_at_most_one(n, size):
    sizes = [cut.size for cut in cuts(n, size) for _ in range(cut.batches)]
    assert sum(sizes) == n
    assert len(sizes) == -(-n // size)
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    ends = np.cumsum([cut.batches * cut.size for cut in cuts(n, size)])
    assert [cut.start for cut in cuts(n, size)] == [0, *ends[:-1]]


def test_rows_pick_folds_and_bootstraps():
    x, y = blobs(40)
    rows, held = np.arange(0, 40, 2), np.arange(1, 40, 2)
    picked = jn.fit(KEY, classifier(), jn.Data((x, y), rows=rows, valid_rows=held), epochs=2)
    copied = jn.fit(KEY, classifier(), jn.Data((x[rows], y[rows]), (x[held], y[held])), epochs=2)
    chex.assert_trees_all_equal(picked, copied)


def test_evaluation_in_pieces_equals_evaluation_at_once():
    data = jn.Data(blobs(40), blobs(37, seed=1, weights=True))
    whole, pieces = (jn.fit(KEY, classifier(eval_batch_size=size), data, epochs=2) for size in (64, 10))
    for name in ("valid_loss", "valid_accuracy"):
        np.testing.assert_allclose(whole.history[name], pieces.history[name], rtol=1e-6)
    net = jn.mlp([8, 3])
    judged = jn.evaluate(net, whole, data.valid, losses.softmax_cross_entropy)
    assert judged["loss"] == pytest.approx(float(whole.metrics["valid_loss"]), rel=1e-5)
    assert judged["accuracy"] == pytest.approx(float(whole.metrics["valid_accuracy"]), rel=1e-5)


def test_regression_reports_r2_as_scikit_learn():
    from sklearn.metrics import r2_score

    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 3)).astype(DTYPE)
    y = (x @ rng.normal(size=(3, 2)) + 100).astype(DTYPE)
    net = jn.mlp([2])
    fitted = jn.fit(
        KEY, jn.program(net, losses.squared_error, optax.adam(0.5), batch_size=10), jn.Data((x, y), (x, y)), epochs=30
    )
    expected = r2_score(y, jn.predict(net, fitted, x))
    assert float(fitted.metrics["valid_r2"]) == pytest.approx(expected, rel=1e-4)


def test_given_parameters_are_the_start():
    data, prog = jn.Data(blobs(40)), classifier(optax.sgd(0.0))
    params = jn.fit(jax.random.key(99), classifier(), data, epochs=1).params
    chex.assert_trees_all_equal(jn.fit(KEY, prog, data, epochs=1, params=params).params, params)


def test_a_batch_of_zero_weights_changes_nothing():
    net, optimizer = jn.mlp([3]), optax.adam(0.1)
    step = train_step(jn.loss_and_grad(net, losses.softmax_cross_entropy), optimizer)
    params, state = net.init(KEY, (4,))
    now, _ = step(train_state(params, state, optimizer, KEY), blobs(6, weights=True))
    x, y = blobs(6, seed=2)
    after, metrics = step(now, (x, y, jnp.zeros(6, DTYPE)))
    chex.assert_trees_all_equal((after.params, after.opt_state), (now.params, now.opt_state))
    assert int(after.step) == 2
    assert float(metrics["loss"]) == 0


def test_averaged_parameters_are_validated_and_returned():
    decay, data = 0.9, jn.Data(blobs(40), blobs(30, seed=1))
    ema = optax.chain(optax.sgd(0.1), keep_average(decay))
    fitted = jn.fit(KEY, classifier(ema, averaged=lambda s, p: s[1]), data, epochs=4)
    plain = classifier(optax.sgd(0.1))
    params = average = plain.start(KEY, data).train.params
    gradient = jax.jit(jn.loss_and_grad(jn.mlp([8, 3]), losses.softmax_cross_entropy))
    for epoch in range(1, 5):
        order = shuffled(jax.random.fold_in(jax.random.fold_in(KEY, 1), epoch), 40)
        for cut in cuts(40, 16):
            for i in range(cut.batches):
                rows = order[cut.start + i * cut.size :][: cut.size]
                _, grads = gradient(params, {}, (data.train[0][rows], data.train[1][rows]))
                params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
                average = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)
    assert int(fitted.best_epoch) == 4
    for one, other in zip(jax.tree.leaves(fitted.params), jax.tree.leaves(average), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def keep_average(decay):
    def update(updates, average, params):
        new = optax.apply_updates(params, updates)
        return updates, jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, new)

    return optax.GradientTransformation(lambda params: params, update)


@pytest.mark.numerical
@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.1, momentum=0.9),
        optax.adamw(1e-2),
        optax.rmsprop(1e-2),
        optax.lion(1e-3),
        optax.lbfgs(),
    ],
    ids=["momentum", "adamw", "rmsprop", "lion", "lbfgs"],
)
def test_any_optax_optimizer_lowers_the_loss(optimizer):
    train = blobs(60)
    fitted = jn.fit(KEY, classifier(optimizer, batch_size=60), jn.Data(train), epochs=12)
    losses_seen = np.asarray(fitted.history["train_loss"])
    assert losses_seen[-1] < losses_seen[0] - 0.01


def test_a_program_is_collected_when_nobody_holds_it():
    """Compiled functions live with their Program; a cache keyed on it would keep every network for ever."""

    def once():
        prog = classifier()
        jn.fit(KEY, prog, jn.Data(blobs(20)), epochs=1)
        return weakref.ref(prog)

    reference = once()
    gc.collect()
    assert reference() is None


def test_changing_the_callers_array_does_not_change_the_run():
    x, y = (np.array(a) for a in blobs(40))
    expected = jn.fit(KEY, classifier(), jn.Data((x.copy(), y.copy())), epochs=3)
    fitted = jn.fit(KEY, classifier(), jn.Data((x, y)), epochs=3)
    x[:] = 1e6
    chex.assert_trees_all_equal(fitted, expected)
