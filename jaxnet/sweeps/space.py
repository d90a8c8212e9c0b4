"""A space: an ordered list of distinct configurations, which is what a study maps.

    grid, zipped                 every combination of the axes' values, or one value of each axis after another
    random_draws, sobol_draws    draws from ranges and lists; more draws never change the earlier ones
    a * b, a + b                 every configuration of a with every one of b; those of a, then those of b
    space.where(predicate)       a part of it
    split_static(space)          its buckets: the configurations that can share one compiled program

A configuration is a dict name -> value. Within a space each name has one type, and is static or not, everywhere
(`jaxnet.sweeps.values`); not every configuration needs to have every name. How axes are written: `jaxnet.sweeps.axes`.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

from jaxnet.sweeps.axes import (
    Axis,
    Static,
    axes_from,
    holds,
    integers,
    lin_space,
    log_space,
    log_uniform,
    static,
    uniform,
    uniforms,
    when,
)
from jaxnet.sweeps.values import RESERVED, Value, check_name, configuration_from, integer_from, key_of, unified

__all__ = [
    "RESERVED", "Space", "Value", "as_space", "configuration_from", "grid", "integers", "key_of", "lin_space",
    "log_space", "log_uniform", "random_draws", "sobol_draws", "split_static", "static", "uniform", "when", "zipped",
]  # fmt: skip


@dataclass(frozen=True, repr=False)
class Space:
    """Distinct configurations in a fixed order, with the names that are static.

    `len`, iteration, an index (a configuration, as a fresh dict) and a slice (a Space) work as for a tuple.

    Raises:
        TypeError, ValueError: for no configuration, equal ones, names or values that a configuration may not have.

    >>> space = Space(({"lr": 0.1, "width": 32}, {"lr": 1, "width": 64}), static=frozenset({"width"}))
    >>> space, space[1], space.names
    (Space(2 configurations: lr, static width), {'lr': 1.0, 'width': 64}, ('lr', 'width'))
    """

    configurations: tuple[dict[str, Value], ...]
    static: frozenset[str]

    def __post_init__(self):
        configurations = _unified(self.configurations, self.static)
        if not configurations:
            raise ValueError("got no configurations; expected at least one: [{}] is a space without hyperparameters")
        seen: dict[str, int] = {}
        for i, configuration in enumerate(configurations):
            if (first := seen.setdefault(key_of(configuration), i)) < i:
                raise ValueError(
                    f"got the configuration {configuration} twice, at {first} and {i}; expected distinct ones: to "
                    "repeat a run, use seeds"
                )
        object.__setattr__(self, "configurations", tuple(configurations))
        object.__setattr__(self, "static", frozenset(self.static) & frozenset(self.names))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names, in the order in which they first appear."""
        return tuple(dict.fromkeys(itertools.chain.from_iterable(self.configurations)))

    def where(self, predicate: Callable[[dict[str, Value]], Any]) -> "Space":
        """The configurations for which `predicate(configuration)` is true.

        Raises:
            ValueError: if there are none, or the predicate reads a name that a configuration doesn't have.

        >>> grid({"lr": [0.1, 1.0], "decay": [0.0, 0.5]}).where(lambda c: c["lr"] * c["decay"] < 0.1)
        Space(3 configurations: lr, decay)
        """
        kept = tuple(c for c in self.configurations if holds("where", predicate, c))
        if not kept:
            raise ValueError(f"where: got a predicate that is false of all {len(self)} configurations; expected some")
        return Space(kept, self.static)

    def __mul__(self, other: "Space") -> "Space":
        if not isinstance(other, Space):
            raise TypeError(f"got a {type(other).__name__} after *; expected a Space: jn.grid({{name: values}})")
        if shared := [name for name in self.names if name in other.names]:
            raise ValueError(f"got the names {', '.join(shared)} on both sides of *; expected disjoint names")
        pairs = itertools.product(self.configurations, other.configurations)
        return Space(tuple(left | right for left, right in pairs), self.static | other.static)

    def __add__(self, other: "Space") -> "Space":
        if not isinstance(other, Space):
            raise TypeError(f"got a {type(other).__name__} after +; expected a Space: jn.grid({{name: values}})")
        for name in self.names:
            if name in other.names and (name in self.static) != (name in other.static):
                raise ValueError(f"{name}: got static values on one side of + only; expected both or neither")
        shaping = self.static | other.static
        return Space(_distinct(_unified([*self.configurations, *other.configurations], shaping)), shaping)

    def __len__(self) -> int:
        return len(self.configurations)

    def __iter__(self) -> Iterator[dict[str, Value]]:
        return (dict(configuration) for configuration in self.configurations)

    @overload
    def __getitem__(self, index: int) -> dict[str, Value]: ...
    @overload
    def __getitem__(self, index: slice) -> "Space": ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return Space(self.configurations[index], self.static)
        return dict(self.configurations[index])

    def __repr__(self) -> str:
        names = ", ".join(f"static {name}" if name in self.static else name for name in self.names)
        return f"Space({len(self)} configuration{'s' * (len(self) > 1)}: {names or 'no hyperparameters'})"


