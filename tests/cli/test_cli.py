"""The command line as a stranger uses it: real processes where that matters, `main([...])` elsewhere."""

import ast
import contextlib
import csv
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn import datasets, metrics

import jaxnet as jn
from jaxnet.cli import folder, interrupts, judge, main, options
from jaxnet.training import progress

SMALL = ["--hidden", "16", "--epochs", "60", "--lr", "0.01"]


def process(*words, **how):
    """A real `jaxnet` in another process, warnings as errors."""
    command = [sys.executable, "-W", "error", "-m", "jaxnet", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **how)


def rows_of(path, delimiter=","):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    """A CSV file as people have them, and a run on it by two processes: (folder, train's result, predict's)."""
    place = tmp_path_factory.mktemp("flowers")
    random = np.random.default_rng(0)
    lines = ["name;größe;hue;kind"]
    for i in range(150):
        kind = i % 3
        size = "" if i % 17 == 0 else f"{random.normal(kind, 0.4):.3f}"
        hue = "" if i % 23 == 0 else ("red", "blue")[random.random() < (0.1, 0.5, 0.9)[kind]]
        lines.append(f"n{i};{size};{hue};" + ("rose", "日本", 'the "iris"')[kind].replace('"iris"', "iris"))
    (place / "flowers.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    told = ["--target", "kind", "--ignore", "name", "--missing", "mean", "--out", "run", *SMALL]
    trained = process("train", "--data", "flowers.csv", *told, cwd=place)
    predicted = process("predict", "--run", "run", "--data", "flowers.csv", cwd=place)
    return place, trained, predicted


def test_a_table_is_learned_in_one_process_and_predicted_in_another(flowers):
    place, trained, predicted = flowers
    assert (trained.returncode, trained.stderr) == (0, "")
    assert (predicted.returncode, predicted.stderr) == (0, "")
    true = [row["kind"] for row in rows_of(place / "flowers.csv", ";")]
    made = rows_of(place / "predictions.csv")
    accuracy = metrics.accuracy_score(true, [row["prediction"] for row in made])
    assert f"accuracy {accuracy:.4f} ({round(150 * accuracy)} of 150 right)" in predicted.stdout
    assert accuracy > 0.75
    classes = sorted(set(true))
    table = np.array([[float(row[f"p_{name}"]) for name in classes] for row in made])
    np.testing.assert_allclose(table.sum(axis=1), 1, atol=1e-6)
    assert [classes[i] for i in table.argmax(axis=1)] == [row["prediction"] for row in made]


def test_a_piped_run_prints_plain_lines(flowers):
    said = flowers[1].stdout.splitlines()
    epochs = [line for line in said if line.startswith("epoch ")]
    assert epochs[0].startswith("epoch  1/60  train loss ")
    assert 2 <= len(epochs) <= 12
    assert not any("\x1b" in line or "\r" in line for line in said)
    assert said[0] == "flowers: 150 examples of 4 numbers, 3 classes"
    assert said[1] == "96 to train, 24 to validate, 30 to test; columns standardized"


def test_the_record_of_a_run(flowers):
    record = json.loads((flowers[0] / "run" / "run.json").read_text(encoding="utf-8"))
    history = rows_of(flowers[0] / "run" / "history.csv")
    assert list(history[0]) == ["epoch", "train_loss", "valid_loss", "valid_accuracy"]
    assert [int(row["epoch"]) for row in history] == list(range(1, record["epochs_run"] + 1))
    best = history[record["best_epoch"] - 1]
    assert record["best"] == pytest.approx({name: float(best[name]) for name in list(best)[1:]}, rel=1e-6)
    assert min(float(row["valid_loss"]) for row in history) == float(best["valid_loss"])
    assert record["network"]["units"] == [16, 3]
    assert record["settings"]["lr"] == 0.01
    assert {"python", "jaxnet", "jax", "optax", "numpy"} <= set(record["versions"])
    confusion = np.array(record["test"]["confusion"])
    assert confusion.sum() == record["test"]["n"] == 30
    assert f"test accuracy {np.trace(confusion) / 30:.4f}" in flowers[1].stdout


def test_predictions_are_the_same_to_the_bit(flowers, capsysbinary):
    place, _, _ = flowers
    words = ["predict", "--run", str(place / "run"), "--data", str(place / "flowers.csv")]
    assert main([*words, "--out", str(place / "again.csv")]) == 0
    capsysbinary.readouterr()
    assert main([*words, "--out", "-"]) == 0
    out, err = capsysbinary.readouterr()
    first = (place / "predictions.csv").read_bytes()
    assert first == (place / "again.csv").read_bytes() == out
    assert b"150 predictions, accuracy" in err


def test_rows_without_the_target_are_predicted_alike(flowers, capsys):
    place, _, _ = flowers
    with open(place / "flowers.csv", encoding="utf-8") as file:
        bare = [";".join(line.split(";")[2:0:-1]) for line in file.read().splitlines()]
    (place / "bare.csv").write_text("\n".join(bare) + "\n", encoding="utf-8")
    words = ["predict", "--run", str(place / "run"), "--data", str(place / "bare.csv")]
    assert main([*words, "--out", str(place / "bare_out.csv")]) == 0
    assert capsys.readouterr().out == f"{place / 'bare_out.csv'}: 150 predictions\n"
    assert (place / "bare_out.csv").read_bytes() == (place / "predictions.csv").read_bytes()


def test_a_known_set_by_name(here, capsys):
    assert main(["train", "--data", "iris", "--patience", "3", *SMALL]) == 0
    said = capsys.readouterr().out
    assert "iris: 150 examples of 4 numbers, 3 classes" in said
    assert "stopped early after epoch " in said or "epochs exhausted: all 60 were run" in said
    assert "true \\ predicted   0   1   2" in said
    assert said.endswith("wrote runs/iris-0\n")
    assert sorted(os.listdir("runs/iris-0")) == ["history.csv", "params.safetensors", "run.json"]
    assert main(["predict", "--run", "runs/iris-0", "--data", "iris", "--out", "p.csv"]) == 0
    accuracy = metrics.accuracy_score(datasets.load_iris().target, [int(r["prediction"]) for r in rows_of("p.csv")])
    said = capsys.readouterr().out
    assert f"accuracy {accuracy:.4f}" in said
    assert "the run has learned from some of these examples" in said
    assert accuracy > 0.9


def test_regression_in_the_unit_of_the_target(here, capsys):
    table = datasets.load_diabetes(scaled=False)
    lines = [[*table.feature_names, "progress"], *np.column_stack([table.data, table.target]).tolist()]
    with open("diabetes.csv", "w", newline="") as file:
        csv.writer(file).writerows(lines)
    words = ["train", "--data", "diabetes.csv", "--target", "progress", "--task", "regression", "--hidden", "8,4"]
    assert main([*words, "--epochs", "20", "--activation", "tanh", "--seed", "3"]) == 0
    tested = capsys.readouterr().out
    assert main(["predict", "--run", "runs/diabetes-3", "--data", "diabetes.csv", "--out", "p.csv"]) == 0
    predicted = np.array([float(row["prediction"]) for row in rows_of("p.csv")])

    record = json.loads(Path("runs/diabetes-3/run.json").read_text())
    params = load_file("runs/diabetes-3/params.safetensors")
    h = (table.data - record["standardization"]["mean"]) / record["standardization"]["scale"]
    for i in range(3):
        h = h @ params[f"params/dense_{i}/w"] + params[f"params/dense_{i}/b"]
        h = np.tanh(h) if i < 2 else h
    mine = h[:, 0] * record["target"]["scale"] + record["target"]["mean"]
    np.testing.assert_allclose(predicted, mine, rtol=1e-4)
    rmse = np.sqrt(np.mean((mine - table.target) ** 2))
    assert f"RMSE {rmse:.4g} in the target's unit" in capsys.readouterr().out

    key = jax.random.fold_in(jax.random.key(3), 0)
    held = jn.data.split((np.arange(442.0), table.target), 0.2, key=key)[1][0].astype(int)
    rmse = np.sqrt(np.mean((mine[held] - table.target[held]) ** 2))
    assert record["test"]["n"] == len(held) == 88
    np.testing.assert_allclose(record["test"]["rmse"], rmse, rtol=1e-4)
    np.testing.assert_allclose(record["test"]["r2"], metrics.r2_score(table.target[held], mine[held]), rtol=1e-4)
    assert f"test RMSE {record['test']['rmse']:.4g} in the target's unit, R2 " in tested


def test_array_files(here, capsys):
    random = np.random.default_rng(1)
    x = random.normal(size=(30, 2, 2))
    np.savez("a.npz", x=x, y=np.where(x[:, 0, 0] > 0, 7, -1), weight=random.random(30))
    np.savez("b.npz", x=x)
    assert main(["train", "--data", "a.npz", "--hidden", "", "--epochs", "2", "--out", "run"]) == 0
    said = capsys.readouterr().out
    assert "network 4 - 2; batches of 19, the whole training set" in said
    assert ", weighted (" in said
    assert main(["predict", "--run", "run", "--data", "b.npz"]) == 0
    made = rows_of("predictions.csv")
    assert len(made) == 30
    assert set(made[0]) == {"prediction", "p_-1", "p_7"}
    assert main(["predict", "--run", "run", "--data", "iris"]) == 2
    assert "iris: got 0 in y; expected one of the classes -1, 7" in capsys.readouterr().err


def test_help_and_version_do_not_import_jax():
    script = """
        import sys
        from jaxnet.cli import main
        subcommands = [[name, "--help"] for name in ("demo", "train", "predict", "sweep", "report", "compare", "info")]
        for words in (["--help"], [], ["--version"], *subcommands):
            assert main(words) == 0, words
            assert "jax" not in sys.modules, words
        assert main(["train"]) == main(["trian"]) == 2
        """
    run = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
    done = subprocess.run(run, capture_output=True, text=True, check=True)
    assert f"jaxnet {jn.__version__}\n" in done.stdout
    assert "--data" in done.stderr


def test_every_option_has_a_help_text():
    for record in ast.parse(Path(options.__file__).read_text(encoding="utf-8")).body:
        if isinstance(record, ast.ClassDef):
            assert ast.get_docstring(record)
            told = record.body[1:]
            assert all(isinstance(field, ast.AnnAssign) for field in told[::2])
            assert all(isinstance(text, ast.Expr) for text in told[1::2])
            assert len(told) % 2 == 0


ERRORS = {
    "nearest name": (["--data", "irsi"], "got 'irsi', .* Did you mean 'iris'"),
    "no file": (["--data", "no.csv", "--target", "b"], r"^jaxnet: error: no\.csv: got no such file"),
    "no target": (["--data", "a.csv"], "got None, expected one of the columns 'a', 'b'"),
    "wrong target": (["--data", "a.csv", "--target", "bb"], "got no column 'bb'.* Did you mean 'b'"),
    "one class": (["--data", "one.csv", "--target", "b"], "got only 'x' in target 'b', expected two classes"),
    "two rows": (["--data", "two.csv", "--target", "b"], "got 2 examples; expected at least 3"),
    "target of a set": (["--data", "iris", "--target", "b"], "target: got a value with 'iris'"),
    "ignore of a set": (["--data", "iris", "--ignore", "b"], "--ignore: got columns with 'iris'"),
    "floats as classes": (["--data", "diabetes", "--task", "classification"], "expected integer labels"),
    "many integers": (["--data", "many.npz"], "got 40 different integers in y for 40 examples; .* --task"),
    "two targets": (["--data", "pair.npz"], r"got y of shape \(40, 2\)"),
    "no columns": (["--data", "none.npz"], r"got x of shape \(40, 0\)"),
    "hidden": (["--data", "iris", "--hidden", "8,x"], "--hidden: got '8,x'; expected units such as 256,128"),
    "zero units": (["--data", "iris", "--hidden", "0"], "--hidden: got '0'"),
    "activation": (["--data", "iris", "--activation", "swish"], "got activation 'swish'"),
    "share": (["--data", "iris", "--test-share", "1"], "--test-share: got 1.0; expected a number between 0 and 1"),
    "rate": (["--data", "iris", "--lr", "nan"], "--lr: got nan; expected a positive number"),
    "patience": (["--data", "iris", "--patience", "-1"], "--patience: got -1"),
    "seed": (["--data", "iris", "--seed", "-1"], "--seed: got -1"),
    "batch": (["--data", "iris", "--batch-size", "97"], "got batch_size=97 for 96 training examples"),
    "file in the way": (["--data", "iris", "--out", "a.csv"], r"a\.csv: File exists"),
    "run in the way": (["--data", "iris", "--out", "old"], r"old: got a folder with a run in it \(run\.json\)"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_one_line_and_leave_nothing(here, capsys, monkeypatch, name):
    words, sentence = ERRORS[name]
    Path("a.csv").write_text("a,b\n1,x\n2,y\n3,x\n4,y\n")
    Path("one.csv").write_text("a,b\n" + "1,x\n" * 9)
    Path("two.csv").write_text("a,b\n1,x\n2,y\n")
    np.savez("many.npz", x=np.zeros((40, 2)), y=np.arange(40))
    np.savez("pair.npz", x=np.zeros((40, 2)), y=np.zeros((40, 2)))
    np.savez("none.npz", x=np.zeros((40, 0)), y=np.arange(40) % 2)
    Path("old").mkdir()
    Path("old", "run.json").write_text("{}")
    before = sorted(here.rglob("*"))
    assert main(["train", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("jaxnet: error: ")
    assert said.count("\n") == 1
    assert re.search(sentence, said), said
    monkeypatch.setenv("JAXNET_TRACEBACK", "1")
    with pytest.raises((ValueError, TypeError, OSError)):
        main(["train", *words])
    assert sorted(here.rglob("*")) == before


def test_a_damaged_or_unfinished_run_is_refused(flowers, tmp_path, capsys):
    def error(*words):
        assert main(["predict", "--run", str(tmp_path / "run"), *words, "--out", str(tmp_path / "p.csv")]) == 2
        return capsys.readouterr().err

    data = str(flowers[0] / "flowers.csv")
    assert "got no such folder" in error("--data", data)
    (tmp_path / "run").mkdir()
    assert "got no params.safetensors and no run.json in it" in error("--data", data)
    for name in folder.FILES:
        (tmp_path / "run" / name).write_bytes((flowers[0] / "run" / name).read_bytes())
    assert "got 4 numbers" not in error("--data", "nothing.csv")
    assert "digits: got 64 numbers per example; expected 4 as in training" in error("--data", "digits")
    text = (tmp_path / "run" / "run.json").read_text(encoding="utf-8")
    for changed, words in ((text.replace("0.01", "0.02"), "that differ"), (text[:-9], "got no JSON")):
        (tmp_path / "run" / "run.json").write_text(changed, encoding="utf-8")
        assert words in error("--data", data)
    assert not (tmp_path / "p.csv").exists()


def test_predictions_never_replace_the_data(flowers, capsys):
    data = str(flowers[0] / "flowers.csv")
    before = Path(data).read_bytes()
    assert main(["predict", "--run", str(flowers[0] / "run"), "--data", data, "--out", data]) == 2
    assert "the file of the data" in capsys.readouterr().err
    assert Path(data).read_bytes() == before


def test_folders_are_numbered_and_taken_at_once(here):
    with folder.new_folder(None, "a") as first, folder.new_folder(None, "a") as second:
        assert (first, second) == (Path("runs/a"), Path("runs/a-2"))
        (second / "kept").touch()
    assert not first.exists()
    assert second.exists()
    with folder.new_folder(Path("b/c"), "a") as other:
        assert other.is_dir()
    assert sorted(os.listdir()) == ["runs"]
    Path("mine").mkdir()
    with folder.new_folder(Path("mine"), "a"):
        pass
    assert Path("mine").is_dir()


def test_a_run_that_cannot_be_written_leaves_nothing(here, monkeypatch):
    real = folder.checkpoint.write_whole

    def full(path, content):
        if Path(path).name == folder.RECORD:
            raise OSError(28, "No space left on device", str(path))
        real(path, content)

    monkeypatch.setattr(folder.checkpoint, "write_whole", full)
    with pytest.raises(OSError, match="No space left"), folder.new_folder(None, "a") as place:
        folder.write_run(place, {}, {"params": {}}, {"train_loss": [1.0]})
    assert os.listdir() == []


def test_ctrl_c_in_training(tmp_path):
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # not ignored in the process that is started
    try:
        words = ["train", "--data", "iris", "--epochs", "1000000", "--patience", "0", "--hidden", "4", "--out", "r/r"]
        run = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "jaxnet", *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, handler)
    try:
        while not (line := run.stdout.readline()).startswith("epoch "):
            assert line, run.stderr.read()
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert (run.returncode, err, out) == (130, "interrupted\n", "")
    assert os.listdir(tmp_path) == []


def test_ctrl_c_waits_for_a_safe_place():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        reached = []
        with interrupts.heard():
            with contextlib.suppress(KeyboardInterrupt), interrupts.deferred():
                signal.raise_signal(signal.SIGINT)
                reached.append("after the signal")
                interrupts.check()
                reached.append("after the check")
            with contextlib.suppress(KeyboardInterrupt):
                with interrupts.deferred():
                    reached.append("end of the block")
                reached.append("after the block")
        assert reached == ["after the signal", "end of the block"]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with interrupts.heard():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_reader_that_goes_away_ends_it_quietly():
    run = subprocess.Popen(
        [sys.executable, "-m", "jaxnet", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    run.stdout.close()
    assert run.wait(60) == 141
    assert run.stderr.read() == ""
    run.stderr.close()


def test_keyboard_interrupt_within_main(monkeypatch, capsys):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxnet.cli._run", interrupted)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_info(capsys):
    assert main(["info"]) == 0
    said = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert said["jaxnet"] == jn.__version__
    assert said["jax"] == jax.__version__
    assert said["numpy"] == np.__version__
    assert said["devices"].count("cpu:") == len(jax.devices())
    assert {"python", "jaxlib", "optax", "scikit-learn", "system", "x64", "cache", "data", "fashion_mnist"} <= set(said)


@pytest.mark.parametrize("total", [1, 7, 10, 11, 95, 1000])
def test_plain_progress_is_about_ten_lines(capsys, total):
    with progress.shown(total, "x", sys.stdout) as report:
        for epoch in range(1, total + 1):
            report(epoch, {"train_loss": 1.0})
    said = capsys.readouterr().out.splitlines()
    assert len(said) <= 12
    assert said[-1].startswith(f"epoch {total}/{total}")
    assert len(said) == len(set(said))


def test_live_progress(capsys):
    with progress._live(5, "[x]", sys.stdout) as report:
        for epoch in range(1, 6):
            report(epoch, {"train_loss": 0.25})
    said = capsys.readouterr().out
    assert "[x]" in said
    assert "epoch 5/5" in said
    assert "train loss 0.25" in said


def test_scores_agree_with_scikit_learn():
    random = np.random.default_rng(2)
    output, y, weight = random.normal(size=(50, 4)), random.integers(0, 4, 50), random.random(50)
    predicted = output.argmax(axis=1)
    for w in (None, weight):
        scored = judge.score(output, y, w, classes="abcd", target=None)
        np.testing.assert_allclose(
            scored["accuracy"], metrics.accuracy_score(y, predicted, sample_weight=w), rtol=1e-12
        )
        assert scored["confusion"] == metrics.confusion_matrix(y, predicted).tolist()
        target, t = {"mean": 5.0, "scale": 3.0}, random.normal(5, 3, 50)
        scored = judge.score(output[:, :1], t, w, classes=None, target=target)
        mine = 3 * output[:, 0] + 5
        np.testing.assert_allclose(
            scored["rmse"], metrics.root_mean_squared_error(t, mine, sample_weight=w), rtol=1e-12
        )
        np.testing.assert_allclose(scored["r2"], metrics.r2_score(t, mine, sample_weight=w), rtol=1e-12)
    output[0] = np.nan
    y[0] = 0
    assert judge.score(output, y, classes="abcd", target=None)["right"] <= 49
