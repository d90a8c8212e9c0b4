"""A study as a file, which `jaxnet sweep` runs: read, checked, every default filled in, and written again.

name = "digits"                       # runs/NAME is its folder; the file's own name unless given
build = "mine:build"                  # hyperparameters -> Program, a function of mine.py; or instead of it:
[program]                             # an mlp; each key may be an axis of [space] instead
hidden = [32]                         # units of the hidden layers; [] is a linear model
activation = "relu"                   # identity, relu, sigmoid, tanh, softplus, softmax
dropout = 0.0
optimizer = "adamw"                   # adam, adamw, sgd, momentum, nesterov, rmsprop
lr = 1e-3
weight_decay = 0.0                    # of adamw alone
momentum = 0.9                        # of momentum and nesterov alone
batch_size = 32
patience = 5                          # epochs without a lower validation loss; 0 never stops early
[data]                                # one of name, file, function
name = "digits"                       # a known set
file = "flowers.csv"                  # or .npz, found from the study file's folder; with task; CSV: target, ...
function = "mine:data"                # () -> jn.Data; data = "mine:data" is short for it
test_share = 0.2                      # set aside, never read; 0 sets nothing aside
valid_share = 0.2                     # of the rest; or folds = 5 (with stratified, repeats), or bootstrap = 20
split_seed = 0
[space]                               # the axes, see `jaxnet.cli.studyspace`
lr = { log = [1e-4, 1e-1], n = 16 }
[study]
method = "grid"                       # zipped, random, sobol; the last two with draws = 64, draw_seed = 0
epochs = 20                           # required with build, unless it's a jn.whole
seeds = 1                             # how many, or a list of them
study_seed = 0
width = 16                            # members side by side; chosen by size unless given
keep = "best"                         # whose parameters: best, all, none
rank_by = "valid_accuracy"            # who is best, with mode = "max"; the validation loss unless given
devices = "auto"                      # or how many
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxnet.cli.studykeys import DATA, FUNCTION, NAME, PROGRAM, STUDY, Key, bare, lacking, nearest, one, shown

Table = dict[str, Any]


class StudyFile(NamedTuple):
    """What a study file says, checked and with its defaults; keys that don't apply are left out."""

    path: Path
    name: str
    build: str | None
    program: Table | None  # None where there is a build
    data: Table
    space: Table  # as it's written
    study: Table


TOP = ("name", "build", "program", "data", "space", "study")
DEEPEST, LONGEST = 20, 2000  # levels; characters of a text, bits of an integer


