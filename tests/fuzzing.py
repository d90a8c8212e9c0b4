"""Hostile files: how they're altered, and what a reader has to do with them. The files are in hostile_files.py.

content = reader.make(choose)          choose(n): an integer from 0 to n - 1, whoever draws it
reader.check(folder, content)          AssertionError unless it's read, or refused as documented, in bounded memory
"""

import re
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Choose = Callable[[int], int]
MEMORY = 100_000_000  # bytes that any file may take
PER_BYTE = 1000  # … and for each of its own, which is more than deflate can pack
LARGE = 300_000  # bytes that aren't altered further
NUMBERS = ["0", "-1", "1", "2", "255", "65536", "2147483648", "4294967295", "9223372036854775807", "1e400", "1.5"]
NUMBERS += ["NaN", "nan", "inf", "Infinity", "-0.0", "1_0", "٣", "1" + "0" * 30, "9" * 5000, "0x" + "f" * 5000]
SIGNS = [*"[]{}(),;:='\"#.\\ \n\r\t\0\x7f\ufeff\u2028", '"""', "''"]
WORDS = ["true", "null", "None", "é", "x", "y", "weight", "2020-01-01", "12:30:00", "?", "a" * 200_000]


class Reader(NamedTuple):
    """One kind of file: how to make hostile ones, and to read them."""

    name: str
    make: Callable[[Choose], bytes]
    read: Callable[[Path], Any]
    errors: tuple[type[Exception], ...] = (ValueError, TypeError)

    def check(self, folder: Path, content: bytes) -> bool:
        """Whether such a file is read; AssertionError if something else happens than is documented."""
        path = folder / f"a.{self.name}"
        path.write_bytes(content)
        tracemalloc.start()
        try:
            self.read(path)
            return True
        except Exception as error:
            if type(error) not in self.errors:
                raise AssertionError(f"{type(error).__name__} is no error of this reader") from error
            if str(path) not in str(error) or len(str(error)) > 3000 + 3 * len(content) * (self.name == "toml"):
                raise AssertionError("the error doesn't name the file, or says too much") from error
            return False
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < MEMORY + PER_BYTE * len(content), f"{peak:,} bytes of memory for {len(content):,} of file"


def altered(content: bytes, others: Sequence[bytes], choose: Choose) -> bytes:
    """One alteration of bytes."""
    at, end = sorted((choose(len(content) + 1), choose(len(content) + 1)))
    other = others[choose(len(others))]
    number = (0, 1, 2**31 - 1, 2**32 - 1, 2**63 - 1, 2**64 - 1, choose(2**16))[choose(7)]
    size = (1, 2, 4, 8)[choose(4)]
    packed = (number % 2 ** (8 * size)).to_bytes(size, ("big", "little")[choose(2)])
    flipped = bytes([content[at] ^ 1 << choose(8)]) if at < len(content) else b""
    return (
        content[:at] + flipped + content[at + 1 :],
        content[:at] + packed + content[at + size :],
        content[:at],
        content[:at] + content[end:],
        content[:at] + content[at:end] * (2 + choose(30)) + content[end:],
        content[:at] + other[min(at, len(other)) : end] + content[at:],
        content[:at] + other[min(at, len(other)) :],
    )[choose(7)]


def altered_text(text: str, words: Sequence[str], choose: Choose) -> str:
    """One alteration of a text, word by word."""
    tokens = re.findall(r"\w+|\s+|[^\w\s]", text) or [""]
    at, other = choose(len(tokens)), choose(len(tokens))
    pool = (NUMBERS, SIGNS, WORDS, words)[choose(4)]
    word = pool[choose(len(pool))]
    tokens[at] = (
        word,
        tokens[at] + word,
        "",
        tokens[other],
        tokens[at] * (2, 30, 3000)[choose(3)],
        word * (2, 30, 3000)[choose(3)] if len(word) < 20 else word,
        "".join(tokens[min(at, other) : max(at, other)]) * 2,
    )[choose(7)]
    return "".join(tokens)


def several(alter: Callable, content: Any, *more: Any) -> Any:
    """From no alteration to four."""
    choose = more[-1]
    for _ in range(choose(5)):
        if len(content) < LARGE:
            content = alter(content, *more)
    return content
