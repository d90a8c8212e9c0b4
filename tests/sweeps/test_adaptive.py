"""Halving, Hyperband, population-based training, the learning-rate finder, widths and ensembles.

Each against a plain study, which has the same members to the bit, or against a plain NumPy account of the rule.
"""

import math

import jax
import numpy as np
import optax
import pytest
from studies import DATA, WIDTH, assert_same, labelled, leaves, swept

import jaxnet as jn
from jaxnet import losses, outcomes
from jaxnet.sweeps import population
from jaxnet.sweeps.halving import brackets
from jaxnet.sweeps.store import Store
from jaxnet.sweeps.width import fitting_width

EPOCHS = 9
RATES = [1e30, 0.001, 0.01, 0.1, 0.3, 1.0, 0.5, 0.2, 0.05]  # the first diverges


def build(hp):
    return jn.program(jn.mlp([4, 3]), losses.softmax_cross_entropy, optax.sgd(hp["lr"]), batch_size=8)


def settings(**others):
    return {"data": DATA, "epochs": EPOCHS, "width": WIDTH, "quiet": True} | others


@pytest.fixture(scope="module")
def plain():
    return swept({"lr": RATES}, build=build, epochs=EPOCHS, seeds=2)


@pytest.fixture(scope="module")
def halved():
    return jn.halving(build, {"lr": RATES}, eta=3, seeds=2, keep="all", **settings())


def assert_prefix(study, plain, member, other):
    """As far as it ran, a member is what it is in the plain study."""
    run = int(study.values["epochs_run"][member])
    for name in ("train_loss", "valid_loss", "valid_accuracy"):
        row = study.history(name).values[member]
        np.testing.assert_array_equal(row[:run], plain.history(name).values[other, :run])
        assert np.isnan(row[run:]).all()


def survivors(history, configurations, epoch, count):
    """The rule, in NumPy: history (seeds, configurations, epochs) of the plain study."""
    best = np.nanmin(np.where(np.isnan(history), np.inf, history)[:, :, :epoch], axis=2)
    means = best.mean(axis=0)
    means[np.isnan(history[:, :, :epoch]).any(axis=(0, 2))] = np.inf  # without patience, NaN before the end: diverged
    return sorted(configurations, key=lambda c: (means[c], list(configurations).index(c)))[:count]


def test_halving_is_the_plain_study_up_to_each_rung(plain, halved):
    history = plain.history("valid_loss").values.reshape(2, len(RATES), EPOCHS)
    racing, expected = list(range(len(RATES))), np.zeros(len(RATES), int)
    for rung in (1, 3, 9):
        expected[racing] = rung
        racing = survivors(history, racing, rung, math.ceil(len(racing) / 3))
    runs = halved.values["epochs_run"].reshape(2, len(RATES))
    diverged = halved.values["outcome"].reshape(2, len(RATES)) == outcomes.DIVERGED
    assert diverged[:, 0].all()
    np.testing.assert_array_equal(np.where(diverged, 1, runs), np.where(diverged, 1, np.tile(expected, (2, 1))))
    for member in range(len(halved)):
        assert_prefix(halved, plain, member, member)


def test_who_is_left_at_the_last_rung_has_all_that_it_has_in_the_plain_study(plain, halved):
    whole = [m for m in range(len(halved)) if halved.values["epochs_run"][m] == EPOCHS]
    assert len(whole) == 2  # one configuration of nine, two seeds
    for member in whole:
        assert_same(leaves(halved, member), leaves(plain, member))
    words = halved.table()["outcome"]
    assert set(words) == {"dropped", "diverged", "epochs exhausted"}
    assert (words == "epochs exhausted").sum() == 2


class Stop(Exception):
    """Raised by a report to end a study."""