def read(path: Path) -> StudyFile:
    """Read a study file.

    Raises:
        FileNotFoundError: no such file. ValueError: no TOML, or what a study file can't say; it names the key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if any(part.count(".") > LONGEST for line in text.splitlines() for part in re.split(r"[=,\[\]{}#]", line)):
            raise ValueError(f"a name of more than {LONGEST:,} parts")  # tomllib's time and memory go with its square
        tables = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: got bytes that aren't UTF-8 ({error}); expected a text file") from error
    except (ValueError, RecursionError) as error:
        said = f"{error!s:.200}"
        raise ValueError(f"{path}: got no valid TOML ({said}); texts stand in quotes, true and false don't") from error
    _check_extent(tables, path)
    return checked(tables, path)


def checked(tables: Mapping[str, Any], path: Path) -> StudyFile:
    """The study that these tables describe; `path` is where they come from.

    Raises:
        ValueError: for what a study file can't say.

    >>> file = checked({"program": {"lr": 1}, "data": {"name": "iris"}, "study": {"seeds": 4}}, Path("a/flowers.toml"))
    >>> file.name, file.program["lr"], file.data["valid_share"], file.study["epochs"]
    ('flowers', 1.0, 0.2, 20)
    """
    for name in tables:
        if name not in TOP:
            raise ValueError(f"{path}: got {name}; {nearest(name, TOP)}")
    for name in ("program", "space", "study"):
        if not isinstance(tables.get(name, {}), dict):
            raise ValueError(f"{path}: {name}: got {shown(tables[name])}; expected a table, [{name}]")
    if ("build" in tables) == ("program" in tables):
        count = "both build and [program]" if "build" in tables else "neither build nor [program]"
        raise ValueError(f'{path}: got {count}; expected one of them: [program], or build = "module:function"')
    if "data" not in tables:
        raise ValueError(f'{path}: got no [data]; expected it with name, file or function: name = "digits"')
    default = re.sub(r"[^\w.-]", "_", path.stem).lstrip(".-") or "study"
    name = one(f"{path}: name", tables.get("name", default), NAME)
    build = one(f"{path}: build", tables["build"], FUNCTION) if "build" in tables else None
    space = tables.get("space", {})
    program = None if build else _program(path, tables["program"], space)
    study = _study(path, tables.get("study", {}), build)
    return StudyFile(path, name, build, program, _data(path, tables["data"]), space, study)


def written(file: StudyFile) -> str:
    """The study as TOML that `read` understands.

    >>> print(written(checked({"build": "mine:build", "data": "mine:data"}, Path("flowers.toml"))).splitlines()[:4])
    ['name = "flowers"', 'build = "mine:build"', '', '[data]']
    """
    lines = [f"name = {shown(file.name)}"] + ([f"build = {shown(file.build)}"] if file.build else [])
    for title, table in tables_of(file).items():
        if isinstance(table, dict):
            lines += ["", f"[{title}]", *(f"{bare(name)} = {shown(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def tables_of(file: StudyFile) -> Table:
    """The study as `checked` takes it.

    >>> list(tables_of(checked({"build": "mine:build", "data": "mine:data"}, Path("flowers.toml"))))
    ['name', 'build', 'data', 'space', 'study']
    """
    return {name: getattr(file, name) for name in TOP if getattr(file, name) is not None}


def _check_extent(tables: Table, path: Path) -> None:
    """ValueError for what no study says: deep nesting, numbers and texts without end."""
    parts: list[tuple[Any, int]] = [(tables, 0)]
    while parts:
        part, depth = parts.pop()
        if depth > DEEPEST:
            raise ValueError(f"{path}: got tables and lists nested more than {DEEPEST} deep; expected a study file")
        if isinstance(part, dict):
            parts += [(item, depth + 1) for pair in part.items() for item in pair]
        elif isinstance(part, list):
            parts += [(item, depth + 1) for item in part]
        elif isinstance(part, str) and len(part) > LONGEST:
            raise ValueError(f"{path}: got the text {part[:40]!r}…; expected at most {LONGEST} characters")
        elif isinstance(part, int) and part.bit_length() > LONGEST:
            raise ValueError(f"{path}: got an integer of {part.bit_length():,} bits; expected at most {LONGEST:,}")


def _program(path: Path, table: Table, space: Table) -> Table:
    """[program], without the keys that are axes."""
    lacks = {name: lacking(name, table, space) for name in PROGRAM}
    return {n: v for n, v in _table(path, "program", table, PROGRAM, lacks).items() if n not in space}


def _data(path: Path, table: Any) -> Table:
    table = {"function": table} if isinstance(table, str) else table
    if not isinstance(table, dict):
        raise ValueError(f'{path}: data: got {shown(table)}; expected a table, [data], or "module:function"')
    sources = [name for name in ("name", "file", "function") if name in table]
    if len(sources) > 1:
        raise ValueError(f"{path}: [data]: got {' and '.join(sources)}; expected one of them")
    csv, own = str(table.get("file", "")).lower().endswith(".csv"), "function" in table
    dealt, fashion = "folds" in table or "bootstrap" in table, table.get("name") == "fashion_mnist"
    lacks = dict.fromkeys(("target", "ignore", "missing"), "" if csv else "a .csv file")
    lacks |= dict.fromkeys(("stratified", "repeats"), "" if "folds" in table else "folds")
    lacks |= dict.fromkeys(("task", "test_share", "valid_share"), "name or file" if own else "")
    lacks["test_share"] = "sets that bring no test set of their own" if fashion else lacks["test_share"]
    lacks["valid_share"] = "neither folds nor bootstrap" if dealt else lacks["valid_share"]
    lacks["bootstrap"] = "no folds" if "folds" in table else ""
    lacks["split_seed"] = "folds or bootstrap" if own and not dealt else ""
    found = _table(path, "data", table, DATA, lacks)
    if not sources:
        raise ValueError(f'{path}: [data]: got no name, file or function; expected one of them: name = "digits"')
    if csv and "target" not in found:
        raise ValueError(f"{path}: [data]: got a .csv file and no target; expected the column to predict")
    return found


def _study(path: Path, table: Table, build: str | None) -> Table:
    drawn = table.get("method") in ("random", "sobol")
    lacks = dict.fromkeys(("draws", "draw_seed"), "" if drawn else 'method = "random" or "sobol"')
    lacks["mode"] = "" if "rank_by" in table else "rank_by"
    keys = STUDY | ({"epochs": STUDY["epochs"]._replace(default=None)} if build else {})  # a jn.whole has none
    found = _table(path, "study", table, keys, lacks)
    if drawn and "draws" not in found:
        raise ValueError(f"{path}: [study]: got method = {shown(found['method'])} and no draws; expected how many")
    return found


def _table(path: Path, title: str, table: Table, keys: Mapping[str, Key], lacks: Mapping[str, str]) -> Table:
    """A table checked, its defaults filled in; `lacks` says what keys that don't apply would need."""
    for name, value in table.items():
        if name not in keys:
            raise ValueError(f"{path}: got [{title}] {name}; {nearest(name, keys)}")
        if lacks.get(name):
            raise ValueError(f"{path}: [{title}] {name}: got {shown(value)}; expected it only with {lacks[name]}")
    filled = {name: table.get(name, key.default) for name, key in keys.items() if not lacks.get(name)}
    return {n: one(f"{path}: [{title}] {n}", v, keys[n]) for n, v in filled.items() if v is not None}
