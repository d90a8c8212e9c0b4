"""The demo's page: well formed, self-contained, honest about what is missing, and the same twice."""

import builtins
import dataclasses
import re
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from scipy import stats

from jaxnet import outcomes
from jaxnet.report import DemoResults, Mistake, ProofRow, write_demo
from jaxnet.report.figures import COLOURS, rate_curve, wilson_interval
from jaxnet.sweeps.plan import plan_of
from jaxnet.sweeps.space import grid
from jaxnet.sweeps.study import Study

VOID = {"meta", "br", "img"}


def studied(accuracies, rates, decays):
    """A study with these accuracies (seeds, rates, decays) without training; NaN where a member diverged."""
    plan = plan_of(grid({"lr": list(rates), "decay": list(decays)}), seeds=range(len(accuracies)))
    values = np.asarray(accuracies, float).reshape(-1)
    diverged = np.isnan(values)
    study = Study.blank(plan, {"rank_by": "valid_accuracy"})
    study.take(
        list(range(len(plan))),
        {
            "metrics/valid_accuracy": np.where(diverged, 0.1, values),
            "history/valid_accuracy": np.tile(np.where(diverged, 0.1, values)[:, None], (1, 10)),
            "best_epoch": np.full(len(plan), 4),
            "epochs_run": np.where(diverged, 1, 8),
            "outcome": np.where(diverged, outcomes.DIVERGED, outcomes.STOPPED_EARLY),
        },
        {},
    )
    return study


RATES, DECAYS = np.logspace(-4, 0, 8), (0.0, 0.5, 4.0)


def accuracies(seeds=8):
    """(seeds, rates, decays): the largest decay with the largest rate diverges."""
    random = np.random.default_rng(0)
    values = 0.95 - 0.02 * np.log10(RATES / 0.01)[:, None] ** 2 - 0.01 * np.asarray(DECAYS)
    values = np.clip(values + 0.01 * random.standard_normal((seeds, *values.shape)), 0.1, 1)
    values[:, -1, -1] = np.nan
    return values


def results(epochs=60, seeds=8, mistakes=40, **changes):
    """What a run on the digits may leave: a stopped run, and a study of eight rates × three decays."""
    random = np.random.default_rng(0)
    epoch, stop = np.arange(epochs), max(1, epochs - 5)
    history = {
        "train_loss": 2.2 * np.exp(-epoch / 6) + 0.01,
        "valid_loss": 2.1 * np.exp(-epoch / 5) + 0.12 + 0.001 * epoch,
        "valid_accuracy": 0.97 - 0.6 * np.exp(-epoch / 4),
    }
    history = {name: np.where(epoch < stop, v, np.nan) for name, v in history.items()}
    confusion = np.diag(np.full(10, 32))
    confusion[[8, 9, 1], [1, 3, 8]] = mistakes, 1, 2
    wrong = [Mistake(random.random((8, 8)), 8, 1, 0.3 + 0.01 * i) for i in range(mistakes)]
    shapes = {"w": (64, 64), "b": (64,)}
    made = DemoResults(
        proof=[ProofRow(f"dense_{i}", k, v, 3.14e-15 / (i + 1), 1e-12) for i in range(3) for k, v in shapes.items()],
        history=history,
        best_epoch=max(1, stop - 8),
        outcome="Stopped early: no improvement for 8 epochs.",
        test_accuracy=350 / 360,
        test_count=360,
        study=studied(accuracies(seeds), RATES, DECAYS),
        confusion=confusion,
        mistakes=wrong,
        alone=2.12e-3,
        together=3.12e-4,
        seconds={"study": 9.87, "compile": 1.84},
        settings={"network": "64 → 64 → 10", "optimizer": "adam"},
        versions={"jax": "0.10.2"},
    )
    return dataclasses.replace(made, **changes)


