"""The figures of a study's page as inline SVG: heat maps, a hyperparameter's curve, learning curves, small strips.

Curves are drawn by matplotlib in the way of `jaxnet.report.figures`; what is made of boxes is written as SVG.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnet.report.figures import BLUE, INK, MUTED, ORANGE, blank, inline_svg, plain, style
from jaxnet.report.findings import SPREAD, Findings, Measure
from jaxnet.report.levels import Levels, is_log_spaced, number, said, spoken
from jaxnet.report.pieces import escape
from jaxnet.sweeps.statistics import Bands

WIDE = 480  # CSS pixels of a heat map
POINTS = 200  # of a learning curve that are drawn, at most
DOTS = 400  # members or configurations that are drawn one by one, at most
LINES = 60  # configurations that a line connects, at most
COLOURS = (BLUE, ORANGE, INK)  # of the best configurations, in order; the median is MUTED and dashed


def heat_map(found: Findings, columns: Levels, rows: Levels) -> str:
    """The mean over all else in each cell, deeper is better, the best in bold.

    A cell whose members all diverged is a cross, one in which some did has a corner, one that wasn't run is a dot.
    Depth is linear from the best to the worst value, or to the lower fence of Tukey's box plot, so that a few very bad
    cells don't make all others alike.
    """
    assert found.measure is not None
    m, shape = found.measure, (len(rows.labels), len(columns.labels))
    cells = rows.group * shape[1] + columns.group

    def total(weights: np.ndarray) -> np.ndarray:
        return np.bincount(cells, weights, shape[0] * shape[1]).reshape(shape)

    there = np.isfinite(found.mean)
    finite, lost = total(there.astype(float)), total(found.diverged.astype(float))
    run = total(np.bincount(found.study.plan.configuration, found.study.finished, len(found.space)))
    mean = np.divide(total(np.where(there, found.mean, 0)), finite, out=np.full(shape, np.nan), where=finite > 0)
    depth, best = _depths(m, mean), _best(m, mean)

    short = {label: label if len(label) <= 12 else label[:11] + "…" for label in rows.labels}
    left = 34 + max(20.0, 6.6 * max(map(len, short.values())))
    wide = (WIDE - left) / shape[1]
    high = min(48.0, max(28.0, 0.6 * wide))
    size = min(13.0, wide / 3.3)
    order = range(shape[0])[::-1] if rows.numeric else range(shape[0])  # numbers grow upwards
    parts = []
    for place, i in enumerate(order):
        y = place * high
        parts.append(_text(left - 8, y + high / 2 + 4.5, short[rows.labels[i]], 13, "axis end"))
        for j in range(shape[1]):
            x = left + j * wide
            box = f'x="{x + 1:.1f}" y="{y + 1:.1f}" width="{wide - 2:.1f}" height="{high - 2:.1f}" rx="4"'
            middle = x + wide / 2, y + high / 2 + 0.36 * size
            if math.isfinite(mean[i, j]):
                kind = "top" if (i, j) == best else "count"
                parts.append(f'<rect class="hit" {box} fill-opacity="{depth[i, j]:.2f}"/>')
                parts.append(_text(*middle, _in_cell(m, mean[i, j], wide), size, kind))
                if lost[i, j]:
                    corner = f"M{x + wide - 11:.1f} {y + 1:.1f}h10v10z"
                    parts.append(f'<path class="corner" d="{corner}"/>')
            elif run[i, j]:
                parts.append(f'<rect class="miss" {box} fill-opacity="0.35"/>{_text(*middle, "✕", size, "count")}')
            else:
                parts.append(_text(*middle, "·", size, "zero"))
    foot = shape[0] * high
    longest = max(map(len, columns.labels))
    small = max(10.0, min(13.0, (wide - 4) / (0.58 * longest)))
    each = (
        math.ceil(0.58 * small * min(longest, 9) / (wide - 4)) if columns.numeric else 1
    )  # every n-th number is named
    fits = max(2, int(each * wide / (0.58 * small)))
    for j, label in list(enumerate(columns.labels))[::each]:
        label = label if len(label) <= fits else label[: fits - 1] + "…"
        parts.append(_text(left + (j + 0.5) * wide, foot + 18, label, small, "axis"))
    parts.append(_text(left + (WIDE - left) / 2, foot + 40, columns.name, 13, "axis"))
    turn = f' transform="rotate(-90 12 {foot / 2:.1f})"'
    parts.append(_text(12, foot / 2, rows.name, 13, "axis", turn))
    told = f"Heat map of the mean {spoken(m.name)} by {columns.name} and {rows.name}"
    if best is not None:
        at = f"{columns.name} {columns.labels[best[1]]}, {rows.name} {rows.labels[best[0]]}"
        told += f"; best {m.show(mean[best])} at {at}"
    told += f"; {int(lost.sum())} members diverged" if lost.any() else ""
    box = f'viewBox="0 0 {WIDE} {foot + 46:.0f}" role="img" aria-label="{escape(told)}"'
    return f'<svg class="matrix" {box}>{"".join(parts)}</svg>'


def _depths(m: Measure, mean: np.ndarray) -> np.ndarray:
    """How deep each cell's colour is, in [0.05, 1]."""
    there = np.isfinite(mean)
    good = m.scaled(np.where(there, mean, 1.0)) * (1 if m.mode == "max" else -1)
    if not there.any():
        return np.zeros_like(mean)
    low, high = np.quantile(good[there], [0.25, 0.75])
    bottom, top = max(good[there].min(), low - 1.5 * (high - low)), good[there].max()
    return 0.05 + 0.95 * np.clip((good - bottom) / ((top - bottom) or 1.0), 0, 1)


