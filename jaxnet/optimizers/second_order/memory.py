"""Matrices of the size of the parameters are counted before anything compiles."""

import os

import jax


def check_bytes(name: str, needed: int, limit: int | None = None, *, cure: str) -> None:
    """Refuse a method whose arrays wouldn't fit.

    Args:
        name: the method, such as "newton".
        needed: bytes of its largest arrays together, of one member.
        limit: the most that is allowed; half of the memory unless given: the device's, where it tells, else the
            machine's.
        cure: what to do instead.

    Raises:
        ValueError: needed > limit.

    >>> check_bytes("newton", 8 * 10**6, cure="take lbfgs")
    >>> check_bytes("newton", 8 * 10**6, limit=10**6, cure="take lbfgs")
    Traceback (most recent call last):
    ValueError: newton: got arrays of 8.0 MB together; expected at most 1.0 MB: take lbfgs
    """
    allowed = half_of_memory() if limit is None else limit
    if needed > allowed:
        raise ValueError(f"{name}: got arrays of {_said(needed)} together; expected at most {_said(allowed)}: {cure}")


def half_of_memory() -> int:
    """Half of the bytes of the default device's memory, or of the machine's where the device doesn't tell.

    >>> half_of_memory() > 0
    True
    """
    device = jax.local_devices()[0].memory_stats() or {}
    total = device.get("bytes_limit") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return int(total) // 2


def _said(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count:,} bytes"
