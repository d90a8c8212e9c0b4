"""docs/layers.md does what it says: its code runs, its mistakes look as described, its command is one."""

import dataclasses
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jaxnet as jn
from jaxnet.cli import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """What the blocks of the page define."""
    made: dict = {}
    for code in blocks("python")[:3]:
        exec(compile(code, "layers.md", "exec"), made)
    return made


def test_the_way_is_short():
    assert sum(bool(line.strip()) for code in blocks("python") for line in code.splitlines()) < 40


def test_the_layer_is_proven_and_the_report_is_the_one_shown(names):
    shown, _ = blocks("text")
    printed = str(names["report"])
    assert printed.splitlines()[0] == shown.splitlines()[0]
    for line in shown.splitlines()[2:-1]:
        name, verdict, detail = re.split(r"\s{2,}", line.strip(), maxsplit=2)
        assert names["report"][name].verdict == verdict
        if jnp.result_type(float) == jnp.float32 and not re.search(r"\de[-+]\d", detail):
            assert names["report"][name].detail == detail


def test_the_mistake_is_caught_where_the_page_says(names):
    wrong = names["wrong"]["backward = autodiff, training"]
    verdicts = {leaf.path: leaf.verdict for leaf in wrong.comparison.leaves}
    assert verdicts == {"dx.x": "WRONG", "params.slope": "ok"}
    assert "five-point differences" in [check.name for check in names["wrong"].wrong]


@pytest.mark.long
def test_it_learns_in_a_network(names):
    network = dict(names)
    exec(compile(blocks("python")[3], "layers.md", "exec"), network)
    assert network["fitted"].metrics["valid_accuracy"] > 0.95
    slopes = network["fitted"].params["slope_tanh_0"]["slope"]
    assert slopes.shape == (32,)
    assert (jnp.abs(slopes - 1) > 0.05).all()


def test_its_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("slopes.py").write_text(blocks("python")[0], encoding="utf-8")
    commands = {line.partition("jaxnet ")[2] for line in blocks("bash")[0].splitlines()}
    assert commands == {"check slopes.py:slope_tanh --shape 3"}
    assert main(commands.pop().split()) == 0
    assert "13 ok, 2 skipped" in capsys.readouterr().out


def parameterless(apply, backward):
    return jn.layers.parameterless("mistake", apply, backward)


def noisy(x, key, train):
    return x * jax.random.bernoulli(key, 0.5, x.shape) if train else x


def with_another_key(x, dy, key, train):
    return noisy(dy, jax.random.fold_in(key, 1) if train else None, train)


def of_the_mean(names):
    def backward(params, state, x, dy, **options):
        dx, grads = names["slope_tanh"]().backward(params, state, x, dy)
        return dx, {"slope": grads["slope"] / len(x)}

    return dataclasses.replace(names["slope_tanh"](), backward=backward)


MISTAKES = {  # what: (layer, the wrong checks, among those the page speaks of)
    "kink": (
        lambda _: parameterless(lambda x, key, train: jnp.abs(x), lambda x, dy, key, train: dy * jnp.sign(x)),
        {"inputs of zero"},
    ),
    "key": (lambda _: parameterless(noisy, with_another_key), {"backward = autodiff, training", "inputs of zero"}),
    "hidden": (
        lambda _: parameterless(
            lambda x, key, train: x * jax.lax.stop_gradient(x), lambda x, dy, key, train: dy * x
        ),
        {"five-point differences"},
    ),
    "mean": (of_the_mean, {"backward = autodiff, training", "backward = autodiff, inference"}),
}  # fmt: skip


@pytest.mark.parametrize("what", MISTAKES)
def test_what_other_mistakes_look_like(what, names):
    make, expected = MISTAKES[what]
    report = jn.testing.check_layer(make(names), (3,))
    about = {"backward = autodiff, training", "backward = autodiff, inference", "inputs of zero"}
    about |= {"five-point differences"} if what == "hidden" else set()
    assert {check.name for check in report.wrong} & about == expected, report
    if what == "mean":
        row = report["backward = autodiff, training"].comparison.worst
        assert row.expected / row.tested == pytest.approx(4, rel=1e-5)
