"""A plan: which members a study has, which of them share a compiled program, and what that will cost.

    members  = seeds × folds × configurations; the seed changes slowest, so a study cut short has every configuration
    a bucket = the members that share one compiled program: equal static values, equal traced names, equal fold sizes

A member is known by its configuration, its fold and its seed, not by its place: seeds, draws and axes can be added.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.data.folds import Fold
from jaxnet.sweeps.space import Space, Value, key_of, split_static


class Member(NamedTuple):
    """Who a member is."""

    configuration: str  # its canonical text, see `space.key_of`
    fold: int  # 0 without folds
    seed: int


@dataclass(frozen=True, eq=False)
class Bucket:
    """Members that share one compiled program."""

    static: dict[str, Value]
    traced: dict[str, np.dtype]  # name -> dtype of the program's input
    members: np.ndarray  # (n,) positions in the plan
    folds: tuple[int, ...]  # the folds of these members, () without folds
    sizes: tuple[int, int] | None  # (training, validation) examples of each of these folds

    @property
    def name(self) -> str:
        """Text that tells this bucket from the others of any plan."""
        sizes = "" if self.sizes is None else f" rows={self.sizes[0]}+{self.sizes[1]}"
        return f"{key_of(self.static)} {','.join(self.traced)}{sizes}"


@dataclass(frozen=True, eq=False)
class Plan:
    """All members of a study, in order, and their buckets."""

    space: Space
    seeds: tuple[int, ...]
    folds: tuple[Fold, ...]  # () without folds
    configuration: np.ndarray  # (members,) int32, position in the space
    fold: np.ndarray  # (members,) int32
    seed: np.ndarray  # (members,) int64
    buckets: tuple[Bucket, ...]

    def __len__(self) -> int:
        return len(self.seed)

    @cached_property
    def texts(self) -> list[str]:
        """The configurations' canonical texts."""
        return [key_of(configuration) for configuration in self.space.configurations]

    def member(self, position: int) -> Member:
        """Who stands at this position."""
        return Member(self.texts[self.configuration[position]], int(self.fold[position]), int(self.seed[position]))


def plan_of(space: Space, seeds: Sequence[int], folds: Sequence[Fold] = ()) -> Plan:
    """The plan of every configuration on every fold with every seed.

    >>> from jaxnet.sweeps.space import grid, static
    >>> plan = plan_of(grid({"lr": [0.1, 1.0], "width": static([32, 64])}), seeds=range(3))
    >>> len(plan), len(plan.buckets), plan.buckets[0].static
    (12, 2, {'width': 32})
    """
    seed, fold, configuration = (
        axis.reshape(-1)
        for axis in np.meshgrid(
            np.asarray(seeds, np.int64),
            np.arange(max(len(folds), 1), dtype=np.int32),
            np.arange(len(space), dtype=np.int32),
            indexing="ij",
        )
    )
    groups: dict[tuple[int, int] | None, list[int]] = {}
    for i, one in enumerate(folds):
        groups.setdefault((len(one.rows), len(one.valid_rows)), []).append(i)
    buckets = []
    for static, names, indices in split_static(space):
        first = space.configurations[indices[0]]
        traced = {name: input_dtype(first[name]) for name in names}
        for name in names:
            _check_range(name, [space.configurations[i][name] for i in indices])
        here = np.isin(configuration, indices)
        for sizes, chosen in groups.items() or [(None, [])]:
            members = np.flatnonzero(here & np.isin(fold, chosen) if chosen else here)
            buckets.append(Bucket(static, traced, members, tuple(chosen), sizes))
    return Plan(space, tuple(int(s) for s in seeds), tuple(folds), configuration, fold, seed, tuple(buckets))


def _check_range(name: str, values: list[Any]) -> None:
    """Floats that the compiled program's float can hold."""
    limit = float(jnp.finfo(jnp.result_type(float)).max)
    for value in values:
        if abs(value) > limit:
            raise ValueError(f"{name}: got {value}; expected at most {limit:g}, the largest {jnp.result_type(float)}")


def input_dtype(value: Value) -> np.dtype:
    """The dtype in which a hyperparameter enters the compiled program: bool, int32 or JAX's default float.

    >>> input_dtype(3), input_dtype(True)
    (dtype('int32'), dtype('bool'))
    """
    if isinstance(value, bool):
        return np.dtype(bool)
    return np.dtype(np.int32) if isinstance(value, int) else np.dtype(jnp.result_type(float))


