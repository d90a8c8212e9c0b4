"""`jaxnet demo`, for real: its page, its numbers, and what interrupts it."""

import re
import subprocess
import sys


def test_demo_proves_trains_and_reports(tmp_path):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "jaxnet", "demo", "--out", "page.html"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "15 of 15 agree" in done.stdout
    errors = [float(e) for e in re.findall(r"(\S+) ≤ 1e-12  ok", done.stdout)]
    assert len(errors) == 15
    assert max(errors) < 1e-12
    assert float(re.search(r"test accuracy ([\d.]+)%", done.stdout)[1]) > 96
    assert "1,000 of 1,000 members: 100 configurations × 10 seeds" in done.stdout
    counts = re.search(r"epochs exhausted: (\d+), stopped early: (\d+), diverged: (\d+)", done.stdout)
    assert sum(int(n) for n in counts.groups()) == 1000
    assert int(counts[3]) == 60  # six configurations with lr × decay > 2, ten seeds
    table = re.search(r"true .*?\n\n", done.stdout, re.DOTALL)[0].splitlines()[1:11]
    assert sum(int(n) for row in table for n in row.split()[1:]) == 359
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 300_000
    assert page.count("<svg") >= 4
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_demo_refuses_a_folder_that_does_not_exist(tmp_path):
    from jaxnet.cli import main

    assert main(["demo", "--out", str(tmp_path / "no" / "page.html")]) == 2
