"""A study that is killed, interrupted or out of disk goes on where it was, and ends as if nothing had happened."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from studies import RATES, SEEDS, assert_same_members, swept

from jaxnet.sweeps import execute, session
from jaxnet.sweeps.study import Study

HERE = Path(__file__).parent
MEMBERS = len(RATES) * SEEDS


@pytest.fixture(scope="module")
def undisturbed():
    return swept(seeds=SEEDS)


@pytest.fixture
def child(cache_folder):
    """Starts the study in another process; each is killed at the end at the latest."""
    started = []

    def start(store, *more, devices=2):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE.parent.parent)]),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(cache_folder),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        command = [sys.executable, str(HERE / "child.py"), str(store), *more]
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def parts(store):
    return list(Path(store).glob("parts-0/*.safetensors"))


def completed(process):
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def until(condition, process, seconds=200):
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        if process.poll() is not None:
            return
        time.sleep(0.002)


def kill_somewhere(process, store, chance):
    """`kill -9` once so many more parts are there, and a little later; whether it was still at work."""
    more = len(parts(store)) + chance.choice([0, 1, 1, 2, 3])
    until(lambda: len(parts(store)) >= more, process)
    time.sleep(chance.choice([0, chance.uniform(0, 0.04), chance.uniform(0, 1.5)]))
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def assert_killed_is_undisturbed(kills, undisturbed, child, tmp_path):
    seed = random.randrange(10**6)
    chance, killed, between, i = random.Random(seed), 0, 0, 0
    store = tmp_path / "0"
    while killed < kills:
        if kill_somewhere(child(store), store, chance):
            killed += 1
            between += (store / "study.json").exists() and 0 < Study.open(store).finished.sum() < MEMBERS
            continue
        assert_same_members(Study.open(store), undisturbed, at_least=MEMBERS)  # it got to the end in pieces
        store = tmp_path / str(i := i + 1)
    completed(child(store))
    study = Study.open(store)
    assert study.finished.all(), f"seed {seed}"
    assert sorted(study.kept) == list(range(MEMBERS))
    assert_same_members(study, undisturbed, at_least=MEMBERS)
    assert_same_members(swept(seeds=SEEDS, store=store), undisturbed, at_least=MEMBERS)
    assert not [p for p in store.rglob("*") if p.suffix in (".tmp", ".damaged")]
    return between


def test_killed_at_three_random_moments(undisturbed, child, tmp_path):
    assert_killed_is_undisturbed(3, undisturbed, child, tmp_path)


@pytest.mark.long
def test_killed_at_twenty_five_random_moments(undisturbed, child, tmp_path):
    between = assert_killed_is_undisturbed(25, undisturbed, child, tmp_path)
    assert between >= 5  # kills that left some members and not all


@pytest.mark.long
def test_four_devices_are_two_devices(undisturbed, child, tmp_path):
    assert "4 devices" in completed(child(tmp_path, devices=4))
    assert_same_members(Study.open(tmp_path), undisturbed, at_least=MEMBERS)


def test_a_store_in_use(undisturbed, child, tmp_path):
    """While one process has it, another can read it and can't write; when it's killed another goes on."""
    process = child(tmp_path, "wait")
    until(lambda: parts(tmp_path), process)
    assert process.poll() is None
    before = Study.open(tmp_path)
    assert 0 < before.finished.sum() < MEMBERS
    assert_same_members(before, undisturbed, at_least=1)
    with pytest.raises(BlockingIOError, match="another process is at work on this study; wait for it, or take another"):
        swept(seeds=SEEDS, store=tmp_path)
    assert_same_members(Study.open(tmp_path), before, at_least=1)
    process.kill()
    process.wait()
    assert_same_members(swept(seeds=SEEDS, store=tmp_path), undisturbed, at_least=MEMBERS)


@pytest.fixture
def many_parts(monkeypatch):
    """Whoever has finished is written at once, and looked for after every epoch."""
    monkeypatch.setattr(session, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(execute, "LOOK", 0.0)


def test_an_exception_in_report(undisturbed, tmp_path, many_parts):

    class Enough(Exception):
        pass

    def report(progress):
        assert progress.total == MEMBERS
        if progress.done:
            raise Enough

    with pytest.raises(Enough):
        swept(seeds=SEEDS, store=tmp_path, report=report)
    assert 0 < Study.open(tmp_path).finished.sum() < MEMBERS
    told = []
    study = swept(seeds=SEEDS, store=tmp_path, report=told.append)
    assert_same_members(study, undisturbed, at_least=MEMBERS)
    assert told[0].done > 0  # not from the beginning
    assert (told[-1].done, told[-1].total) == (MEMBERS, MEMBERS)
    assert told[-1].diverged == (study.columns["outcome"] == 2).sum()
    assert told[-1].best == np.nanmin(study.columns["valid_loss"])


def test_a_full_disk(undisturbed, tmp_path, many_parts):
    disk = tmp_path / "disk"
    disk.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    try:
        with pytest.raises(OSError) as caught:
            swept(seeds=SEEDS, store=disk / "store")
        assert caught.value.errno == errno.ENOSPC
        assert str(disk) in str(caught.value)
        assert not list(disk.rglob("*.tmp"))
        left = Study.open(disk / "store")
        assert 0 < left.finished.sum() < MEMBERS
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
        assert_same_members(swept(seeds=SEEDS, store=disk / "store"), undisturbed, at_least=MEMBERS)
        assert_same_members(Study.open(disk / "store"), undisturbed, at_least=MEMBERS)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_shares_of_two_processes(undisturbed, tmp_path):
    """Every second member each; either finds both."""
    first = swept(seeds=SEEDS, store=tmp_path, share=(0, 2))
    assert first.finished.tolist() == [True, False] * (MEMBERS // 2)
    second = swept(seeds=SEEDS, store=tmp_path, share=(1, 2))
    assert second.finished.all()
    for study in (second, Study.open(tmp_path), swept(seeds=SEEDS, store=tmp_path)):
        assert_same_members(study, undisturbed, at_least=MEMBERS)
