"""What a study file may say: every block of its documentation, every refusal, and what its parts are made of."""

import itertools
import re
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnet as jn
from jaxnet.cli import train as cli_train
from jaxnet.cli.examples import learned
from jaxnet.cli.options import Train
from jaxnet.cli.studyfile import checked, read, tables_of, written
from jaxnet.cli.studykeys import DATA, PROGRAM, STUDY
from jaxnet.cli.studyparts import OPTIMIZERS, importable, parts_of
from jaxnet.cli.studyspace import FORMS, space_of

ROOT = Path(__file__).parents[2]
IRIS = {"program": {}, "data": {"name": "iris"}}
HERE = Path("study.toml")


def of(text: str, path: Path = HERE):
    """A study file and its space."""
    file = checked(tomllib.loads(text), path)
    return file, space_of(file)


def blocks():
    return re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "studies.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", blocks(), ids=lambda text: text.split("\n", 1)[0])
def test_every_block_of_the_documentation_is_a_study(text):
    file, space = of(text)
    assert len(space) > 1
    assert checked(tomllib.loads(written(file)), HERE) == file
    said = tomllib.loads(text)
    for name, table in tables_of(file).items():
        given = said.get(name, {})
        if isinstance(table, dict) and isinstance(given, dict):
            assert {n: v for n, v in table.items() if n in given} == {
                n: v for n, v in given.items() if name != "program" or n not in file.space
            }


def test_the_documentation_names_every_key():
    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    assert len(blocks()) == 4
    for name in (*PROGRAM, *DATA, *STUDY, *FORMS):
        assert re.search(rf"\b{name} = |`{name}`", page), name


def test_the_example_is_a_study():
    for path in sorted((ROOT / "experiments" / "studies").glob("*.toml")):
        assert len(space_of(read(path))) >= 2


def test_defaults():
    file = checked(IRIS, Path("a/my flowers.toml"))
    assert file.name == "my_flowers"
    assert file.program == {
        "hidden": [32], "activation": "relu", "dropout": 0.0, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.0,
        "batch_size": 32, "patience": 5,
    }  # fmt: skip
    assert file.data == {"name": "iris", "test_share": 0.2, "valid_share": 0.2, "split_seed": 0}
    assert file.study == {
        "method": "grid", "epochs": 20, "seeds": 1, "study_seed": 0, "keep": "best", "devices": "auto",
    }  # fmt: skip
    assert list(space_of(file)) == [{}]


def test_an_axis_replaces_the_value_of_the_program():
    file, space = of('program = { lr = 0.5, hidden = [4] }\ndata = { name = "iris" }\nspace = { lr = [1, 2] }')
    assert "lr" not in file.program
    assert file.program["hidden"] == [4]
    assert list(space) == [{"lr": 1.0}, {"lr": 2.0}]
    assert all(type(configuration["lr"]) is float for configuration in space)


TABLES = [("program", PROGRAM), ("data", DATA), ("study", STUDY)]


@pytest.mark.parametrize("title, name", [(title, name) for title, keys in TABLES for name in keys])
def test_a_misspelt_key_is_refused_with_the_nearest(title, name):
    if len(name) > 3:
        wrong = name[:-2] + name[-1]
        tables = IRIS | {title: {wrong: 1}}
        with pytest.raises(ValueError, match=rf"^study\.toml: got \[{title}\] {wrong}; did you mean {name}\?$"):
            checked(tables, HERE)
    if title == "program":
        with pytest.raises(ValueError, match=rf"^study\.toml: got \[space\] {name}x; did you mean {name}\?$"):
            space_of(checked(IRIS | {"space": {f"{name}x": [1]}}, HERE))