def test_halving_goes_on_from_its_store_to_the_same_bits(halved, tmp_path):
    seen = []

    def report(progress):
        seen.append(progress)
        if len(seen) > 3:
            raise Stop

    with pytest.raises(Stop):
        jn.halving(build, {"lr": RATES}, eta=3, seeds=2, keep="all", store=tmp_path, **settings(report=report))
    resumed = jn.halving(build, {"lr": RATES}, eta=3, seeds=2, keep="all", store=tmp_path, **settings())
    again = jn.Study.open(tmp_path)
    for member in range(len(halved)):
        assert_same(leaves(halved, member), leaves(resumed, member))
        assert_same(leaves(halved, member), leaves(again, member))
    with pytest.raises(ValueError, match="settings: brackets"):
        jn.halving(build, {"lr": RATES}, eta=2, seeds=2, store=tmp_path, **settings())


def test_hyperband_takes_its_brackets_in_order(plain):
    assert brackets(9, 3) == [(9, (1, 3, 9)), (5, (3, 9)), (3, (9,))]  # Li et al. 2018, table 1 for R = 81
    assert [count for count, _ in brackets(81, 3)] == [81, 34, 15, 8, 5]
    space = jn.random_draws({"lr": jn.log_uniform(0.01, 1.0)}, draws=20)
    study = jn.hyperband(build, space, eta=3, **settings())
    assert len(study) == 9 + 5 + 3
    runs = study.values["epochs_run"]
    assert sorted(runs[:9]) == [1] * 6 + [3] * 2 + [9]
    assert sorted(runs[9:14]) == [3] * 3 + [9] * 2
    assert sorted(runs[14:]) == [9] * 3
    with pytest.raises(ValueError, match="expected at least 17"):
        jn.hyperband(build, space[:16], eta=3, **settings())


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [({"eta": 1}, "eta=1"), ({"min_epochs": 10}, "min_epochs=10"), ({"eta": 2.5}, "eta")],
)
def test_halving_refuses_what_makes_no_rungs(wrong, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence):
        jn.halving(build, {"lr": RATES}, **settings(), **wrong)


def test_what_runs_in_one_piece_is_refused():
    one_piece = jn.whole(lambda key, hp, data: {"loss": hp["lr"]})
    for method in (jn.halving, jn.population_based_training):
        with pytest.raises(ValueError, match=r"jn\.whole"):
            method(one_piece, {"lr": [0.1, 0.2]}, data=DATA, epochs=3, quiet=True)


# ── population-based training ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def population_study():
    return jn.population_based_training(build, {"lr": RATES}, every=2, share=0.3, keep="all", **settings())


def test_who_copies_and_what_it_trains_with_follows_the_rule(population_study):
    losses_now, parent = population_study.history("valid_loss").values, population_study.history("parent").values
    rates = population_study.history("lr").values
    count, many = len(RATES), 2  # 0.3 of 9
    np.testing.assert_allclose(rates[:, 0], RATES, rtol=1e-6)
    for epoch in range(1, EPOCHS):
        copied = np.flatnonzero(parent[:, epoch] != np.arange(count))
        if epoch % 2:
            assert not len(copied)
            np.testing.assert_array_equal(rates[:, epoch], rates[:, epoch - 1])
            continue
        order = np.argsort(
            np.where(np.isnan(losses_now[:, epoch - 1]), np.inf, losses_now[:, epoch - 1]), kind="stable"
        )
        assert set(copied) == set(order[-many:])
        assert set(parent[copied, epoch]) <= set(order[:many])
        for member in copied:
            ratio = rates[member, epoch] / rates[int(parent[member, epoch]), epoch - 1]
            drawn_anew = np.isclose(rates[member, epoch], RATES, rtol=1e-5).any()
            assert drawn_anew or min(abs(ratio - 0.8), abs(ratio - 1.25)) < 1e-5
        stayed = [m for m in range(count) if m not in copied]
        np.testing.assert_array_equal(rates[stayed, epoch], rates[stayed, epoch - 1])


