"""The page that `jaxnet demo` leaves behind: one HTML file without scripts, fonts or images from elsewhere.

`write_demo(path, results)` turns measured numbers into the page and judges them only by what they say: a
gradient beyond its bound, a diverged run or an empty list is written out as such. Equal results give equal
bytes; the file appears whole or not at all.
"""

import dataclasses
import os
from dataclasses import dataclass

import numpy as np

from jaxnet import checkpoint, outcomes
from jaxnet.report import charts, figures
from jaxnet.report.findings import Findings, findings_of
from jaxnet.report.levels import levels, said
from jaxnet.report.pieces import (
    SPACE,
    cards,
    count,
    document,
    duration,
    escape,
    panel,
    percent,
    scientific,
    section,
    spread,
    table,
)
from jaxnet.report.studytables import best_table
from jaxnet.sweeps.study import Study

ACCURACY = "valid_accuracy"  # by which the study is judged
BINS = 8  # of values that hardly repeat
LARGEST = 40  # mistakes shown


@dataclass(frozen=True)
class ProofRow:
    """One array of parameters: how far its hand-written gradient lies from `jax.grad`, and how far it may."""

    layer: str
    leaf: str
    shape: tuple[int, ...]
    max_error: float
    bound: float

    @property
    def holds(self) -> bool:
        return self.max_error <= self.bound  # False for NaN


@dataclass(frozen=True)
class Mistake:
    """One example that the network got wrong: image (h, w) in [0, 1], the labels, and how sure it was."""

    image: np.ndarray
    true: int
    predicted: int
    probability: float


@dataclass(frozen=True)
class DemoResults:
    """All that the page shows. Lists, arrays and dicts may be empty, numbers NaN where they weren't measured.

    `study` is over `lr` and `decay`, judged by its validation accuracy; None where there was none.
    `history` is the one network's: `train_loss`, `valid_loss` and `valid_accuracy`, NaN beyond the end; epochs count
    from 1. `alone` and `together` are the seconds of an epoch of one network by itself and in the study, both
    compiled before; `seconds` is shown label by label, that of "study" in the lead too.
    """

    proof: list[ProofRow]
    study: Study | None
    history: dict[str, np.ndarray]
    best_epoch: int
    outcome: str
    test_accuracy: float
    test_count: int
    confusion: np.ndarray
    mistakes: list[Mistake]
    alone: float
    together: float
    seconds: dict[str, float]
    settings: dict[str, str]
    versions: dict[str, str]


def write_demo(path: str | os.PathLike[str], results: DemoResults) -> None:
    """Write the report of `results` to `path`, whose folder must exist; an older file is replaced at once."""
    checkpoint.write_whole(path, page(results).encode())


def page(results: DemoResults) -> str:
    """The whole page as HTML text."""
    parts = [header, proof, learning, errors, best, details]
    title = f"jaxnet demo: {count(trained(results), 'network')}"
    return document(title, (part(results) for part in parts))


# Sections: each takes the results and returns HTML.


def header(r: DemoResults) -> str:
    """The claim, the picture of the study, and the four numbers."""
    bad = sum(not row.holds for row in r.proof)
    checked = "no gradient checked" if not r.proof else "every gradient checked"
    checked = f"{bad} of {count(len(r.proof), 'gradient')} beyond the bound" if bad else checked
    study = ", so a study is its <code>vmap</code>."
    if r.study and (done := int(r.study.finished.sum())):
        took = f" in {duration(r.seconds['study'])}, compiling included" if "study" in r.seconds else ""
        study = f"{study[:-1]}: {count(done, 'run')}{took}."
    found = settled(r.study)
    return f"""<header>
<p class="mark"><b>jaxnet</b> <code>jaxnet demo</code></p>
<h1>{count(trained(r), "network")} trained, {checked}.</h1>
<p class="lead">A training run is a pure function{study}
Every number on this page was measured by the run that wrote it.</p>
<div class="panels">\n{landscape(found)}</div>
{numbers(r, found)}\n</header>\n<main>"""


def settled(study: Study | None) -> Findings | None:
    """The study without its diverged members; None where nothing has finished."""
    if study is None or not study.finished.any():
        return None
    name = f"metrics/{ACCURACY}"
    values = np.where(study.values["outcome"] == outcomes.DIVERGED, np.nan, study.values[name])
    return findings_of(dataclasses.replace(study, values=study.values | {name: values}), ACCURACY)