REFUSED = {
    "top": ('programm = 1', r"got programm; did you mean program\?"),
    "nothing like it": ("[program]\nzzz = 1", r"got \[program\] zzz; expected one of hidden, activation"),
    "no TOML": ("a = ", r"study\.toml: got no valid TOML"),
    "no table": ("program = 1", r"program: got 1; expected a table, \[program\]"),
    "neither": ('data = { name = "iris" }', r"got neither build nor \[program\]"),
    "both": ('build = "a:b"\nprogram = {}', r"got both build and \[program\]"),
    "no data": ("program = {}", r"got no \[data\]"),
    "build": ('build = "a.b"\ndata = "a:b"', r'build: got "a\.b"; expected a function in a module, "module:function"'),
    "name": ('name = "../a"\nprogram = {}\ndata = "a:b"', r"name: got .*; expected letters"),
    "units": ("[program]\nhidden = 32", r"\[program\] hidden: got 32; expected units"),
    "zero units": ("[program]\nhidden = [8, 0]", r"hidden: got \[8, 0\]"),
    "activation": ('[program]\nactivation = "rleu"', r'got "rleu"; expected one of .*; did you mean relu\?'),
    "dropout": ("[program]\ndropout = 1.0", r"\[program\] dropout: got 1\.0; expected a number from 0 up to 1"),
    "boolean": ("[program]\nlr = true", r"\[program\] lr: got true; expected a number above 0"),
    "nan": ("[program]\nlr = nan", r"\[program\] lr: got nan"),
    "huge": (f"[program]\nlr = 1{'0' * 400}", r"\[program\] lr: got 10"),
    "momentum": ("[program]\nmomentum = 0.5", r'momentum: got 0\.5; expected it only with optimizer = "momentum" or'),
    "decay": (
        '[program]\noptimizer = "sgd"\n[space]\nweight_decay = [0.0, 0.1]',
        r'\[space\] weight_decay: got \[0\.0, 0\.1\]; expected it only with optimizer = "adamw"',
    ),
    "data set": ('program = {}\ndata = { name = "irsi" }', r'\[data\] name: got "irsi"; .* did you mean iris\?'),
    "two sources": ('program = {}\ndata = { name = "iris", file = "a.csv" }', r"\[data\]: got name and file"),
    "no source": ("program = {}\ndata = {}", r"\[data\]: got no name, file or function"),
    "kind of file": ('program = {}\ndata = { file = "a.txt" }', r'file: got "a\.txt"; expected a \.csv or \.npz file'),
    "no target": ('program = {}\ndata = { file = "a.csv" }', r"got a \.csv file and no target"),
    "target": ('program = {}\ndata = { name = "iris", target = "a" }', r"target: .* it only with a \.csv file"),
    "share and folds": (
        'program = {}\ndata = { name = "iris", valid_share = 0.5, folds = 3 }',
        r"valid_share: got 0\.5; expected it only with neither folds nor bootstrap",
    ),
    "repeats": ('program = {}\ndata = { name = "iris", repeats = 2 }', r"repeats: got 2; expected it only with folds"),
    "folds and bootstrap": ('program = {}\ndata = { name = "iris", folds = 3, bootstrap = 3 }', r"bootstrap: got 3"),
    "one fold": ('program = {}\ndata = { name = "iris", folds = 1 }', r"folds: got 1; expected a whole number"),
    "own and share": ('program = {}\ndata = { function = "a:b", test_share = 0.1 }', r"only with name or file"),
    "its own test set": ('program = {}\ndata = { name = "fashion_mnist", test_share = 0.1 }', r"test_share: got 0\.1"),
    "units in a space": ("[space]\nhidden = [32, 64]", r"hidden: got \[32, 64\]; expected a list of lists of units"),
    "value in a space": ("[space]\ndropout = [0.1, 2]", r"\[space\] dropout: got 2; expected a number from 0"),
    "twice": ("[space]\nlr = [0.1, 0.1]", r"\[space\]: lr: got 0\.1 twice"),
    "form": ("[space]\nlr = { logg = [1e-4, 1], n = 3 }", r"\[space\] lr: got \{ logg = .* \}; did you mean log\?"),
    "two forms": ("[space]\nlr = { log = [1, 2], lin = [1, 2] }", r"expected one of lin, log, uniform"),
    "no n": ("[space]\nlr = { log = [1e-4, 1] }", r"expected n, how many: \{ log = \[0\.0001, 1\], n = 16 \}"),
    "one end": ("[space]\nlr = { log = [1], n = 2 }", r"expected two ends"),
    "ends": ("[space]\nlr = { lin = [2, 1], n = 2 }", r"\[space\] lr: lin_space: got low=2\.0, high=1\.0"),
    "more": ("[space]\nlr = { static = [1.0], n = 2 }", r"got n in .*; expected static alone"),
    "range in a grid": ("[space]\nlr = { uniform = [0.1, 1] }", r'with method = "grid"; expected values, or '),
    "spaced shape": ("[space]\nbatch_size = { lin = [8, 16], n = 2 }", r"batch_size: got lin; expected a list"),
    "integers": (
        '[space]\nlr = { integers = [1, 2] }\n[study]\nmethod = "random"\ndraws = 2',
        r"got integers; expected uniform or log_uniform",
    ),
    "no draws": ('[study]\nmethod = "random"', r'got method = "random" and no draws'),
    "draws of a grid": ("[study]\ndraws = 8", r'draws: got 8; expected it only with method = "random" or "sobol"'),
    "mode alone": ('[study]\nmode = "min"', r"mode: .* only with rank_by"),
    "seeds": ("[study]\nseeds = [1, -1]", r"seeds: got \[1, -1\]; expected how many, or a list of seeds"),
    "devices": ('[study]\ndevices = "all"', r'devices: got "all"; expected "auto", or how many'),
    "date": ("[study]\nepochs = 1979-05-27", r"epochs: got 1979-05-27; expected a whole number, at least 1"),
    "text without static": ('build = "a:b"\ndata = "a:b"\nspace = { act = ["relu"] }', r'got "relu".*\{ static = '),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_study_file_cannot_say(tmp_path, case, monkeypatch):
    text, sentence = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    if not re.search(r"^(program|build|data|a) *=|^\[program\]", text, re.MULTILINE):
        text = f"program = {{}}\n{text}"
    if "data" not in text and case != "no data":
        text = 'data = { name = "iris" }\n' + text
    HERE.write_text(text)
    with pytest.raises((ValueError, TypeError), match=sentence) as caught:
        space_of(read(HERE))
    assert str(caught.value).startswith("study.toml: ")
    assert "\n" not in str(caught.value)


numbers, digit = st.floats(1e-6, 0.9), st.integers(1, 9)
columns = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
studies = st.fixed_dictionaries(
    {
        "program": st.fixed_dictionaries({}, optional={"lr": numbers, "hidden": st.lists(digit, max_size=3)}),
        "data": st.fixed_dictionaries(
            {"file": st.just("a.csv"), "target": columns},
            optional={"ignore": st.lists(columns, max_size=3), "folds": st.integers(2, 9), "split_seed": digit},
        ),
        "space": st.fixed_dictionaries(
            {},
            optional={
                "lr": st.lists(numbers, min_size=1, max_size=4, unique=True),
                "dropout": st.builds(lambda n: {"lin": [0, 0.5], "n": n}, st.integers(1, 4)),
                "hidden": st.lists(st.lists(digit, max_size=2), min_size=1, max_size=3, unique_by=tuple),
                "activation": st.just(["relu", "tanh"]),
                "weight_decay": numbers,
            },
        ),
        "study": st.fixed_dictionaries({}, optional={"seeds": st.lists(digit, min_size=1, unique=True)}),
    }
)  # fmt: skip


@given(studies)
def test_what_is_written_reads_back(tables):
    file = checked(tables, HERE)
    assert checked(tomllib.loads(written(file)), HERE) == file
    assert tables_of(checked(tables_of(file), HERE)) == tables_of(file)


@given(studies)
def test_a_grid_is_every_combination_in_the_order_of_the_file(tables):
    axes = {}
    for name, values in tables["space"].items():
        values = np.linspace(0, 0.5, values["n"]).tolist() if isinstance(values, dict) else values
        values = values if isinstance(values, list) else [values]
        axes[name] = [tuple(value) if isinstance(value, list) else value for value in values]
    expected = [dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values())]
    space = space_of(checked(tables, HERE))
    assert [list(c) for c in space] == [list(c) for c in expected]
    for found, wanted in zip(space, expected, strict=True):
        for name in wanted:
            assert found[name] == (pytest.approx(wanted[name]) if name == "dropout" else wanted[name])
    assert space.static == frozenset({"hidden", "activation"} & tables["space"].keys())


