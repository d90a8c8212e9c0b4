"""The folder that a study leaves: every finished member whole on the disk, or not there at all.

    DIR/study.json             the identity, the space, seeds and folds, what was accepted; JSON with its own checksum
    DIR/parts-0/000017-….safetensors   some finished members each; checksummed, moved into place when on the disk
    DIR/lock-0                 held while a process works on share 0 (of a study dealt to several processes)

A member counts when its part is there, so the folder can be left at any moment, by `kill -9` too. A part that
doesn't match its checksums is set aside, and its members run again. A member that is there twice counts once:
both are the same to the bit.
"""

import contextlib
import errno
import json
import os
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnet import checkpoint
from jaxnet.checkpoint.whole import lock
from jaxnet.sweeps.plan import Member
from jaxnet.training.identity import Identity, changes, sha256

FORMAT = 1
SECTIONS = ("settings", "data", "folds", "environment", "program", "space")  # what can change


class Batch(NamedTuple):
    """Finished members."""

    members: list[Member]
    values: dict[str, np.ndarray]  # name -> (members, …): history/…, metrics/…, best_epoch, epochs_run, outcome
    kept: dict[int, dict[str, Any]]  # place in `members` -> {"params": …, "state": …}, nested dicts of arrays


class Record(NamedTuple):
    """What study.json says."""

    identity: Identity
    configurations: list[str]  # their canonical texts
    static: list[str]  # the names of static hyperparameters
    seeds: list[int]
    folds: int
    about: dict[str, Any]  # what made the study, for people and for `jaxnet report`
    accepted: list[dict[str, Any]]  # changes that were let through