def _best(m: Measure, mean: np.ndarray) -> tuple[int, int] | None:
    if not np.isfinite(mean).any():
        return None
    place = np.nanargmax(mean if m.mode == "max" else -mean)
    i, j = np.unravel_index(place, mean.shape)
    return int(i), int(j)


def _in_cell(m: Measure, value: float, wide: float) -> str:
    """A value short enough for its cell; percentages without their sign."""
    if m.share:
        return f"{100 * value:.1f}" if wide >= 26 else f"{100 * value:.0f}"
    return number(value, 3 if wide >= 40 else 2, full=True)


def _text(x: float, y: float, text: str, size: float, kind: str, more: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" font-size="{size:.1f}"{more}>{escape(text)}</text>'


def response(found: Findings, name: str) -> str:
    """The measure against the one hyperparameter: members as dots, the mean a line, its interval a band.

    Diverged members are crosses at the foot. Of more than 400 members the configurations' means are the dots.
    """
    assert found.measure is not None
    m, space, plan = found.measure, found.space, found.study.plan
    having = np.array([i for i, c in enumerate(space.configurations) if name in c])
    values = [space.configurations[i][name] for i in having]
    numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    x = np.full(len(space), np.nan)
    x[having] = np.array(values, float) if numeric else np.arange(len(values))
    drawn = having[np.argsort(x[having], kind="stable")]
    told = f"{spoken(m.name)} against {name}"
    if len(found.order):
        told += f"; best mean {m.show(found.mean[found.order[0]])} at {found.told(int(found.order[0]), [name])}"
    with style():
        from matplotlib.ticker import FuncFormatter, NullLocator

        figure, axes = blank()
        y, of = (found.values, plan.configuration) if len(plan) <= DOTS else (found.mean, np.arange(len(space)))
        dots = np.flatnonzero(np.isfinite(y) & np.isfinite(x[of]))
        dots = dots[np.linspace(0, len(dots) - 1, min(len(dots), DOTS)).astype(int)]
        axes.plot(x[of[dots]], y[dots], "o", color=BLUE, markersize=4, alpha=0.55, markeredgewidth=0)
        joined = numeric and len(drawn) <= LINES
        if joined:
            axes.fill_between(x[drawn], found.low[drawn], found.high[drawn], color=BLUE, alpha=0.18, linewidth=0)
            axes.plot(x[drawn], found.mean[drawn], color=BLUE, linewidth=2.2)
        elif not numeric:
            reach = np.nan_to_num(np.stack([found.mean - found.low, found.high - found.mean])[:, drawn])
            bars: Any = {"markersize": 8, "linewidth": 0, "elinewidth": 2.2, "color": BLUE}
            axes.errorbar(x[drawn], found.mean[drawn], reach, marker="o", **bars)
        known = found.values[np.isfinite(found.values)]
        if m.log:
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(NullLocator())
        low, high = (float(v) for v in (m.scaled(known).min(), m.scaled(known).max())) if len(known) else (0.0, 1.0)
        span = (high - low) or max(abs(high), 1e-9) * 0.1
        foot, floor, top = low - 0.1 * span, low - 0.16 * span, high + 0.06 * span
        axes.set_ylim(*((10.0**floor, 10.0**top) if m.log else (floor, top)))
        crosses = np.unique(x[plan.configuration[found.lost]])
        crosses = crosses[np.isfinite(crosses)][:DOTS]
        marks = np.full(len(crosses), 10.0**foot if m.log else foot)
        axes.plot(crosses, marks, "x", color=ORANGE, markersize=6, markeredgewidth=1.8)
        _value_axis(axes, m)
        if not numeric:
            labels = [text if len(text) <= 14 else text[:13] + "…" for text in map(said, values)]
            axes.set_xticks(range(len(values)), labels, parse_math=False)
            axes.set_xlim(-0.5, len(values) - 0.5)
        elif is_log_spaced(x[having]):
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: plain(v)))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlabel(name, parse_math=False)
        return inline_svg(figure, "response", told)