def grid(axes: Mapping[str, Any]) -> Space:
    """Every combination of the axes' values; the first axis changes slowest.

    Args:
        axes: name -> a list (tuple, range, array of rank 1) of values, one value, `static(...)`, or `when(...)`.

    Raises:
        TypeError, ValueError: for a name or a value that a configuration may not have, a value twice, a range.

    >>> list(grid({"lr": [0.1, 1.0], "width": static([32, 64]), "decay": 0.0}))[:2]
    [{'lr': 0.1, 'width': 32, 'decay': 0.0}, {'lr': 0.1, 'width': 64, 'decay': 0.0}]
    """
    checked = axes_from("grid", axes)
    configurations: list[dict[str, Value]] = [{}]
    for axis in checked:
        longer = []
        for configuration in configurations:
            values = axis.values if axis.exists(configuration) else ()
            longer += [configuration | {axis.name: value} for value in values] or [configuration]
        configurations = longer
    return Space(tuple(configurations), _static(checked))


def zipped(axes: Mapping[str, Any]) -> Space:
    """The axes' first values together, then their second values, and so on; a value may come twice, a row may not.

    Args:
        axes: name -> a list (tuple, range, array of rank 1) of values or `static(...)`, all of one length.

    Raises:
        TypeError, ValueError: as `grid`; for axes of different lengths, or a `when`.

    >>> list(zipped({"width": static([32, 64]), "lr": [0.1, 0.05]}))
    [{'width': 32, 'lr': 0.1}, {'width': 64, 'lr': 0.05}]
    """
    checked = axes_from("zipped", axes, repeats=True)
    if len({len(axis.values) for axis in checked}) != 1:
        listing = ", ".join(f"{len(axis.values)} of {axis.name}" for axis in checked) or "no axis"
        raise ValueError(f"zipped: got {listing}; expected as many on every axis: constants go in grid(...) * this")
    if conditional := [axis.name for axis in checked if axis.condition]:
        raise TypeError(f"{conditional[0]}: got a when in zipped(...); expected values: a grid takes conditions")
    rows = zip(*(axis.values for axis in checked), strict=True)
    names = [axis.name for axis in checked]
    return Space(tuple(dict(zip(names, row, strict=True)) for row in rows), _static(checked))


def random_draws(axes: Mapping[str, Any], draws: int, seed: int = 0) -> Space:
    """Independent draws: each axis from its own stream, which depends on the seed and the axis's name alone.

    So more draws leave the earlier ones as they are, and another axis leaves the other axes as they are. Draws that
    coincide are kept once: where that happens (all axes lists or integers) the space is shorter than `draws`.
    Each draw takes one 64-bit word of NumPy's PCG64, a stream that NumPy promises for all its versions.

    Args:
        axes: name -> `uniform`, `log_uniform`, `integers`, or what `grid` takes: a list is a choice.
        draws: how many, at least 1.
        seed: an integer, at least 0.

    Raises:
        TypeError, ValueError: as `grid`; draws < 1 or seed < 0.

    >>> space = random_draws({"lr": log_uniform(1e-4, 1e-1), "decay": [0.0, 1e-4]}, draws=3)
    >>> [(round(c["lr"], 4), c["decay"]) for c in space]
    [(0.0573, 0.0), (0.0003, 0.0001), (0.0023, 0.0)]
    """
    draws, seed = integer_from("random_draws", "draws", draws, 1), integer_from("random_draws", "seed", seed, 0)
    checked = axes_from("random_draws", axes, ranges=True)
    return _drawn(checked, [uniforms(f"{seed} {axis.name}", draws) for axis in checked], draws)


