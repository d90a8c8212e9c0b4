"""Programs compiled once per test run: a study that traces to a program which another test had compiles nothing anew.

What counts compiles counts what is taken from this cache too.
"""

import os

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory):
    """Shared by all processes of this test run."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "jax-cache"


@pytest.fixture(scope="package", autouse=True)
def compiled_once(cache_folder):
    settings = {
        "jax_compilation_cache_dir": str(cache_folder),
        "jax_persistent_cache_min_compile_time_secs": 0.2,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
