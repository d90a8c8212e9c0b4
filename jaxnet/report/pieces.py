"""The parts of a report's page: the document around them, sections, panels, tables, numbers as people read them."""

import base64
import hashlib
import html
from collections.abc import Iterable
from importlib.resources import files

import numpy as np

SPACE = "\u202f"  # a narrow space that does not break, between number and unit
STYLES = ("style.css", "study.css")


def document(title: str, parts: Iterable[str], script: str = "") -> str:
    """The whole page as HTML text: these parts in a body that may load nothing and runs no script but `script`."""
    here = files("jaxnet.report")
    look = "".join(here.joinpath(name).read_text(encoding="utf-8") for name in STYLES)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    if script:
        policy += f"; script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{title}</title>",
            f"<style>\n{look}</style>\n</head>\n<body>",
            *parts,
            *([f"<script>{script}</script>"] if script else []),
            "</body>\n</html>\n",
        ]
    )


def cards(entries: Iterable[tuple[str, str, str]]) -> str:
    """A row of large numbers: (title, number, note) each, as HTML."""
    tiles = "".join(
        f"<div><dt>{title}</dt><dd><strong>{number}</strong><span>{note}</span></dd></div>\n"
        for title, number, note in entries
    )
    return f'<dl class="cards">\n{tiles}</dl>'


def section(title: str, lead: str, content: str, kind: str = "") -> str:
    """A titled section with its panels."""
    lead = f'<p class="lead">{lead}</p>\n' if lead else ""
    return f'<section>\n<h2>{title}</h2>\n{lead}<div class="panels {kind}">\n{content}</div>\n</section>'


def panel(title: str, content: str, keys: str = "", note: str = "") -> str:
    """A card: title, legend, content, note."""
    top = f"<h3>{title}</h3>" if title else ""
    top += f'<p class="keys">{keys}</p>' if keys else ""
    top = f'<div class="top">{top}</div>' if top else ""
    return f'<div class="panel">{top}{content}{note}</div>\n'


def table(title: str, head: list[str], rows: list[list[str]], numeric: int) -> str:
    """A table of HTML cells; the first cell of a row is its heading, those from `numeric` on are numbers."""

    def cells(tag: str, texts: list[str], first: int) -> str:
        kinds = [' class="number"' if j >= numeric else "" for j in range(first, first + len(texts))]
        return "".join(f"<{tag}{kind}>{text}</{tag[:2]}>" for kind, text in zip(kinds, texts, strict=True))

    columns = cells('th scope="col"', head, 0)
    top = f"<thead><tr>{columns}</tr></thead>" if head else ""
    body = "".join(f'<tr><th scope="row">{row[0]}</th>{cells("td", row[1:], 1)}</tr>\n' for row in rows)
    frame = f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">'
    return f"{frame}<table>{top}<tbody>\n{body}</tbody></table></div>"


def escape(text: object) -> str:
    """Text that is safe inside HTML."""
    return html.escape(str(text))


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage; a dash where it isn't finite."""
    return f"{100 * share:.{digits}f}{SPACE}%" if np.isfinite(share) else "–"


def spread(low: float, high: float) -> str:
    """An interval of shares."""
    return f"{100 * low:.1f} – {percent(high)}" if np.isfinite(low) else "–"


def scientific(value: float) -> str:
    """A number as 1.7 × 10⁻¹⁵."""
    if value == 0 or not np.isfinite(value):
        return f"{value:g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}{SPACE}×{SPACE}10<sup>{int(exponent)}</sup>".replace("-", "−")


def three_digits(value: float) -> str:
    """A positive number with three significant digits."""
    return f"{value:.{max(0, 2 - int(np.floor(np.log10(value))))}f}" if value > 0 else "0"


def duration(seconds: float) -> str:
    """Three digits in the unit that fits: 640 µs, 12.3 ms, 1.84 s."""
    scale, unit = (1.0, "s") if not seconds < 1 else (1e3, "ms") if seconds >= 1e-3 else (1e6, "µs")
    return f"{three_digits(seconds * scale)}{SPACE}{unit}" if np.isfinite(seconds) else "–"


def count(n: int, noun: str) -> str:
    """A number and its noun, in the plural where it belongs."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
