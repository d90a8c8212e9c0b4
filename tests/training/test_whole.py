"""`whole`: a study of any pure function is its `vmap`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from studies import DATA, assert_same, compiles, flat

import jaxnet as jn
from jaxnet import losses
from jaxnet.sweeps.study import Study

FIRST = jax.local_devices()[:1]
RATES = [0.05, 0.4]
SEEDS = [3, 1]
KEYS = jnp.stack([jax.random.fold_in(jax.random.key(0), seed) for seed in SEEDS for _ in RATES])
LR = jnp.asarray(RATES * 2, jnp.result_type(float))


def newton(key, hp, data):
    """Square roots by Newton's method from a random start; `data` is any tree."""
    start = jax.random.uniform(key, data["of"].shape, minval=0.5, maxval=2.0)

    def step(x, _):
        x = x - hp["lr"] * (x - data["of"] / x)
        return x, jnp.max(jnp.abs(x * x - data["of"]))

    x, errors = jax.lax.scan(step, start, length=5)
    return {"error": errors[-1], "errors": errors, "root": x, "steps": jnp.int32(5), "good": errors[-1] < 0.1}


def trained(key, hp, data):
    program = jn.program(jn.mlp([4, 3]), losses.softmax_cross_entropy, optax.sgd(hp["lr"]), batch_size=8, patience=2)
    return jn.fit(key, program, data, epochs=4)


def swept(train, data, space=None, **others):
    given = {"data": data, "seeds": SEEDS, "width": 4, "devices": FIRST, "keep": "all", "quiet": True}
    return jn.sweep(jn.whole(train), space or {"lr": RATES}, **given | others)


def by_hand(train, data):
    together = jax.jit(jax.vmap(lambda key, lr, data: train(key, {"lr": lr}, data), (0, 0, None)))
    return jax.device_get(together(KEYS, LR, data))


def test_a_dict_is_the_vmap(tmp_path):
    data = {"of": np.array([2.0, 3.0, 5.0], "float32")}
    study = swept(newton, data, store=tmp_path)
    expected = by_hand(newton, data)
    for one in (study, Study.open(tmp_path)):
        columns = one.columns
        assert_same({n: columns[n] for n in ("error", "steps")}, {n: expected[n] for n in ("error", "steps")})
        assert columns["good"].tolist() == expected["good"].tolist()
        for name in ("errors", "root"):
            assert_same({name: one.history(name).values}, {name: expected[name]})
        assert one.best("error").member == np.argmin(expected["error"])
        assert one.best("error").params is None
    assert study.metrics == ("error", "good", "steps")
    with compiles() as found:
        again = swept(newton, data, store=tmp_path)
        replayed = again.replay(2)
    assert len(found) <= 1  # the replay's
    assert_same(flat(replayed), flat(jax.tree.map(lambda a: a[2], expected)))


@pytest.mark.numerical
def test_a_fitted_is_the_vmap():
    study = swept(trained, DATA)
    expected = by_hand(trained, DATA)
    for name in ("best_epoch", "epochs_run", "outcome"):
        np.testing.assert_array_equal(study.columns[name], getattr(expected, name))
    for name, values in expected.metrics.items():
        assert_same({name: study.columns[name]}, {name: values})
    for name, values in expected.history.items():
        assert_same({name: study.history(name).values}, {name: values})
    for member in range(4):
        here = jax.tree.map(lambda a, i=member: a[i], {"params": expected.params, "state": expected.state})
        assert_same(flat(study.kept[member]), flat(here))
    other = swept(trained, DATA, {"lr": [*RATES[::-1], 0.1]}, seeds=[1])  # in another company
    assert_same(flat(other.kept[1]), flat(study.kept[2]))


def test_a_whole_of_folds():
    data = jn.Data(DATA.train)
    folds = jn.data.k_fold(data, 3, key=jax.random.key(0))

    def average(key, hp, data):
        x = data.train[0]
        return {"train": hp["lr"] * jnp.mean(x[data.rows]), "valid": jnp.mean(x[data.valid_rows])}

    study = swept(average, data, folds=folds)
    for member in range(len(study)):
        fold = folds[study.columns["fold"][member]]
        lr = study.columns["lr"][member]
        np.testing.assert_allclose(study.columns["train"][member], lr * data.train[0][fold.rows].mean(), rtol=1e-5)
        np.testing.assert_allclose(study.columns["valid"][member], data.train[0][fold.valid_rows].mean(), rtol=1e-5)


EMPTY: dict = {}


def test_epochs_are_refused():
    with compiles() as found, pytest.raises(ValueError, match=r"got epochs=3 for jn\.whole\(train\); expected none"):
        swept(newton, {"of": np.ones(3, np.float32)}, epochs=3)
    assert not found


def test_some_whole_and_some_not_are_refused():
    def build(hp):
        if hp["whole"]:
            return jn.whole(trained)(hp)
        return jn.program(jn.mlp([3]), losses.softmax_cross_entropy, optax.sgd(hp["lr"]), batch_size=8)

    for epochs, message in ((None, "for some configurations only"), (3, "got epochs=3")):
        with pytest.raises(ValueError, match=message):
            jn.sweep(build, {"lr": [0.1], "whole": jn.static([True, False])}, data=DATA, epochs=epochs, quiet=True)


@pytest.mark.parametrize(
    "result, message",
    [
        (jnp.zeros(3), "expected a Fitted"),
        ((jnp.zeros(()),), "expected a Fitted"),
        ({"a": jnp.zeros((2, 3))}, r"got 'a' of shape \(2, 3\); expected scalars and vectors"),
        ({1: jnp.zeros(())}, "by name"),
        ({"a": {"b": jnp.zeros(())}}, "got 'a'"),
        (EMPTY, "no metrics at all|expected"),
    ],
)
def test_results_that_are_refused(result, message):
    with compiles() as found, pytest.raises((TypeError, ValueError), match=message):
        swept(lambda key, hp, data: result, {"of": np.ones(3, "float32")}, rank_by=None if result is not EMPTY else "x")
    assert not found


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match="whole: got 3; expected a function"):
        jn.whole(3)
    program = jn.whole(newton)({"lr": 0.1})
    with pytest.raises(TypeError, match="got initial params; expected none"):
        program.start(jax.random.key(0), {"of": jnp.ones(3)}, {"w": 1})
