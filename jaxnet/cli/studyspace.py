"""The [space] of a study file, and how its axes become configurations.

    lr = { log = [1e-4, 1e-1], n = 16 }   n numbers between two ends, { lin = [0, 0.5], n = 6 } evenly
    dropout = [0.0, 0.3]                  these numbers; 0.3 alone is an axis of one value
    hidden = [[32], [64, 32]]             what shapes the program has a compile of its own for each value:
    depth = { static = [1, 2] }           beside [program] that's known, beside build it's said so
    lr = { log_uniform = [1e-4, 1e-1] }   a range to draw from, also uniform, integers; with method random or sobol

[study] method is "grid" for every combination, "zipped" for the axes' first values, then their second ones, …, "random"
or "sobol" for draws, in which a list is a choice.
"""

import math
from collections.abc import Callable
from typing import Any

from jaxnet.cli.studyfile import StudyFile
from jaxnet.cli.studykeys import MOST, PROGRAM, SHAPING, lacking, nearest, one, shown
from jaxnet.sweeps.axes import Static, integers, lin_space, log_space, log_uniform, static, uniform
from jaxnet.sweeps.space import Space, grid, random_draws, sobol_draws, zipped

RANGES: dict[str, Callable] = {"uniform": uniform, "log_uniform": log_uniform, "integers": integers}
SPACED: dict[str, Callable] = {"lin": lin_space, "log": log_space}
MOST_SPACED = 10_000  # values of one axis
FORMS = (*SPACED, *RANGES, "static")


def space_of(file: StudyFile) -> Space:
    """The configurations of a study file.

    Raises:
        TypeError, ValueError: axes that don't fit, with their names.

    >>> from pathlib import Path
    >>> from jaxnet.cli.studyfile import checked
    >>> tables = {"program": {}, "data": {"name": "iris"}, "space": {"lr": [0.1, 1], "hidden": [[8], []]}}
    >>> list(space_of(checked(tables, Path("iris.toml"))))[:2]
    [{'lr': 0.1, 'hidden': (8,)}, {'lr': 0.1, 'hidden': ()}]
    """
    method = file.study["method"]
    methods: dict[str, Callable] = {"grid": grid, "zipped": zipped, "random": random_draws, "sobol": sobol_draws}
    draws = [file.study[name] for name in ("draws", "draw_seed") if name in file.study]
    axes = {name: _axis(file, name, value) for name, value in file.space.items()}
    if method == "grid":
        count = math.prod(len(axis.values if isinstance(axis, Static) else axis) for axis in axes.values())
        if count > MOST:
            raise ValueError(
                f"{file.path}: [space]: got a grid of {count:,} configurations; expected at most {MOST:,}: draw "
                'from it by [study] method = "random" and draws = 64'
            )
    return _told(f"{file.path}: [space]", methods[method], axes, *draws)


def _axis(file: StudyFile, name: str, value: Any) -> Any:
    """One axis as `jaxnet.sweeps` takes it."""
    where = f"{file.path}: [space] {name}"
    form, values, n = _form(where, value)
    if form in RANGES and "draws" not in file.study:
        raise ValueError(
            f"{where}: got {shown(value)} with method = {shown(file.study['method'])}; expected values, or "
            '[study] method = "random" (or "sobol") and draws = 64'
        )
    shaping = form == "static"
    if file.program is None:
        odd = [v for v in values if isinstance(v, (str, list, dict))]
        if odd and not shaping:
            raise ValueError(
                f"{where}: got {shown(odd[0])}; expected numbers or truth values: what shapes the program is written "
                "{ static = [...] }"
            )
    else:
        shaping = shaping or name in SHAPING
        values = _of_program(file, where, name, form, values)
    if form in SPACED:
        return _told(where, SPACED[form], *values, n)
    if form in RANGES:
        return _told(where, RANGES[form], *values)
    return _told(where, static, values) if shaping else values


def _of_program(file: StudyFile, where: str, name: str, form: str, values: list[Any]) -> list[Any]:
    """The values, or a range's ends, of an axis that stands for a key of [program]."""
    assert file.program is not None
    if name not in PROGRAM:
        raise ValueError(f"{file.path}: got [space] {name}; {nearest(name, PROGRAM)}")
    if lacks := lacking(name, file.program, file.space):
        raise ValueError(f"{where}: got {shown(values)}; expected it only with {lacks}")
    if name in SHAPING and form not in ("list", "static"):
        raise ValueError(f"{where}: got {form}; expected a list, each value of it a program of its own")
    if form == "integers":
        raise ValueError(f"{where}: got integers; expected uniform or log_uniform, since it's no whole number")
    if name == "hidden" and not all(isinstance(value, list) for value in values):
        raise ValueError(f"{where}: got {shown(values)}; expected a list of lists of units: [[32], [64, 32]]")
    return [one(where, value, PROGRAM[name]) for value in values]


def _form(where: str, value: Any) -> tuple[str, list[Any], Any]:
    """How an axis is written, its values or ends, and n."""
    if not isinstance(value, dict):
        return "list", value if isinstance(value, list) else [value], None
    forms = [name for name in value if name in FORMS]
    if len(forms) != 1:
        unknown = next((name for name in value if name not in FORMS and name != "n"), None)
        hint = nearest(unknown, FORMS) if unknown and not forms else f"expected one of {', '.join(FORMS)}"
        raise ValueError(f"{where}: got {shown(value)}; {hint}")
    form = forms[0]
    for name in value:
        if name != form and (name != "n" or form not in SPACED):
            raise ValueError(
                f"{where}: got {name} in {shown(value)}; expected {form}{' and n' * (form in SPACED)} alone"
            )
    values = value[form]
    if form == "static":
        return form, values if isinstance(values, list) else [values], None
    if not isinstance(values, list) or len(values) != 2:
        raise ValueError(f"{where}: got {shown(value)}; expected two ends: {{ {form} = [low, high] }}")
    if form in SPACED and "n" not in value:
        raise ValueError(f"{where}: got {shown(value)}; expected n, how many: {{ {form} = {shown(values)}, n = 16 }}")
    n = value.get("n")
    if isinstance(n, int) and n > MOST_SPACED:
        raise ValueError(f"{where}: got n = {n:,}; expected at most {MOST_SPACED:,}")
    return form, values, n


def _told(where: str, function: Callable, *args: Any) -> Any:
    """What the function returns; of what it raises, where."""
    try:
        return function(*args)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from error
