"""The page that `jaxnet demo` leaves behind: one HTML file without scripts, fonts or images from elsewhere.

`write_demo(path, results)` turns measured numbers into the page and judges them only by what they say: a
gradient beyond its bound, a diverged run or an empty list is written out as such. Equal results give equal
bytes; the file appears whole or not at all.
"""

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from jaxnet.report import figures
from jaxnet.report.pieces import SPACE, count, duration, escape, panel, percent, scientific, section, spread, table

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
    """All that the page shows. Lists and arrays may be empty; NaN in `accuracies` means diverged.

    `history` has `train_loss`, `valid_loss` and `valid_accuracy`, NaN beyond the end; epochs count from 1.
    `accuracies` is (rates, seeds). `seconds` is shown label by label; the page's third number compares the
    first label that contains "alone" with the first that contains "per network".
    `scored_on` says what `accuracies` were measured on ("validation", "test"); left empty, so is the page.
    """

    proof: list[ProofRow]
    history: dict[str, np.ndarray]
    best_epoch: int
    outcome: str
    test_accuracy: float
    test_count: int
    rates: np.ndarray
    accuracies: np.ndarray
    confusion: np.ndarray
    mistakes: list[Mistake]
    seconds: dict[str, float]
    settings: dict[str, str]
    versions: dict[str, str]
    scored_on: str = ""


def write_demo(path: str | os.PathLike[str], results: DemoResults) -> None:
    """Write the report of `results` to `path`, whose folder must exist; an older file is replaced at once."""
    path = Path(path)
    text = page(results)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.write_text(text, encoding="utf-8", newline="\n")
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def page(results: DemoResults) -> str:
    """The whole page as HTML text."""
    look = files("jaxnet.report").joinpath("style.css").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    parts = [header, proof, learning, rates, errors, details]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>jaxnet demo: {count(trained(results), 'network')}</title>",
            f"<style>\n{look}</style>\n</head>\n<body>",
            *(part(results) for part in parts),
            "</body>\n</html>\n",
        ]
    )


# Sections: each takes the results and returns HTML.


def header(r: DemoResults) -> str:
    """The claim and the four numbers."""
    bad = sum(not row.holds for row in r.proof)
    checked = "no gradient checked" if not r.proof else "every gradient checked"
    checked = f"{bad} of {count(len(r.proof), 'gradient')} beyond the bound" if bad else checked
    tested = r.test_count > 0 and np.isfinite(r.test_accuracy)
    right = round(r.test_accuracy * r.test_count) if tested else 0
    low, high = figures.wilson_interval(right, r.test_count)
    test = f"of {count(r.test_count, 'test digit')}<br>95{SPACE}% interval {spread(low, high)}"
    worst = max((row.max_error for row in r.proof), key=lambda v: (np.isnan(v), v), default=np.nan)
    proof = "hand-written backward against <code>jax.grad</code>, " + count(len(r.proof), "array")
    alone = next((v for k, v in r.seconds.items() if "alone" in k), np.nan)
    together = next((v for k, v in r.seconds.items() if "per network" in k), np.nan)
    ratio = alone / together if together > 0 else np.nan
    faster = f"{ratio:.1f}{SPACE}×" if np.isfinite(ratio) else "–"
    speed = f"{duration(alone)} for one network alone,<br>{duration(together)} for each of many at once"
    study = "the one shown below" if r.history else "none"
    if r.accuracies.size:
        many, each = r.accuracies.shape
        study = f"{count(many, 'learning rate')} × {count(each, 'seed')}" + f", and {study}" * bool(r.history)
    cards = [
        ("Test accuracy", tested, percent(r.test_accuracy), test),
        ("Worst gradient error", r.proof, scientific(worst), proof),
        ("Speed per network", np.isfinite(ratio), faster, speed),
        ("Networks trained", True, f"{trained(r):,}", study),
    ]
    tiles = ""
    for title, there, number, note in cards:
        number, note = (number, note) if there else ("–", "not measured")
        tiles += f"<div><dt>{title}</dt><dd><strong>{number}</strong><span>{note}</span></dd></div>\n"
    return f"""<header>
<p class="mark"><b>jaxnet</b> <code>jaxnet demo</code></p>
<h1>{count(trained(r), "network")} trained, {checked}.</h1>
<p class="lead">A training run is a pure function, so a study is its <code>vmap</code>.
Every number on this page was measured by the run that wrote it.</p>
<dl class="cards">\n{tiles}</dl>\n</header>\n<main>"""


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


def rates(r: DemoResults) -> str:
    """Accuracy against learning rate."""
    there = np.isfinite(r.accuracies)
    lost = r.accuracies.size - int(there.sum())
    if not there.any():
        why = f"All {lost} networks diverged." if lost else "No learning rates were compared."
        return section("Many networks at once", "", f"<p>{why}</p>")
    n, (mean, low, high) = there.sum(1), figures.confidence_band(r.accuracies)
    best = int(np.nanargmax(mean))
    on = f" {escape(r.scored_on)}" if r.scored_on else ""
    shape = f"{count(len(r.rates), 'learning rate')}, {count(r.accuracies.shape[1], 'seed')} each"
    top = f"{percent(mean[best])} at {r.rates[best]:.3g}"
    lead = f"{shape}. The highest mean{on} accuracy is {top}."
    told = f"{lost} of {r.accuracies.size} diverged" + (" (crosses), left out of the means." if lost else ".")
    keys = '<span class="key">mean</span> <span class="key dot">one seed</span> '
    keys += f'<span class="key band">95{SPACE}% interval of the mean</span>' if (n > 1).any() else ""
    label = f"Accuracy against learning rate; highest mean {top}; {told}"
    drawn = figures.rate_curve("rates", label, r.rates, r.accuracies)
    rows = [[f"{r.rates[i]:.3g}", percent(mean[i]), spread(low[i], high[i]), str(n[i])] for i in np.argsort(r.rates)]
    head = ["Learning rate", "Mean", f"95{SPACE}% interval", "Seeds"]
    note = f"<p>{told} Intervals are Student’s t over seeds.</p>"
    panels = panel("Accuracy by learning rate", drawn, keys, note)
    panels += panel("The numbers", table("Accuracy by learning rate", head, rows, 1))
    return section("Many networks at once", lead, panels)


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
    return r.accuracies.size + bool(r.history)
