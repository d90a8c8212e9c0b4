"""What is damaged is noticed: its members run again and the study ends as it was."""

import json
import shutil
import warnings

import numpy as np
import pytest
from studies import RATES, assert_same_members, compiles, swept

from jaxnet import checkpoint
from jaxnet.sweeps import execute, session
from jaxnet.sweeps.plan import Member
from jaxnet.sweeps.store import Batch, Record, Store
from jaxnet.sweeps.study import Study

MEMBERS = 2 * len(RATES)


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A study and its store of several parts."""
    folder = tmp_path_factory.mktemp("complete") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "FLUSH_SECONDS", 0.0)
        patch.setattr(execute, "LOOK", 0.0)
        study = swept(seeds=2, store=folder)
    assert len(list(folder.glob("parts-0/*.safetensors"))) > 1
    return study, folder


@pytest.fixture
def copy(complete, tmp_path):
    """The study, a copy of its store, and the parts there."""
    shutil.copytree(complete[1], tmp_path / "copy")
    return complete[0], tmp_path / "copy", sorted((tmp_path / "copy" / "parts-0").glob("*.safetensors"))


def flipped(path, place):
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 4
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "empty": lambda path: path.write_bytes(b""),
    "a bit of its header": lambda path: flipped(path, 0.1),
    "a bit of a number": lambda path: flipped(path, 0.99),
    "foreign": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "another checkpoint": lambda path: checkpoint.save(path, {"w": np.zeros(3)}, {"units": 3}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_part(copy, damage):
    study, folder, parts = copy
    damage(parts[0])
    with pytest.warns(UserWarning, match="its members count as not run"):
        opened = Study.open(folder)
    assert parts[0].exists()  # reading changes nothing
    lost = MEMBERS - opened.finished.sum()
    assert 0 < lost < MEMBERS
    assert_same_members(opened, study, at_least=MEMBERS - lost)
    with pytest.warns(UserWarning, match="its members count as not run"):
        again = swept(seeds=2, store=folder)
    assert_same_members(again, study, at_least=MEMBERS)
    assert parts[0].with_suffix(".damaged").exists()
    with warnings.catch_warnings(), compiles() as found:
        warnings.simplefilter("error")  # set aside, it isn't read again
        assert_same_members(swept(seeds=2, store=folder), study, at_least=MEMBERS)
    assert not found


def test_every_bit_of_a_part_matters(copy):
    """A flip anywhere is noticed, or changes nothing that is read."""
    study, folder, parts = copy
    whole = parts[0].read_bytes()
    places = np.random.default_rng(3).integers(0, 8 * len(whole), 100)
    for place in places:
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        parts[0].write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = Study.open(folder)
        assert_same_members(opened, study, at_least=1)


def test_a_lost_part(copy):
    study, folder, parts = copy
    parts[-1].unlink()
    assert_same_members(swept(seeds=2, store=folder), study, at_least=MEMBERS)


def test_a_part_that_is_there_twice(copy):
    study, folder, parts = copy
    shutil.copy(parts[0], parts[0].with_name("000099-0badcafe.safetensors"))
    assert_same_members(Study.open(folder), study, at_least=MEMBERS)
    with compiles() as found:
        swept(seeds=2, store=folder)
    assert not found


def test_a_draft_of_a_killed_process_is_cleared_away(copy):
    study, folder, parts = copy
    draft = folder / "parts-0" / ".0123.tmp"
    draft.write_bytes(parts[0].read_bytes()[:100])
    assert_same_members(Study.open(folder), study, at_least=MEMBERS)
    assert draft.exists()
    swept(seeds=2, store=folder)
    assert not draft.exists()


@pytest.mark.parametrize("part", ["a bit", "cut", "empty", "no checksum", "a number", "format"])
def test_a_damaged_study_file(copy, part):
    _, folder, _ = copy
    path = folder / "study.json"
    text = path.read_text()
    content = json.loads(text)
    if part == "a bit":
        text = text.replace('"epochs": 6', '"epochs": 7', 1)
    elif part == "cut":
        text = text[:-20]
    elif part == "empty":
        text = ""
    elif part == "no checksum":
        text = json.dumps({k: v for k, v in content.items() if k != "sha256"})
    elif part == "a number":
        text = "17"
    else:
        text = json.dumps(content | {"format": 99})
    assert text != path.read_text()
    path.write_text(text)
    for reading in (lambda: Study.open(folder), lambda: swept(seeds=2, store=folder, width=4)):
        with pytest.raises(ValueError, match=r"study\.json: got") as caught:
            reading()
        assert ("99" in str(caught.value)) == (part == "format")
    assert path.read_text() == text


def record(**others):
    base = {"epochs": 3, "width": 4}
    return Record({"settings": base}, ['{"lr": 0.1}'], [], [0], 0, {}, [])._replace(**others)


def test_one_writer_a_share(tmp_path):
    first, second, other = Store(tmp_path), Store(tmp_path), Store(tmp_path, share=1)
    first.open(record())
    with pytest.raises(BlockingIOError, match="another process is at work"):
        second.open(record())
    other.open(record())
    first.close()
    first.close()  # nothing happens
    second.open(record())
    second.close()
    other.close()


def test_what_is_added_comes_back(tmp_path):
    """In the order in which it was added, over several openings; names with odd letters, values of every kind."""
    values = {"metrics/ü": np.array([1.5, np.nan]), "history/a/b": np.arange(4, dtype="float32").reshape(2, 2)}
    values |= {"outcome": np.array([2, 0], "int32"), "metrics/right": np.array([True, False])}
    kept = {1: {"params": {"w": np.ones((2, 3), "float16"), "empty": {}}, "state": {}}}
    member = [Member('{"act": "ü"}', 2, 7), Member('{"act": "ü"}', 0, 2**32 - 1)]
    for i in range(12):
        store = Store(tmp_path)
        store.open(record())
        store.add(Batch(member, values | {"metrics/round": np.array([i, i])}, kept))
        store.close()
    assert [p.name[:6] for p in sorted((tmp_path / "parts-0").iterdir())] == [f"{i:06d}" for i in range(12)]
    for i, batch in enumerate(Store(tmp_path).batches(kept=True)):
        assert batch.members == member
        assert batch.values["metrics/round"].tolist() == [i, i]
        for name, value in values.items():
            np.testing.assert_array_equal(batch.values[name], value)
            assert batch.values[name].dtype == value.dtype
        assert batch.kept.keys() == {1}
        np.testing.assert_array_equal(batch.kept[1]["params"]["w"], kept[1]["params"]["w"])
        assert batch.kept[1]["params"]["empty"] == batch.kept[1]["state"] == {}
    assert all(not batch.kept for batch in Store(tmp_path).batches())


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no study here"):
        Study.open(tmp_path)
    assert not Store(tmp_path).exists()
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        Store(tmp_path / "file").open(record())
