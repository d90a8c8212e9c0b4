"""Studies on the command line: one interrupted in a real process and finished in this one; the rest by `main`."""

import csv
import importlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from scipy import stats

import jaxnet as jn
from jaxnet.cli import main
from jaxnet.cli import train as cli_train
from jaxnet.cli.examples import learned
from jaxnet.cli.options import Train
from jaxnet.cli.studyfile import checked
from jaxnet.sweeps.plan import Member
from jaxnet.sweeps.space import key_of
from jaxnet.sweeps.store import Batch, Record, Store

STUDY = """
[program]
hidden = [4]
patience = 0
weight_decay = 0.1
[data]
name = "iris"
split_seed = 3
[space]
lr = { log = [1e-3, 1e-1], n = 3 }
[study]
epochs = 300
seeds = 100
width = 8
"""


@pytest.fixture(scope="module", autouse=True)
def cache_folder(tmp_path_factory):
    """Programs compiled once, in this process and in those that it starts."""
    folder = tmp_path_factory.mktemp("cache")
    settings = {"jax_compilation_cache_dir": str(folder), "jax_persistent_cache_min_compile_time_secs": 0.2}
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield folder
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parts_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.safetensors")}


def interrupted(place, cache_folder):
    """A study of one device in a process of its own, interrupted by Ctrl-C: its code, stdout and stderr."""
    settings = {"JAX_COMPILATION_CACHE_DIR": str(cache_folder), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # not ignored in the process that is started
    try:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "jaxnet", "sweep", "iris.toml", "--devices", "1"],
            cwd=place,
            env={name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, handler)
    try:
        while not parts_of(place):  # the first members are on the disk
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, out, err


def test_an_interrupted_study_goes_on_to_the_bits_of_the_same_study_in_python(here, cache_folder, capsys):
    (here / "iris.toml").write_text(STUDY)
    code, out, err = interrupted(here, cache_folder)
    assert code == 130
    assert err.endswith("what has finished is in runs/iris: the same command goes on from there\ninterrupted\n"), err
    assert out == "iris: 150 examples of 4 numbers, 3 classes; 96 to train, 24 to validate, 30 set aside\n"
    assert "1 bucket (compiled program), 8 side by side on 1 device: 1 compile\n" in err
    parts, before = parts_of(here), int(jn.Study.open("runs/iris").finished.sum())
    assert 0 < before < 300

    assert main(["sweep", "iris.toml", "--devices", "1"]) == 0
    out, err = capsys.readouterr()
    assert f"{before:,} of them are in the store already" in err
    assert out.endswith("study in runs/iris; jaxnet report runs/iris writes a page of it\n")
    assert parts.items() <= parts_of(here).items()
    study = jn.Study.open("runs/iris")
    assert study.finished.all()

    split = cli_train.split(Train("iris", seed=3), learned(Train("iris")))

    def build(hp):
        optimizer = optax.adamw(hp["lr"], weight_decay=0.1)
        return jn.program(jn.mlp([4, 3]), jn.losses.softmax_cross_entropy, optimizer, batch_size=32)

    seeds = [0, 57, 99]
    data = jn.Data(split.train, split.valid)
    space, devices = {"lr": jn.log_space(1e-3, 1e-1, 3)}, jax.local_devices()[:1]
    mine = jn.sweep(build, space, data=data, epochs=300, seeds=seeds, width=8, devices=devices, quiet=True)
    for name, values in mine.values.items():
        theirs = study.values[name].reshape(100, 3, *values.shape[1:])[seeds]
        np.testing.assert_array_equal(values, theirs.reshape(values.shape))
    assert checked(study.about["file"], Path("iris.toml")).study["epochs"] == 300
    assert study.about["data"]["standardization"] == split.standardization
    assert {"jax", "jaxnet", "python"} <= study.about["versions"].keys()
    assert study.best("valid_loss").params["dense_0"]["w"].shape == (4, 4)

    assert main(["sweep", "iris.toml", "--devices", "1"]) == 0
    assert "300 of them are in the store already" in capsys.readouterr().err


