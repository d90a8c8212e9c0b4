"""Pages whose Python blocks run one after the other, each followed by what it prints."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", ["microscope.md", "regularization.md"])
def test_the_page_prints_what_it_shows(name, capsys):
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
