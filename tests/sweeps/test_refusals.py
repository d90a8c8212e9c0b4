"""What doesn't fit is refused before anything compiles and before the store has a file."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from studies import DATA, build, compiles, labelled

import jaxnet as jn
from jaxnet import losses

X, Y = labelled(30, 0)
GOOD = {"build": build, "space": {"lr": [0.1, 0.2]}, "data": DATA, "epochs": 2, "width": 2, "quiet": True}


@pytest.fixture(scope="module", autouse=True)
def warm():
    """The few operations that making a key compiles, once per process."""
    jax.random.key(0)
    with pytest.raises(ValueError):
        jn.sweep(**GOOD | {"epochs": 0})


def with_dropout(hp):
    net = jn.mlp([4, 3], dropout=hp["rate"])
    return jn.program(net, losses.softmax_cross_entropy, optax.sgd(0.1), batch_size=8)


def of_units(hp):
    return jn.program(jn.mlp([hp["units"], 3]), losses.softmax_cross_entropy, optax.sgd(0.1), batch_size=8)


def in_python(hp):
    return build(hp) if hp["lr"] > 1 else build({"lr": 0.5})


def looped(hp):
    return build({"lr": sum(0.1 for _ in range(hp["size"]))})


def shaped(hp):
    def loss(output, target):
        return optax.softmax_cross_entropy_with_integer_labels(output, target) * jnp.sum(jnp.ones((hp["size"],)))

    return jn.program(jn.mlp([3]), loss, optax.sgd(0.1), batch_size=8)


def in_numpy(hp):
    return build({"lr": np.exp(np.asarray(hp["lr"]))})


def folds(n, k=3):
    return jn.data.k_fold((X[:n], Y[:n]), k, key=jax.random.key(0))


ALONE = jn.Data((X, Y))
REFUSED = {
    "build is no function": ({"build": 3}, TypeError, "got build 3; expected a function"),
    "build returns something else": ({"build": lambda hp: 7}, TypeError, "build returned 7; expected a Program"),
    "build forgets to return": ({"build": lambda hp: None}, TypeError, "build returned None; expected a Program"),
    "an unknown name": ({"build": lambda hp: build({"lr": hp["rate"]})}, ValueError, "got no hyperparameter 'rate'"),
    "an if": ({"build": in_python}, TypeError, r"jn\.static\("),
    "a loop": ({"build": looped, "space": {"size": [1, 2]}}, TypeError, r"jn\.static\("),
    "a shape": ({"build": shaped, "space": {"size": [1, 2]}}, TypeError, r"jn\.static\("),
    "a number of units": ({"build": of_units, "space": {"units": [1, 2]}}, TypeError, r"jn\.static\("),
    "numpy": ({"build": in_numpy}, TypeError, r"jn\.static\("),
    "dropout 1.5": ({"build": with_dropout, "space": {"rate": [0.1, 1.5, 0.2]}}, ValueError, "1.5"),
    "no configurations": ({"space": []}, ValueError, "got no configurations"),
    "no values": ({"space": {"lr": []}}, ValueError, "lr"),
    "an infinite value": ({"space": {"lr": [0.1, np.inf]}}, ValueError, "lr: got inf"),
    "a text": ({"space": {"lr": ["a"]}}, TypeError, r"lr: got 'a'.*jn\.static"),
    "no space": ({"space": 0.1}, TypeError, "got a space of type float"),
    "data of pairs": ({"data": (X, Y)}, TypeError, "expected"),
    "no data": ({"data": None}, TypeError, "expected"),
    "a label too large": ({"data": jn.Data((X, Y + 1), (X, Y))}, ValueError, "3"),
    "a negative label": ({"data": jn.Data((X, Y), (X, Y - 1))}, ValueError, "-1"),
    "a NaN": ({"data": jn.Data((X * np.nan, Y))}, ValueError, "(?i)nan"),
    "no epochs": ({"epochs": None}, ValueError, "got no epochs"),
    "zero epochs": ({"epochs": 0}, ValueError, "epochs"),
    "half an epoch": ({"epochs": 0.5}, TypeError, "epochs"),
    "epochs in words": ({"epochs": "2"}, TypeError, "epochs"),
    "no seeds": ({"seeds": 0}, ValueError, "seeds"),
    "seeds in words": ({"seeds": "0"}, TypeError, "got the seed '0'"),
    "a seed twice": ({"seeds": [1, 1]}, ValueError, "seeds"),
    "a negative seed": ({"seeds": [-1]}, ValueError, "seed -1"),
    "a number of folds": ({"folds": 5, "data": ALONE}, TypeError, "folds"),
    "folds of rows": ({"folds": [np.arange(3)], "data": ALONE}, TypeError, "folds"),
    "folds and validation": ({"folds": folds(30)}, ValueError, "folds"),
    "a fold out of range": ({"folds": folds(30), "data": jn.Data((X[:20], Y[:20]))}, ValueError, "rows"),
    "a batch larger than a fold": (
        {"folds": folds(9, 2), "data": jn.Data((X[:9], Y[:9]))}, ValueError, "got batch_size=8 for [45]",
    ),
    "a study seed in words": ({"study_seed": "0"}, TypeError, "study_seed"),
    "a study seed beyond 32 bits": ({"study_seed": 2**40 + 5}, ValueError, "study_seed"),
    "a device twice": ({"devices": [jax.devices()[0]] * 2}, ValueError, "each once"),
    "accept_change in words": ({"accept_change": "data"}, ValueError, "accept_change"),
    "half a study seed": ({"study_seed": 0.5}, TypeError, "study_seed"),
    "no width": ({"width": 0}, ValueError, "width"),
    "width in words": ({"width": "4"}, TypeError, "width"),
    "no devices": ({"devices": []}, ValueError, "devices"),
    "a number of devices": ({"devices": 2}, (TypeError, ValueError), "got devices=2; expected"),
    "an unknown device": ({"devices": ["cpu"]}, (TypeError, ValueError), "got devices"),
    "keep": ({"keep": "some"}, ValueError, "got keep='some'"),
    "rank_by": ({"rank_by": "loss"}, ValueError, "got rank_by='loss'; expected one of train_loss, valid_accuracy"),
    "mode": ({"mode": "least"}, ValueError, "got mode='least'"),
    "share": ({"share": (2, 2)}, ValueError, r"got share=\(2, 2\); expected"),
    "share of one": ({"share": 1}, (TypeError, ValueError), "got share=1; expected"),
    "accept_change": ({"accept_change": ["dta"]}, ValueError, "got accept_change.*dta"),
    "chunk": ({"chunk": 4}, ValueError, "got chunk=4 without an executor"),
    "report": ({"report": 3}, TypeError, "got report"),
    "about": ({"about": {"x": {1, 2}}}, TypeError, "about"),
    "store": ({"store": 5}, TypeError, "got store=5|got store 5"),
}  # fmt: skip


@pytest.mark.parametrize(
    "change, error, message",
    [pytest.param(*case, id=name) for name, case in REFUSED.items()],
)
def test_refused(change, error, message, tmp_path):
    with compiles() as found, pytest.raises(error, match=message):
        jn.sweep(**GOOD | {"store": tmp_path / "store"} | change)
    assert not found
    assert not (tmp_path / "store").exists()