@pytest.fixture
def squares(here):
    """A study that compiles fast, of a user's own program and data: squares.toml and squares.py."""
    text = """
        import jax
        import jax.numpy as jnp
        import jaxnet as jn

        def train(key, hp, data):
            return {"loss": jnp.sum((data - hp["x"]) ** 2) + 0 * jax.random.normal(key)}

        build = jn.whole(train)

        def data():
            return jnp.arange(3.0)
        """
    (here / "squares.py").write_text(textwrap.dedent(text))
    tables = ['build = "squares:build"', 'data = "squares:data"', "space = { x = [0.0, 1.0, 3.0] }"]
    (here / "squares.toml").write_text("\n".join(tables))
    yield here
    sys.modules.pop("squares", None)


def test_shares_of_a_program_of_ones_own(squares, capsys):
    words = ["sweep", "squares.toml", "--out", "s", "--seeds", "2"]
    assert main([*words, "--share", "1", "2"]) == 0
    assert jn.Study.open("s").finished.tolist() == [False, True] * 3
    assert main([*words, "--share", "0", "2"]) == 0
    study = jn.Study.open("s")
    assert study.values["metrics/loss"].tolist() == [5.0, 2.0, 14.0] * 2
    assert "data of squares:data\n" in capsys.readouterr().out
    assert str(squares) not in sys.path
    assert main(["compare", "s", "s"]) == 0
    assert "a: s, best of 3: x = 1; mean 2\n" in capsys.readouterr().out


def test_a_report_and_a_table(squares, capsys):
    assert main(["sweep", "squares.toml", "--out", "s", "--seeds", "2"]) == 0
    capsys.readouterr()
    assert main(["report", "s", "--csv", "table.csv", "--name", "loss"]) == 0
    said = capsys.readouterr().out
    page = Path("s/report.html").read_text(encoding="utf-8")
    assert "2.00" in said
    assert "<html" in page
    assert f"report: s/report.html ({len(page.encode()) / 1000:,.0f} kB)\ntable: table.csv (6 members)\n" in said
    with open("table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(float(row["x"]), int(row["seed"]), float(row["loss"])) for row in rows] == [
        (x, seed, loss) for seed in (0, 1) for x, loss in ((0.0, 5.0), (1.0, 2.0), (3.0, 14.0))
    ]
    assert main(["report", "s", "--out", "page.html"]) == 0
    assert Path("page.html").is_file()
    capsys.readouterr()
    assert main(["report", "s", "--name", "los"]) == 2
    assert capsys.readouterr().err == "jaxnet: error: s: got no metric los; did you mean loss?\n"


def test_a_change_is_refused_in_words_of_the_command_line(squares, capsys):
    assert main(["sweep", "squares.toml", "--out", "s"]) == 0
    source, tables = squares / "squares.py", squares / "squares.toml"
    source.write_text(source.read_text().replace("** 2", "** 3"))
    tables.write_text(tables.read_text().replace("0.0, ", ""))
    importlib.invalidate_caches()
    sys.modules.pop("squares")
    before = parts_of(squares), (squares / "s" / "study.json").read_bytes()
    capsys.readouterr()
    assert main(["sweep", "squares.toml", "--out", "s"]) == 2
    said = capsys.readouterr().err
    assert "program: " in said
    assert 'space: the configuration {"x": 0.0} is gone' in said
    assert said.endswith("or let these through with --accept-change program space\n")
    assert main(["sweep", "squares.toml", "--out", "s", "--dry-run"]) == 0
    assert "s has another study, program: " in capsys.readouterr().out
    assert before == (parts_of(squares), (squares / "s" / "study.json").read_bytes())
    assert main(["sweep", "squares.toml", "--out", "s", "--accept-change", "programm"]) == 2
    assert capsys.readouterr().err == "jaxnet: error: --accept-change: got programm; did you mean program?\n"
    assert main(["sweep", "squares.toml", "--out", "s", "--accept-change", "program", "space"]) == 0
    accepted = Store(squares / "s").read().accepted
    assert [set(change["changes"]) for change in accepted] == [{"program", "space"}]