def learning_curves(key: str, name: str, found: Findings, curves: Sequence[Bands], dashed_last: bool) -> str:
    """Mean histories with their intervals; `name` is the history's, `key` unique on the page."""
    assert found.measure is not None
    percent = found.measure.share and name.endswith(found.measure.name.split("_")[-1])
    m = found.measure._replace(name=name, share=percent)
    ends = [float(c.mean[np.isfinite(c.mean)][-1]) for c in curves if np.isfinite(c.mean).any()]
    told = f"{spoken(name)} by epoch, last values of the curves: {', '.join(m.show(v) for v in ends)}"
    with style():
        from matplotlib.ticker import MaxNLocator, NullLocator

        figure, axes = blank()
        known = np.concatenate([c.mean[np.isfinite(c.mean)] for c in curves])
        log = not percent and known.min() > 0 and np.ptp(np.log10(known)) > math.log10(SPREAD)
        epochs = max(int(np.flatnonzero(np.isfinite(c.mean)).max(initial=0)) + 1 for c in curves)
        shown = np.unique(np.linspace(0, epochs - 1, min(epochs, POINTS)).astype(int))
        low, high = known.min(), known.max()
        for i, curve in reversed(list(enumerate(curves))):  # the best on top
            last = dashed_last and i == len(curves) - 1
            colour = MUTED if last else COLOURS[i]
            below, above = curve.low[shown], curve.high[shown]
            below = np.maximum(below, known.min() / 2) if log else below
            axes.fill_between(shown + 1, below, above, color=colour, alpha=0.14, linewidth=0)
            line: Any = {"linestyle": (0, (4, 2))} if last else {}
            marker = "o" if epochs == 1 else ""
            axes.plot(shown + 1, curve.mean[shown], color=colour, linewidth=2.0, marker=marker, **line)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(NullLocator())
            axes.set_ylim(low / 1.3, high * 1.3)
        else:
            room = 0.08 * ((high - low) or abs(high) or 1.0)
            axes.set_ylim(low - room, high + room)
        _value_axis(axes, m._replace(log=log))
        axes.set_xlim(0.5, 1.5) if epochs == 1 else axes.set_xlim(1 - 0.02 * epochs, epochs * 1.02)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
        axes.set_xlabel("epoch")
        return inline_svg(figure, key, told)


def _value_axis(axes: Any, m: Measure) -> None:
    """Ticks of the measure's axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator

    if m.log:
        low, high = np.log10(axes.get_ylim())
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if high - low < 3 else (1,), numticks=9))
        axes.set_ylabel("log scale")
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g} %" if m.share else number(float(y))))


def interval_strip(mean: float, low: float, high: float, start: float, end: float) -> str:
    """A dot at the mean on its interval, from `start` to `end`, beside the numbers."""

    def place(value: float) -> float:
        return 5 + 120 * float(np.clip((value - start) / ((end - start) or 1.0), 0, 1))

    line = f'<path class="reach" d="M{place(low):.1f} 8H{place(high):.1f}"/>' if math.isfinite(low) else ""
    dot = f'<circle cx="{place(mean):.1f}" cy="8" r="4"/>'
    return f'<svg class="strip short" viewBox="0 0 130 16" aria-hidden="true"><path d="M5 8H125"/>{line}{dot}</svg>'


def share_bar(share: float) -> str:
    """A bar of this share's length, beside the number."""
    inner = f'<rect class="full" width="{300 * min(share, 1.0):.1f}" height="10" rx="3"/>'
    whole = '<rect class="whole" width="300" height="10" rx="3"/>'
    return f'<svg class="share" viewBox="0 0 300 10" aria-hidden="true">{whole}{inner}</svg>'


def outcome_bar(counts: dict[str, int], kinds: dict[str, str]) -> str:
    """How many members ended how: a bar of boxes as wide as their counts; `kinds` are their CSS classes."""
    total, x, boxes = sum(counts.values()), 0.0, ""
    for word, n in counts.items():
        wide = 1000 * n / total
        gap = 2 if x + wide < 999 else 0
        boxes += f'<rect class="{kinds[word]}" x="{x:.1f}" width="{max(wide - gap, 1):.1f}" height="12"/>'
        x += wide
    told = ", ".join(f"{word} {n:,}" for word, n in counts.items())
    box = f'viewBox="0 0 1000 12" preserveAspectRatio="none" role="img" aria-label="{escape(told)}"'
    return f'<svg class="outcomes" {box}>{boxes}</svg>'
