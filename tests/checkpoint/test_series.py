"""The last few and the best stay; the newest intact is found; a fault leaves what was there; one writer at a time."""

import errno
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st

from jaxnet.checkpoint import CheckpointError, Checkpoints, files


def tree(number):
    return {"w": np.full(100, number), "key": jax.random.key(number)}


def filled(folder, numbers, keep=10, best=()):
    with Checkpoints(folder, keep) as checkpoints:
        for number in numbers:
            checkpoints.save(number, tree(number), {"n": number}, best=number in best)
    return checkpoints


def damage(path, at=-3):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def holds(found, number):
    return found[0] == number and found[1]["w"].tolist() == [number] * 100 and found[2] == {"n": number}


def test_an_empty_folder_has_none(tmp_path):
    assert Checkpoints(tmp_path / "a").newest() is None
    assert Checkpoints(tmp_path / "a").best() is None
    assert not (tmp_path / "a").exists()  # reading makes nothing


@examples(25)
@given(
    steps=st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=8), keep=st.integers(1, 4),
)  # fmt: skip
def test_what_stays_is_the_last_few_and_the_best(tmp_path_factory, steps, keep):
    folder = tmp_path_factory.mktemp("series")
    number, said = 0, []
    with Checkpoints(folder, keep) as checkpoints:
        for step, best in steps:
            number += step
            said.append((number, best))
            checkpoints.save(number, {"w": np.full(100, number)}, {"n": number}, best)
            latest_best = max((n for n, mark in said if mark), default=None)
            stay = {n for n, _ in said[-keep:]} | ({latest_best} - {None})
            assert checkpoints.numbers() == sorted(stay)
            assert holds(checkpoints.newest(), number)
            assert latest_best is None if checkpoints.best() is None else holds(checkpoints.best(), latest_best)
    assert sorted(os.listdir(folder)) == sorted([*(f"checkpoint-{n:08d}.safetensors" for n in stay), "lock"])


def test_a_damaged_newest_is_passed_over_by_name(tmp_path):
    checkpoints = filled(tmp_path, [1, 2, 3, 4])
    damage(checkpoints.path(4))
    checkpoints.path(3).write_bytes(checkpoints.path(3).read_bytes()[:-1])
    with pytest.warns(UserWarning, match="instead") as said:
        found = checkpoints.newest(like=tree(0))
    assert holds(found, 2)
    assert jax.random.key_data(found[1]["key"]).tolist() == [0, 2]
    for warning, number in zip(said, (4, 3), strict=True):
        assert str(warning.message).startswith(f"{checkpoints.path(number)}: ")
    assert "key: got bytes that don't match their checksum" in str(said[0].message)
    assert "cut off" in str(said[1].message)
    assert "checkpoint-00000002.safetensors is taken instead" in str(said[0].message)
    assert all(w.filename == __file__ for w in said)
    with (
        pytest.warns(UserWarning, match="instead"),
        Checkpoints(tmp_path) as again,
    ):  # the run goes on from 2 and comes to 3 again
        again.newest()
        with pytest.warns(UserWarning, match=r"00000004.*\. It's renamed to checkpoint-00000004.damaged"):
            again.save(3, tree(3), {"n": 3})
    assert [p.suffix for p in sorted(tmp_path.glob("checkpoint-*4*"))] == [".damaged"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert holds(checkpoints.newest(), 3)


def test_a_damaged_best_is_passed_over(tmp_path):
    checkpoints = filled(tmp_path, [1, 2, 3, 4], best=[1, 3])
    assert holds(checkpoints.best(), 3)
    damage(checkpoints.path(3))
    with pytest.warns(UserWarning, match="00000003.*checkpoint-00000001.safetensors is taken"):
        assert holds(checkpoints.best(), 1)
    damage(checkpoints.path(1))
    with pytest.raises(CheckpointError, match=r"got no intact checkpoint; 2 damaged: .*00000003.*00000001"):
        checkpoints.best()


def test_a_damaged_one_that_may_be_the_best_is_not_removed(tmp_path):
    checkpoints = filled(tmp_path, [1, 2, 3], keep=2, best=[1])
    damage(checkpoints.path(1), 20)
    with pytest.warns(UserWarning, match=r"00000001.*\. It's renamed to checkpoint-00000001.damaged"):
        filled(tmp_path, [4], keep=2)
    assert sorted(path.name[-13:] for path in tmp_path.glob("*.*")) == sorted(
        ["00001.damaged", *(f"{n}.safetensors" for n in (3, 4))]
    )
    assert checkpoints.best() is None


def test_all_damaged_is_an_error(tmp_path):
    checkpoints = filled(tmp_path, [1, 2])
    for number in (1, 2):
        damage(checkpoints.path(number), 100)
    with pytest.raises(CheckpointError, match=r"got no intact checkpoint; 2 damaged: .*00000002.*00000001"):
        checkpoints.newest()


def test_a_tree_that_does_not_fit_is_no_damage(tmp_path):
    checkpoints = filled(tmp_path, [1, 2])
    with pytest.raises(CheckpointError, match=r"00000002.*w: got int64.100., expected float64.100.. Missing: v"):
        checkpoints.newest(like=tree(0) | {"w": np.zeros(100), "v": 0})


def test_an_intact_one_of_a_higher_number_is_not_overtaken(tmp_path):
    checkpoints = filled(tmp_path, [7])
    with pytest.raises(ValueError, match="got number 3, and 7 is there; expected a higher one: go on from newest"):
        filled(tmp_path, [3])
    assert holds(checkpoints.newest(), 7)
    filled(tmp_path, [7], best=[7])  # the same again is allowed
    filled(tmp_path, [7])
    assert holds(checkpoints.best(), 7)
    for number in (-1, True, 1.0):
        with pytest.raises(ValueError, match="expected an integer, at least 0"):
            checkpoints.save(number, {})
    for keep in (0, True, 1.5):
        with pytest.raises(ValueError, match="at least 1"):
            Checkpoints(tmp_path, keep)


def test_two_writers(tmp_path):
    script = """
        import sys, numpy as np
        from jaxnet.checkpoint import Checkpoints
        try:
            Checkpoints(sys.argv[1]).save(9, {"w": np.zeros(3)})
        except BlockingIOError as error:
            print(error.filename, error.strerror)
        """
    run = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, tree(1), {"n": 1})
        other = subprocess.run(run, capture_output=True, text=True, check=True)
        sentence = "another process saves its checkpoints in this folder; wait for it, or take another folder"
        assert other.stdout == f"{tmp_path} {sentence}\n"
        with pytest.raises(BlockingIOError):
            Checkpoints(tmp_path).save(2, {})
        assert holds(Checkpoints(tmp_path).newest(), 1)  # reading goes on
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout == ""
    Checkpoints(tmp_path).save(10, {})  # who forgets to close it is closed when it's gone
    Checkpoints(tmp_path).save(11, {})


