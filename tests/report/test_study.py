"""The study's page: well formed and small, its numbers recomputed from the arrays, what's missing said."""

import base64
import builtins
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxnet import outcomes
from jaxnet.data.folds import Fold
from jaxnet.report import charts
from jaxnet.report.figures import COLOURS
from jaxnet.report.findings import explained, findings_of, pairs, shares
from jaxnet.report.levels import levels
from jaxnet.report.study import study_in_words, write_study
from jaxnet.sweeps.plan import plan_of
from jaxnet.sweeps.space import Space, grid, log_space, log_uniform, random_draws, static
from jaxnet.sweeps.store import Record
from jaxnet.sweeps.study import Study

VOID = {"meta", "br"}
NO_ROWS = Fold(np.zeros(0, np.int32), np.zeros(0, np.int32))
EVIL = """</td><script>alert('&')</script>"$x$" """


def made(space, seeds=4, *, folds=0, epochs=8, done=None, diverged=(), about=None):
    """A study as a sweep may leave it: a loss with its lowest at lr = 0.01, noise by seed, these members diverged."""
    study = Study.blank(plan_of(space, range(seeds), [NO_ROWS] * folds), {"epochs": epochs, **(about or {})})
    n, random = len(study), np.random.default_rng(0)
    rate = np.array([c.get("lr", 0.01) for c in space.configurations])[study.plan.configuration]
    end = 0.1 + 0.1 * np.log10(rate / 0.01) ** 2 + 0.01 * random.standard_normal(n)
    loss = end[:, None] + 2 * np.exp(-np.arange(epochs) / 3)
    outcome = np.where(end > 0.2, outcomes.STOPPED_EARLY, outcomes.EPOCHS_EXHAUSTED).astype(np.int32)
    outcome[list(diverged)] = outcomes.DIVERGED
    loss[list(diverged), 1:] = np.nan
    values = {"history/valid_loss": loss, "history/train_loss": 0.8 * loss, "metrics/valid_loss": loss[:, -1]}
    values |= {"history/valid_accuracy": 1 / (1 + loss), "metrics/valid_accuracy": 1 / (1 + loss[:, -1])}
    values |= {"history/train_accuracy": 1 / (1 + 0.8 * loss), "metrics/train_loss": 0.8 * loss[:, -1]}
    values |= {"best_epoch": np.full(n, epochs, np.int32), "epochs_run": np.full(n, epochs, np.int32)}
    rows = list(range(n if done is None else done))
    if rows:
        study.take(rows, {name: v[rows] for name, v in (values | {"outcome": outcome}).items()}, {})
    return study


