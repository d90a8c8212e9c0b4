"""What the tests of experiments share: loading one by name, and that a picture depends on its numbers alone."""

import importlib.util
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "experiments"


def experiment(name: str):
    """The module experiments/NAME.py, which may import its neighbours."""
    spec = importlib.util.spec_from_file_location(f"experiment_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        spec.loader.exec_module(module)
    return module


def drawn_twice_alike(tmp_path, draw):
    """`draw(path)` writes the same small file, whenever it is called."""
    pytest.importorskip("matplotlib")
    texts = []
    for folder in ("one", "other"):
        path = tmp_path / folder / "picture.svg"
        draw(path)
        texts.append(path.read_bytes())
    assert texts[0] == texts[1]
    assert 1_000 < len(texts[0]) < 150_000
