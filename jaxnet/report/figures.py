"""Figures of a report as inline SVG strings, and the intervals that they show.

A figure is drawn by matplotlib in sentinel colours, then `inline_svg` turns it into a piece of HTML: colours
become CSS variables (so light and dark need one drawing), fonts come from the page, ids get the figure's name
in front (so that several figures share a page) and nothing in it depends on date or chance.
matplotlib is imported where it is used.
"""

import base64
import html
import io
import re
import struct
import zlib
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxnet.sweeps.statistics import bands

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {  # sentinel -> CSS variable
    "#010203": "--ink",
    "#010204": "--muted",
    "#010205": "--line",
    "#010206": "--blue",
    "#010207": "--orange",
    "#010208": "--card",
}
INK, MUTED, LINE, BLUE, ORANGE, CARD = COLOURS
SMALLEST = 1e-3  # error that the axis of `rate_curve` can show
TICKS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995)  # accuracies on it
STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 13,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "grid.color": LINE,
    "grid.linewidth": 1,
    "axes.grid": True,
    "axes.grid.axis": "y",
    **dict.fromkeys(("axes.labelcolor", "xtick.color", "ytick.color"), MUTED),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "axes.spines.left"), False),
}


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's interval for the probability behind `successes` of `n`; (0, 1) when n = 0 (Wilson 1927)."""
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def blank() -> "tuple[Figure, Axes]":
    """An empty figure of 460 × 300 CSS pixels and its axes; call it, and draw, inside `style()`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(460 / 72, 300 / 72), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.subplots()
    axes.patch.set_visible(False)
    axes.tick_params(length=0, pad=7)
    return figure, axes


def style() -> Any:
    """The context in which figures are drawn; ImportError with the cure where matplotlib is missing."""
    try:
        import matplotlib
    except ImportError as error:
        cure = 'figures are drawn by matplotlib, which is missing: pip install "jaxnet-toolkit[plot]"'
        raise ImportError(cure) from error
    return matplotlib.rc_context(STYLE)


def inline_svg(figure: "Figure", name: str, label: str) -> str:
    """The figure as an `<svg>` element that reads `label` aloud; `name` must be unique on its page."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    box = re.search(r'viewBox="([^"]*)"', text)
    assert box is not None
    body = text[text.index("<defs>") : text.rindex("</svg>")]
    body = re.sub(r"<style.*?</style>|<!--.*?-->|<defs>\s*</defs>", "", body, flags=re.DOTALL)
    body = re.sub(r' id="([^"]*)"', rf' id="{name}-\1"', body)
    body = body.replace("url(#", f"url(#{name}-").replace('xlink:href="#', f'href="#{name}-')
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", body)
    body = re.sub(r"(font: [\d.]+px) [^;\"]*", r"\1 var(--font)", body)  # as older matplotlib writes it
    for sentinel, variable in COLOURS.items():
        body = body.replace(sentinel, f"var({variable})")
    return f'<svg viewBox="{box[1]}" role="img" aria-label="{html.escape(label)}">{body}</svg>'


def curves(name: str, label: str, series: dict[str, np.ndarray], best_epoch: int, *, percent: bool = False) -> str:
    """Curves over epochs 1, 2, …: sentinel colour -> values; the best epoch is marked on the orange one."""
    with style():
        from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

        figure, axes = blank()
        values = np.concatenate([line[np.isfinite(line)] for line in series.values()])
        if not percent and values.min() > 0 and values.max() / values.min() > 20:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if values.min() > 1e-4 else (1,)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.set_ylabel("log scale")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: plain(y)))
        elif percent:
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g} %"))
        epochs = max(len(v) for v in series.values())
        for colour, line in series.items():
            marker = "o" if np.isfinite(line).sum() == 1 else ""
            axes.plot(1 + np.arange(len(line)), line, color=colour, marker=marker, linewidth=2.2)
        last = series.get(ORANGE, np.zeros(0))
        if 1 <= best_epoch <= len(last) and np.isfinite(last[best_epoch - 1]):
            axes.axvline(best_epoch, color=MUTED, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
            dot: Any = {"markerfacecolor": CARD, "markeredgecolor": ORANGE, "markeredgewidth": 2.2}
            axes.plot([best_epoch], [last[best_epoch - 1]], "o", markersize=9, zorder=4, **dot)
            side = "left" if best_epoch < 0.2 * epochs else "right" if best_epoch > 0.8 * epochs else "center"
            place: Any = {"ha": side, "va": "bottom", "color": INK, "transform": axes.get_xaxis_transform()}
            value = f": {100 * last[best_epoch - 1]:.1f} %" if percent else ""
            axes.text(best_epoch, 1.02, f"best epoch {best_epoch}{value}", **place)
        axes.set_xlim(0.5, 1.5) if epochs == 1 else axes.set_xlim(1 - 0.02 * epochs, epochs * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        axes.set_xlabel("epoch")
        return inline_svg(figure, name, label)


def rate_curve(name: str, label: str, rates: np.ndarray, accuracies: np.ndarray, others: np.ndarray) -> str:
    """Accuracy (r, s) against learning rate (r,): every seed a dot, the mean a line, its t interval a band.

    Seeds of one rate stand side by side; a diverged one (NaN) is a cross at the foot of the figure. `others` (k, r)
    are thin lines behind. The axis is logarithmic in the error 1 − accuracy, so that 95 and 98 % lie apart.
    """
    with style():
        from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

        figure, axes = blank()
        figure.set_figheight(314 / 72)  # as high as the heat map beside it
        order = np.argsort(rates)
        rates, accuracies, others = (np.asarray(a, float)[..., order] for a in (rates, accuracies.T, others))
        mean, low, high, _ = bands(accuracies, np.zeros(len(accuracies), int))[0]
        gap = np.diff(np.log10(rates)).min() if len(rates) > 1 else 1.0
        sideways = np.linspace(-0.16, 0.16, len(accuracies)) * gap if len(accuracies) > 1 else np.zeros(1)
        x = rates * 10.0 ** sideways[:, None]
        there = np.isfinite(accuracies)
        known = np.concatenate([accuracies[there], others[np.isfinite(others)]])
        errors = 1 - known[known < 1]
        least = max(float(errors.min()), SMALLEST) if len(errors) else SMALLEST  # what is perfect is drawn there

        def up(accuracy: Any) -> Any:
            return -np.log10(np.maximum(1 - np.asarray(accuracy, float), least))

        bottom, top = float(up(known).min()), float(up(known).max())
        room = 0.05 * (top - bottom or 1.0)  # all alike: any room
        for line in others:
            axes.plot(rates, up(line), color=MUTED, linewidth=1, alpha=0.45)
        axes.fill_between(rates, up(low), up(high), color=BLUE, alpha=0.2, linewidth=0)
        axes.plot(x[there], up(accuracies[there]), "o", color=BLUE, markersize=4, alpha=0.5, markeredgewidth=0)
        axes.plot(rates, up(mean), color=BLUE, linewidth=2.4)
        foot = bottom - 1.5 * room * (not there.all())
        axes.plot(x[~there], np.full(np.sum(~there), foot), "x", color=ORANGE, markersize=5, markeredgewidth=1.6)
        axes.set_ylim(foot - room, top + room)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: plain(v)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(FixedLocator([float(up(t)) for t in TICKS if 1 - t >= least - 1e-9]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * (1 - 10.0**-y):.3g} %"))
        axes.set_xlabel("learning rate")
        return inline_svg(figure, name, label)


def plain(value: float) -> str:
    """0.001 rather than 1e-3; below a ten-thousandth 10⁻⁵."""
    if value < 9e-5:
        return "10" + str(round(np.log10(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return np.format_float_positional(value, precision=6, trim="-", fractional=False)


def confusion_svg(counts: np.ndarray, label: str) -> str:
    """Counts (k, k), rows true and columns predicted, one cell each; opacity: root of the row's share."""
    k = len(counts)
    cell, left, top = 420 / k, 40, 42
    size = min(15.0, 0.42 * cell)
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    parts = []
    for (i, j), count in np.ndenumerate(counts):
        x, y = left + j * cell, top + i * cell
        if count:
            kind = "hit" if i == j else "miss"
            box = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{cell - 2:.1f}" height="{cell - 2:.1f}" rx="4"'
            parts.append(f'<rect class="{kind}" {box} fill-opacity="{share[i, j] ** 0.5:.3f}"/>')
        middle = f'x="{x + cell / 2:.1f}" y="{y + cell / 2 + 0.35 * size:.1f}"'
        kind = "count" if count else "zero"
        parts.append(f'<text class="{kind}" {middle} font-size="{size:.1f}">{count if count else "·"}</text>')
    for i in range(k):
        along = (i + 0.5) * cell
        for x, y in ((left + along, top - 8), (left - 14, top + along + 0.35 * size)):
            parts.append(f'<text class="axis" x="{x:.1f}" y="{y:.1f}" font-size="{size:.1f}">{i}</text>')
    parts.append(f'<text class="axis" x="{left + 210}" y="10" font-size="13">predicted</text>')
    turned = f'transform="rotate(-90 10 {top + 210})"'
    parts.append(f'<text class="axis" x="10" y="{top + 210}" font-size="13" {turned}>true</text>')
    body = "".join(parts)
    box = f'viewBox="0 0 462 464" role="img" aria-label="{html.escape(label)}"'
    return f'<svg class="matrix confusion" {box}>{body}</svg>'


def error_strip(error: float, bound: float, low: float, high: float) -> str:
    """A dot at `error` and a bar at `bound` on a log axis from 10^low to 10^high, beside the numbers."""

    def place(value: float) -> float:
        log = np.log10(value) if value > 0 else low
        return 4 + 312 * float(np.clip((log - low) / (high - low), 0, 1))

    bar = f'<path d="M4 8H{place(bound):.1f}"/><path class="bound" d="M{place(bound):.1f} 2V14"/>'
    kind = ' class="over"' if error > bound else ""
    dot = f'<circle{kind} cx="{place(error):.1f}" cy="8" r="4"/>' if not np.isnan(error) else ""
    return f'<svg class="strip" viewBox="0 0 320 16" aria-hidden="true">{bar}{dot}</svg>'


def mask_png(image: np.ndarray) -> str:
    """An image (h, w) in [0, 1] as a data URI: a PNG of black ink whose opacity is the pixel's value."""
    h, w = image.shape
    ink = np.zeros((h, w, 2), np.uint8)
    ink[..., 1] = np.rint(255 * np.clip(np.nan_to_num(image), 0, 1))
    lines = b"".join(b"\0" + row.tobytes() for row in ink)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", w, h, 8, 4, 0, 0, 0)  # 8 bits, grey with alpha
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + data).decode()