class Page(HTMLParser):
    """Checks that tags balance and ids are unique; keeps tags, text and the texts of tables' rows."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.words, self.rows = [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []
        ids = [a["id"] for _, a in self.tags if "id" in a]
        assert len(ids) == len(set(ids))
        refs = re.findall(r"url\(#([^)]*)\)", source)
        refs += [a[k][1:] for _, a in self.tags for k in ("href", "xlink:href", "src") if k in a]
        assert set(refs) <= set(ids)
        self.text = re.sub(r"\s+", " ", "".join(self.words))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td") and self.rows:
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" in self.open or "script" in self.open:
            return
        self.words.append(data)
        if {"th", "td"} & set(self.open):
            self.rows[-1][-1] += data.replace("\u202f", " ")

    def count(self, tag):
        return sum(found == tag for found, _ in self.tags)


def write(folder, study, **options):
    write_study(folder / "study.html", study, **options)
    source = (folder / "study.html").read_text(encoding="utf-8")
    assert [p.name for p in folder.iterdir()] == ["study.html"]
    assert not any(sentinel in source for sentinel in COLOURS)
    return source, Page(source)


def test_ten_thousand_members_make_a_small_self_contained_page(tmp_path):
    axes = {"lr": log_uniform(1e-4, 1.0), "decay": log_uniform(1e-5, 1e-1), "act": static(["relu", "tanh"])}
    study = made(random_draws(axes, 2500), epochs=30, diverged=range(0, 400, 7))
    assert sum(v.ndim == 2 for v in study.values.values()) == 4
    source, page = write(tmp_path, study)
    assert len(study) == 10_000
    assert len(source.encode()) < 1_000_000
    assert not re.search(r"https?://|@import|<link|DejaVu", source)
    script = re.findall(r"<script>(.*?)</script>", source, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert len(script) == 1
    assert f"script-src 'sha256-{digest}'" in source
    pictures = [a for tag, a in page.tags if tag == "svg" and a.get("aria-hidden") != "true"]
    assert len(pictures) == 1 + 3 + 2  # outcomes, pairs, learning curves
    assert all(a["role"] == "img" and a["aria-label"] for a in pictures)
    assert all(a["scope"] in ("row", "col") for tag, a in page.tags if tag == "th")
    assert page.count("caption") == page.count("table")
    assert "The best 500 of 10,000 finished members, best first; 9,500 are not shown." in page.text
    assert sum(row[2:3] in (["epochs exhausted"], ["stopped early"]) for row in page.rows) == 500


def test_members_are_the_best_in_order_and_can_be_sorted(tmp_path):
    study = made(grid({"lr": log_space(1e-4, 1.0, 30)}), seeds=20, diverged=range(5))
    page = write(tmp_path, study)[1]
    i = next(i for i, row in enumerate(page.rows) if row[:1] == ["member"])
    assert page.rows[i][:5] == ["member", "outcome", "seed", "lr", "validation loss"]
    shown = [int(row[0]) for row in page.rows[i + 1 : i + 501]]
    losses = study.values["metrics/valid_loss"]
    assert shown == np.argsort(np.where(np.isnan(losses), np.inf, losses), kind="stable")[:500].tolist()
    assert page.count("button") == len(page.rows[i])
    assert page.rows[i + 1][4] == f"{np.nanmin(losses):.4f}"


def test_the_best_configurations_are_those_of_the_arrays(tmp_path):
    study = made(grid({"lr": log_space(1e-4, 1.0, 10), "decay": [0.0, 0.5, 1.0]}), seeds=5, diverged=[3, 33, 95])
    page = write(tmp_path, study, name="valid_accuracy")[1]
    cube = study.values["metrics/valid_accuracy"].reshape(5, 30)
    means = np.array([column[np.isfinite(column)].mean() for column in cube.T])
    order = np.argsort(-means)[:20]
    rows = page.rows[1:21]
    assert page.rows[0][:4] == ["", "lr", "decay", "validation accuracy"]
    assert [float(row[1]) for row in rows] == [float(f"{study.configuration(c)['lr']:.4g}") for c in order]
    assert [float(row[2]) for row in rows] == [study.configuration(c)["decay"] for c in order]
    for row, c in zip(rows, order, strict=True):
        kept = cube[:, c][np.isfinite(cube[:, c])]
        low, high = stats.t.interval(0.95, len(kept) - 1, kept.mean(), stats.sem(kept))
        wanted = [
            f"{100 * kept.mean():.1f} %",
            f"{100 * kept.std(ddof=1):.1f} %",
            f"{100 * low:.1f} – {100 * high:.1f} %",
        ]
        assert row[3:6] == wanted
        assert row[7:9] == [str(len(kept)), str(5 - len(kept))]
    assert "30 configurations × 5 seeds" in page.text
    assert f"the best validation accuracy is {100 * np.nanmax(cube):.1f} %." in page.text.replace("\u202f", " ")


def additive(a, b, both=0.0):
    """A study of a full grid whose values are a + b + both · a · b."""
    space = grid({"x": list(range(len(a))), "y": list(range(len(b)))})
    study = Study.blank(plan_of(space, range(1)))
    study.take(list(range(len(space))), {"metrics/score": (a[:, None] + b + both * np.outer(a, b)).ravel()}, {})
    return study


def test_shares_are_the_analysis_of_variance_of_a_grid():
    a, b = np.array([0.0, 3.0, -1.0]), np.array([0.0, 1.0, 1.5, -2.0])
    found = shares(findings_of(additive(a, b)))
    whole = a.var() + b.var()
    assert found == pytest.approx({"x": a.var() / whole, "y": b.var() / whole})
    a, b = a - a.mean(), b - b.mean()  # now the product is orthogonal to both
    found = shares(findings_of(additive(a, b, both=1.0)))
    whole = a.var() + b.var() + a.var() * b.var()
    assert found == pytest.approx({"x": a.var() / whole, "y": b.var() / whole})
    assert list(found) == ["x", "y"]


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-1e3, 1e3)), min_size=6, max_size=30))
def test_explained_is_what_the_f_test_says(drawn):
    group, values = (np.array(column) for column in zip(*drawn, strict=True))
    n, k = len(values), len(set(group.tolist()))
    share = explained(values, group)
    if k == 1:
        assert np.isnan(share) or share < 1e-9
        return
    if k == n or np.ptp(values) < 1e-3:
        return
    within = sum(float(((values[group == g] - values[group == g].mean()) ** 2).sum()) for g in set(group.tolist()))
    if within < 1e-6:
        assert share == pytest.approx(1.0)
        return
    f = stats.f_oneway(*(values[group == g] for g in set(group.tolist()))).statistic
    assert share == pytest.approx(f * (k - 1) / (f * (k - 1) + n - k), rel=1e-6, abs=1e-9)


def test_shares_are_left_out_where_they_cannot_be_computed():
    assert shares(findings_of(made(grid({"lr": [0.1, 1.0]})))) == {}  # one alone
    few = random_draws({"lr": log_uniform(1e-4, 1.0), "decay": log_uniform(1e-4, 1.0)}, 12)
    assert shares(findings_of(made(few))) == {}
    many = random_draws({"lr": log_uniform(1e-4, 1.0), "decay": log_uniform(1e-4, 1.0)}, 400)
    found = shares(findings_of(made(many)))
    assert found["lr"] > 0.9
    assert found["decay"] < 0.1  # by chance alone 7 / 399


def test_heat_maps_hold_the_means_and_mark_the_diverged():
    space = grid({"lr": [1e-3, 1e-2, 1e-1], "decay": [0.0, 1.0], "units": [8, 16]})
    at = [i for i, c in enumerate(space.configurations) if c["lr"] == 0.1 and c["decay"] == 1.0]
    lost = [i + 12 * s for i in at for s in range(3)] + [0]  # a whole cell, and one member of another
    study = made(space, seeds=3, diverged=lost)
    found = findings_of(study)
    columns, rows = next(p for p in pairs(found) if {p[0].name, p[1].name} == {"lr", "decay"})
    drawn = charts.heat_map(found, columns, rows)
    assert drawn.count("✕") == drawn.count('class="miss"') == 1
    assert drawn.count('class="corner"') == 1
    assert "7 members diverged" in drawn
    for rate in (1e-3, 1e-2, 1e-1):
        for decay in (0.0, 1.0):
            inside = [i for i, c in enumerate(space.configurations) if (c["lr"], c["decay"]) == (rate, decay)]
            mean = (
                np.mean([np.nanmean(study.values["metrics/valid_loss"].reshape(3, 12)[:, i]) for i in inside])
                if inside != at
                else np.nan
            )
            assert np.isnan(mean) or f">{mean:#.3g}</text>" in drawn
    assert 'class="top"' in drawn
    hits = re.findall(r'class="hit"[^>]*fill-opacity="([\d.]+)"', drawn)
    assert len(hits) == 5
    assert max(map(float, hits)) == 1.0


def test_pairs_are_those_that_explain_most():
    rng = np.random.default_rng(0)
    space = grid({name: [0, 1] for name in "abcde"})
    study = Study.blank(plan_of(space, range(1)))
    chosen = np.array([[c[n] for n in "abcde"] for c in space.configurations])
    study.take(list(range(32)), {"metrics/loss": chosen @ [0, 5, 0, 3, 0.1] + 1e-3 * rng.random(32) + 1}, {})
    found = pairs(findings_of(study))
    assert len(found) == 6
    assert {found[0][0].name, found[0][1].name} == {"b", "d"}
    assert all("b" in {one.name, other.name} for one, other in found[:4])


def test_levels():
    drawn = random_draws({"lr": log_uniform(1e-4, 1.0)}, 80)
    one = levels(drawn, "lr", bins=8)
    rates = np.array([c["lr"] for c in drawn])
    assert np.bincount(one.group).tolist() == [10] * 8
    assert all(rates[one.group == i].max() < rates[one.group == i + 1].min() for i in range(7))
    assert [float(t) for t in one.labels] == [float(f"{np.median(rates[one.group == i]):.2g}") for i in range(8)]
    mixed = grid({"act": static(["tanh", None, "relu"])}) + grid({"lr": [2, 1, 10]})
    assert levels(mixed, "act", 4)[:2] == ("act", ["tanh", "None", "relu", "–"])
    assert levels(mixed, "act", 4).group.tolist() == [0, 1, 2, 3, 3, 3]
    twice = grid({"lr": [2.0, 1.0, 10.0], "decay": [0.0, 1.0]}) + grid({"decay": [5.0]})
    assert levels(twice, "lr", 4)[:2] == ("lr", ["1", "2", "10", "–"])
    assert levels(twice, "lr", 4).group.tolist() == [1, 1, 0, 0, 2, 2, 3]


FIRST = {"lr": [0.001, 0.01, 0.1]}
CASES = {
    "nothing yet": (lambda: made(grid(FIRST), done=0), "No member has finished yet."),
    "partial": (lambda: made(grid(FIRST), done=5), "5 of 12 runs: the best validation loss"),
    "not run": (lambda: made(grid(FIRST), done=5), "7 members not run yet."),
    "all diverged": (lambda: made(grid(FIRST), diverged=range(12)), "All 12 finished members diverged."),
    "all diverged, two": (
        lambda: made(grid(FIRST | {"decay": [0.0, 1.0]}), diverged=range(24)),
        "diverged 24",
    ),
    "one configuration": (lambda: made(Space(({"lr": 0.1},), frozenset())), "One configuration, 4 seeds."),
    "no hyperparameters": (lambda: made(Space(({},), frozenset()), 1), "1 run: the validation loss is"),
    "one epoch": (lambda: made(grid(FIRST), epochs=1), "How they learn"),
    "folds": (lambda: made(grid(FIRST), folds=3), "3 configurations × 3 folds × 4 seeds"),
    "conditional": (lambda: made(grid(FIRST) + grid({"act": static(["relu"]), "lr": [1.0]})), "lr × act"),
    "words": (lambda: made(grid({"act": static(["relu", "tanh"])})), "Validation loss by act"),
    "tuples": (lambda: made(grid({"units": static([(8, 8), (4,)]), "lr": [0.1, 1.0]})), "[8, 8]"),
    "booleans": (lambda: made(grid({"flag": [False, True], "lr": [0.1, 1.0]})), "flag"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_study_has_a_page(tmp_path, name):
    build, words = CASES[name]
    study = build()
    page = write(tmp_path, study)[1]
    assert words in page.text
    assert "nan" not in page.text.lower()
    assert "nan" not in study_in_words(study).lower()


def test_folds_are_averaged_before_seeds_count(tmp_path):
    study = made(grid({"lr": [0.01, 0.1]}), seeds=3, folds=4)
    page = write(tmp_path, study)[1]
    by_seed = study.values["metrics/valid_loss"].reshape(3, 4, 2).mean(axis=1)
    low, high = stats.t.interval(0.95, 2, by_seed[:, 0].mean(), stats.sem(by_seed[:, 0]))
    assert page.rows[1][1:5] == ["0.01", f"{by_seed[:, 0].mean():#.3g}", f"{by_seed[:, 0].std(ddof=1):#.3g}",
                                 f"{low:#.3g} – {high:#.3g}"]  # fmt: skip
    assert "fold" in page.text


def whole():
    study = Study.blank(plan_of(grid({"x": [1.0, 2.0, 3.0]}), range(2)), {"rank_by": None, "mode": "min"})
    study.take(list(range(6)), {"metrics/cost": np.array([9.0, 4.0, 1.0, 9.0, 4.0, np.nan])}, {})
    return study


def test_a_function_without_history_has_a_page_once_it_is_said_what_is_good(tmp_path):
    page = write(tmp_path, whole(), mode="min")[1]
    assert "6 runs: the best cost is 1.00." in page.text
    assert "finished 6" in page.text
    assert "How they learn" not in page.text
    assert study_in_words(whole(), name="cost", mode="max").splitlines()[3].split() == [
        "1",
        "9.00",
        "9.00",
        "…",
        "9.00",
        "x",
        "1",
    ]
    with pytest.raises(ValueError, match="expected mode='min' or mode='max'"):
        write_study(tmp_path / "other.html", whole())
    with pytest.raises(KeyError, match="got 'valid_los'; expected one of valid_loss"):
        write_study(tmp_path / "other.html", made(grid(FIRST)), name="valid_los")
    assert [p.name for p in tmp_path.iterdir()] == ["study.html"]


@pytest.mark.parametrize("others", [{}, {"lr": [0.1, 1.0]}])
def test_text_is_escaped(tmp_path, others):
    study = made(grid({"act": static([EVIL, "relu"]), **others}), about={"made by": EVIL})
    record = Record(
        {"settings": {EVIL: EVIL}, "environment": {EVIL: EVIL}, "data": {EVIL: EVIL}}, [], [], [0], 0, {}, []
    )
    source, page = write(tmp_path, study, record=record)
    assert source.count("<script") == 1
    assert page.count("script") == 1
    assert EVIL.strip() in page.text
    assert all("alert" not in str(key) for _, a in page.tags for key in a)


def test_the_record_is_shown(tmp_path):
    identity = {
        "settings": {"epochs": 8, "width": 32, "study_seed": 7},
        "environment": {"jax": "0.10.2", "backend": "cpu"},
        "data": {".train[0]": "a" * 64},
        "program": {"{} lr": "b" * 64},
    }
    accepted = [{"changes": {"data": ["x: 1 in the store, 2 now"]}, "identity": {}}]
    page = write(tmp_path, made(grid(FIRST)), record=Record(identity, [], [], [0], 0, {}, accepted))[1]
    for row in (["width", "32"], ["study_seed", "7"], ["jax", "0.10.2"], ["data .train[0]", "a" * 15 + "…"]):
        assert row in page.rows
    assert "x: 1 in the store, 2 now" in page.text


def test_study_in_words():
    study = made(grid({"lr": [0.001, 0.01, 0.1, 1.0], "decay": [0.0, 1.0]}), seeds=3, diverged=[7, 15])
    lines = study_in_words(study).splitlines()
    cube = study.values["metrics/valid_loss"].reshape(3, 8)
    means = np.array([column[np.isfinite(column)].mean() for column in cube.T])
    assert lines[0] == "24 of 24 members: 8 configurations × 3 seeds"
    assert lines[1].endswith("diverged: 2")
    assert [line.split()[1] for line in lines[3:8]] == [f"{v:#.3g}" for v in np.sort(means)[:5]]
    best = int(np.nanargmin(study.values["metrics/valid_loss"]))
    assert lines[8].startswith(
        f"the best member: {np.nanmin(cube):#.3g}, member {best}, seed {best // 8}, lr 0.01, decay "
    )
    assert len(lines) == 9


def test_equal_studies_give_equal_bytes(tmp_path):
    for name in ("a.html", "b.html"):
        write_study(tmp_path / name, made(grid(FIRST), diverged=[2]))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_missing_matplotlib_names_the_cure(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "jaxnet-toolkit\[plot\]"'):
        write_study(tmp_path / "study.html", made(grid(FIRST)))
    assert not list(tmp_path.iterdir())