class Store:
    """One study's folder, opened for writing by one process per share, or for reading by anyone."""

    def __init__(self, folder: str | os.PathLike[str], share: int = 0) -> None:
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(f'got store={folder!r}; expected a folder: store="runs/digits"')
        self.folder = Path(folder)
        self.parts = self.folder / f"parts-{share}"
        self._lock_file = self.folder / f"lock-{share}"
        self._lock: int | None = None
        self._written = 0

    def exists(self) -> bool:
        """Whether a study is stored here."""
        return (self.folder / "study.json").is_file()

    def open(self, record: Record, accept_change: Sequence[str] | bool = ()) -> Record:
        """Take the lock; write the record, or compare it with the one that is there. Returns the record in force.

        Seeds, configurations and folds that are new are added to the record. Everything else that differs is a
        change, let through only where `accept_change` is True or names its section.

        Raises:
            BlockingIOError: another process is at work here. ValueError: something changed; it says what.
            OSError: the folder can't be made or written.
        """
        self.parts.mkdir(parents=True, exist_ok=True)
        self._lock = lock(
            self._lock_file, "another process is at work on this study; wait for it, or take another folder"
        )
        for draft in self.parts.glob(".*.tmp"):  # left by a process that was killed
            draft.unlink()
        path = self.folder / "study.json"
        if not path.exists():
            merged = record
        else:
            merged = self._merged(self.read(), record, accept_change)
        content = _json(merged)
        if not path.exists() or path.read_bytes() != content:
            checkpoint.write_whole(path, content)
        self._written = 1 + max((int(p.name.split("-")[0]) for p in self.parts.glob("*-*.safetensors")), default=-1)
        return merged

    def _merged(self, old: Record, new: Record, accept_change: Sequence[str] | bool) -> Record:
        found = changes(old.identity, new.identity)
        removed = [c for c in old.configurations if c not in set(new.configurations)]
        dropped = sorted(set(old.seeds) - set(new.seeds))
        if removed or dropped:
            found["space"] = [f"the configuration {c} is gone" for c in removed[:3]]
            if len(removed) > 3:
                found["space"].append(f"{len(removed) - 3} more configurations are gone")
            if dropped:
                found["space"].append(f"the seeds {', '.join(map(str, dropped))} are gone")
        if old.folds != new.folds:
            found.setdefault("folds", []).append(f"folds: {old.folds} in the store, {new.folds} now")
        accept = set(SECTIONS) if accept_change is True else set(accept_change or ())
        refused = {section: sentences for section, sentences in found.items() if section not in accept}
        if refused:
            listing = "; ".join(f"{section}: {'; '.join(sentences)}" for section, sentences in refused.items())
            raise ValueError(
                f"{self.folder}: got a study that differs from the one stored there. {listing}. Expected the same "
                "study (seeds and configurations may be added): take another folder, or let these through with "
                f"accept_change={sorted(found)}"
            )
        # A space let through although something is gone is the new one; what is gone stays on the disk, unread.
        kept = ([], []) if "space" in found else (old.configurations, old.seeds)
        configurations = list(dict.fromkeys([*kept[0], *new.configurations]))
        seeds = list(dict.fromkeys([*kept[1], *new.seeds]))
        programs = old.identity.get("program", {}) | new.identity.get("program", {})  # those of earlier buckets too
        identity = new.identity | ({"program": programs} if programs else {})
        accepted = [*old.accepted, *([{"changes": found, "identity": old.identity}] if found else [])]
        return Record(identity, configurations, new.static, seeds, new.folds, new.about or old.about, accepted)

    def add(self, batch: Batch) -> None:
        """Write finished members; they count when this returns.

        Raises:
            OSError: a full disk, no permission; nothing is left behind, and the batch can be added again.
        """
        names = list(dict.fromkeys(m.configuration for m in batch.members))
        place = {name: i for i, name in enumerate(names)}
        tree = {
            "member": {
                "configuration": np.array([place[m.configuration] for m in batch.members], np.int32),
                "fold": np.array([m.fold for m in batch.members], np.int32),
                "seed": np.array([m.seed for m in batch.members], np.int64),
            },
            "values": _nested(batch.values),
            "kept": {str(place): tree for place, tree in batch.kept.items()},
        }
        path = self.parts / f"{self._written:06d}-{uuid.uuid4().hex[:8]}.safetensors"
        checkpoint.save(path, tree, {"configurations": names})
        self._written += 1

    def batches(self, *, kept: bool = False) -> Iterator[Batch]:
        """Everything that is on the disk; with `kept` the kept parameters too.

        A damaged part is skipped with a warning; a process that holds the lock sets it aside.
        """
        for path in sorted(self.folder.glob("parts-*/*.safetensors")):
            try:
                tree, settings = checkpoint.load(path)
                if not {"configurations"} <= settings.keys() or not {"member", "values", "kept"} <= tree.keys():
                    raise ValueError(f"{path}: got a checkpoint of something else; expected members of a study")
            except (ValueError, FileNotFoundError) as error:
                if self._lock is not None and path.parent == self.parts:
                    with contextlib.suppress(OSError):
                        path.rename(path.with_suffix(".damaged"))
                warnings.warn(f"{error}; its members count as not run", stacklevel=2)
                continue
            names, who = settings["configurations"], tree["member"]
            members = [
                Member(names[c], int(f), int(s))
                for c, f, s in zip(who["configuration"], who["fold"], who["seed"], strict=True)
            ]
            trees = {int(place): one for place, one in tree["kept"].items()} if kept else {}
            yield Batch(members, _flat(tree["values"]), trees)

    def read(self) -> Record:
        """The record of study.json.

        Raises:
            FileNotFoundError: no study here. ValueError: the file is damaged or of another format.
        """
        path = self.folder / "study.json"
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "no study here; expected the store of a jn.sweep", str(self.folder))
        try:
            content = json.loads(path.read_bytes())
            checksum, record = content["sha256"], content["study"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: got no whole study file ({error}); restore it, or take another folder"
            ) from error
        if content.get("format") != FORMAT:
            raise ValueError(f"{path}: got format {content.get('format')}; expected {FORMAT}: another jaxnet wrote it")
        if checksum != sha256(json.dumps(record)):
            raise ValueError(f"{path}: got a study file that doesn't match its checksum; restore it")
        return Record(**record)

    def close(self) -> None:
        """Give the lock back; without one nothing happens."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _json(record: Record) -> bytes:
    content = record._asdict()
    return json.dumps(
        {"format": FORMAT, "sha256": sha256(json.dumps(content)), "study": content}, indent=1, ensure_ascii=True
    ).encode()


def _nested(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """{"a/b": x} as {"a": {"b": x}}."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *above, last = name.split("/")
        branch = tree
        for part in above:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
