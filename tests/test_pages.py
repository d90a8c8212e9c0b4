"""Pages whose Python blocks run one after the other, each followed by what it prints."""

import re
from pathlib import Path

import numpy as np
import pytest

import jaxnet as jn

DOCS = Path(__file__).parents[1] / "docs"


def run(name, capsys):
    """What the page defines, after all that it prints was compared with what it shows."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", (DOCS / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert {language for language, _ in blocks} == {"python", "text"}
    names: dict = {}
    printed = ""
    for language, text in blocks:
        if language == "python":
            assert printed == ""  # nothing is printed that isn't shown
            exec(compile(text, name, "exec"), names)
            printed = capsys.readouterr().out
        else:
            assert printed == text
            printed = ""
    assert printed == ""
    return names


@pytest.mark.parametrize("name", ["checkpoints.md", "microscope.md", "regularization.md", "runs.md", "second-order.md"])
def test_the_page_prints_what_it_shows(name, capsys):
    run(name, capsys)


def test_the_page_of_networks_with_those_of_other_libraries(capsys):
    for package in ("flax", "equinox"):
        pytest.importorskip(package)
    names = run("networks.md", capsys)
    x, labels = names["test"]
    assert (np.argmax(jn.predict(names["net"], names["fitted"], x), axis=-1) == labels).mean() > 0.9
