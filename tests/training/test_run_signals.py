"""Real processes and real signals: a run that is terminated, interrupted or killed is gone on with to the bit."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from training_runs import DATA, EPOCHS, KEY, everything

import jaxnet as jn
from jaxnet.checkpoint import Checkpoints

HERE = Path(__file__).parent


@pytest.fixture
def child(tmp_path_factory):
    """Starts run_child.py; each process is killed at the end at the latest."""
    started, cache = [], tmp_path_factory.getbasetemp() / "run-cache"

    def start(store, *words):
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE.parent.parent)]),
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        before = signal.signal(signal.SIGINT, signal.default_int_handler)  # not ignored in the process that is started
        try:
            process = subprocess.Popen(
                [sys.executable, str(HERE / "run_child.py"), str(store), *map(str, words)],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, before)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read_until(process, beginning):
    """The first line that begins so."""
    while not (line := process.stdout.readline()).startswith(beginning):
        assert line, process.stderr.read()
    return line


def sent(process, number):
    process.send_signal(number)
    said, error = process.communicate(timeout=120)
    return said, error, process.returncode


def test_terminated_interrupted_and_killed_is_undisturbed(child, tmp_path):
    process = child(tmp_path)
    read_until(process, "epoch 1")
    _, error, code = sent(process, signal.SIGTERM)
    assert (error, code) == ("", 143)
    first = Checkpoints(tmp_path).numbers()[-1]

    process = child(tmp_path)
    assert read_until(process, "epoch") == f"epoch {first + 1}\n"
    _, error, code = sent(process, signal.SIGINT)
    assert code == -signal.SIGINT
    second = Checkpoints(tmp_path).numbers()[-1]
    assert f"KeyboardInterrupt: stopped after epoch {second}; {tmp_path} has epoch {second}: the same call" in error

    process = child(tmp_path)
    assert read_until(process, "epoch") == f"epoch {second + 1}\n"
    time.sleep(random.uniform(0, 0.05))
    assert sent(process, signal.SIGKILL)[-1] == -signal.SIGKILL

    process = child(tmp_path)
    said, error = process.communicate(timeout=120)
    assert (error, process.returncode) == ("", 0)
    expected = jn.fit(KEY, everything(), DATA, epochs=EPOCHS)
    history = bytes.fromhex(said.split("history ")[1])
    assert history == np.asarray(expected.history["valid_loss"]).tobytes()
    assert not list(tmp_path.glob("*.tmp"))
    found = jn.run(KEY, everything(), DATA, epochs=EPOCHS, store=tmp_path)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_interrupted_twice_within_a_long_epoch(child, tmp_path):
    """The first waits for the epoch's end, the second doesn't."""
    process = child(tmp_path, 5, 0, "endless")
    while not Checkpoints(tmp_path).numbers():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    time.sleep(2)  # it compiles, then the epoch begins
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    while not (line := process.stderr.readline()).startswith("KeyboardInterrupt"):
        assert line
    process.kill()
    assert "interrupted again: left at once" in line or "stopped after epoch 0" in line  # while it compiled
    number, _, settings = Checkpoints(tmp_path).newest()
    assert number == 0
    assert settings["identity"]["start"] == {"key": "0 7"}
