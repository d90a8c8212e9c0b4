"""Faults that real processes meet while they save: what they say, what is left, and the page that says so."""

import fault_table
import pytest

needs_strace = pytest.mark.skipif(not fault_table.can_trace(), reason="needs strace")


def test_the_page_says_what_the_tests_see():
    """Of each row it's asserted that nothing is lost or lies about; without root or strace it's a part of the page."""
    rows = [fault_table.row(fault) for fault in fault_table.faults()]
    shown, page = fault_table.PAGE.read_text(encoding="utf-8"), fault_table.page(rows)
    for line in page.splitlines():
        assert line in shown.splitlines()
    if fault_table.can_trace() and fault_table.can_mount():
        assert page == shown


@needs_strace
def test_the_file_is_on_the_disk_before_it_has_its_name_and_then_the_folder_is():
    calls = fault_table.traced("openat,write,fsync,rename,renameat,renameat2,link,linkat")
    writes = [i for i, (call, _) in enumerate(calls) if call == "write"]
    *_, file, folder = [i for i, (call, _) in enumerate(calls) if call == "fsync"]
    (rename,) = [i for i, (call, _) in enumerate(calls) if call.startswith(("rename", "link"))]
    assert max(writes) < file < rename < folder
    assert ".tmp>" in calls[file][1]
    assert "/RUN/." not in calls[rename][1]
    assert calls[rename][1].split('"')[3] == "RUN/checkpoint-00000002.safetensors"
    assert "<RUN>" in calls[folder][1]
    drafts = {text.partition("<")[2].partition(">")[0] for call, text in calls if call in ("write", "fsync")} - {"RUN"}
    assert drafts == {calls[rename][1].split('"')[1]}  # what was written and is on the disk is what got the name
    assert all(text.endswith(" = 0") for call, text in calls if call in ("fsync", "rename"))
