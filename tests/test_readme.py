"""Every code block of the README runs: Python in one namespace, `jaxnet` commands as processes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_python_blocks_run_and_show_what_they_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in blocks("python"):
        exec(compile(code, "README.md", "exec"), names)
    assert bool(names["jn"].testing.compare_gradients(
        names["by_hand"], names["by_grad"], names["params"], {}, names["batch"], key=names["key"]
    ))  # fmt: skip
    assert names["fitted"].metrics["valid_accuracy"] > 0.9
    assert names["many"].epochs_run.shape == (8,)
    study, best = names["study"], names["best"]
    assert len(study) == 8 * 2 * 2 * 4
    assert study.finished.all()
    again, row = names["again"], study.history("valid_loss").values[best.member]
    assert np.array_equal(again.history["valid_loss"], row, equal_nan=True)
    assert best.value == np.nanmin(study.history("valid_loss").values)


def test_commands_run(tmp_path):
    commands = [
        line.partition("#")[0].replace("experiments/", f"{ROOT}/experiments/").split()
        for block in blocks("bash")
        for line in block.splitlines()
        if line.startswith(".venv/bin/jaxnet")
    ]
    assert len(commands) == 5
    for _, *words in commands:
        done = subprocess.run([sys.executable, "-m", "jaxnet", *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "predictions.csv").read_text().count("\n") == 179  # a header and 178 wines
    assert (tmp_path / "runs/digits/report.html").stat().st_size < 1_000_000


def test_paths_and_scripts_exist():
    for path in re.findall(r"(?<![\w/])((?:jaxnet|tests|experiments|docs|scripts)/[\w./-]*[\w/])", README):
        assert (ROOT / path).exists(), path
    assert os.access(ROOT / "scripts/setup", os.X_OK)
    assert not re.search(r"NUMBER_|_ROWS|_SECONDS", README)