def seeds_from(seeds: Any) -> tuple[int, ...]:
    """A number of seeds, 0 … n − 1, or the seeds themselves.

    Raises:
        TypeError, ValueError: not integers in 0 … 2³² − 1, none, or one twice.

    >>> seeds_from(3), seeds_from([7, 5])
    ((0, 1, 2), (7, 5))
    """
    if isinstance(seeds, bool) or not isinstance(seeds, (int, np.integer, Sequence, np.ndarray, range)):
        raise TypeError(f"got seeds={seeds!r}; expected how many, or a list of them")
    listed = list(range(int(seeds))) if isinstance(seeds, (int, np.integer)) else list(seeds)
    if not listed:
        raise ValueError(f"got seeds={seeds!r}; expected at least one")
    for seed in listed:
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise TypeError(f"got the seed {seed!r}; expected an integer")
        if not 0 <= seed < 2**32:
            raise ValueError(f"got the seed {seed}; expected 0 … 2³² − 1")
    if len(set(listed)) < len(listed):
        raise ValueError(f"got seeds {listed}; expected each once: a seed repeated is the same run")
    return tuple(int(seed) for seed in listed)


def values_of(plan: Plan, bucket: Bucket, positions: Sequence[int]) -> Mapping[str, np.ndarray]:
    """The traced hyperparameters of the members at these positions, as inputs of the program.

    >>> from jaxnet.sweeps.space import grid
    >>> plan = plan_of(grid({"lr": [0.5, 1.0]}), seeds=range(2))
    >>> values_of(plan, plan.buckets[0], [3, 0])["lr"].tolist()
    [1.0, 0.5]
    """
    chosen = [plan.space.configurations[plan.configuration[p]] for p in positions]
    return {name: np.array([c[name] for c in chosen], dtype) for name, dtype in bucket.traced.items()}


class Cost(NamedTuple):
    """What a plan will take, before anything is compiled; `None` where nobody can tell."""

    width: int
    devices: int
    compiles: int
    memory: int  # bytes, all devices and the results on the host
    seconds: float | None


def described(plan: Plan, cost: Cost, done: int = 0) -> str:
    """The plan as a person reads it, a few lines.

    >>> from jaxnet.sweeps.space import grid
    >>> print(described(plan_of(grid({"lr": [0.5, 1.0]}), seeds=range(2)), Cost(16, 2, 2, 3_000_000, 4.2)))
    4 members: 2 configurations (lr: 2) × 2 seeds
    1 bucket (compiled program), 16 side by side on each of 2 devices: 2 compiles
    memory about 3 MB, time about 4 s after compiling
    """
    axes = []
    for name in plan.space.names:
        count = len({key_of({"": c[name]}) for c in plan.space.configurations if name in c})
        axes.append(f"{name}: {count}" + (" static" if name in plan.space.static else ""))
    parts = [_counted(len(plan.space), "configuration") + (f" ({', '.join(axes)})" if axes else "")]
    if plan.folds:
        parts.append(_counted(len(plan.folds), "fold"))
    parts.append(_counted(len(plan.seeds), "seed"))
    lines = [f"{_counted(len(plan), 'member')}: {' × '.join(parts)}"]
    if done:
        lines.append(f"{done:,} of them are in the store already")
    fold_sizes = sorted({b.sizes for b in plan.buckets if b.sizes is not None})
    lines.append(
        f"{_counted(len(plan.buckets), 'bucket')} (compiled program{'s' * (len(plan.buckets) > 1)}), {cost.width} side "
        f"by side on {'each of ' * (cost.devices > 1)}{_counted(cost.devices, 'device')}: "
        f"{_counted(cost.compiles, 'compile')}"
    )
    if len(fold_sizes) > 1:
        listing = ", ".join(f"{a} + {b}" for a, b in fold_sizes)
        lines.append(f"folds of {len(fold_sizes)} sizes (training + validation: {listing}), each a bucket of its own")
    time = "" if cost.seconds is None else f", time about {_duration(cost.seconds)} after compiling"
    lines.append(f"memory about {cost.memory / 1e6:,.0f} MB{time}")
    return "\n".join(lines)


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'s' * (n != 1)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def resident_bytes(tree: Any) -> int:
    """The bytes of a tree of arrays or their shapes.

    >>> resident_bytes({"x": np.zeros((2, 3), np.float32)})
    24
    """
    return sum(int(np.prod(a.shape)) * np.dtype(a.dtype).itemsize for a in jax.tree.leaves(tree))