def test_a_dry_run_compiles_and_writes_nothing(here, capsys):
    (here / "iris.toml").write_text(STUDY)
    seen = []
    jax.monitoring.register_event_duration_secs_listener(listener := lambda event, *_, **__: seen.append(event))
    try:
        assert main(["sweep", "iris.toml", "--dry-run"]) == 0  # the small functions of loading and splitting
        seen.clear()
        capsys.readouterr()
        assert main(["sweep", "iris.toml", "--dry-run", "--seeds", "5", "--devices", "1"]) == 0
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    assert "/jax/core/compile/backend_compile_duration" not in seen
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[1] == "15 members: 3 configurations (lr: 3) × 5 seeds"
    assert "8 side by side on 1 device: 1 compile" in lines[2]
    plan, resolved = out.split("\n\n", 1)
    (here / "resolved.toml").write_text(resolved)
    assert main(["sweep", "resolved.toml", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"{plan}\n\n{resolved}"
    assert sorted(os.listdir()) == ["iris.toml", "resolved.toml"]


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["no.toml"], "no.toml: No such file or directory"),
        (["iris.toml", "--devices", "99"], "devices: got 99; expected at most"),
        (["iris.toml", "--devices", "0"], '--devices: got 0; expected "auto", or how many'),
        (["iris.toml", "--seeds", "0"], "--seeds: got 0; expected how many"),
        (["iris.toml", "--share", "2", "2"], "got share=(2, 2); expected (i, n)"),
        (["bad.toml"], "bad.toml: got [program] hiddn; did you mean hidden?"),
        (["big.toml"], "got batch_size=97"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(here, capsys, words, sentence):
    (here / "iris.toml").write_text(STUDY)
    (here / "bad.toml").write_text(STUDY.replace("hidden", "hiddn"))
    (here / "big.toml").write_text(STUDY.replace("patience", "batch_size = 97\npatience"))
    assert main(["sweep", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"jaxnet: error: {sentence}"), said
    assert said.count("\n") == 1
    assert sorted(os.listdir()) == ["bad.toml", "big.toml", "iris.toml"]


def stored(folder, values, seeds, *, metric="valid_loss", data="a", study_seed=0, finished=None):
    """A study on the disk whose metric has these values (seeds, configurations)."""
    values = np.asarray(values)
    configurations = [{"lr": 0.1 * (i + 1), "hidden": (4, i + 1)} for i in range(values.shape[1])]
    names = [key_of(c) for c in configurations]
    identity = {"settings": {"study_seed": study_seed, "width": 4}, "data": {"x": data}, "folds": {}}
    store = Store(folder)
    store.open(Record(identity, names, ["hidden"], list(seeds), 0, {"rank_by": metric, "mode": None}, []))
    chosen = [(i, j) for i in range(len(seeds)) for j in range(len(names)) if finished is None or finished[i][j]]
    members = [Member(names[j], 0, seeds[i]) for i, j in chosen]
    if members:
        store.add(Batch(members, {f"metrics/{metric}": np.array([values[i, j] for i, j in chosen])}, {}))
    store.close()


def test_a_comparison_is_that_of_the_best_on_common_seeds(here, capsys):
    random = np.random.default_rng(0)
    a, b = random.normal(1.0, 0.1, (8, 3)), random.normal(1.2, 0.1, (6, 2))
    a[:, 1] -= 0.2  # the best of a, but that its seed 9, which b hasn't, is bad
    a[7, 1] = 50.0
    a[2, 0] = np.nan
    a[[0, 1, 3, 4, 5, 6, 7], 0] = 0.0  # would be the best, had it not diverged once
    stored("a", a, [0, 1, 2, 3, 4, 5, 6, 9])
    stored("b", b, [6, 5, 4, 3, 2, 8])
    assert main(["compare", "a", "b", "--level", "0.9"]) == 0
    said = capsys.readouterr().out.splitlines()
    seeds = [2, 3, 4, 5, 6]
    x = a[seeds, 1]
    best = int(np.argmin(b[:5].mean(axis=0)))
    y = b[:5, best][::-1]
    assert said[0] == "valid loss (low is good) on 5 common seeds"
    assert said[1] == f"a: a, best of 3: hidden = [4, 2], lr = 0.2; mean {x.mean():.4g}"
    assert said[2] == f"b: b, best of 2: hidden = [4, {best + 1}], lr = {0.1 * (best + 1):.4g}; mean {y.mean():.4g}"
    assert said[3].startswith("caution: the best of more configurations looks better")
    interval = stats.ttest_rel(y, x).confidence_interval(0.9)
    assert said[4] == (
        f"b − a: {(y - x).mean():.4g}, 90 % interval {interval.low:.4g} to {interval.high:.4g} (5 pairs)"
    )
    assert said[5].startswith(f"p: {stats.ttest_rel(y, x).pvalue:.3g} by the paired t-test")


def test_high_is_good_of_an_accuracy(here, capsys):
    stored("a", [[0.5, 0.7, 0.6], [0.5, 0.7, 0.6]], [0, 1], metric="valid_accuracy")
    assert main(["compare", "a", "a"]) == 0
    assert "a: a, best of 3: hidden = [4, 2]" in capsys.readouterr().out
    assert main(["compare", "a", "a", "--mode", "min"]) == 0
    assert "a: a, best of 3: hidden = [4, 1]" in capsys.readouterr().out


def test_cautions(here, capsys):
    stored("a", [[1.0], [2.0]], [0, 1])
    stored("b", [[1.5], [2.5]], [0, 1], data="other", study_seed=1)
    assert main(["compare", "a", "b"]) == 0
    said = capsys.readouterr().out
    assert "caution: the studies have different data" in said
    assert "caution: the studies have different study seeds" in said
    assert "more configurations" not in said
    assert "b − a: 0.5" in said
    assert main(["compare", "a", "a"]) == 0
    assert "caution" not in capsys.readouterr().out


def test_what_cannot_be_compared(here, capsys):
    def error(*words):
        assert main(["compare", *words]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        return said

    stored("a", [[1.0, 2.0], [1.0, 2.0]], [0, 1])
    stored("b", [[1.0], [2.0]], [2, 3])
    assert "got no common seeds: a has finished 0, 1, b 2, 3; expected some" in error("a", "b")
    stored("half", [[1.0, 2.0], [1.0, 2.0]], [0, 1], finished=[[True, False], [False, True]])
    assert "got no common seeds: a has finished 0, 1, half none" in error("a", "half")
    stored("lost", [[np.nan], [1.0]], [0, 1])
    assert "lost: got no configuration with a finite valid_loss for all 2 common seeds" in error("a", "lost")
    assert "a: got no metric valid_los; did you mean valid_loss?" in error("a", "a", "--name", "valid_los")
    stored("strange", [[1.0], [2.0]], [0, 1], metric="height")
    assert "got mode=None for 'height'; expected mode='min' or mode='max'" in error("strange", "strange")
    assert "none: no study here" in error("none", "a")
    stored("empty", np.zeros((1, 1)), [0], finished=[[False]])
    assert "empty: got a study of which no member has finished" in error("a", "empty")
    assert "level" in error("a", "a", "--level", "1.5")


def test_help_does_not_import_jax():
    script = """
        import sys
        from jaxnet.cli import main
        for words in (["--help"], ["sweep", "--help"], ["report", "--help"], ["compare", "--help"]):
            assert main(words) == 0, words
            assert "jax" not in sys.modules, words
        assert main(["sweep"]) == main(["compare", "a"]) == 2
        """
    run = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    done = subprocess.run(run, capture_output=True, check=True)
    assert b"STUDY.toml" in done.stdout


@pytest.mark.parametrize("wanted, expected", [(3, 3), ("auto", len(os.sched_getaffinity(0)))])
def test_as_many_devices_as_told_or_cores(wanted, expected):
    script = f"from jaxnet.cli.sweep import _devices; print(len(_devices({wanted!r})))"
    run, env = [sys.executable, "-c", script], os.environ | {"XLA_FLAGS": ""}
    assert int(subprocess.run(run, env=env, capture_output=True, check=True).stdout) == expected