def test_logarithmic_axes_and_draws():
    lines = "program = {}\ndata = { name = 'iris' }\n"
    _, space = of(lines + "space = { lr = { log = [1e-4, 1], n = 5 } }")
    np.testing.assert_allclose([c["lr"] for c in space], [1e-4, 1e-3, 1e-2, 1e-1, 1])
    for method in ("random", "sobol"):
        text = lines + "space = { lr = { log_uniform = [1e-4, 1] }, hidden = [[4], [8]] }\nstudy = "
        _, few = of(text + f"{{ method = '{method}', draws = 64 }}")
        _, more = of(text + f"{{ method = '{method}', draws = 128 }}")
        _, other = of(text + f"{{ method = '{method}', draws = 64, draw_seed = 1 }}")
        assert list(more)[:64] == list(few) != list(other)
        rates = np.log10([c["lr"] for c in more])
        np.testing.assert_allclose(np.quantile(rates, [0.25, 0.5, 0.75]), [-3, -2, -1], atol=0.35)
        assert {c["hidden"] for c in few} == {(4,), (8,)}
    _, zipped = of(lines + "space = { lr = [0.1, 0.2], hidden = [[4], [8]] }\nstudy = { method = 'zipped' }")
    assert list(zipped) == [{"lr": 0.1, "hidden": (4,)}, {"lr": 0.2, "hidden": (8,)}]
    _, own = of("build = 'a:b'\ndata = 'a:b'\nspace = { depth = { static = [1, 2] }, on = [true, false] }")
    assert own.static == {"depth"}
    assert own[0] == {"depth": 1, "on": True}


