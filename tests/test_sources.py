"""scripts/sources: a clean tree passes the check; each disagreement fails it with a sentence."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "sources"

INVENTORY = """\
id,kind,priority,title
A-1,loss,must,"First, with a comma and a | bar"
A-2,loss,should,Second
A-3,loss,nice,Third
A-4,data,must,Fourth
A-5,data,out-of-scope,Fifth
"""
LEFT_OUT = "id,reason\nA-5,not ours\n"
STEPS = "step,finished,kinds\n1,yes,loss\n2,no,data unit\n"
TESTS = """\
import pytest

@pytest.mark.source("A-1", "A-2")
def test_both():
    pass
"""


def run(tree, *arguments):
    script = tree / "scripts" / "sources"
    return subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=60)


def write(tree, name, text):
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def tree(tmp_path):
    """A repository in which step 1 is finished and covered; docs/sources.md is up to date."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(SCRIPT, tmp_path / "scripts")
    write(tmp_path, "docs/inventory.csv", INVENTORY)
    write(tmp_path, "docs/left_out.csv", LEFT_OUT)
    write(tmp_path, "docs/steps.csv", STEPS)
    write(tmp_path, "tests/test_a.py", TESTS)
    assert run(tmp_path).returncode == 0
    return tmp_path


def check_fails(tree, *expected):
    """The check exits 1 with one sentence, which holds every expected piece, even after a fresh report."""
    run(tree)
    result = run(tree, "--check")
    assert result.returncode == 1
    (sentence,) = result.stderr.splitlines()
    for piece in expected:
        assert piece in sentence


def row(tree, id):
    lines = (tree / "docs/sources.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if line.startswith(f"| `{id}` ")]
    return line


def test_clean_tree_passes(tree):
    result = run(tree, "--check")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_report_says_test_reason_or_step(tree):
    test = "`tests/test_a.py::test_both`"
    assert row(tree, "A-1") == f"| `A-1` | must | First, with a comma and a \\| bar | {test} |"
    assert row(tree, "A-2") == f"| `A-2` | should | Second | {test} |"
    assert row(tree, "A-3") == "| `A-3` | nice | Third | open: step 1 |"
    assert row(tree, "A-4") == "| `A-4` | must | Fourth | open: step 2 |"
    assert row(tree, "A-5") == "| `A-5` | out-of-scope | Fifth | left out: not ours |"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('@pytest.mark.source("A-4")\nasync def test_it():\n    pass\n', "::test_it"),
        ('@pytest.mark.source("A-4")\nclass TestIt:\n    pass\n', "::TestIt"),
        ('class TestIt:\n    @pytest.mark.source("A-4")\n    def test_me(self): ...\n', "::TestIt::test_me"),
        ('@pytest.mark.source("A-4", "A-4")\ndef test_twice(): ...\n', "::test_twice"),
        ('from pytest import mark\n\n@mark.source("A-4")\ndef test_it(): ...\n', "::test_it"),
        ('pytestmark = pytest.mark.source("A-4")\n', ""),
        ('pytestmark = [pytest.mark.long, pytest.mark.source("A-3", "A-4")]\n', ""),
    ],
)
def test_marks_are_found_wherever_pytest_reads_them(tree, text, name):
    write(tree, "tests/deep/er/test_b.py", "import pytest\n\n" + text)
    run(tree)
    assert row(tree, "A-4").endswith(f"| `tests/deep/er/test_b.py{name}` |")


def test_several_tests_of_one_row_are_all_named(tree):
    write(tree, "tests/test_b.py", TESTS.replace("test_both", "test_more"))
    run(tree)
    assert "`tests/test_a.py::test_both`<br>`tests/test_b.py::test_more`" in row(tree, "A-1")


def test_marks_in_strings_do_not_count(tree):
    write(tree, "tests/test_b.py", f"TEXT = {TESTS.replace('A-1', 'X-1')!r}\n")
    assert run(tree, "--check").returncode == 0


def test_stale_report_fails_and_check_writes_nothing(tree):
    write(tree, "docs/sources.md", "old\n")
    result = run(tree, "--check")
    assert result.returncode == 1
    assert "docs/sources.md is stale" in result.stderr
    assert (tree / "docs/sources.md").read_text(encoding="utf-8") == "old\n"


def test_missing_report_fails(tree):
    (tree / "docs/sources.md").unlink()
    result = run(tree, "--check")
    assert result.returncode == 1
    assert "docs/sources.md is stale" in result.stderr


def test_unknown_id_in_a_mark_fails(tree):
    write(tree, "tests/test_a.py", TESTS.replace('"A-2"', '"A-2", "X-1"'))
    check_fails(tree, "X-1", "tests/test_a.py::test_both", "docs/inventory.csv")


def test_ids_that_are_not_plain_strings_fail(tree):
    write(tree, "tests/test_b.py", "import pytest\n\npytestmark = pytest.mark.source(*IDS)\n")
    check_fails(tree, "tests/test_b.py:3", "plain strings")


@pytest.mark.parametrize(("id", "priority"), [("A-1", "must"), ("A-2", "should")])
def test_uncovered_row_of_a_finished_step_fails(tree, id, priority):
    write(tree, "tests/test_a.py", TESTS.replace(id, "A-3"))
    check_fails(tree, "Step 1", id, priority)


def test_reason_covers_a_row_of_a_finished_step(tree):
    write(tree, "tests/test_a.py", TESTS.replace("A-2", "A-3"))
    write(tree, "docs/left_out.csv", LEFT_OUT + "A-2,too slow\n")
    run(tree)
    assert run(tree, "--check").returncode == 0


def test_reason_for_an_unknown_id_fails(tree):
    write(tree, "docs/left_out.csv", LEFT_OUT + "X-2,none\n")
    check_fails(tree, "X-2", "docs/left_out.csv")


def test_reason_for_a_tested_id_fails(tree):
    write(tree, "docs/left_out.csv", LEFT_OUT + "A-1,none\n")
    check_fails(tree, "A-1", "tests/test_a.py::test_both")


@pytest.mark.parametrize(
    ("name", "text", "id"),
    [
        ("inventory", INVENTORY + "A-3,loss,nice,Again\n", "A-3"),
        ("left_out", LEFT_OUT + "A-5,again\n", "A-5"),
    ],
)
def test_duplicate_id_fails(tree, name, text, id):
    write(tree, f"docs/{name}.csv", text)
    check_fails(tree, f"docs/{name}.csv", id, "2 times")


def test_kind_without_step_fails(tree):
    write(tree, "docs/inventory.csv", INVENTORY + "A-6,rnn,nice,Sixth\n")
    check_fails(tree, "A-6", "rnn", "docs/steps.csv")


def test_this_repository_passes():
    result = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
