"""A run that is killed at random moments, or whose disk fills up: no epoch that was saved is lost, no file is damaged,
the result is to the bit that of an undisturbed run. Kills of a sweep are in tests/sweeps/test_resume.py.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import fault_table
import jax
import numpy as np
import pytest
from training_runs import DATA, KEY, everything

import jaxnet as jn
from jaxnet.checkpoint import Checkpoints

TESTS = Path(__file__).parents[1]
EPOCHS = 30
PAUSE = 0.02  # seconds after each epoch
PROGRAM = everything()


@pytest.fixture(scope="module")
def undisturbed():
    return jn.fit(KEY, PROGRAM, DATA, epochs=EPOCHS)


@pytest.fixture
def child(tmp_path_factory):
    """Starts run_child.py, which compiles once per test run; each process is killed at the end at the latest."""
    started, cache = [], tmp_path_factory.getbasetemp() / "run-cache"

    def start(store):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        command = [sys.executable, str(TESTS / "training" / "run_child.py"), str(store), str(EPOCHS), str(PAUSE)]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def assert_same(found, expected, said=""):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other, said)


def last(store):
    return max(Checkpoints(store).numbers(), default=-1)


def unfinished(store):
    return list(store.glob(".*.tmp"))


def until(condition, process):
    began = time.monotonic()
    while not condition() and process.poll() is None:
        assert time.monotonic() - began < 200
        time.sleep(0.0005)


def killed_somewhere(process, store, chance):
    """Killed any time after its start, or soon after it has saved so many more epochs, or in the next save after that;
    whether it was still at work."""
    moment = chance.choice(["start", "saved", "saved", "saving", "saving"])
    if moment == "start":
        time.sleep(chance.uniform(0, 4))  # Python starts, JAX is imported, the program is compiled, …
    else:
        more = last(store) + chance.randint(1, 8)
        until(lambda: last(store) >= more, process)
        if moment == "saved":
            time.sleep(chance.uniform(0, 0.02))
        else:
            until(lambda: unfinished(store), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return process.returncode == -signal.SIGKILL


def assert_killed_is_undisturbed(kills, undisturbed, child, tmp_path):
    """(kills that left an unfinished file, runs that came to their end); warnings of damaged files are errors."""
    seed = random.randrange(10**6)
    chance, killed, drafts, runs = random.Random(seed), 0, 0, 0
    while killed < kills or (tmp_path / str(runs)).exists():
        store, ended = tmp_path / str(runs), False
        before = Checkpoints(store).newest()
        process = child(store)
        if killed < kills:
            ended = not killed_somewhere(process, store, chance)
            killed += not ended
        else:
            process.wait(200)
            ended = True
        if ended:
            assert process.returncode == 0, f"seed {seed}: {process.stderr.read().decode()}"
            found = jn.run(KEY, PROGRAM, DATA, epochs=EPOCHS, store=store)
            assert_same(found, undisturbed, f"seed {seed}")
            assert not unfinished(store)
            assert not list(store.glob("*.damaged"))
            runs += 1
        else:
            after = Checkpoints(store).newest()
            assert before is None or after[0] >= before[0], f"seed {seed}"
            drafts += bool(unfinished(store))
    print(f"{killed} kills, {drafts} of them within a save, {runs} runs ended as undisturbed ones")
    return drafts, runs


def test_killed_at_four_random_moments(undisturbed, child, tmp_path):
    assert_killed_is_undisturbed(4, undisturbed, child, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_at_200_random_moments(undisturbed, child, tmp_path):
    drafts, runs = assert_killed_is_undisturbed(200, undisturbed, child, tmp_path)
    assert drafts >= 20
    assert runs >= 5


@pytest.mark.skipif(not fault_table.can_mount(), reason="only root can mount a small disk")
def test_a_disk_that_is_full_for_a_while(undisturbed):
    """From epoch 5 to 10 nothing can be saved: that's said, the run goes on, and what was saved before stays."""
    with fault_table.small_disk() as disk:

        def report(epoch, row):
            if epoch == 5:
                with open(disk / "ballast", "wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
                    while True:
                        file.write(bytes(10_000))
            if epoch == 10:
                assert last(disk / "run") == Checkpoints(disk / "run").newest()[0] < 6
                (disk / "ballast").unlink()

        with pytest.warns(UserWarning, match=r"can't be written \(.*No space left on device\); the run goes on"):
            found = jn.run(KEY, PROGRAM, DATA, epochs=EPOCHS, store=disk / "run", every=1, report=report)
        assert_same(found, undisturbed)
        ended = int(found.epochs_run)
        assert Checkpoints(disk / "run").newest()[0] == last(disk / "run") >= ended
        assert not unfinished(disk / "run")
        assert_same(jn.run(KEY, PROGRAM, DATA, epochs=EPOCHS, store=disk / "run"), undisturbed)