def flowers(folder):
    """A CSV file with a text column, missing numbers and an identifier."""
    random = np.random.default_rng(0)
    lines = ["id,size,hue,kind"]
    for i in range(60):
        size = "" if i % 7 == 0 else f"{random.normal(i % 3, 0.4):.3f}"
        lines.append(f"n{i},{size},{('red', 'blue')[i % 2]},{('rose', 'iris', 'lily')[i % 3]}")
    (folder / "flowers.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("source", ["iris", "diabetes", "digits", "flowers.csv"])
def test_the_parts_are_those_of_train(tmp_path, source):
    flowers(tmp_path)
    told = {"target": "kind", "ignore": ["id"], "missing": "mean"} if source.endswith(".csv") else {}
    table = {"file" if told else "name": source, "test_share": 0.25, "valid_share": 0.3, "split_seed": 7, **told}
    parts = parts_of(checked({"program": {}, "data": table}, tmp_path / "study.toml"))
    data = str(tmp_path / source) if told else source
    options = Train(data, **{**told, "ignore": tuple(told.get("ignore", ()))}, test_share=0.25, valid_share=0.3, seed=7)
    expected = cli_train.split(options, learned(options))
    for mine, theirs in zip((*parts.data.train, *parts.data.valid), (*expected.train, *expected.valid), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)
    assert parts.about.get("standardization") == expected.standardization
    assert parts.about.get("target") == expected.target
    assert f"{len(expected.test[0])} set aside" in parts.sentence


def test_folds_are_of_what_is_not_set_aside():
    def parts(**told):
        return parts_of(checked({"program": {}, "data": {"name": "iris", **told}}, HERE))

    aside = parts()
    five = parts(folds=5, repeats=2)
    assert five.data.valid is None
    assert len(five.data.train[1]) == 120 == len(aside.data.train[1]) + len(aside.data.valid[1])
    assert len(five.folds) == 10
    for repeat in (five.folds[:5], five.folds[5:]):
        assert sorted(np.concatenate([fold.valid_rows for fold in repeat]).tolist()) == list(range(120))
    np.testing.assert_allclose(five.data.train[0].mean(axis=0), 0, atol=1e-5)
    again = parts(bootstrap=4, test_share=0)
    assert [len(fold.rows) for fold in again.folds] == [150] * 4
    assert all(not set(fold.rows) & set(fold.valid_rows) for fold in again.folds)
    assert again.sentence.endswith("150 to train; 4 bootstrap samples")


MODULE = """
import jaxnet as jn
import numpy as np

def build(hp):
    raise AssertionError

def data():
    x = np.arange(24.0, dtype="float32").reshape(12, 2)
    return jn.Data((x, np.arange(12) % 4), (x, np.arange(12) % 6))

def pair():
    return (1, 2)

def line():
    x = np.arange(24.0, dtype="float32").reshape(12, 2)
    return jn.Data((x, np.ones((12, 3), "float32")))
"""


def test_functions_of_ones_own(tmp_path):
    (tmp_path / "own_study.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("import no_such_module_at_all")

    def parts(**tables):
        file = checked({"data": "own_study:data", **tables}, tmp_path / "study.toml")
        with importable(file.path.parent):
            return parts_of(file)

    assert parts(build="own_study:build").build.__name__ == "build"
    net = jax.eval_shape(parts(program={}).build({}).start, jax.random.key(0), parts(program={}).data)
    assert net.params["dense_1"]["b"].shape == (6,)  # a class that validation alone has counts too
    lines = parts(program={"patience": 0}, data={"function": "own_study:line", "folds": 3})
    shapes = jax.eval_shape(lines.build({}).start, jax.random.key(0), jn.Data(lines.data.train))
    assert shapes.params["dense_1"]["b"].shape == (3,)
    assert len(lines.folds) == 3
    with pytest.raises(ValueError, match=r"study\.toml: build: got no function biuld in own_study; did you mean build"):
        parts(build="own_study:biuld")
    with pytest.raises(ImportError, match=r"build: got 'no_study:build' and no module no_study; expected no_study\.py"):
        parts(build="no_study:build")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        parts(build="own_broken:build")
    with pytest.raises(TypeError, match=r"\[data\] function: got tuple; expected jn\.Data with \[program\]"):
        parts(program={}, data="own_study:pair")


def test_the_optimizers_are_what_their_names_say():
    hp, p, g = {"lr": 0.5, "weight_decay": 0.1, "momentum": 0.25}, 2.0, 3.0
    first = {  # the first two updates from p under the constant gradient g
        "sgd": (-0.5 * g, -0.5 * g),
        "momentum": (-0.5 * g, -0.5 * 1.25 * g),
        "nesterov": (-0.5 * 1.25 * g, -0.5 * (1 + 0.25 * 1.25) * g),
        "adam": (-0.5, -0.5),
        "adamw": (-0.5 * (1 + 0.1 * p), -0.5 * (1 + 0.1 * p)),
        "rmsprop": (-0.5 / np.sqrt(0.1), -0.5 / np.sqrt(0.19)),
    }
    assert first.keys() == OPTIMIZERS.keys() == set(PROGRAM["optimizer"].names)
    for name, expected in first.items():
        optimizer, params = OPTIMIZERS[name](hp), jnp.float32(p)
        state = optimizer.init(params)
        for value in expected:
            update, state = optimizer.update(jnp.float32(g), state, params)
            np.testing.assert_allclose(update, value, rtol=1e-4)
