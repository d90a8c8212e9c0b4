"""The page of a study: one HTML file that needs nothing else, whatever the study's size and however far it is.

`write_study(path, study)` turns what is known of the members into the page, `study_in_words(study)` into ten lines for
a terminal. Both say what is missing: members not run, diverged ones, numbers that can't be computed. Equal studies give
equal bytes; the file appears whole or not at all.
"""

import os
from importlib.resources import files
from typing import Any

import numpy as np

from jaxnet import checkpoint
from jaxnet.report import charts
from jaxnet.report.findings import Findings, findings_of, pairs, shares
from jaxnet.report.levels import said, spoken
from jaxnet.report.pieces import SPACE, cards, count, document, escape, panel, percent, section
from jaxnet.report.studytables import best_table, between, captioned, details, member_table, value_table
from jaxnet.sweeps.statistics import bands
from jaxnet.sweeps.store import Record
from jaxnet.sweeps.study import Study

KINDS = {  # outcome -> CSS class
    "epochs exhausted": "all",
    "finished": "all",
    "stopped early": "early",
    "target reached": "early",
    "converged": "early",
    "small step": "early",
    "small change": "early",
    "stalled": "early",
    "damping exhausted": "early",
    "diverged": "lost",
    "non-finite": "lost",
    "dropped": "dropped",
    "not run": "none",
}
PLACES = ("1st", "2nd", "3rd")
CURVE_KINDS = ("", "orange", "ink")


def write_study(
    out: str | os.PathLike[str],
    study: Study,
    *,
    name: str | None = None,
    mode: str | None = None,
    record: Record | None = None,
) -> None:
    """Write the report of `study` to `out`, whose folder must exist; an older file is replaced at once.

    Args:
        out: the HTML file.
        study: whole or not; `Study.open(folder)` reads one from its store.
        name: the metric that ranks members and configurations, the one that the study was ranked by unless given.
        mode: "min" or "max", unless the metric's name tells.
        record: `Store(folder).read()`, for the versions, the seed and the identity that it holds.

    Raises:
        KeyError: no such metric. ValueError: a mode that can't be told from the name. OSError: the file can't be
        written. ImportError: matplotlib is missing.

    >>> import pathlib, tempfile
    >>> from jaxnet.sweeps.plan import plan_of
    >>> from jaxnet.sweeps.space import grid
    >>> study = Study.blank(plan_of(grid({"lr": [0.5, 1.0]}), seeds=(0,)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_study(pathlib.Path(folder, "report.html"), study)
    ...     "No member has finished yet" in pathlib.Path(folder, "report.html").read_text(encoding="utf-8")
    True
    """
    checkpoint.write_whole(out, page(findings_of(study, name, mode), record).encode())


def study_in_words(study: Study, *, name: str | None = None, mode: str | None = None) -> str:
    """About ten lines for a terminal: members, outcomes, the best configurations, the best member.

    Raises:
        KeyError, ValueError: as `write_study`.

    >>> from jaxnet.sweeps.plan import plan_of
    >>> from jaxnet.sweeps.space import grid
    >>> study = Study.blank(plan_of(grid({"lr": [0.5, 1.0]}), seeds=(0, 1)))
    >>> study.take([0, 1, 2, 3], {"metrics/loss": np.array([3.0, 1.0, 5.0, 2.0])}, {})
    >>> print(study_in_words(study))
    4 of 4 members: 2 configurations × 2 seeds
    finished: 4
    the best configurations by mean loss, 95 % interval:
      1  1.50  -4.85 … 7.85  lr 1
      2  4.00  -8.71 … 16.7  lr 0.5
    the best member: 1.00, member 1, seed 0, lr 1
    """
    found = findings_of(study, name, mode)
    lines = [
        f"{int(study.finished.sum()):,} of {count(len(study), 'member')}: {dealt(found)}",
        ", ".join(f"{word}: {n:,}" for word, n in found.outcomes.items()),
    ]
    m = found.measure
    if m is None or not len(found.order):
        return "\n".join([*lines, nothing(found)]).replace(SPACE, " ")
    lines.append(f"the best configurations by mean {spoken(m.name)}, 95 % interval:")
    rows = []
    for place, c in enumerate(found.order[:5], 1):
        interval = f"{m.show(found.low[c])} … {m.show(found.high[c])}" if found.n[c] > 1 else "–"
        lost = f"  ({found.diverged[c]:,} diverged)" if found.diverged[c] else ""
        rows.append((str(place), m.show(found.mean[c]), interval, found.told(int(c)) + lost))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines += ["  " + "  ".join([*(t.rjust(w) for t, w in zip(row, widths, strict=False)), row[3]]) for row in rows]
    lines.append(f"the best member: {', '.join(best_member(found))}")
    return "\n".join(line.rstrip() for line in lines).replace(SPACE, " ")