def landscape(f: Findings | None) -> str:
    """The study as a heat map, and the row of its best configuration as a curve."""
    if f is None or not len(f.order):
        why = "No study was run." if f is None else f"All {count(int(f.lost.sum()), 'run')} diverged."
        return f"<p>{why}</p>\n"
    study, lost, done = f.study, int(f.lost.sum()), int(f.study.finished.sum())
    columns, rows = (levels(f.space, name, BINS) for name in ("lr", "decay"))
    keys = '<span class="key depth">deeper is better</span>'
    keys += ' <span class="key cross">diverged</span>' if lost else ""
    epochs = study.values[f"history/{ACCURACY}"].shape[1]
    saved = 1 - study.values["epochs_run"][study.finished].mean() / epochs
    note = f"{lost:,} of {done:,} runs diverged and were frozen, others left when they stopped improving: "
    note += f"{percent(saved, 0)} of the epochs were never run."
    product = study.columns["lr"] * study.columns["decay"]
    if lost and product[f.lost].min() > 2 >= product[study.finished & ~f.lost].max(initial=0):
        note += " They diverged exactly where <code>lr</code> × <code>decay</code> > 2: there decay makes weights grow."
    panels = panel("Mean validation accuracy, %", charts.heat_map(f, columns, rows), keys, f"<p>{note}</p>")

    best = int(f.order[0])
    decay, row = f.space.configurations[best]["decay"], rows.group == rows.group[best]
    rates = np.array([f.space.configurations[c]["lr"] for c in np.flatnonzero(row)])
    seeds = [f.values[study.plan.configuration == c] for c in np.flatnonzero(row)]
    others = [f.mean[rows.group == g][np.argsort(columns.group[rows.group == g])] for g in range(len(rows.labels))]
    top = f"{percent(f.mean[best])} at {f.told(best)}"
    label = f"Validation accuracy against learning rate at decay {said(decay)}; highest mean {top}"
    drawn = figures.rate_curve("rates", label, rates, np.stack(seeds), np.stack(others))
    keys = '<span class="key">mean</span> <span class="key dot">one seed</span> '
    keys += f'<span class="key band">95{SPACE}% interval</span> ' if f.n[best] > 1 else ""
    keys += '<span class="key thin">other decays</span>'
    note = f"<p>The row of the best configuration, <code>decay</code> = {said(decay)}, every seed a dot. "
    note += "The scale is logarithmic in the error.</p>"
    return panels + panel("Accuracy", drawn, keys, note)


def numbers(r: DemoResults, f: Findings | None) -> str:
    """Four numbers in large: the study's best, its speed, the worst gradient, the test set."""
    there, best, mean = f is not None and len(f.order) > 0, "", np.nan
    if f is not None and there:
        c = int(f.order[0])
        mean, best = f.mean[c], f"on validation, mean of {count(int(f.n[c]), 'seed')}"
        best += f"<br>95{SPACE}% interval {spread(f.low[c], f.high[c])}" if f.n[c] > 1 else ""
    done = int(r.study.finished.sum()) if r.study else 0
    each = r.seconds.get("study", np.nan) / done if done else np.nan
    speed = "in the study, compiling included"
    if np.isfinite([r.alone, r.together]).all():
        speed += f"<br>an epoch: {duration(r.together)}, alone {duration(r.alone)}"
    worst = max((row.max_error for row in r.proof), key=lambda v: (np.isnan(v), v), default=np.nan)
    proof = f"hand-written backward against<br><code>jax.grad</code>, {count(len(r.proof), 'array')}"
    tested = r.test_count > 0 and np.isfinite(r.test_accuracy)
    low, high = figures.wilson_interval(round(r.test_accuracy * r.test_count) if tested else 0, r.test_count)
    test = f"one network, {count(r.test_count, 'test digit')}<br>95{SPACE}% interval {spread(low, high)}"
    tiles = [
        ("Best of the study", there, percent(mean), best),
        ("Time per run", np.isfinite(each), duration(each), speed),
        ("Worst gradient error", r.proof, scientific(worst), proof),
        ("Test accuracy", tested, percent(r.test_accuracy), test),
    ]
    return cards(
        (title, number, note) if there else (title, "–", "not measured") for title, there, number, note in tiles
    )


