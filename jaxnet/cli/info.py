"""`jaxnet info`: what runs here."""

import importlib.metadata
import os
import platform
from typing import Any

import jax
import jax.numpy as jnp

import jaxnet
from jaxnet.data.load import BUNDLED, FOLDER

PACKAGES = ("jax", "jaxlib", "optax", "numpy", "scikit-learn")


def versions() -> dict[str, str]:
    """The versions of python, jaxnet and what it's built on.

    >>> list(versions())
    ['python', 'jaxnet', 'jax', 'jaxlib', 'optax', 'numpy', 'scikit-learn']
    """
    found = {"python": platform.python_version(), "jaxnet": jaxnet.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def device() -> dict[str, Any]:
    """The device that runs use unless told otherwise, and the precision."""
    first = jax.devices()[0]
    return {"platform": first.platform, "kind": first.device_kind, "x64": _x64()}


def info() -> None:
    """Print versions, system, devices, precision, cache and data sets, one per line."""
    entries = versions() | {
        "system": platform.platform(),
        "cores": str(os.cpu_count()),
        "devices": ", ".join(f"{d.platform}:{d.id} ({d.device_kind})" for d in jax.devices()),
        "x64": "on" if _x64() else "off (set JAX_ENABLE_X64=1 for float64)",
        "cache": getattr(jax.config, "jax_compilation_cache_dir", None)
        or "none (JAX_COMPILATION_CACHE_DIR=DIR keeps compiled programs)",
        "data": f"{', '.join(BUNDLED)} (in scikit-learn)",
        "fashion_mnist": str(FOLDER) if FOLDER.is_dir() else f"not found in {FOLDER}",
    }
    width = max(map(len, entries))
    for name, value in entries.items():
        print(f"{name:{width}}  {value}")


def _x64() -> bool:
    return jnp.result_type(float) == jnp.float64
