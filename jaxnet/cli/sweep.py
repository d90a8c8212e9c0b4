"""`jaxnet sweep STUDY.toml`: a study from a file, kept in a folder, gone on with by the same command."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

import jaxnet as jn
from jaxnet.cli.info import versions
from jaxnet.cli.interrupts import check, deferred
from jaxnet.cli.options import Sweep
from jaxnet.cli.studyfile import StudyFile, read, tables_of, written
from jaxnet.cli.studykeys import STUDY, nearest, one
from jaxnet.cli.studyparts import Parts, importable, parts_of
from jaxnet.cli.studyspace import space_of
from jaxnet.report.study import study_in_words
from jaxnet.sweeps.plan import described
from jaxnet.sweeps.prepare import identity_of, prepare, price
from jaxnet.sweeps.progress import Progress, shown
from jaxnet.sweeps.session import stored_width
from jaxnet.sweeps.store import Store
from jaxnet.training.identity import changes

SECTIONS = ("settings", "data", "folds", "environment", "program", "space")  # of a study's identity


def sweep(options: Sweep) -> None:
    """Read the file, run what its study lacks, say what was found.

    Raises:
        FileNotFoundError, ImportError, TypeError, ValueError: what doesn't fit, before anything compiles.
        BlockingIOError: another process is at work in the folder. OSError: the folder can't be written.
        KeyboardInterrupt: Ctrl-C, at a safe place; what has finished is in the folder.
    """
    for section in options.accept_change:
        if section not in SECTIONS:
            raise ValueError(f"--accept-change: got {section}; {nearest(section, SECTIONS)}")
    file = _told_otherwise(read(options.study), options)
    space, out = space_of(file), options.out or Path("runs", file.name)
    with deferred(), importable(file.path.parent):
        devices = _devices(file.study["devices"])
        parts = parts_of(file)
        print(parts.sentence, flush=True)
        if options.dry_run:
            _dry_run(file, space, parts, devices, out)
            return
        with _cure(out), shown() as show:

            def report(progress: Progress) -> None:
                show(progress)
                check()

            study = jn.sweep(
                parts.build, space, data=parts.data, folds=parts.folds, devices=devices, share=options.share, store=out,
                accept_change=options.accept_change, about=_about(file, parts), report=report, **_settings(file),
            )  # fmt: skip
    print(study_in_words(study))
    print(f"study in {out}; jaxnet report {out} writes a page of it")


def _told_otherwise(file: StudyFile, options: Sweep) -> StudyFile:
    """The file with what the command line says instead."""
    told = {name: getattr(options, name) for name in ("devices", "seeds") if getattr(options, name) is not None}
    return file._replace(study=file.study | {name: one(f"--{name}", v, STUDY[name]) for name, v in told.items()})


def _devices(wanted: int | str) -> list[jax.Device]:
    """The devices to work on. On a CPU each is a share of its cores, which has to be said before jax starts."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if not told and getattr(jax.config, "jax_num_cpu_devices", -1) < 0:
        jax.config.update("jax_num_cpu_devices", cores if wanted == "auto" else wanted)
    devices = jax.local_devices()
    if wanted == "auto":
        return devices
    if int(wanted) > len(devices):
        raise ValueError(f"devices: got {wanted}; expected at most {len(devices)}, which is how many jax has here")
    return devices[: int(wanted)]


def _settings(file: StudyFile) -> dict[str, Any]:
    """The settings of [study] as `jn.sweep` takes them."""
    study = file.study
    return {
        "epochs": study.get("epochs"),
        "seeds": study["seeds"],
        "study_seed": study["study_seed"],
        "width": study.get("width"),
        "rank_by": study.get("rank_by"),
        "mode": study.get("mode"),
        "keep": None if study["keep"] == "none" else study["keep"],
    }


def _about(file: StudyFile, parts: Parts) -> dict[str, Any]:
    """What the store keeps of this command besides the identity: enough to write the file again."""
    return {"name": file.name, "file": tables_of(file), "data": parts.about, "versions": versions()}


def _dry_run(file: StudyFile, space: jn.Space, parts: Parts, devices: list[jax.Device], out: Path) -> None:
    """Print the plan, what is there already, and the file with all defaults filled in."""
    settings, store = _settings(file), Store(out)
    del settings["keep"]
    settings["width"] = settings["width"] or stored_width(out)
    ready = prepare(parts.build, space, data=parts.data, folds=parts.folds, devices=devices, **settings)
    done, differs = 0, {}
    if store.exists():
        study = jn.Study.blank(ready.plan)
        study.read(store.batches())
        done, differs = int(study.finished.sum()), changes(store.read().identity, identity_of(ready, {}))
    print(described(ready.plan, price(ready), done))
    for section, sentences in differs.items():
        print(f"{out} has another study, {section}: {'; '.join(sentences)}")
    print(f"\n{written(file)}", end="")


@contextmanager
def _cure(out: Path) -> Iterator[None]:
    """Where the study ends early, say how it goes on in words of the command line."""
    try:
        yield
    except KeyboardInterrupt:
        if Store(out).exists():
            print(f"what has finished is in {out}: the same command goes on from there", file=sys.stderr)
        raise
    except ValueError as error:
        sections = re.compile(r"accept_change=\[(.*?)\]")
        words = sections.sub(lambda found: f"--accept-change {re.sub('[^a-z ]', '', found[1])}", str(error))
        raise ValueError(words) from error
