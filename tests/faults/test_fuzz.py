"""Files that nobody would write: each is read, or refused by the error that is documented; scripts/fuzz goes on."""

import tracemalloc
from random import Random

import pytest
from drawing import examples
from hostile_files import BOMB, READERS, bombs
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize("name", READERS)
@examples(60)
@given(data=st.data())
def test_hostile_files_are_read_or_refused(name, data, tmp_path_factory):
    reader = READERS[name]
    content = reader.make(lambda n: data.draw(st.integers(0, n - 1)))
    reader.check(tmp_path_factory.getbasetemp(), content)


@pytest.mark.parametrize("name", READERS)
def test_some_hostile_files_are_read_and_some_are_not(name, tmp_path):
    """Else the alterations would be too many or too few to find anything."""
    chance = Random(0)
    read = [READERS[name].check(tmp_path, READERS[name].make(chance.randrange)) for _ in range(40)]
    assert 2 <= sum(read) <= 38


@pytest.mark.parametrize(("name", "which"), [("npz", 0), ("idx", 1), ("idx", 2)])
def test_small_files_that_unpack_to_large_ones(name, which, tmp_path):
    assert len(bombs()[which]) < BOMB / 200
    (tmp_path / f"a.{name}").write_bytes(bombs()[which])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"/a\.\w+: .*small (gzip )?file"):
            READERS[name].read(tmp_path / f"a.{name}")
        assert tracemalloc.get_traced_memory()[1] < BOMB
    finally:
        tracemalloc.stop()


EMPTY = b'build = "a:b"\ndata = "a:b"\n[space]\n'
FOUND = [
    ("toml", b"a = " + b"[" * 100_000),
    ("toml", b".".join([b"a"] * 100_000) + b" = 1"),
    ("toml", b".".join([b"a"] * 1500) + b" = 1"),
    ("toml", b"a = 0x" + b"f" * 100_000),
    ("toml", b"a = " + b"9" * 100_000),
    ("toml", EMPTY + b"a = { lin = [0, 1], n = 999999999 }\n"),
    ("toml", EMPTY + b"".join(b"%c = { lin = [0, 1], n = 99 }\n" % c for c in b"abcdefgh")),
    ("csv", b"a" * 200_000 + b",kind\n1,2\n"),
    ("csv", b"a,kind\n1,2\n" + b"b" * 200_000 + b",1\n"),
    ("csv", b"a,kind\n1,\xff\n"),
    ("csv", b'"a,kind\n1,2\n'),
]


@pytest.mark.parametrize(("name", "content"), FOUND)
def test_what_was_found_once(name, content, tmp_path):
    assert not READERS[name].check(tmp_path, content)
