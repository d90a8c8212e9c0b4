"""The folder that `jaxnet train` leaves and `jaxnet predict` reads.

    params.safetensors   the parameters and the layers' state, with the record as settings, under checksums
    history.csv          one row per epoch run
    run.json             the record again, for people: settings, encoding, standardization, network, result, versions

The three are written together or not at all; prediction reads the record that is under checksums.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from jaxnet import checkpoint

PARAMS, HISTORY, RECORD = FILES = "params.safetensors", "history.csv", "run.json"


@contextmanager
def new_folder(out: Path | None, name: str) -> Iterator[Path]:
    """The folder `out` without a run in it, or a new one: runs/name, runs/name-2, …

    Made at once, so that two runs never choose the same and a place that can't be written is known before training;
    removed again if nothing came to lie in it.

    Raises:
        ValueError: there's a run in `out`; OSError: it can't be made or written.
    """
    for number in count(1):
        folder = out if out is not None else Path("runs", name if number == 1 else f"{name}-{number}")
        made = [place for place in (folder, *folder.parents) if not place.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=out is not None)
            break
        except FileExistsError:
            if out is not None:
                raise
    found = [file for file in FILES if (folder / file).exists()]
    if found:
        raise ValueError(
            f"{folder}: got a folder with a run in it ({', '.join(found)}); choose another --out or delete it"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(13, "no permission to write into this folder", str(folder))
    try:
        yield folder
    finally:
        with suppress(OSError):  # stops at the first that isn't empty
            for place in made:
                place.rmdir()


def write_run(folder: Path, record: Mapping[str, Any], tree: Mapping[str, Any], history: Mapping[str, Any]) -> None:
    """Write the three files, all or none, each whole; `history` is name -> one number per epoch run."""
    rows = [["epoch", *history], *([e, *row] for e, row in enumerate(zip(*history.values(), strict=True), 1))]
    lines = "".join(",".join(map(str, row)) + "\n" for row in rows)
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    try:
        checkpoint.save(folder / PARAMS, tree, record)
        checkpoint.write_whole(folder / HISTORY, lines.encode())
        checkpoint.write_whole(folder / RECORD, text.encode())
    except BaseException:
        for file in FILES:
            (folder / file).unlink(missing_ok=True)
        raise


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The (record, tree) that `write_run` wrote.

    Raises:
        FileNotFoundError: no such folder, or a run that wasn't written to its end.
        ValueError: a damaged file, or files of different runs.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: got no such folder; expected one that jaxnet train wrote")
    missing = [file for file in (PARAMS, RECORD) if not (folder / file).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: got no {' and no '.join(missing)} in it; expected the folder of a whole run"
        )
    tree, record = checkpoint.load(folder / PARAMS)
    try:
        said = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder / RECORD}: got no JSON ({error}); expected what jaxnet train wrote") from error
    if said != record:
        raise ValueError(f"{folder}: got {RECORD} and {PARAMS} that differ; expected both as the same run wrote them")
    return record, tree