def page(found: Findings, record: Record | None = None) -> str:
    """The whole page as HTML text."""
    script = files("jaxnet.report").joinpath("study.js").read_text(encoding="utf-8")
    sections = (configurations, hyperparameters, learning, members)
    parts = [header(found), *(part(found) for part in sections), details(found, record), "</main>"]
    return document(f"jaxnet study: {count(len(found.study), 'member')}", parts, script)


# Sections: each takes the findings and returns HTML.


def header(f: Findings) -> str:
    """What was run, and the best of it."""
    study, m = f.study, f.measure
    done, seeds = int(study.finished.sum()), len(study.plan.seeds)
    run = count(done, "run") if done == len(study) else f"{done:,} of {count(len(study), 'run')}"
    tiles, lead, title = [], nothing(f), f"{run}."
    if m is not None and len(f.order):
        c, best = int(f.order[0]), best_member(f)
        where = f.told(c)
        title = f"{run}: the {'best ' * (len(study) > 1)}{escape(spoken(m.name))} is {best[0]}."
        lead = f"Best on average over seeds: {chips(f, c)}" if where else f"One configuration, {count(seeds, 'seed')}."
        n = count(int(f.n[c]), "seed")
        interval = f"95{SPACE}% interval {between(f, c)}<br>over {n}" if f.n[c] > 1 else n
        tiles.append(("Best configuration", m.show(f.mean[c]), f"mean {escape(spoken(m.name))}<br>{interval}"))
        tiles.append(("Best member", best[0], "<br>".join(escape(", ".join(t)) for t in (best[1:3], best[3:]) if t)))
    outcomes = f.outcomes
    of = f"of {done:,} that have finished" if done else "nothing has finished"
    tiles.append(("Members", f"{len(study):,}", escape(dealt(f))))
    tiles.append(("Diverged", f"{int(f.lost.sum()):,}", of))
    keys = " ".join(f'<span class="key {KINDS[word]}">{word} {n:,}</span>' for word, n in outcomes.items())
    return f"""<header>
<p class="mark"><b>jaxnet</b> <code>study</code></p>
<h1>{title}</h1>
<p class="lead">{lead}</p>
{cards(tiles)}
{charts.outcome_bar(outcomes, KINDS)}<p class="keys">{keys}</p>\n</header>\n<main>"""


def configurations(f: Findings) -> str:
    """The table of the best configurations."""
    if f.measure is None or not len(f.order):
        return ""
    return section("The best configurations", "", f'<div class="panel whole">{best_table(f)}</div>\n', "one")


def hyperparameters(f: Findings) -> str:
    """How much each hyperparameter matters, and what it does."""
    if f.measure is None or not f.varied:
        return ""
    m, parts = f.measure, []
    if told := shares(f):
        rows = [[f"<code>{escape(n)}</code>", charts.share_bar(s), percent(s, 0)] for n, s in told.items()]
        head = ["Hyperparameter", "", "Explains"]
        table = captioned("How much each hyperparameter matters", head, rows, 2, "", "")
        full = sum(told.values()) < 1.001
        rest = "The rest is what they do together, and chance." if full else "Shares overlap: this isn’t a full grid."
        scale = " logarithms," if m.log else ""
        note = f"""<p>The share of the variance between the configurations’ means,{scale} that each hyperparameter
explains alone (its main effect). {rest}</p>"""
        parts.append(panel("What matters", table, "", note))
    unit = f"{escape(spoken(m.name))}{', %' if m.share else ''}"
    keys = f'<span class="key depth">{unit}, deeper is better</span>' if len(f.order) else ""
    keys += (
        ' <span class="key corner">some diverged</span> <span class="key cross">all did</span>' if f.lost.any() else ""
    )
    binned = False
    for columns, rows_ in pairs(f):
        title = f"<code>{escape(columns.name)}</code> × <code>{escape(rows_.name)}</code>"
        binned |= columns.binned or rows_.binned
        parts.append(panel(title, charts.heat_map(f, columns, rows_), keys))
    if len(f.varied) == 1:
        name = f.varied[0]
        keys = f'<span class="key">mean</span> <span class="key band">95{SPACE}% interval</span>'
        keys += ' <span class="key cross">diverged</span>' if f.lost.any() else ""
        title = f"{escape(spoken(m.name)).capitalize()} by <code>{escape(name)}</code>"
        parts.append(panel(title, charts.response(f, name), keys))
        parts.append(panel("The numbers", value_table(f, name)))
    lead = "Each cell is the mean over everything else." if len(f.varied) > 1 else ""
    lead += " Drawn values are put in bins, named by their medians." if binned else ""
    return section("What the hyperparameters do", lead, "".join(parts))


