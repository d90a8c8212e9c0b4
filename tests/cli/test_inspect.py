"""`jaxnet inspect` as a stranger uses it: what it shows of whole, damaged, foreign and numbered files."""

import subprocess
import sys
import textwrap

import numpy as np
import pytest

import jaxnet
from jaxnet import checkpoint
from jaxnet.checkpoint import Checkpoints
from jaxnet.cli import main

TREE = {
    "params": {"w": np.zeros((2, 3), np.float32), "\x1b[2Jb": np.zeros(1000)}, "state": {}, "n": np.int8(3),
}  # fmt: skip


@pytest.fixture
def path(tmp_path):
    import jax

    checkpoint.save(tmp_path / "a.safetensors", TREE | {"key": jax.random.key(1)}, {"lr": 0.1, "name": "größe"})
    return tmp_path / "a.safetensors"


def damaged(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_file(path, capsys):
    assert main(["inspect", str(path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{path}: format 2, jaxnet {jaxnet.__version__}, jax ")
    assert '"name": "größe"' in said
    assert "\x1b" not in said
    lines = {line.split("  ")[0]: line.split() for line in said.splitlines()}
    assert lines["params/w"][1:] == ["float32", "2,3", "24", "ok"]
    assert lines["params/\\x1b[2Jb"][1:] == ["float64", "1000", "8,000", "ok"]
    assert lines["state"][1:] == ["empty", "dict"]
    assert lines["n"][1:] == ["int8", "()", "1", "ok"]
    assert lines["key"][1:] == ["uint32,", "keys", "of", "threefry2x32", "2", "8", "ok"]
    assert said.endswith("\n4 tensors, 8,033 bytes, all intact\n")


def test_a_damaged_tensor(path, capsys):
    damaged(path, -1)  # the smallest numbers come last
    assert main(["inspect", str(path)]) == 1
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines() if line.endswith("  damaged")] == ["n"]
    assert "4 tensors, 8,033 bytes, 1 damaged" in said
    assert f"{path}: n: got bytes that don't match their checksum" in said


def test_a_damaged_header_and_a_foreign_file(path, capsys):
    damaged(path, 100)
    assert main(["inspect", str(path)]) == 1
    assert capsys.readouterr().out.startswith(f"{path}: got ")
    np.savez(path.with_name("x.npz"), x=np.zeros(3))
    assert main(["inspect", str(path.with_name("x.npz"))]) == 1
    assert "x.npz: got" in capsys.readouterr().out


def test_a_folder(tmp_path, capsys):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for number in range(1, 6):
            checkpoints.save(number, {"w": np.zeros(number)}, best=number in (1, 3))
    assert main(["inspect", str(tmp_path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    names = {number: f"checkpoint-0000000{number}.safetensors" for number in (3, 4, 5)}
    assert rows == [
        [names[3], "intact", "1", "24", "best"], [names[4], "intact", "1", "32"],
        [names[5], "intact", "1", "40", "newest"],
    ]  # fmt: skip
    damaged(checkpoints.path(5), -1)
    checkpoint.save(tmp_path / "z.safetensors", {})
    damaged(tmp_path / "z.safetensors", 20)
    assert main(["inspect", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:5]] == [
        [names[4], "intact", "1", "32", "newest"], [names[5], "damaged", "1", "40"], ["z.safetensors", "damaged"],
    ]  # fmt: skip
    assert [line.split(": ")[0] for line in lines[5:]] == [str(checkpoints.path(5)), str(tmp_path / "z.safetensors")]


def test_what_is_not_there(tmp_path, capsys):
    for path, words in ((tmp_path, "no .safetensors file in this folder"), (tmp_path / "a", "no such file")):
        assert main(["inspect", str(path)]) == 2
        assert f"jaxnet: error: {path}: " in (said := capsys.readouterr().err)
        assert words in said


def test_it_does_not_wait_for_jax(path):
    script = """
        import sys
        from jaxnet.cli import main
        assert main(["inspect", sys.argv[1]]) == 0
        assert "jax" not in sys.modules
        """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(path)], check=True, capture_output=True)