class Page(HTMLParser):
    """Checks that tags balance, and keeps text, ids and references."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.ids, self.refs, self.words = [], [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))
        used = re.findall(r"url\(#([^)]*)\)", source) + [ref[1:] for ref in self.refs if ref[:1] == "#"]
        assert set(used) <= set(self.ids)
        self.text = re.sub(r"\s+", " ", "".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        self.refs += [value for name, value in attrs if name in ("href", "xlink:href", "src")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def write(folder, made):
    write_demo(folder / "demo.html", made)
    source = (folder / "demo.html").read_text(encoding="utf-8")
    assert [p.name for p in folder.iterdir()] == ["demo.html"]
    assert not any(sentinel in source for sentinel in COLOURS)
    return source, Page(source)


@pytest.mark.parametrize("epochs", [16, 60])
def test_page_is_small_whole_and_self_contained(tmp_path, epochs):
    source, page = write(tmp_path, results(epochs))
    assert len(source.encode()) < 300_000
    assert not re.search(r"https?://|@import|<script|<link|DejaVu", source)
    assert all(ref.startswith(("#", "data:image/png;base64,")) for ref in page.refs)
    pictures = [a for tag, a in page.tags if tag == "svg" and a.get("aria-hidden") != "true"]
    assert len(pictures) == 5  # the study twice, two curves, the confusion
    assert all(a["role"] == "img" and a["aria-label"] for a in pictures)
    assert all(a["alt"] for tag, a in page.tags if tag == "img")
    assert all(a["scope"] in ("row", "col") for tag, a in page.tags if tag == "th")


def test_key_numbers_appear(tmp_path):
    made = results()
    text = write(tmp_path, made)[1].text
    low, high = stats.binomtest(350, 360).proportion_ci(method="wilson")
    values = accuracies()
    mean = values.mean(axis=0)
    rate, decay = np.unravel_index(np.nanargmax(mean), mean.shape)
    best = values[:, rate, decay]
    below, above = stats.t.interval(0.95, 7, best.mean(), stats.sem(best))
    for words in (
        "97.2 %",
        f"{100 * low:.1f} – {100 * high:.1f} %",
        "3.1 × 10−15",
        f"{9870 / 192:.1f} ms",
        "an epoch: 312 µs, alone 2.12 ms",
        "1.84 s",
        "192 runs in 9.87 s, compiling included",
        "193 networks trained, every gradient checked.",
        f"{100 * best.mean():.1f} %",
        f"{100 * below:.1f} – {100 * above:.1f} %",
        f"The row of the best configuration, decay = {DECAYS[decay]:g}, every seed a dot.",
        "8 of 192 runs diverged and were frozen",
        "They diverged exactly where lr × decay > 2",
        f"{100 * (1 - (184 * 8 + 8 * 1) / 1920):.0f} % of the epochs were never run",
        f"best epoch {made.best_epoch}",
        made.outcome,
    ):
        assert words in text, words


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (350, 360), (0, 40), (40, 40), (3, 7)])
def test_wilson_interval(successes, n):
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, n), expected, rtol=1e-12, atol=1e-15)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_cells_of_the_heat_map_are_means_over_seeds(tmp_path):
    text = write(tmp_path, results())[1].text
    values = accuracies().mean(axis=0)
    for i in range(len(RATES)):
        for j in range(len(DECAYS)):
            assert np.isnan(values[i, j]) or f"{100 * values[i, j]:.1f}" in text


def test_text_is_escaped(tmp_path):
    evil = "<script>alert('&')</script>"
    proof = [ProofRow(evil, evil, (2,), 0.0, 1e-12)]
    made = results(proof=proof, outcome=evil, settings={evil: evil}, versions={evil: evil})
    source, page = write(tmp_path, dataclasses.replace(made, seconds={evil: 1.0}))
    assert "<script" not in source
    assert page.text.count(evil) == 8


def test_equal_results_give_equal_bytes(tmp_path):
    for name in ("a.html", "b.html"):
        write_demo(tmp_path / name, results())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


NONE = np.zeros((0, 0))
CASES = {
    "diverged": ({"study": studied(np.full((2, 2, 2), np.nan), (0.1, 1.0), (3.0, 30.0))}, "All 8 runs diverged."),
    "no study": ({"study": None}, "No study was run."),
    "nothing finished": (
        {"study": Study.blank(plan_of(grid({"lr": [0.1], "decay": [0.0]}), (0,)))},
        "No study was run.",
    ),
    "one configuration": ({"study": studied([[[0.9]], [[0.8]]], (0.1,), (0.0,))}, "2 runs in 9.87 s"),
    "no mistakes": ({"mistakes": []}, "No mistakes to show."),
    "no digits": (
        {"confusion": NONE, "test_count": 0, "test_accuracy": np.nan},
        "No test digits were classified.",
    ),
    "NaN accuracy": ({"test_accuracy": np.nan}, "Test accuracy–not measured"),
    "no proof": ({"proof": []}, "No gradient was checked in this run."),
    "no curves": ({"history": {}}, "there is no curve to draw."),
    "NaN curves": ({"history": {"train_loss": np.full(4, np.nan)}}, "there is no curve to draw."),
    "loss alone": ({"history": {"train_loss": np.array([1.0, 0.5])}}, "training"),
    "zero loss": ({"history": {"train_loss": np.array([1.0, 0.0])}}, "training"),
    "perfect": ({"study": studied(np.ones((3, 2, 2)), (0.1, 1.0), (0.0, 0.1))}, "100.0 – 100.0 %"),
    "no speed": ({"alone": np.nan}, "in the study, compiling included Worst"),
    "no time": ({"seconds": {"compile": 1.0}}, "Time per run–not measured"),
    "no times": ({"seconds": {}}, "None were recorded."),
    "failed": ({"proof": [ProofRow("d", "w", (), 2e-9, 1e-12)]}, "1 of 1 gradient beyond the bound"),
    "NaN error": ({"proof": [ProofRow("d", "w", (), np.nan, 1e-12)]}, "✗ no"),
    "exact": ({"proof": [ProofRow("d", "w", (), 0.0, 1e-12)]}, "✓ yes"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_missing_is_said(tmp_path, name):
    changes, words = CASES[name]
    page = write(tmp_path, dataclasses.replace(results(mistakes=3), **changes))[1]
    assert words in page.text


def test_training_loss_alone_marks_no_best_epoch(tmp_path):
    source, page = write(tmp_path, results(history={"train_loss": np.array([1.0, 0.5])}, best_epoch=2))
    assert "best epoch 2</text>" not in source
    assert 'class="key orange">validation' not in source
    assert "training" in page.text


def test_one_epoch_and_one_seed(tmp_path):
    source, page = write(tmp_path, results(epochs=1, seeds=1))
    assert "best epoch 1" in page.text
    assert 'class="key band"' not in source


def test_many_mistakes_show_the_surest(tmp_path):
    _, page = write(tmp_path, results(mistakes=45))
    assert sum(tag == "img" for tag, _ in page.tags) == 40
    assert "The 40 surest of 45" in page.text
    assert "74 %" in page.text
    assert "34 %" not in page.text


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    source, _ = write(tmp_path, results(epochs=16))

    def fail(*_):
        raise OSError(28, "disk")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk"):
        write_demo(tmp_path / "demo.html", results(epochs=20))
    assert [p.name for p in tmp_path.iterdir()] == ["demo.html"]
    assert (tmp_path / "demo.html").read_text(encoding="utf-8") == source


def test_missing_matplotlib_names_the_cure(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "jaxnet-toolkit\[plot\]"'):
        write_demo(tmp_path / "demo.html", results())
    assert not list(tmp_path.iterdir())


def luminance(rgb):
    rgb = np.asarray(rgb) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("dark", [False, True])
def test_text_contrast(dark):
    light, other = files("jaxnet.report").joinpath("style.css").read_text().split("@media (prefers-color", 1)
    read = dict(re.findall(r"--(\w+): #(\w{6})", light))
    read |= dict(re.findall(r"--(\w+): #(\w{6})", other)) if dark else {}
    colour = {name: np.array([int(v[i : i + 2], 16) for i in (0, 2, 4)]) for name, v in read.items()}

    def contrast(a, b):
        low, high = sorted((float(luminance(a)), float(luminance(b))))
        return (high + 0.05) / (low + 0.05)

    for ground in ("paper", "card"):
        for ink in ("ink", "muted", "good", "bad", "blue", "orange"):
            assert contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)
    for cell in ("hit", "miss"):
        for share in np.linspace(0, 1, 21):
            mixed = colour["card"] + share * (colour[cell] - colour["card"])
            assert contrast(colour["ink"], mixed) >= 4.5, (cell, share)


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        (np.array([[0.4, 0.9], [0.975, 0.6]]), "50 80 90 95"),  # 97.5 % is the highest: nothing above it is named
        (np.array([[0.4, 1.0], [0.6, 0.99]]), "50 80 90 95 98 99"),  # what is perfect stands at the best that isn't
        (np.array([[1.0, 1.0], [1.0, 1.0]]), ""),
        (np.array([[np.nan, np.nan], [0.6, np.nan]]), "50"),
    ],
)
def test_axis_of_the_rates_names_what_it_reaches(values, ticks):
    drawn = rate_curve("r", "told", np.array([0.1, 1.0]), values, np.full((1, 2), np.nan))
    named = re.findall(r">([\d.]+) %</text>", drawn)
    assert " ".join(named) == ticks
