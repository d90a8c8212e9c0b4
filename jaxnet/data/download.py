"""Files from the net, when asked for: checked before they are kept, whole or not there.

cache_folder()                             JAXNET_DATA, or where the system keeps what can be had again
fetch(address, path, checksum)             one gzipped file; its unpacked bytes must have this SHA-256
"""

import gzip
import hashlib
import http.client
import io
import os
import sys
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from jaxnet.checkpoint import write_whole

LARGEST = 100_000_000  # bytes, packed and unpacked
SILENCE, PATIENCE = 30.0, 900.0  # seconds without a byte, and in all
PIECE = 1 << 16


def cache_folder() -> Path:
    """The folder of downloaded data: the environment's JAXNET_DATA; unless that's set, the system's cache folder.

    >>> import unittest.mock
    >>> with unittest.mock.patch.dict(os.environ, JAXNET_DATA="data"):
    ...     str(cache_folder())
    'data'
    """
    if given := os.environ.get("JAXNET_DATA"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "jaxnet"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "jaxnet"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxnet"


def fetch(address: str, path: Path, checksum: str) -> None:
    """Download a gzipped file to `path`; what isn't the file with that SHA-256, unpacked, is never written.

    Raises:
        ValueError: another content, no http address. OSError: the server can't be reached, stalls, or says no; the
            folder can't be written.

    >>> fetch("file:///etc/passwd", Path("a.gz"), "0" * 64)
    Traceback (most recent call last):
    ValueError: address: got 'file:///etc/passwd', expected one that begins with http:// or https://
    """
    if not address.startswith(("http://", "https://")):
        raise ValueError(f"address: got {address!r}, expected one that begins with http:// or https://")
    try:
        content = _downloaded(address)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise OSError(f"{address}: got {error or type(error).__name__}, expected a file; is the net there?") from error
    try:
        with gzip.open(io.BytesIO(content)) as file:
            found = hashlib.sha256(file.read(LARGEST)).hexdigest()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{address}: got no whole gzip file ({error}); fetch it again, or from elsewhere") from error
    if found != checksum:
        raise ValueError(
            f"{address}: got SHA-256 {found} of the unpacked bytes, expected {checksum}; fetch it from elsewhere"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def _downloaded(address: str) -> bytes:
    content, end = bytearray(), time.monotonic() + PATIENCE
    with urllib.request.urlopen(address, timeout=SILENCE) as answer:
        while piece := answer.read1(PIECE):
            content += piece
            if len(content) > LARGEST:
                raise OSError(f"more than {LARGEST:,} bytes")
            if time.monotonic() > end:
                raise TimeoutError(f"only {len(content):,} bytes in {PATIENCE:.0f} s")
    return bytes(content)