def sobol_draws(axes: Mapping[str, Any], draws: int, seed: int = 0) -> Space:
    """Draws that fill the space evenly: a scrambled Sobol sequence, one dimension for each axis in their order.

    More draws leave the earlier ones as they are; another axis does not. A power of 2 is filled most evenly. Draws
    that coincide are kept once. The sequence is scipy's, the same for one version of scipy. Owen 1998.

    Args and errors: as `random_draws`.

    >>> space = sobol_draws({"lr": log_uniform(1e-4, 1e-1), "depth": integers(1, 4)}, draws=4)
    >>> sorted(c["depth"] for c in space)
    [1, 2, 3, 4]
    """
    draws, seed = integer_from("sobol_draws", "draws", draws, 1), integer_from("sobol_draws", "seed", seed, 0)
    checked = axes_from("sobol_draws", axes, ranges=True)
    from scipy.stats import qmc

    # A whole power of 2, of which the first are taken: scipy warns of any other number.
    points = qmc.Sobol(max(len(checked), 1), scramble=True, rng=seed).random_base2((draws - 1).bit_length())
    return _drawn(checked, points.T[: len(checked)].tolist(), draws)


def as_space(space: Any) -> Space:
    """The Space that is meant: a Space itself, a dict of axes (`grid`), or a list of configurations.

    In a list of configurations a static value is written `static(value)`.

    Raises:
        TypeError, ValueError: for anything else; as `grid`; for a name that is static in some configurations only.

    >>> as_space([{"lr": 0.1, "act": static("relu")}, {"lr": 1, "act": static("tanh")}])
    Space(2 configurations: lr, static act)
    """
    if isinstance(space, Space):
        return space
    if isinstance(space, Mapping):
        return grid(space)
    if not isinstance(space, (list, tuple)) or not all(isinstance(c, Mapping) for c in space):
        raise TypeError(
            f"got a space of type {type(space).__name__}; expected a Space, a dict of axes, {{'lr': [0.1, 0.01]}}, or "
            "a list of configurations, [{'lr': 0.1}, {'lr': 0.01}]"
        )
    shaping: dict[str, bool] = {}
    for configuration in space:
        for name, value in configuration.items():
            if isinstance(value, Static) and len(value.values) > 1:
                raise ValueError(f"{name}: got {value!r} in one configuration; expected one value: static([value])")
            if shaping.setdefault(name, isinstance(value, Static)) != isinstance(value, Static):
                raise ValueError(f"{name}: got static values in some configurations only; expected all or none")
    configurations = ({n: v.values[0] if isinstance(v, Static) else v for n, v in c.items()} for c in space)
    return Space(tuple(configurations), frozenset(name for name in shaping if shaping[name]))


def split_static(space: Space) -> list[tuple[dict[str, Value], tuple[str, ...], tuple[int, ...]]]:
    """The buckets of a space: (static part, names of the traced part, indices), in the order of first appearance.

    A bucket holds the configurations with equal static values and the same set of names.

    >>> split_static(grid({"lr": [0.1, 1.0], "width": static([32, 64])}))
    [({'width': 32}, ('lr',), (0, 2)), ({'width': 64}, ('lr',), (1, 3))]
    """
    buckets: dict[tuple[str, tuple[str, ...]], tuple[dict[str, Value], list[int]]] = {}
    for i, configuration in enumerate(space.configurations):
        names = [name for name in space.names if name in configuration]
        shaping = {name: configuration[name] for name in names if name in space.static}
        traced = tuple(name for name in names if name not in space.static)
        buckets.setdefault((key_of(shaping), traced), (shaping, []))[1].append(i)
    return [(shaping, traced, tuple(indices)) for (_, traced), (shaping, indices) in buckets.items()]


def _unified(configurations: Sequence[dict[str, Value]], shaping: frozenset[str]) -> list[dict[str, Value]]:
    """Copies of the configurations, in which every name has one type."""
    columns: dict[str, list[Value]] = {}
    for configuration in configurations:
        for name, value in configuration.items():
            columns.setdefault(name, []).append(value)
    for name in columns:
        check_name(name)
    typed = {name: iter(unified(name, values, static=name in shaping)) for name, values in columns.items()}
    return [{name: next(typed[name]) for name in configuration} for configuration in configurations]


def _distinct(configurations: Iterable[dict[str, Value]]) -> tuple[dict[str, Value], ...]:
    """Each configuration where it first comes."""
    first: dict[str, dict[str, Value]] = {}
    for configuration in configurations:
        first.setdefault(key_of(configuration), configuration)
    return tuple(first.values())


def _drawn(axes: list[Axis], shares: list[list[float]], draws: int) -> Space:
    """One configuration for each draw; an axis that a draw doesn't have still uses up its share."""
    configurations: list[dict[str, Value]] = [{} for _ in range(draws)]
    for axis, column in zip(axes, shares, strict=True):
        for configuration, share in zip(configurations, column, strict=False):  # Sobol's are more than draws
            if axis.exists(configuration):
                configuration[axis.name] = axis.at(share)
    return Space(_distinct(configurations), _static(axes))


def _static(axes: list[Axis]) -> frozenset[str]:
    return frozenset(axis.name for axis in axes if axis.static)
