"""A store refuses another study, naming what differs; what doesn't matter is let through."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from studies import DATA, RATES, assert_same_members, compiles, labelled, swept

import jaxnet as jn
from jaxnet import losses
from jaxnet.sweeps import prepare
from jaxnet.sweeps.store import Store
from jaxnet.sweeps.study import Study
from jaxnet.training.identity import changes, data_checksums

ONE = {"seeds": 1, "devices": jax.local_devices()[:1]}


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    folder = tmp_path_factory.mktemp("identity") / "store"
    return swept(store=folder, **ONE), folder


@pytest.fixture
def store(complete, tmp_path):
    shutil.copytree(complete[1], tmp_path / "copy")
    return tmp_path / "copy"


def one_number(data):
    x, y = data.train
    x = x.copy()
    x[3, 2] = np.nextafter(x[3, 2], np.inf, dtype=x.dtype)
    return jn.Data((x, y), data.valid)


def network(**others):
    return lambda hp: jn.program(
        jn.mlp([4, 3], **others), losses.softmax_cross_entropy, optax.sgd(hp["lr"]), batch_size=8, patience=2
    )


CHANGES = {
    "data": ({"data": one_number(DATA)}, r"data: .*train\[0\].* in the store, .* now"),
    "no validation": ({"data": jn.Data(DATA.train), "build": lambda hp: patient(hp, None)}, r"data: .*none now"),
    "activation": ({"build": network(activation="tanh")}, "program: "),
    "patience": ({"build": lambda hp: patient(hp, 3)}, "program: "),
    "epochs": ({"epochs": 7}, "settings: epochs: 6 in the store, 7 now"),
    "width": ({"width": 3}, "settings: width: 4 in the store, 3 now"),
    "study_seed": ({"study_seed": 1}, "settings: study_seed: 0 in the store, 1 now"),
    "a configuration less": ({"space": {"lr": RATES[1:]}}, r"space: the configuration .*0\.02.* is gone"),
    "a seed less": ({"seeds": [5]}, "space: the seeds 0 are gone"),
}


def patient(hp, patience):
    return jn.program(
        jn.mlp([4, 3]), losses.softmax_cross_entropy, optax.sgd(hp["lr"]), batch_size=8, patience=patience
    )


@pytest.mark.parametrize("change, message", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_refused(store, change, message):
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    with compiles() as found, pytest.raises(ValueError, match=message) as caught:
        swept(store=store, **ONE | change)
    assert not found
    assert f"accept_change=['{message.split(':')[0]}'" in str(caught.value) or "accept_change=[" in str(caught.value)
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["jax", "jaxlib", "processor", "XLA_FLAGS", "precision"])
def test_another_environment_is_refused(store, monkeypatch, name):
    true = prepare.environment
    monkeypatch.setattr(prepare, "environment", lambda device: true(device) | {name: "another"})
    with pytest.raises(ValueError, match=f"environment: {name}: .* in the store, another now"):
        swept(store=store, **ONE)
    swept(store=store, accept_change=["environment"], **ONE)
    swept(store=store, **ONE)  # now it's the one that is expected


@pytest.mark.parametrize("section", ["data", "settings", "program", "no validation"])
def test_an_accepted_change_is_recorded(store, section):
    change = {"settings": "epochs", "program": "patience"}.get(section, section)
    given = ONE | CHANGES[change][0]
    sections = (
        ["data", "program"] if section == "no validation" else [section, *(["program"] * (section == "settings"))]
    )
    with pytest.raises(ValueError, match="differs"):
        swept(store=store, accept_change=["folds", "space"], **given)
    study = swept(store=store, accept_change=sections, **given)
    assert study.finished.all()  # what was there counts
    accepted = Store(store).read().accepted
    assert [sorted(one["changes"]) for one in accepted] == [sorted(sections)]
    assert accepted[0]["identity"]["settings"]["epochs"] == 6  # what it was before
    with compiles() as found:
        swept(store=store, **given)  # now it's what is expected, and nothing new is accepted
    assert not found
    assert Store(store).read().accepted == accepted
    with pytest.raises(ValueError, match="differs"):
        swept(store=store, **ONE)  # the old one isn't


def test_members_added_after_an_accepted_change_of_epochs(store, complete):
    given = ONE | {"epochs": 7, "seeds": 2}
    study = swept(store=store, accept_change=True, **given)
    assert study.finished.all()
    assert study.history("train_loss").values.shape == (6, 7)
    assert np.isnan(study.history("train_loss").values[:3, 6]).all()
    np.testing.assert_array_equal(study.history("train_loss").values[:3, :6], complete[0].history("train_loss").values)
    assert_same_members(Study.open(store), study, at_least=6)


def renamed(values):
    """Other names, another way to write the same; comments."""

    def update_rule(rate):
        return optax.sgd(learning_rate=rate)

    network = jn.mlp(sizes := [4, 3], activation="relu")
    del sizes
    return jn.program(network, losses.softmax_cross_entropy, update_rule(values["lr"]), patience=2, batch_size=8)


def test_what_does_not_matter(store, complete):
    """Another text of the same program; more seeds and configurations, another order; keep, report, devices."""
    with compiles() as found:
        same = swept(store=store, build=renamed, **ONE)
        assert_same_members(same, complete[0], at_least=3)
        swept({"lr": RATES[::-1]}, store=store, keep="best", report=lambda progress: None, seeds=1)
    assert not found
    more = swept({"lr": [*RATES, 0.5]}, store=store, seeds=[4, 0], devices=jax.local_devices()[:1])
    assert more.finished.all()
    assert_same_members(more, complete[0], at_least=3)
    assert Store(store).read().accepted == []
    assert Store(store).read().seeds == [0, 4]


def program_of(loss):
    return prepare.prepare(
        lambda hp: jn.program(jn.mlp([3]), loss, optax.sgd(hp["lr"]), batch_size=8), {"lr": [0.1]}, data=DATA, epochs=2,
        seeds=1, folds=(), study_seed=0, width=2, devices=None, rank_by=None, mode=None,
    )  # fmt: skip


def identity(loss):
    return prepare.identity_of(program_of(loss), {})["program"]


def test_the_names_of_functions_do_not_matter_and_what_they_do_does():
    def first(output, target):
        return losses.softmax_cross_entropy(output, target)

    def second(output, target):
        return losses.softmax_cross_entropy(output, target)  # a comment

    def half(output, target):
        return losses.softmax_cross_entropy(output, target) / 2

    assert identity(first) == identity(second) == identity(first)
    assert identity(jax.jit(first)) == identity(jax.jit(second))
    assert identity(first) != identity(half)
    assert identity(jax.jit(first)) != identity(jax.jit(half))


@pytest.mark.newer
@pytest.mark.parametrize("n", [3, 4000])
def test_one_number_of_an_array_closed_over_matters(n):
    def weighted(weights):
        weights = jnp.asarray(weights)
        return lambda output, target: losses.softmax_cross_entropy(output, target) * weights[target]

    weights = np.linspace(1, 2, n, dtype="float32")
    other = weights.copy()
    other[n // 2] = np.nextafter(other[n // 2], 9, dtype="float32")
    assert identity(weighted(weights)) == identity(weighted(weights.copy()))
    assert identity(weighted(weights)) != identity(weighted(other))


def test_folds_are_part_of_the_identity(tmp_path):
    data = jn.Data(labelled(28, 0))
    folds = jn.data.k_fold(data, 4, key=jax.random.key(0))
    others = jn.data.k_fold(data, 4, key=jax.random.key(1))
    given = {"data": data, "epochs": 2, "build": lambda hp: patient(hp, 2), **ONE}
    study = swept({"lr": [0.1]}, store=tmp_path, folds=folds, **given)
    for changed in (others, folds[:3], (*folds, others[0])):
        with pytest.raises(ValueError, match="folds: "):
            swept({"lr": [0.1]}, store=tmp_path, folds=changed, **given)
    assert_same_members(Study.open(tmp_path), study, at_least=4)


def test_checksums_of_data():
    """Of dtype, shape and every bit, by path."""
    x = np.arange(6, dtype="float32")
    sums = {
        str(data_checksums({"x": a}))
        for a in (x, x.reshape(2, 3), x.reshape(3, 2), x.astype("float64"), x.view("int32"), -x, x + 0.0)
    }
    assert len(sums) == 6  # x + 0.0 is x
    assert data_checksums({"x": x}) == data_checksums({"x": jnp.asarray(x)}) == data_checksums({"x": x[::-1][::-1]})
    assert list(data_checksums(DATA)) == [".train[0]", ".train[1]", ".valid[0]", ".valid[1]"]


def test_changes():
    old = {"settings": {"epochs": 5, "width": 4}, "program": {"a": "1", "b": "2"}, "data": {"x": "0" * 64}}
    assert changes(old, old) == {}
    new = {"settings": {"epochs": 6, "width": 4}, "program": {"b": "3", "c": "4"}, "data": {"z": "f" * 64}}
    assert changes(old, new) == {
        "settings": ["epochs: 5 in the store, 6 now"],
        "program": ["b: 2 in the store, 3 now"],  # a study may lack a bucket, and have new ones
        "data": ["x: 000000000000… in the store, none now", "z: none in the store, ffffffffffff… now"],
    }
