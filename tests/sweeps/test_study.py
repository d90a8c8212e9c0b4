"""Tables, histories, summaries and files of studies whose numbers are made by hand; nothing is trained."""

import csv
import math

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import jaxnet as jn
from jaxnet import outcomes
from jaxnet.data.folds import Fold
from jaxnet.sweeps.plan import plan_of
from jaxnet.sweeps.space import as_space, grid, key_of, static
from jaxnet.sweeps.store import Batch, Record, Store
from jaxnet.sweeps.study import Study, mode_of
from jaxnet.training.identity import sha256

FOLD = Fold(np.arange(3, dtype=np.int32), np.arange(1, dtype=np.int32))


def made(space, values, seeds=1, folds=0, rows=None, kept=None):
    """A study of these values, `values` by name, of the members at `rows` (all)."""
    study = Study.blank(plan_of(as_space(space), range(seeds), [FOLD] * folds))
    rows = list(range(len(study))) if rows is None else rows
    study.take(rows, {name: np.asarray(v) for name, v in values.items()}, kept or {})
    return study


def test_columns_of_a_study_half_done():
    space = [
        {"lr": 1, "act": static("relu"), "units": static([(8, 4)]), "flag": True},
        {"lr": 0.5, "act": static("tanh"), "units": static(3), "momentum": 2},
    ]
    values = {
        "metrics/valid_loss": np.array([0.25, np.nan, 4.0], "float32"),
        "history/valid_loss": np.array([[1, 0.25], [np.nan] * 2, [4, np.nan]], "float32"),
        "outcome": np.array([0, 2, 1], "int32"),
        "best_epoch": np.array([2, 0, 1], "int32"),
        "epochs_run": np.array([2, 1, 2], "int32"),
    }
    study = made(space, values, seeds=2, folds=2, rows=[4, 1, 6])
    columns = study.columns
    assert list(columns) == [
        "member", "seed", "fold", "lr", "act", "units", "flag", "momentum", "valid_loss", "outcome", "best_epoch",
        "epochs_run",
    ]  # fmt: skip
    assert columns["member"].tolist() == list(range(8))
    assert columns["seed"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert columns["fold"].tolist() == [0, 0, 1, 1] * 2
    assert columns["lr"].tolist() == [1.0, 0.5] * 4
    assert columns["act"].tolist() == ["relu", "tanh"] * 4
    assert columns["units"].tolist() == ["[8, 4]", 3] * 4
    assert columns["flag"].tolist() == [True, None] * 4
    np.testing.assert_array_equal(columns["momentum"], [np.nan, 2.0] * 4)
    nan = np.nan
    np.testing.assert_array_equal(columns["valid_loss"], np.array([nan, nan, nan, nan, 0.25, nan, 4, nan], "float32"))
    assert columns["outcome"].tolist() == [-1, 2, -1, -1, 0, -1, 1, -1]
    assert columns["best_epoch"].tolist() == [-1, 0, -1, -1, 2, -1, 1, -1]
    assert study.finished.tolist() == [False, True, False, False, True, False, True, False]
    assert study.metrics == ("valid_loss",)
    assert repr(study) == "Study(3 of 8 members, valid_loss)"
    table = study.table()
    assert isinstance(table, pd.DataFrame)
    assert table["outcome"].tolist() == [
        "not run", "diverged", "not run", "not run", "epochs exhausted", "not run", "stopped early", "not run",
    ]  # fmt: skip
    history = study.history("valid_loss")
    assert history.values.shape == (8, 2)
    assert history.epoch.tolist() == [1, 2]
    assert history.member.tolist() == list(range(8))
    np.testing.assert_array_equal(history.values[6], [4, np.nan])
    assert np.isnan(history.values[0]).all()


def test_integers_booleans_and_unsigned_of_members_not_run():
    values = {"metrics/count": np.array([7], "uint32"), "metrics/right": np.array([True])}
    columns = made({"lr": [0.1, 1.0]}, values, rows=[1]).columns
    assert columns["count"].tolist() == [-1, 7]
    assert columns["right"].tolist() == [-1, 1]


def test_what_is_taken_in_any_order_is_the_same():
    loss = np.arange(6, dtype="float32")
    whole = made({"lr": [1.0, 2.0, 3.0]}, {"metrics/loss": loss}, seeds=2)
    parts = Study.blank(whole.plan)
    for rows in ([5, 0], [3], [], [1, 2, 4]):
        parts.take(rows, {"metrics/loss": loss[rows]}, {})
    assert parts.finished.all()
    np.testing.assert_array_equal(parts.columns["loss"], whole.columns["loss"])


def test_histories_of_different_lengths():
    """As where a change of the epochs was accepted: the shorter ones end in NaN."""
    study = Study.blank(plan_of(grid({"lr": [1.0, 2.0, 3.0]}), [0]))
    for row, length in ((1, 2), (0, 3), (2, 1)):
        study.take([row], {"history/loss": np.full((1, length), row, "float32")}, {})
    nan = np.nan
    np.testing.assert_array_equal(study.history("loss").values, [[0, 0, 0], [1, 1, nan], [2, nan, nan]])


FINITE = st.floats(-1e3, 1e3, allow_subnormal=False)


@given(
    st.lists(
        st.lists(st.one_of(FINITE, st.sampled_from([np.nan, np.inf])), min_size=3, max_size=3), min_size=1, max_size=6
    )
)
def test_summary_against_scipy(by_seed):
    """Student's t over the seeds whose value is finite."""
    cube = np.array(by_seed)  # (seeds, configurations)
    study = made({"lr": [1.0, 2.0, 3.0]}, {"metrics/valid_loss": cube.reshape(-1)}, seeds=len(cube))
    summary = study.summary("valid_loss", level=0.9)
    assert summary["lr"].tolist() == [1.0, 2.0, 3.0]
    for c in range(3):
        good = cube[np.isfinite(cube[:, c]), c]
        row = summary.iloc[c]
        assert row["n"] == len(good)
        np.testing.assert_allclose(row["mean"], good.mean() if len(good) else np.nan)
        if len(good) < 2:
            assert np.isnan([row["std"], row["low"], row["high"]]).all()
            continue
        np.testing.assert_allclose(row["std"], good.std(ddof=1), atol=1e-9)
        if good.std() > 1e-9:  # scipy's is NaN without any spread
            expected = scipy.stats.t.interval(0.9, len(good) - 1, good.mean(), scipy.stats.sem(good))
            np.testing.assert_allclose([row["low"], row["high"]], expected, rtol=1e-6)
        np.testing.assert_array_equal(study.values_by_seed("valid_loss", c), cube[:, c])


def test_summary_averages_folds_within_a_seed_first():
    rng = np.random.default_rng(0)
    cube = rng.normal(size=(3, 2, 2))  # seeds, folds, configurations
    outcome = np.where(rng.random(12) < 0.4, outcomes.DIVERGED, 0).astype("int32")
    study = made(
        {"lr": [1.0, 2.0]},
        {"metrics/valid_loss": cube.reshape(-1), "outcome": outcome, "epochs_run": outcome * 0},
        seeds=3,
        folds=2,
    )
    summary = study.summary("valid_loss")
    for c in range(2):
        averages = cube[:, :, c].mean(axis=1)
        np.testing.assert_allclose(summary["mean"][c], averages.mean())
        expected = scipy.stats.t.interval(0.95, 2, averages.mean(), scipy.stats.sem(averages))
        np.testing.assert_allclose([summary["low"][c], summary["high"][c]], expected)
        assert summary["n"][c] == 3
        assert summary["diverged"][c] == (outcome.reshape(3, 2, 2)[:, :, c] == 2).sum()
    assert summary["diverged"].sum() > 0
    partial = made({"lr": [1.0, 2.0]}, {"metrics/loss": cube.reshape(-1)[:-1]}, seeds=3, folds=2, rows=list(range(11)))
    assert partial.summary("loss")["n"].tolist() == [3, 2]  # a seed counts once all its folds are there
    with pytest.raises(KeyError, match=r"got 'accuracy'; expected one of loss"):
        partial.summary("accuracy")


def test_summary_keeps_configurations_that_lack_a_name():
    summary = made([{"lr": 1}, {"lr": 2, "units": static([(4, 4)])}], {"metrics/loss": np.array([3.0, 4.0])}).summary(
        "loss"
    )
    assert summary["units"].tolist()[1] == "[4, 4]"
    assert pd.isna(summary["units"][0])
    assert summary["mean"].tolist() == [3.0, 4.0]


def test_best():
    nan = np.nan
    values = {
        "metrics/valid_loss": np.array([3.0, nan, 1.0, 1.0, -np.inf, 2.0]),
        "metrics/valid_accuracy": np.array([0.5, nan, 0.9, 0.9, np.inf, 0.1]),
        "metrics/size": np.arange(6.0),
    }
    tree = {"params": {"w": np.ones(2)}, "state": {}}
    study = made({"lr": [1.0, 2.0, 3.0]}, values, seeds=2, kept={2: tree, 5: tree})
    lowest = study.best("valid_loss")
    assert (lowest.member, lowest.value, lowest.seed, lowest.fold) == (2, 1.0, 0, 0)  # of equals the first
    assert lowest.configuration == {"lr": 3.0}
    np.testing.assert_array_equal(lowest.params["w"], [1, 1])
    assert study.best("valid_accuracy").member == 2
    assert study.best("valid_loss", "max").member == 0
    assert study.best("valid_loss", "max").params is None
    assert study.best("size", "max").member == 5
    with pytest.raises(ValueError, match=r"got mode=None for 'size'; expected"):
        study.best("size")
    with pytest.raises(ValueError, match=r"got mode='least' for 'valid_loss'; expected"):
        study.best("valid_loss", "least")
    with pytest.raises(KeyError, match=r"got 'loss'; expected one of valid_loss, valid_accuracy, size"):
        study.best("loss")


def test_best_of_members_not_run():
    study = made({"lr": [1.0, 2.0]}, {"metrics/count": np.array([3])}, rows=[1])
    assert study.best("count", "min").member == 1  # not the -1 of the one that wasn't run
    with pytest.raises(ValueError, match="no finished member with a finite value"):
        made({"lr": [1.0]}, {"metrics/loss": np.array([np.nan])}).best("loss")
    with pytest.raises(KeyError, match="no member has finished"):
        Study.blank(study.plan).best("loss")


@pytest.mark.parametrize(
    "name, mode",
    [
        ("valid_loss", "min"), ("train_loss", "min"), ("error", "min"), ("divergence", "min"), ("valid_r2", "max"),
        ("valid_accuracy", "max"), ("score", "max"), ("precision", "max"), ("recall", "max"),
    ],
)  # fmt: skip
def test_whether_low_or_high_is_good(name, mode):
    assert mode_of(name, None) == mode
    assert mode_of(name, "min") == "min"
    assert mode_of(name, "max") == "max"


def test_no_such_member():
    study = made({"lr": [1.0]}, {"metrics/loss": np.array([1.0])})
    for ask in (study.configuration, study.replay):
        for member in (1, -1):
            with pytest.raises(IndexError, match=f"got member {member}; expected 0 … 0"):
                ask(member)
    with pytest.raises(ValueError, match=r"jn\.sweep again"):
        study.replay(0)
    study.configuration(0)["lr"] = 7.0  # a copy
    assert study.configuration(0) == {"lr": 1.0}


@pytest.fixture
def varied():
    space = [
        {"act": static('relu, "x"'), "lr": 1, "units": static([(8, 4)]), "flag": True},
        {"act": static("ü"), "lr": 0.1},
    ]
    values = {"metrics/loss": np.array([0.1, np.inf, np.nan], "float32"), "outcome": np.array([0, 1, 2], "int32")}
    values["epochs_run"] = np.array([3, 2, 1], "int32")
    return made(space, values, seeds=2, rows=[0, 1, 2])


def test_csv(varied, tmp_path):
    varied.write_table(tmp_path / "table.csv")
    with open(tmp_path / "table.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["member", "seed", "act", "lr", "units", "flag", "loss", "outcome", "epochs_run"]
    assert [row["act"] for row in rows] == ['relu, "x"', "ü"] * 2
    assert [float(row["lr"]) for row in rows] == [1.0, 0.1] * 2
    assert [row["units"] for row in rows] == ["[8, 4]", ""] * 2
    assert [row["flag"] for row in rows] == ["True", ""] * 2
    np.testing.assert_array_equal(np.array([row["loss"] for row in rows], "float32"), varied.columns["loss"])
    assert [row["outcome"] for row in rows] == ["epochs exhausted", "stopped early", "diverged", "not run"]


def test_parquet(varied, tmp_path):
    varied.write_table(str(tmp_path / "table.parquet"))
    back = pd.read_parquet(tmp_path / "table.parquet")
    columns = varied.columns
    assert list(back) == list(columns)
    np.testing.assert_array_equal(back["loss"].to_numpy("float32"), columns["loss"])
    assert back["lr"].tolist() == columns["lr"].tolist()
    assert back["act"].tolist() == columns["act"].tolist()
    assert back["flag"].tolist() == [True, None] * 2
    assert back["outcome"].tolist()[-1] == "not run"


def test_parquet_of_values_of_several_types(tmp_path):
    study = made({"units": static([3, (8, 4), None, "wide"])}, {"metrics/loss": np.arange(4.0)})
    study.write_table(tmp_path / "table.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "table.parquet")
    assert table["units"].to_pylist() == ["3", "[8, 4]", None, "wide"]
    assert table["loss"].to_pylist() == [0.0, 1.0, 2.0, 3.0]


def test_files_that_cannot_be_written(varied, tmp_path):
    with pytest.raises(ValueError, match=r"expected a file that ends in \.csv or \.parquet"):
        varied.write_table(tmp_path / "table.xlsx")
    with pytest.raises(OSError, match="no"):
        varied.write_table(tmp_path / "no" / "table.csv")


def test_a_store_read_back(tmp_path):
    """Members in another order, some twice, some that no plan has; configurations of several types."""
    space = as_space([{"lr": 0.1, "act": static("relu"), "w": static([(8, (2,))])}, {"lr": 1, "act": static(None)}])
    texts = [key_of(c) for c in space.configurations]
    record = Record({}, texts, sorted(space.static), [4, 9], 3, {"made by": "hand"}, [])
    store = Store(tmp_path)
    store.open(record)
    plan = plan_of(space, [4, 9], [FOLD] * 3)
    order = np.random.default_rng(0).permutation(len(plan))
    params = {"params": {"dense_0": {"w": np.arange(6.0).reshape(2, 3)}}, "state": {}}
    for rows in (order[:5], order[3:9]):
        values = {"metrics/loss": rows * 1.5, "history/loss": np.stack([rows, -rows], 1)}
        values |= {"outcome": rows * 0, "epochs_run": rows * 0 + 2}
        store.add(Batch([plan.member(int(i)) for i in rows], values, {1: params}))
    store.close()
    study = Study.open(tmp_path)
    assert list(study.plan.space) == list(space)
    assert (study.plan.seeds, len(study.plan.folds), study.plan.space.static) == ((4, 9), 3, space.static)
    assert study.about == {"made by": "hand"}
    assert study.finished.sum() == 9
    expected = np.full(len(plan), np.nan)
    expected[order[:9]] = order[:9] * 1.5
    np.testing.assert_array_equal(study.columns["loss"], expected)
    np.testing.assert_array_equal(study.history("loss").values[order[7]], [order[7], -order[7]])
    assert sorted(study.kept) == sorted({order[1], order[4]})
    np.testing.assert_array_equal(study.kept[order[1]]["params"]["dense_0"]["w"], params["params"]["dense_0"]["w"])
    assert study.kept[order[1]]["state"] == {}
    with pytest.raises(ValueError, match="opened from its store"):
        study.replay(0)
    part = Study.blank(plan_of(space, [9], [FOLD] * 3))  # of which the store has more
    part.read(store.batches(kept=True))
    np.testing.assert_array_equal(part.columns["loss"], expected[6:])
    assert sorted(part.kept) == sorted(i - 6 for i in study.kept if i >= 6)


def test_without_pandas(varied, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(ImportError, match=r"jaxnet-toolkit\[tables\]"):
        varied.table()
    summary = varied.summary("loss")
    assert isinstance(summary, dict)
    assert math.isnan(summary["mean"][1])
    assert summary["n"].tolist() == [1, 0]


def test_checksums_are_what_the_shell_says():
    assert sha256(b"abc") == sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert jn.Study is Study
