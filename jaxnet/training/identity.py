"""What the numbers of a run or a study depend on, as checksums that can be compared: same identity, same bits.

    identity = {section: {name: value}}     of a run: start, data, environment, program
                                            of a study: settings, data, folds, environment, program, one per bucket

The program is the text that JAX lowers, so any change of network, loss, optimizer or code that reaches the compiled
program shows, and a change that doesn't reach it doesn't matter.
"""

import hashlib
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jaxlib
import numpy as np

import jaxnet

Identity = dict[str, dict[str, Any]]


def sha256(content: bytes | str) -> str:
    """SHA-256 of bytes, or of a text's UTF-8, in hexadecimal.

    >>> sha256("jaxnet")[:8]
    '9d96b415'
    """
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def data_checksums(data: Any) -> dict[str, str]:
    """The checksum of each array of a tree, by its path: of dtype, shape and bytes.

    >>> list(data_checksums({"x": np.zeros(3)}))
    ["['x']"]
    """
    sums = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        array = np.asarray(leaf)
        sums[jax.tree_util.keystr(path)] = sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes())
    return sums


def environment(device: jax.Device) -> dict[str, str]:
    """Versions, backend, processor and the settings of JAX that decide bits.

    >>> environment(jax.devices()[0])["jaxnet"]
    '0.1.0'
    """
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in f]
    return {
        "jaxnet": jaxnet.__version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "backend": device.platform,
        "device": device.device_kind,
        "processor": sha256(_processor())[:16],
        "precision": f"x64={_setting('jax_enable_x64')} matmul={_setting('jax_default_matmul_precision')}",
        "random numbers": f"threefry partitionable={_setting('jax_threefry_partitionable')}",
        "XLA_FLAGS": " ".join(sorted(flags)),
    }


def identity_of(key: jax.Array, params: Any, data: Any, texts: Mapping[str, str]) -> Identity:
    """The identity of one run: its key, the parameters it was given, its data, its lowered programs, where it runs.

    >>> list(identity_of(jax.random.key(0), None, {"x": jax.numpy.zeros(3)}, {"epoch": "module @jit_epoch {}"}))
    ['start', 'data', 'program', 'environment']
    """
    words = " ".join(map(str, np.asarray(jax.random.key_data(key)).ravel()))
    given = {f"params{path}": checksum for path, checksum in data_checksums(params).items()}
    device = min(jax.tree.leaves(data)[0].devices(), key=lambda device: device.id)
    return {
        "start": {"key": words, **given},
        "data": data_checksums(data),
        "program": {name: sha256(nameless(text)) for name, text in texts.items()},
        "environment": environment(device),
    }


def changes(old: Identity, new: Identity) -> dict[str, list[str]]:
    """What differs, section by section, as sentences; a program only where both know the bucket.

    >>> changes({"settings": {"epochs": 5}}, {"settings": {"epochs": 6}})
    {'settings': ['epochs: 5 in the store, 6 now']}
    """
    found: dict[str, list[str]] = {}
    for section in old:
        before, now = old[section], new.get(section, {})
        names = before.keys() & now.keys() if section == "program" else before.keys() | now.keys()
        for name in sorted(names):
            if (one := before.get(name)) != (other := now.get(name)):
                found.setdefault(section, []).append(f"{name}: {_short(one)} in the store, {_short(other)} now")
    return found


def nameless(text: str) -> str:
    """A lowered program with its functions numbered: their names come from Python's functions and decide nothing.

    >>> nameless("func.func private @relu(%0) {} call @relu(%1) custom_call @lapack(%2)")
    'func.func private @0(%0) {} call @0(%1) custom_call @lapack(%2)'
    """
    numbers: dict[str, str] = {}
    for name in re.findall(r"func\.func (?:\w+ )?@([\w.$-]+)", text):
        numbers.setdefault(name, str(len(numbers)))
    return re.sub(r"@([\w.$-]+)", lambda found: f"@{numbers.get(found[1], found[1])}", text)


def _setting(name: str) -> Any:
    return getattr(jax.config, name)


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return f"{text[:12]}…" if len(text) == 64 else text


def _processor() -> str:
    """What the compiler sees of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        chosen = [line for line in lines if line.startswith(("flags", "Features", "model name", "cpu family"))]
        return "\n".join(sorted({" ".join(sorted(line.split())) for line in chosen}))
    return f"{platform.machine()} {platform.processor()}"
