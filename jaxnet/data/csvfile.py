"""A CSV file as text: its header, its cells by column, and where each stands, for the errors.

The file: UTF-8 (with or without BOM), a header line of distinct names, then one example per line. The delimiter is
whichever of comma, semicolon and tab splits the header into most names (comma on a tie). Cells are stripped; blank
lines are skipped; missing are: empty, NA, N/A, NaN, null, None, ? (in any case).
"""

from __future__ import annotations

import csv
import difflib
import io
import math
import os
from collections import Counter
from collections.abc import Iterable
from itertools import compress
from pathlib import Path
from typing import NamedTuple

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
LONGEST = 200  # characters of a column's name, and of what an error shows of a cell


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence part that names the known name nearest to a misspelt one; "" if none is near.

    >>> nearest("digit", ["digits", "wine"])
    " Did you mean 'digits'?"
    """
    by_folded = {candidate.casefold(): candidate for candidate in known if len(candidate) <= LONGEST}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1) if len(name) <= LONGEST else []
    return f" Did you mean {by_folded[close[0]]!r}?" if close else ""


class CsvFile(NamedTuple):
    """Stripped cells by column, None where missing."""

    path: Path
    columns: dict[str, list[str | None]]
    lines: list[int]  # the line of the file that each row ends on

    def require(self, name: str) -> None:
        if name not in self.columns:
            raise ValueError(
                f"{self.path}: got no column {name!r}, expected it among those of the first line: "
                f"{listed(self.columns)}.{nearest(name, self.columns)}"
            )

    def without_missing(self, names: list[str]) -> CsvFile:
        complete = [None not in cells for cells in zip(*(self.columns[name] for name in names), strict=True)]
        if not any(complete):
            raise ValueError(f"{self.path}: got a missing value in every row, expected complete rows; see ignore=")
        columns = {name: list(compress(self.columns[name], complete)) for name in names}
        return CsvFile(self.path, columns, list(compress(self.lines, complete)))

    def refuse_missing(self, names: list[str], cure: str) -> None:
        missing = [name for name in names if None in self.columns[name]]
        if missing:
            places = (
                f"{self.columns[name].count(None)} in column {name!r} (first in line "
                f"{self.lines[self.columns[name].index(None)]})"
                for name in missing[:10]
            )
            more = f" and in {len(missing) - 10} more columns" if len(missing) > 10 else ""
            raise ValueError(
                f"{self.path}: got missing values, {', '.join(places)}{more}; expected none: fill them in{cure}"
            )


def read_file(path: str | os.PathLike[str]) -> CsvFile:
    """The cells of a CSV file.

    Raises:
        FileNotFoundError, TypeError, ValueError: no such file, no text, no header, ragged rows; it says where.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path: got {type(path).__name__}, expected the path of a CSV file")
    path = Path(path)
    if not path.is_file():
        got = "a folder" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: got {got}, expected a CSV file; mind the working folder")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: got bytes that are not UTF-8 ({error}); save it as CSV UTF-8") from error
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    delimiter = max(",;\t", key=lambda delimiter: _width(first, delimiter))
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:  # a row of one blank cell is a blank line
        rows = [(row, reader.line_num) for row in reader if len(row) > 1 or "".join(row).strip()]
    except csv.Error as error:
        raise ValueError(f"{path}: got broken CSV, seen in line {reader.line_num} ({error}); mend it") from error
    names = [name.strip() for name in rows[0][0]] if rows else []
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if not names or repeated or "" in names or all(number(name) is not None for name in names):
        got = listed(repeated or names) + " repeated" * bool(repeated) if names else "an empty file"
        raise ValueError(f"{path}: got {got}, expected a header of distinct names, none empty, not all numbers")
    if long := [name for name in names if len(name) > LONGEST]:
        raise ValueError(f"{path}: got the name {shown(long[0])} in the header, expected at most {LONGEST} characters")
    if len(rows) == 1:
        raise ValueError(f"{path}: got a header and no rows, expected at least one example")
    for row, line in rows:
        if len(row) != len(names):
            raise ValueError(
                f"{path}: got {len(row)} cells in line {line}, expected {len(names)} as in the header "
                f"(delimiter {delimiter!r}); quote cells that contain the delimiter"
            )
    columns: dict[str, list[str | None]] = {}
    for name, cells in zip(names, zip(*(row for row, _ in rows[1:]), strict=True), strict=True):
        stripped = {cell: cell.strip() for cell in set(cells)}
        meaning = {cell: None if bare.casefold() in MISSING else bare for cell, bare in stripped.items()}
        columns[name] = [meaning[cell] for cell in cells]
    return CsvFile(path, columns, [line for _, line in rows[1:]])


def number(cell: str) -> float | None:
    """A cell as a number; None if it isn't one."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def numbers(file: CsvFile, name: str) -> tuple[list[float], int | None]:
    """The numbers of a column, NaN where missing; and the row of the first cell that is no number, if any."""
    cells = file.columns[name]
    found: list[float] = []
    for row, cell in enumerate(cells):
        value = math.nan if cell is None else number(cell)
        if value is None:
            return found, row
        found.append(value)
    for row, value in enumerate(found):
        if not math.isfinite(value) and cells[row] is not None:
            raise ValueError(f"{at(file, name, row)}; expected a finite number; replace it or leave it empty")
    return found, None


def at(file: CsvFile, name: str, row: int) -> str:
    """What stands in a cell and where, the start of an error."""
    return f"{file.path}: got {shown(file.columns[name][row])} in line {file.lines[row]}, column {name!r}"


def listed(names: Iterable[str]) -> str:
    """Names for an error, at most ten."""
    names = list(names)
    return ", ".join(map(shown, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def shown(cell: str | None) -> str:
    """A cell or name for an error, cut where it's long.

    >>> shown("iris"), len(shown("a" * 5000))
    ("'iris'", 203)
    """
    return repr(cell if cell is None or len(cell) <= LONGEST else f"{cell[:LONGEST]}…")


def _width(line: str, delimiter: str) -> int:
    """The number of cells; 0 where the line is none of CSV."""
    try:
        return len(next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), ()))
    except csv.Error:
        return 0