def learning(f: Findings) -> str:
    """The curves of the best configurations and the median one."""
    histories = {n.removeprefix("history/"): v for n, v in f.study.values.items() if n.startswith("history/")}
    m = f.measure
    if m is None or not len(f.order) or not histories:
        return ""
    chosen = [int(c) for c in f.order[:3]]
    middle = int(f.order[(len(f.order) - 1) // 2])
    names = [*PLACES[: len(chosen)], *(["median"] if middle not in chosen else [])]
    kinds = [*CURVE_KINDS[: len(chosen)], "median"]
    chosen += [middle] if middle not in chosen else []
    wanted = [n for n in dict.fromkeys([m.name, f"train_{m.name.partition('_')[2]}", "train_loss"]) if n in histories]
    configuration, parts = f.study.plan.configuration, []
    for i, name in enumerate(wanted[:2]):
        mine = np.flatnonzero(np.isin(configuration, chosen) & f.study.finished)
        found = bands(histories[name][mine], configuration[mine])
        curves = [found[c] for c in chosen]
        if any(np.isfinite(c.mean).any() for c in curves):
            drawn = charts.learning_curves(f"curve{i}", name, f, curves, len(names) > len(PLACES[:3]))
            parts.append(panel(escape(spoken(name)).capitalize(), drawn))
    keys = " ".join(
        f'<span class="key {kind}">{name}: {escape(f.told(c))}</span>'
        for kind, name, c in zip(kinds, names, chosen, strict=False)
        if f.told(c)
    )
    several = "The best configurations. " if len(chosen) > 1 else ""
    several = "The best configurations and the median one. " if "median" in names else several
    lead = f"""{several}Bands are 95{SPACE}% intervals of the mean over members;
where members stop early, a curve’s end is the mean of those that went on. <span class="keys">{keys}</span>"""
    return section("How they learn", lead, "".join(parts)) if parts else ""


def members(f: Findings) -> str:
    """The table of the best members."""
    if not f.study.finished.any():
        return ""
    return section("Members", "", f'<div class="panel tall">{member_table(f)}</div>\n', "one")


# Words that more than one section uses.


def nothing(f: Findings) -> str:
    """Why there are no numbers."""
    if not f.study.finished.any():
        return "No member has finished yet."
    if f.lost.any():
        return f"All {count(int(f.lost.sum()), 'finished member')} diverged."
    return "No finished member has left a finite value."


def dealt(f: Findings) -> str:
    """How many configurations, folds and seeds the members are made of."""
    plan = f.study.plan
    parts = [count(len(plan.space), "configuration"), count(len(plan.seeds), "seed")]
    return " × ".join([*parts[:1], *([count(len(plan.folds), "fold")] if plan.folds else []), *parts[1:]])


def best_member(f: Findings) -> list[str]:
    """The best member in words: its value, member, seed, fold, hyperparameters."""
    i, plan = int(f.ranked_members()[0]), f.study.plan
    assert f.measure is not None
    words = [f.measure.show(f.values[i]), f"member {i}", f"seed {plan.seed[i]}"]
    words += [f"fold {plan.fold[i]}"] if plan.folds else []
    told = f.told(int(plan.configuration[i]))
    return [*words, told] if told else words


def chips(f: Findings, c: int) -> str:
    """A configuration's varied hyperparameters as code."""
    chosen: dict[str, Any] = f.space.configurations[c]
    return " ".join(f"<code>{escape(f'{n} = {said(chosen[n])}')}</code>" for n in f.varied if n in chosen)
