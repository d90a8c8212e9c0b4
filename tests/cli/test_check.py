"""`jaxnet check`: what it finds, what it says, and its exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxnet.cli import main
from jaxnet.cli.check import found

NETS = """
import jax.numpy as jnp, optax
import jaxnet as jn
from scales import SCALE

def scaled(factor=SCALE):
    return jn.layers.parameterless("scaled", lambda x, key, train: 2 * x, lambda x, dy, key, train: factor * dy)

wrong = scaled(3)
ids = jn.layers.embedding(4, 2)
fails = lambda: 1 / 0
number = 7

class Losses:
    half = jn.losses.Loss("half", lambda y, t: jnp.sum((y - t) ** 2, -1) / 2, lambda y, t: y - t, outputs="values")
    twice = jn.losses.Loss("twice", half.value, lambda y, t: 2 * (y - t), outputs="values")

def descent():
    return optax.sgd(0.1)

ascent = optax.sgd(-0.1)
"""


@pytest.fixture(scope="module")
def nets(tmp_path_factory):
    """A file that imports another beside it."""
    folder = tmp_path_factory.mktemp("nets")
    (folder / "scales.py").write_text("SCALE = 2\n", encoding="utf-8")
    (folder / "mynets.py").write_text(NETS, encoding="utf-8")
    (folder / "broken.py").write_text("import jaxnet\ndef f(:\n", encoding="utf-8")
    yield folder / "mynets.py"
    for name in ("mynets", "scales"):
        sys.modules.pop(name, None)


RUNS = {
    "a layer": ("scaled --shape 3", 0, "scaled() on (3,): ", "backward = autodiff, training   ok"),
    "a wrong layer": ("wrong --shape 2,3 --seed 1", 1, "scaled() on (2, 3): ", "backward = autodiff, training   WRONG"),
    "a layer of integers": ("ids --shape 2 --dtype int32", 0, "embedding(", "dx is None for 1"),
    "a loss": ("Losses.half --shape 2", 0, "<loss half> ", " ok"),
    "a wrong loss": ("Losses.twice", 1, "<loss twice> ", "WRONG"),
    "an optimizer": ("descent", 0, "", " ok"),
    "a wrong optimizer": ("ascent", 1, "", "WRONG"),
}


@pytest.mark.parametrize("what", RUNS)
def test_a_report_and_an_exit_code(what, nets, capsys):
    words, code, begins, holds = RUNS[what]
    name, *options = words.split()
    assert main(["check", f"{nets}:{name}", *options]) == code
    out, err = capsys.readouterr()
    assert out.startswith(begins)
    assert holds in out
    assert err == ""


REFUSALS = {
    "nothing": ("", "expected MODULE:NAME, such as mypackage.layers:swish"),
    "no colon": ("mynets.scaled", "expected MODULE:NAME"),
    "no such module": ("jaxnet.layerz:relu --shape 3", "jaxnet.layerz: importing it raised ModuleNotFoundError: "),
    "no such file": ("nowhere.py:relu --shape 3", "nowhere.py: got no such file; expected a Python file or the dotted"),
    "a module that fails": ("broken.py:f --shape 3", "broken.py: importing it raised SyntaxError: "),
    "no such name": ("mynets.py:scald --shape 3", "mynets.py: got no scald there; did you mean scaled?"),
    "no such attribute": ("mynets.py:Losses.third", "expected one of half, twice"),
    "a number": ("mynets.py:number", "mynets.py:number: got a int; expected a Layer, a Loss or an optax optimizer"),
    "what needs arguments": ("jaxnet.layers:dense --shape 3", "needs arguments: units; expected a Layer"),
    "a constructor that fails": ("mynets.py:fails", "mynets.py:fails: calling it raised ZeroDivisionError: "),
    "a layer without shape": ("mynets.py:scaled", "got no --shape for the layer scaled(); expected"),
    "a shape in other words": ("mynets.py:scaled --shape 3x4", "got --shape 3x4; expected positive integers"),
    "a shape with a zero": ("mynets.py:scaled --shape 3,0", "got --shape 3,0; expected positive integers"),
    "no such dtype": ("mynets.py:scaled --shape 3 --dtype float33", "got --dtype float33; expected the name of one"),
    "a dtype of a loss": ("mynets.py:Losses.half --dtype float32", "expected it for layers only: leave it out"),
    "a shape of an optimizer": ("mynets.py:descent --shape 3", "got --shape 3 for an optimizer; expected"),
    "a bound of an optimizer": ("mynets.py:descent --bound 1", "got --bound 1.0 for an optimizer; expected"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSALS)
def test_what_cannot_be_run_is_a_sentence_and_code_2(what, nets, monkeypatch, capsys):
    monkeypatch.chdir(nets.parent)
    words, says = REFUSALS[what]
    assert main(["check", *(words.split() or [""])]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jaxnet: error: ")
    assert says in err
    assert err.count("\n") == 1


def test_a_module_of_the_current_folder_by_its_dotted_name_and_nothing_stays_on_the_path(nets, monkeypatch):
    monkeypatch.chdir(nets.parent)
    before = list(sys.path)
    assert repr(found("mynets:scaled")) == "scaled()"
    assert sys.path == before


def test_a_process_ends_with_the_code(nets):
    command = [sys.executable, "-m", "jaxnet", "check", "mynets.py:wrong", "--shape", "3"]
    done = subprocess.run(command, cwd=nets.parent, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (1, "")
    assert "WRONG" in done.stdout


def test_help_speaks_of_it(capsys):
    assert main(["check", "--help"]) == 0
    assert "MODULE:NAME" in capsys.readouterr().out
    assert (Path(__file__).parents[2] / "docs" / "layers.md").exists()
