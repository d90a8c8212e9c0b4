"""A member is itself, to the bit, in any order, lane, company, device and cut; what a study compiles and runs."""

from itertools import cycle

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from studies import (
    DATA,
    EPOCHS,
    RATES,
    WIDTH,
    assert_same,
    assert_same_members,
    build,
    compiles,
    flat,
    labelled,
    leaves,
    swept,
)

import jaxnet as jn
from jaxnet import outcomes
from jaxnet.sweeps import execute
from jaxnet.sweeps.execute import Runner, Wanted
from jaxnet.sweeps.lanes import Resident
from jaxnet.sweeps.prepare import prepare, works

X64 = jax.config.jax_enable_x64


@pytest.fixture(scope="module")
def study():
    """3 learning rates × 4 seeds on 2 devices, 4 lanes each; all parameters kept."""
    study = swept()
    assert study.finished.all()
    assert len(set(study.values["epochs_run"].tolist())) > 1  # members end at different epochs
    return study


@jax.jit
def alone(key, seed, lr, data):
    """A member by itself: another program, at another width."""
    return jn.fit(jax.random.fold_in(key, seed), build({"lr": lr}), data, epochs=EPOCHS)


def fitted(study, member, data=DATA, study_seed=0):
    """What `jn.fit` makes of a member."""
    lr = np.asarray(study.configuration(member)["lr"], DATA.train[0].dtype)
    return alone(jax.random.key(study_seed), np.uint32(study.plan.seed[member]), lr, data)


def test_a_member_in_another_order(study):
    assert_same_members(swept({"lr": RATES[::-1]}, seeds=[3, 1, 0, 2]), study, at_least=12)


def test_a_member_in_other_company(study):
    other = swept({"lr": [7.0, RATES[1], 0.011]}, seeds=[21, 2])
    assert_same_members(other, study, at_least=1)


def test_a_member_beside_one_that_diverges(study):
    beside = swept({"lr": [RATES[0], 1e6, *RATES[1:]]})
    assert_same_members(beside, study, at_least=12)
    lost = np.flatnonzero((beside.columns["lr"] == 1e6) & (beside.values["outcome"] == outcomes.DIVERGED))
    assert lost.size >= 3
    for i in lost:
        end = int(beside.values["epochs_run"][i])
        history = beside.values["history/train_loss"][i]
        assert np.isnan(history[end:]).all()  # frozen at its last epoch …
        assert np.isfinite(history[: end - 1]).all()
        assert all(np.isfinite(a).all() for a in jax.tree.leaves(beside.kept[i]["params"]))  # … with what it last had
        by_itself = fitted(beside, i)
        assert (int(by_itself.epochs_run), int(by_itself.outcome)) == (end, outcomes.DIVERGED)


@pytest.mark.parametrize("chosen", [slice(0, 1), slice(1, 2)], ids=["the first", "the second"])
def test_a_member_on_one_device(study, chosen):
    devices = jax.local_devices()[chosen]
    assert len(jax.local_devices()) == 2
    assert len(devices) == 1
    assert_same_members(swept(devices=devices), study, at_least=12)


@pytest.fixture(scope="module")
def seats():
    """The lanes of the study's bucket on one device, and its members as jobs."""
    ready = prepare(
        build, {"lr": RATES}, data=DATA, epochs=EPOCHS, seeds=4, folds=(), study_seed=0, width=WIDTH, devices=None,
        rank_by=None, mode=None,
    )  # fmt: skip
    device = jax.local_devices()[0]
    resident = jax.device_put(Resident(ready.key, ready.data, None), device)
    return Runner(ready.lanes[0], resident, device, ready.plan.buckets[0].traced), works(
        ready, np.ones(12, bool), EPOCHS
    )[0].jobs


@pytest.mark.numerical
@given(
    order=st.permutations(range(12)),
    pauses=st.dictionaries(st.integers(0, 11), st.integers(1, EPOCHS - 1)),
    lengths=st.lists(st.integers(1, EPOCHS), min_size=1, max_size=5),
    offered=st.lists(st.booleans(), max_size=5).map(lambda free: [*free, True]),
)
def test_a_member_in_any_lane_order_company_and_cut(study, seats, order, pauses, lengths, offered):
    """Members sit down in a drawn order in lanes that are offered or left empty, run so many epochs between two looks,
    and some are taken out half-way, to go on later in another lane."""
    runner, everyone = seats
    left = [everyone[p]._replace(limit=pauses.get(p, EPOCHS)) for p in order]
    lengths, offered, found = cycle(lengths), cycle(offered), {}
    while left or runner.busy:
        runner.fill(lambda: left.pop(0) if left and next(offered) else None)
        some = runner.harvest(runner.advance(next(lengths)), Wanted(lambda values: True, lanes=True))
        for row, p in enumerate(some.positions if some else ()):
            if p in pauses and some.values["epochs_run"][row] == pauses[p] and p not in found:
                left.append(everyone[p]._replace(lane=some.lanes[p]))
            found[p] = {name: values[row] for name, values in some.values.items()} | flat(some.kept[p])
    assert sorted(found) == list(range(12))
    for p, got in found.items():
        assert_same(got, leaves(study, p), str(p))


@pytest.mark.numerical
def test_replay_is_the_member_and_a_fit(study):
    for member in (0, 5, 11):
        again = study.replay(member)
        values = {f"history/{n}": v for n, v in again.history.items()}
        values |= {f"metrics/{n}": v for n, v in again.metrics.items()}
        values |= {n: getattr(again, n) for n in ("best_epoch", "epochs_run", "outcome")}
        assert_same(values | flat({"params": again.params, "state": again.state}), leaves(study, member), str(member))
        for one, other in zip(jax.tree.leaves(fitted(study, member)), jax.tree.leaves(again), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-9 if X64 else 2e-4, atol=1e-10 if X64 else 2e-5)


