"""The tables of a study's page: the best configurations, the best members, how it was made."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnet import outcomes
from jaxnet.report.charts import interval_strip
from jaxnet.report.findings import Findings
from jaxnet.report.levels import number, said, spoken, text_key
from jaxnet.report.pieces import SPACE, count, escape, panel, percent, section, spread, table
from jaxnet.sweeps.store import Record

TOP = 20  # configurations
ROWS, CELLS = 500, 9_000  # of the table of members, at most
OTHERS = 3  # further metrics in the table of configurations
LONGEST = 40  # characters of a text in a cell
SETTINGS = 40  # lines of a panel


def captioned(title: str, head: list[str], rows: list[list[str]], numeric: int, caption: str, kind: str) -> str:
    """`pieces.table` with its title as a caption for those who listen, `caption` above it for all, and a class."""
    opened = f'<table class="{kind}">' if kind else "<table>"
    opened += f'<caption class="unseen">{escape(title)}</caption>'
    told = f'<p class="about">{caption}</p>\n' if caption else ""
    return told + table(escape(title), head, rows, numeric).replace("<table>", opened, 1)


def best_table(f: Findings) -> str:
    """The 20 best configurations: mean, standard deviation, interval, n, diverged; other metrics' means."""
    assert f.measure is not None
    m, chosen, study = f.measure, f.order[:TOP], f.study
    words, numbers = columns_of(f)
    others = [name for name in study.metrics if name != m.name][:OTHERS]
    edges = np.concatenate([f.low[chosen], f.high[chosen], f.mean[chosen]])
    edges = m.scaled(np.where(edges > 0, edges, np.nan)) if m.log else edges
    low, high = np.nanquantile(edges, [0.25, 0.75])  # strips end at the fences of Tukey's box plot
    start, end = max(np.nanmin(edges), 2.5 * low - 1.5 * high), min(np.nanmax(edges), 2.5 * high - 1.5 * low)
    head = ["", *map(code, words + numbers), escape(spoken(m.name)), "std", f"95{SPACE}% interval"]
    head += ['<span class="wide"></span>', "seeds", "diverged", *(escape(spoken(name)) for name in others)]
    means = {name: means_of(f, name) for name in others}
    rows = []
    for place, c in enumerate(chosen, 1):
        configuration = f.space.configurations[c]
        low = max(f.low[c], 10.0**start) if m.log else f.low[c]  # NaN stays NaN
        mean, low, high = m.scaled(np.array([f.mean[c], low, f.high[c]])).tolist()
        strip = interval_strip(mean, low, high, start, end)
        lost = f'<span class="bad">{f.diverged[c]:,}</span>' if f.diverged[c] else "0"
        rows.append(
            [str(place), *(value(configuration, name) for name in words + numbers)]
            + [f"<b>{m.show(f.mean[c])}</b>", m.show(f.std[c]), between(f, c), strip, f"{f.n[c]:,}", lost]
            + [shown(name, means[name][c]) for name in others]
        )
    unranked = len(f.space) - len(f.order)
    all_ = len(chosen) == len(f.space)
    caption = f"{'' if all_ else f'The best {len(chosen)} of '}{count(len(f.space), 'configuration')}"
    caption += f" by mean {escape(spoken(m.name))}"
    caption += f" ({'lower' if m.mode == 'min' else 'higher'} is better); intervals are Student’s t over seeds."
    caption += f" {unranked:,} without a finite value." if unranked else ""
    if f.diverged[chosen].any():
        caption += " A diverged member counts with its best epoch before, where it had one."
    return captioned("The best configurations", head, rows, 1 + len(words), caption, "")


def value_table(f: Findings, name: str) -> str:
    """The one varied hyperparameter's values in order, at most 100 of the best, with their means."""
    assert f.measure is not None
    m, texts = f.measure, columns_of(f)[0]

    def key(c: int) -> Any:
        return f.space.configurations[c].get(name, np.inf) if not texts else c

    rows = [
        [value(f.space.configurations[c], name), m.show(f.mean[c]), between(f, c), f"{f.n[c]:,}", f"{f.diverged[c]:,}"]
        for c in sorted([*f.order[:100], *np.flatnonzero(np.isnan(f.mean))[:20]], key=key)
    ]
    head = [code(name), "mean", f"95{SPACE}% interval", "seeds", "diverged"]
    title = f"{spoken(m.name)} by {name}"
    return captioned(title, head, rows, 1, "", "")