def test_until_the_first_copy_the_population_is_the_plain_study(population_study):
    plain = swept({"lr": RATES}, build=build, epochs=EPOCHS, seeds=1)
    np.testing.assert_array_equal(
        population_study.history("train_loss").values[:, :2], plain.history("train_loss").values[:, :2]
    )


def test_a_copy_goes_on_from_the_run_that_it_copied(population_study):
    """One epoch by hand, with its own rate, from the parameters that its parent had."""
    parent = population_study.history("parent").values
    assert (population_study.values["outcome"] == outcomes.EPOCHS_EXHAUSTED).all()  # the diverged one was replaced
    first = int(np.flatnonzero(parent[:, 2] != np.arange(len(RATES)))[0])
    source, rate = int(parent[first, 2]), population_study.history("lr").values[first, 2]
    alone = swept({"lr": [RATES[source]]}, build=build, epochs=2, seeds=1)
    params = jax.tree.map(np.asarray, alone.replay(0).params)  # no validation loss rises here: epoch 2 is the best
    assert alone.values["best_epoch"][0] == 2
    value = population_study.history("train_loss").values[first, 2]
    program = build({"lr": float(rate)})
    carry = jax.jit(program.start)(jax.random.fold_in(jax.random.key(0), np.uint32(0)), DATA, params)
    carry = carry._replace(epoch=carry.epoch + 2, train=carry.train._replace(step=carry.train.step + 8))
    _, row = jax.jit(program.epoch)(carry, DATA)
    np.testing.assert_allclose(row["train_loss"], value, rtol=1e-5)


def test_a_population_goes_on_from_its_last_generation_to_the_same_bits(population_study, tmp_path):
    def report(progress):
        if progress.done >= len(RATES) // 2:
            raise Stop

    arguments = {"every": 2, "share": 0.3, "keep": "all", "store": tmp_path}
    with pytest.raises(Stop):
        jn.population_based_training(build, {"lr": RATES}, **arguments, **settings(report=report))
    files = sorted(tmp_path.glob("generation-*"))
    assert len(files) == 2
    files[-1].write_bytes(files[-1].read_bytes()[:-100])  # the latest is damaged: the one before it is taken up
    with pytest.warns(UserWarning, match="the generation before it"):
        resumed = jn.population_based_training(build, {"lr": RATES}, **arguments, **settings())
    stored = jn.Study.open(tmp_path)
    for member in range(len(RATES)):
        assert_same(leaves(population_study, member), leaves(resumed, member))
        assert_same(leaves(population_study, member), leaves(stored, member))
    assert not list(tmp_path.glob("generation-*"))


@pytest.mark.parametrize(
    ("space", "others", "sentence"),
    [
        ({"lr": [0.1, 0.2], "units": jn.static([3, 4])}, {}, "one program"),
        ({"lr": [0.1]}, {}, "at least 2"),
        ({"lr": [0.1, 0.2]}, {"share": 0.6}, "share"),
        ({"lr": [0.1, 0.2]}, {"every": 0}, "every"),
    ],
)
def test_populations_that_cannot_be_are_refused(space, others, sentence):
    with pytest.raises(ValueError, match=sentence):
        jn.population_based_training(build, space, **settings(), **others)


def test_altered_hyperparameters_stay_in_the_space_and_keep_their_type():
    space = jn.grid({"lr": [0.1, 0.2], "layers": [1, 5], "nesterov": [True, False]})
    ready = type("Ready", (), {"study_seed": 0, "plan": type("Plan", (), {"space": space})})
    drawn = [
        population.altered({"lr": 0.2, "layers": 5, "nesterov": True}, ready, e, m) for e in range(9) for m in range(9)
    ]
    assert all(0.1 <= hp["lr"] <= 0.2 and 1 <= hp["layers"] <= 5 for hp in drawn)
    assert all(type(hp["layers"]) is int and type(hp["nesterov"]) is bool for hp in drawn)
    assert {round(hp["lr"], 9) for hp in drawn} == {0.1, 0.16, 0.2}  # drawn anew, times 0.8, times 1.25 and held back
    resampled = sum(hp["lr"] == 0.1 for hp in drawn) * 2 / len(drawn)
    assert 0.1 < resampled < 0.45  # a quarter


