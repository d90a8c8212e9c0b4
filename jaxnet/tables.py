"""Tables as plain text, for reports that people print."""

from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Columns of text, aligned, under their heads; those numbered in `right` to the right.

    >>> print(table(("leaf", "size"), [("dense_0.w", "12")], right=(1,)))
    leaf       size
    dense_0.w    12
    """
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    aligned = [
        [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in (head, *rows)
    ]
    return "\n".join("  ".join(cells).rstrip() for cells in aligned)