def test_common_random_numbers(study):
    """Members of one seed begin alike, those of different seeds don't; nor do those of another study seed."""
    still = swept({"lr": [0.0, 1e-30]}, seeds=2)  # too small a step to change a bit
    assert_same(leaves(still, 0), leaves(still, 1))
    assert not np.array_equal(still.kept[0]["params"]["dense_0"]["w"], still.kept[2]["params"]["dense_0"]["w"])
    assert len({a.tobytes() for a in study.values["history/train_loss"]}) == 12
    other = swept(study_seed=1)
    assert not np.isin(other.values["metrics/train_loss"], study.values["metrics/train_loss"]).any()
    history = fitted(other, 6, study_seed=1).history["valid_loss"]
    np.testing.assert_allclose(other.values["history/valid_loss"][6], history, rtol=2e-4)


def test_seeds_added_later(study, tmp_path):
    swept(seeds=2, store=tmp_path)
    more = swept(seeds=4, store=tmp_path)
    assert more.finished.all()
    assert_same_members(more, study, at_least=12)
    assert_same_members(jn.Study.open(tmp_path), study, at_least=12)


def test_draws_added_later(tmp_path):
    axes = {"lr": jn.log_uniform(1e-2, 1.0)}
    swept(jn.random_draws(axes, 3), seeds=2, store=tmp_path)
    more = swept(jn.random_draws(axes, 5), seeds=2, store=tmp_path)
    assert more.finished.all()
    assert_same_members(more, swept(jn.random_draws(axes, 5), seeds=2), at_least=10)


def test_a_swept_hyperparameter_is_a_fixed_one(study):
    """At one width. A static value, and a constant in `build`; each of the two buckets compiles once per device."""

    def constant(hp):
        return build({"lr": hp.get("lr", RATES[1])})

    with compiles() as found:
        mixed = swept([{"lr": RATES[0]}, {"lr": RATES[2]}, {}], build=constant, seeds=8)
    assert len(found) == 2 * 2
    with compiles() as found:
        mixed.replay(0), mixed.replay(2)
    assert not found
    static = swept({"lr": jn.static(RATES[1])})
    for seed in range(4):
        swept_row = leaves(study, 3 * seed + 1)
        assert_same(leaves(mixed, 3 * seed + 2), swept_row, f"seed {seed}")
        assert_same(leaves(static, seed), swept_row, f"seed {seed}")


def test_a_member_that_stops_leaves_its_lane(monkeypatch):
    """Where the learning rate is 0 patience ends a run after 2 epochs; at the next look another takes the lane."""
    calls = []

    def advance(runner, length, of_runner=Runner.advance):
        calls.append(length)
        return of_runner(runner, length)

    monkeypatch.setattr(Runner, "advance", advance)
    monkeypatch.setattr(execute, "LOOK", 0.0)  # a look after every epoch
    mixed = swept({"lr": [0.003, 0.0]}, seeds=32, devices=jax.local_devices()[:1])
    own = mixed.values["epochs_run"]
    assert (own[1::2] <= 3).all()  # 3 where epoch 1's rounding seems an improvement
    assert own.max() == EPOCHS
    assert set(calls) == {1}
    # Nobody waits while a lane is free (list scheduling, Graham 1966). In chunks of 4 the slowest would set the pace.
    assert len(calls) <= own.sum() / WIDTH + own.max()
    assert len(calls) < 0.8 * own.reshape(-1, WIDTH).max(axis=1).sum()
    for member in (0, 1, 33, 63):  # alone in its lanes
        assert_same(flat(mixed.replay(member).params), flat(mixed.kept[member]["params"]))


def test_one_compile_per_bucket_and_device(tmp_path):
    """None for members that are stored, none for a replay where the program ran."""
    first = jax.local_devices()[:1]
    one = {"devices": first, "store": tmp_path, "seeds": 2}
    with compiles() as found:
        study = swept(**one)
    assert len(found) == 1
    with compiles() as found:
        study.replay(4)
        again = swept(**one)
    assert len(found) == 0
    assert_same_members(again, study, at_least=6)


def test_folds(study):
    """7 examples more than a multiple of 4 in 4 folds: two sizes, two buckets; each member is the fit on its rows."""
    data = jn.Data(labelled(31, 0))
    folds = jn.data.k_fold(data, 4, key=jax.random.key(5), stratified=False)
    assert sorted({len(f.valid_rows) for f in folds}) == [7, 8]
    by_fold = swept({"lr": RATES[1:]}, data=data, folds=folds, seeds=2, devices=jax.local_devices()[:1])
    assert by_fold.finished.all()
    assert len(by_fold) == 2 * 4 * 2
    assert sorted(b.sizes for b in by_fold.plan.buckets) == [(23, 8), (24, 7)]
    for member in range(len(by_fold)):
        fold = folds[by_fold.columns["fold"][member]]
        x, y = data.train
        here = jn.Data(*((x[rows], y[rows]) for rows in (fold.rows, fold.valid_rows)))
        one = fitted(by_fold, member, here)
        assert int(one.epochs_run) == by_fold.values["epochs_run"][member]
        for name in ("train_loss", "valid_loss", "valid_accuracy"):
            np.testing.assert_allclose(by_fold.values[f"history/{name}"][member], one.history[name], rtol=2e-4)
    other = swept({"lr": RATES[1:]}, data=data, folds=folds[::-1], seeds=[1], devices=jax.local_devices()[:1])
    for fold in range(4):  # the folds' order doesn't matter either
        for place in range(2):
            assert_same(leaves(other, 2 * (3 - fold) + place), leaves(by_fold, 8 + 2 * fold + place))