# ── the rest ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_learning_rate_finder_finds_the_edge_of_a_quadratic():
    """Full-batch gradient descent on ½ λ w² diverges beyond 2/λ and is best at 1/λ; with x = 1 for all, λ = 1."""
    x, y = np.ones((16, 1), DATA.train[0].dtype), np.full((16, 1), 3.0, DATA.train[0].dtype)

    def line(hp):
        net = jn.serial(jn.dense(1, bias=False))
        return jn.program(net, losses.squared_error, optax.sgd(hp["lr"]), batch_size=16)

    found = jn.learning_rate_finder(line, data=jn.Data((x, y), (x, y)), low=1e-3, high=1e2, members=51, epochs=3)
    assert found.rates[0] == pytest.approx(1e-3)
    assert found.suggestion == pytest.approx(1.0, rel=0.3)
    assert 1.9 < found.edge < 2.6  # the grid's ratio is 1.26
    assert np.all(np.diff(found.losses[found.rates < 0.9]) < 0)
    with pytest.raises(ValueError, match="one of each"):
        jn.learning_rate_finder(line, data=jn.Data((x, y)), fixed={"a": [1.0, 2.0]})


def test_the_rule_of_widths_fills_the_cache_and_no_more_than_there_are_members():
    devices = jax.devices("cpu")[:2]
    for floats, members, expected in [(2410 * 4, 1000, 8), (110_000 * 4, 1000, 2), (82 * 4, 1000, 64), (82, 5, 4)]:
        carry = {"w": jax.ShapeDtypeStruct((floats,), np.float32)}
        assert fitting_width(carry, members, devices) == expected


@pytest.mark.long
def test_a_measured_width_is_one_of_the_candidates_and_is_kept_by_the_store(tmp_path):
    arguments = {"data": DATA, "epochs": 2, "seeds": 8, "quiet": True, "store": tmp_path}
    jn.sweep(build, {"lr": [0.1, 0.2]}, width="measure", **arguments)
    width = Store(tmp_path).read().identity["settings"]["width"]
    assert width in {4, 8, 16, 32}  # 8 members for each of two devices: a guess of 8
    again = jn.sweep(build, {"lr": [0.1, 0.2]}, **arguments)
    assert again.finished.all()
    with pytest.raises(TypeError, match="width"):
        jn.sweep(build, {"lr": [0.1, 0.2]}, width="wide", **arguments)


def test_an_ensemble_predicts_with_the_members_kept_and_those_replayed(plain):
    net, (x, y) = jn.mlp([4, 3]), labelled(40, 5)
    chosen = [5, 6, 14]
    outputs = plain.predict(net, x, chosen)
    for output, member in zip(outputs, chosen, strict=True):
        w = plain.kept[member]["params"]
        hidden = np.maximum(x @ w["dense_0"]["w"] + w["dense_0"]["b"], 0)
        np.testing.assert_allclose(output, hidden @ w["dense_1"]["w"] + w["dense_1"]["b"], rtol=2e-4, atol=1e-5)
    forgetful = swept({"lr": RATES}, build=build, epochs=EPOCHS, seeds=2, keep=None)
    np.testing.assert_array_equal(forgetful.predict(net, x, chosen), outputs)
    average = jn.sweeps.average_probabilities(outputs)
    assert average.shape == (40, 3)
    loss = jn.sweeps.calibration(average, y).negative_log_likelihood
    each = [jn.sweeps.calibration(jn.sweeps.average_probabilities(o[None]), y).negative_log_likelihood for o in outputs]
    assert loss <= np.mean(each)  # Jensen