def member_table(f: Findings) -> str:
    """The best members, sortable; says how many aren't shown."""
    study, plan = f.study, f.study.plan
    ranked = f.ranked_members()
    words, numbers = columns_of(f)
    metrics = sorted(study.metrics, key=lambda name: f.measure is None or name != f.measure.name)
    counted = [name for name in ("best_epoch", "epochs_run") if name in study.values]
    codes = study.values.get("outcome")
    folds = ["fold"] if plan.folds else []
    names = ["member", *words, *(["outcome"] if codes is not None else []), "seed", *folds, *numbers]
    head = [*names, *map(spoken, metrics), *map(spoken, counted)]
    shown_rows = ranked[: min(ROWS, CELLS // len(head))]
    rows = []
    for i in shown_rows:
        configuration = plan.space.configurations[plan.configuration[i]]
        row = [str(i), *(value(configuration, name) for name in words)]
        if codes is not None:
            word = outcomes.word(codes[i])
            row.append(f'<span class="bad">{word}</span>' if codes[i] in outcomes.LOST else word)
        row += [str(plan.seed[i]), *([str(plan.fold[i])] if folds else [])]
        row += [value(configuration, name) for name in numbers]
        row += [shown(name, study.values[f"metrics/{name}"][i]) for name in metrics]
        rows.append(row + [str(study.values[name][i]) for name in counted])
    marked = [code(text) if text in f.varied else escape(text) for text in head]
    buttons = [f'<button type="button">{text}</button>' for text in marked]
    done = len(ranked)
    best = "the best " if len(rows) < done else ""
    caption = f"{best.capitalize()}{len(rows):,} of {count(done, 'finished member')}, best first; "
    caption += f"{done - len(rows):,} are not shown. " if len(rows) < done else "all are shown. "
    missing = len(study) - done
    caption += f"{count(missing, 'member')} not run yet. " if missing else ""
    caption += "A click on a heading sorts; study.table() has them all."
    numeric = 1 + len(words) + (codes is not None)
    return captioned("Members", buttons, rows, numeric, caption, "sortable")


def details(f: Findings, record: Record | None) -> str:
    """Hyperparameters, settings, versions and identity."""
    told = {}
    for name in f.space.names:
        values = {text_key(c, name): c[name] for c in f.space.configurations if name in c}
        told[name + (" (static)" if name in f.space.static else "")] = values_in_words(list(values.values()))
    settings: dict[str, Any] = {} if record is None else dict(record.identity.get("settings", {}))
    settings = {"members": len(f.study)} | settings | flat(f.study.about)
    entries = {"Hyperparameters": told, "Settings": settings}
    if record is not None:
        entries["Versions"] = dict(record.identity.get("environment", {}))
        sums = {s: record.identity.get(s, {}) for s in ("data", "folds", "program")}
        entries["Identity"] = {f"{s} {n}": v for s, part in sums.items() for n, v in part.items()}
        if record.accepted:
            entries["Accepted changes"] = {
                f"{i} {s}": "; ".join(sentences)
                for i, one in enumerate(record.accepted, 1)
                for s, sentences in one.get("changes", {}).items()
            }
    panels = ""
    for title, lines in entries.items():
        rows = [
            [escape(short(n)), escape(short(v, 16 if title == "Identity" else 200))]
            for n, v in lines.items()
            if v != ""
        ]
        more = f"<p>{len(rows) - SETTINGS:,} more.</p>" if len(rows) > SETTINGS else ""
        content = captioned(title, [], rows[:SETTINGS], 1, "", "") if rows else "<p>None.</p>"
        panels += panel(title, content, "", more)
    return section("How it was made", "", panels, "three")


def between(f: Findings, c: int) -> str:
    """A configuration's interval."""
    assert f.measure is not None
    if f.n[c] < 2:
        return "–"
    return (
        spread(f.low[c], f.high[c]) if f.measure.share else f"{f.measure.show(f.low[c])} – {f.measure.show(f.high[c])}"
    )


def columns_of(f: Findings) -> tuple[list[str], list[str]]:
    """The varied hyperparameters: those with texts, those that are numbers everywhere."""
    texts: list[str] = []
    numbers: list[str] = []
    for name in f.varied:
        values = [c[name] for c in f.space.configurations if name in c]
        numeric = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
        (numbers if numeric else texts).append(name)
    return texts, numbers


def means_of(f: Findings, name: str) -> np.ndarray:
    """Another metric's mean over seeds and folds, (configurations,), NaN where there is none."""
    values, of = f.study.values[f"metrics/{name}"].astype(float), f.study.plan.configuration
    usable = f.study.finished & np.isfinite(values)
    n = np.bincount(of[usable], minlength=len(f.space))
    total = np.bincount(of[usable], values[usable], len(f.space))
    return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)


def shown(name: str, number_: Any) -> str:
    """A metric's value: accuracies as percentages."""
    v = float(number_)
    if not np.isfinite(v):
        return "–"
    return percent(v, 2) if name.endswith(("accuracy", "precision", "recall")) and 0 <= v <= 1 else number(v, full=True)


def value(configuration: Mapping[str, Any], name: str) -> str:
    """A hyperparameter in a cell; a dash where the configuration doesn't have it."""
    return escape(short(said(configuration[name]))) if name in configuration else "–"


def code(name: str) -> str:
    """A hyperparameter's name."""
    return f"<code>{escape(name)}</code>"


def values_in_words(values: list[Any]) -> str:
    """A few values one by one, many numbers by their ends."""
    if len(values) > 6 and all(isinstance(v, (int, float)) for v in values):
        return f"{len(values):,} values, {said(min(values))} … {said(max(values))}"
    listed = ", ".join(short(said(v)) for v in values[:6])
    return f"{listed}, and {len(values) - 6:,} more" if len(values) > 6 else listed


def flat(tree: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested settings as lines: {"examples": {"train": 5}} is {"examples train": 5}."""
    lines: dict[str, Any] = {}
    for name, entry in tree.items():
        if isinstance(entry, Mapping):
            lines |= flat(entry, f"{before}{name} ")
        elif isinstance(entry, (list, tuple)):
            lines[f"{before}{name}"] = ", ".join(map(str, entry))
        elif entry is not None:
            lines[f"{before}{name}"] = entry
    return lines


def short(text: object, longest: int = LONGEST) -> str:
    """A text that fits."""
    text = str(text)
    return text if len(text) <= longest else text[: longest - 1] + "…"