def test_litter_of_killed_writers_is_removed(tmp_path):
    killed = tmp_path / f".{'0a' * 16}.tmp"
    killed.write_bytes(b"half")
    (tmp_path / ".mine.tmp").write_bytes(b"")
    filled(tmp_path, [1])
    assert sorted(os.listdir(tmp_path)) == [".mine.tmp", "checkpoint-00000001.safetensors", "lock"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX limits")
def test_a_disk_that_is_full_at_any_write_leaves_what_was_there(tmp_path, monkeypatch):
    checkpoints = filled(tmp_path, [1, 2], best=[1])
    before = sorted(os.listdir(tmp_path))
    real = files.whole
    for nth in range(5):
        calls = iter(range(99))

        class Full:
            def __init__(self, file):
                self.file = file

            def write(self, data):
                if next(calls) == nth:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return self.file.write(data)

            def seek(self, place):
                self.file.seek(place)

        class Whole:
            def __init__(self, path):
                self.inner = real(path)

            def __enter__(self):
                return Full(self.inner.__enter__())

            def __exit__(self, *error):
                return self.inner.__exit__(*error)

        monkeypatch.setattr(files, "whole", Whole)
        with Checkpoints(tmp_path) as writer:
            if nth == 4:  # header, two tensors, header: no fifth write
                writer.save(3, tree(3), {"n": 3})
                break
            with pytest.raises(OSError, match="No space left") as caught:
                writer.save(3, tree(3), {"n": 3})
        assert caught.value.filename == str(checkpoints.path(3))
        assert sorted(os.listdir(tmp_path)) == before
        assert holds(checkpoints.newest(), 2)
    assert holds(checkpoints.newest(), 3)


def test_a_write_cut_off_by_a_limit(tmp_path):
    script = """
        import resource, signal, sys, numpy as np
        from jaxnet.checkpoint import Checkpoints
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with Checkpoints(sys.argv[1]) as checkpoints:
            checkpoints.save(1, {"w": np.arange(3)})
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
            try:
                checkpoints.save(2, {"w": np.zeros(20_000)})
            except OSError as error:
                print(error.filename)
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
            print(checkpoints.newest()[0])
            checkpoints.save(2, {"w": np.zeros(20_000)})
        """
    run = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert said == f"{Checkpoints(tmp_path).path(2)}\n1\n"
    names = [f"checkpoint-0000000{n}.safetensors" for n in (1, 2)]
    assert sorted(os.listdir(tmp_path)) == [*names, "lock"]


def test_a_checkpoint_that_a_writer_removes_under_a_reader(tmp_path, monkeypatch):
    checkpoints = filled(tmp_path, [1])
    real = files.opened

    def overtaken(path):
        monkeypatch.setattr(files, "opened", real)
        with Checkpoints(tmp_path, keep=1) as writer:
            writer.save(2, tree(2), {"n": 2})
        assert not Path(path).exists()
        return real(path)

    monkeypatch.setattr(files, "opened", overtaken)
    assert holds(checkpoints.newest(), 2)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root mounts")
def test_full_and_read_only_disks(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("can't mount a tmpfs here")
    try:
        checkpoints = filled(disk / "run", [1])
        with pytest.raises(OSError, match="No space left") as caught, checkpoints:
            checkpoints.save(2, {"w": np.zeros(20_000)})
        assert caught.value.filename == str(checkpoints.path(2))
        assert holds(checkpoints.newest(), 1)
        assert sorted(os.listdir(disk / "run")) == ["checkpoint-00000001.safetensors", "lock"]
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(OSError, match="Read-only file system") as caught:
            checkpoints.save(2, tree(2))
        assert str(caught.value.filename).startswith(str(disk / "run"))
        assert holds(checkpoints.newest(), 1)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