def proof(r: DemoResults) -> str:
    """The table of the gradients."""
    lead = """Each layer carries its backward rule, derived by hand. Here it meets automatic
differentiation, array by array, in float64."""
    if not r.proof:
        return section("The gradients", lead, "<p>No gradient was checked in this run.</p>")
    logs = [np.log10(v) for row in r.proof for v in (row.max_error, row.bound) if 0 < v < np.inf]
    low, high = (np.floor(min(logs)) - 1, np.ceil(max(logs))) if logs else (-18.0, 0.0)
    picture = '<span class="wide">Error, log scale</span>'
    head = ["Layer", "Array", "Shape", picture, "Largest error", "Allowed", "Holds"]
    rows = []
    for row in r.proof:
        shape = " × ".join(map(str, row.shape)) or "scalar"
        strip = figures.error_strip(row.max_error, row.bound, low, high)
        kind, sign, word = ("good", "✓", "yes") if row.holds else ("bad", "✗", "no")
        verdict = f'<span class="{kind}">{sign}<span class="word"> {word}</span></span>'
        texts = [escape(row.layer), f"<code>{escape(row.leaf)}</code>", shape, strip]
        rows.append([*texts, scientific(row.max_error), scientific(row.bound), verdict])
    return section("The gradients", lead, panel("", table("Errors of the gradients", head, rows, 4)))


def learning(r: DemoResults) -> str:
    """The curves of the one network."""

    def values(name: str) -> np.ndarray:
        v = np.asarray(r.history.get(name, []), float)
        return v[: np.flatnonzero(np.isfinite(v)).max(initial=-1) + 1]

    loss = {figures.BLUE: values("train_loss"), figures.ORANGE: values("valid_loss")}
    loss = {colour: v for colour, v in loss.items() if len(v)}
    accuracy, panels, best = values("valid_accuracy"), [], f"best epoch {r.best_epoch}"
    valid = '<span class="key orange">validation</span>'
    if loss:
        keys = {figures.BLUE: '<span class="key">training</span>', figures.ORANGE: valid}
        drawn = figures.curves("loss", f"Training and validation loss by epoch, {best}", loss, r.best_epoch)
        panels.append(panel("Loss", drawn, " ".join(keys[colour] for colour in loss)))
    if len(accuracy):
        ends = f"from {percent(accuracy[0])} to {percent(accuracy[-1])}"
        label = f"Validation accuracy by epoch, {ends}, {best}"
        drawn = figures.curves("accuracy", label, {figures.ORANGE: accuracy}, r.best_epoch, percent=True)
        panels.append(panel("Accuracy", drawn, valid))
    empty = "" if panels else "<p>No epoch left a finite number, so there is no curve to draw.</p>"
    return section("One network learns", escape(r.outcome), empty + "".join(panels))


def errors(r: DemoResults) -> str:
    """The confusion matrix and the mistakes."""
    right, total = int(np.trace(r.confusion)) if r.confusion.size else 0, int(r.confusion.sum())
    matrix = "<p>No test digits were classified.</p>"
    if total:
        label = f"Confusion matrix: {right} of {total} on the diagonal, true labels in rows"
        matrix = figures.confusion_svg(r.confusion, label)
    note = "<p>Blue is right, orange wrong, deeper with the root of the row’s share.</p>" if total else ""
    tiles = "".join(
        f'<li><img src="{figures.mask_png(m.image)}" alt="a {m.true} read as {m.predicted}">'
        f"<span><b>{m.true} → {m.predicted}</b> {percent(m.probability, 0)}</span></li>\n"
        for m in sorted(r.mistakes, key=lambda m: -m.probability)[:LARGEST]
    )
    more = f"The {LARGEST} surest of {len(r.mistakes)}: " if len(r.mistakes) > LARGEST else "Surest first: "
    small = f"<p>{more}true → predicted, and the probability it gave.</p>"
    kind = "digits many" if len(r.mistakes) > 20 else "digits"
    wrong = f'<ul class="{kind}">\n{tiles}</ul>' if tiles else "<p>No mistakes to show.</p>"
    panels = panel("Confusion", matrix, "", note) + panel("Mistakes", wrong, "", small if tiles else "")
    lead = f"{right} of {count(total, 'test digit')} read correctly." if total else ""
    return section("What it gets wrong", lead, panels)


def best(r: DemoResults) -> str:
    """The table of the study's best configurations."""
    if r.study is None or not r.study.finished.any():
        return ""
    found = findings_of(r.study, ACCURACY)
    content = f'<div class="panel">{best_table(found)}</div>\n' if len(found.order) else "<p>All diverged.</p>"
    return section("The best of the study", "", content, "one")


def details(r: DemoResults) -> str:
    """Settings, times and versions."""
    timed = {k: duration(v) for k, v in r.seconds.items()}
    panels = ""
    for title, entries in (("Settings", r.settings), ("Time", timed), ("Versions", r.versions)):
        rows = [[escape(k), escape(v)] for k, v in entries.items()]
        panels += panel(title, table(title, [], rows, 1) if rows else "<p>None were recorded.</p>")
    return section("How it was made", "", panels, "three") + "\n</main>"


def trained(r: DemoResults) -> int:
    """How many networks were trained."""
    return int(r.study.finished.sum() if r.study else 0) + bool(r.history)
