"""`jaxnet compare DIR DIR`: the best configurations of two studies, on the seeds that both have."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxnet.cli.options import Compare
from jaxnet.cli.studykeys import nearest, shown
from jaxnet.sweeps.comparison import compare as compared
from jaxnet.sweeps.store import Store
from jaxnet.sweeps.study import Study, mode_of


def compare(options: Compare) -> None:
    """Open both studies, choose the best configuration of each by its mean over the common seeds, print the comparison.

    Raises:
        FileNotFoundError: no study there. ValueError: no common seeds, no such metric, a level out of range, or a
            study without a configuration that has a finite value for each common seed.
    """
    studies = [Study.open(folder) for folder in options.studies]
    about = studies[0].about
    name = options.name or about.get("rank_by") or next(iter(studies[0].metrics), "")
    for study, folder in zip(studies, options.studies, strict=True):
        check_metric(study, folder, name)
    mode = mode_of(name, options.mode or (about.get("mode") if name == about.get("rank_by") else None))
    seeds = common_seeds(*studies)
    if not seeds:
        raise ValueError(
            f"got no common seeds: {options.studies[0]} has finished {_few(studies[0])}, {options.studies[1]} "
            f"{_few(studies[1])}; expected some: run the seeds of one in the other too, or let both finish"
        )
    chosen = [best_of(s, folder, name, mode, seeds) for s, folder in zip(studies, options.studies, strict=True)]
    print(f"{name.replace('_', ' ')} ({'low' if mode == 'min' else 'high'} is good) on {len(seeds)} common seeds")
    for letter, study, folder, (configuration, values) in zip("ab", studies, options.studies, chosen, strict=True):
        hyperparameters = study.plan.space.configurations[configuration]
        words = ", ".join(f"{n} = {_in_words(value)}" for n, value in hyperparameters.items()) or "no hyperparameters"
        print(f"{letter}: {folder}, best of {len(study.plan.space):,}: {words}; mean {np.mean(values):.4g}")
    for sentence in cautions(studies, options.studies):
        print(sentence)
    print(compared(chosen[0][1], chosen[1][1], level=options.level))


def check_metric(study: Study, folder: Path, name: str | None) -> None:
    """Refuse a study without finished members or, unless it's None, without this metric.

    Raises:
        ValueError: it says which there are.
    """
    if not study.metrics:
        raise ValueError(f"{folder}: got a study of which no member has finished; expected some: run it first")
    if name is not None and name not in study.metrics:
        raise ValueError(f"{folder}: got no metric {name}; {nearest(name, study.metrics)}")


def common_seeds(a: Study, b: Study) -> list[int]:
    """The seeds of which all members have finished in both studies, in the order of a.

    >>> from jaxnet.sweeps.plan import plan_of
    >>> from jaxnet.sweeps.space import grid
    >>> studies = [Study.blank(plan_of(grid({"lr": [0.1]}), seeds)) for seeds in ([0, 1, 2], [2, 1, 5])]
    >>> for study in studies:
    ...     study.finished[:] = True
    >>> common_seeds(*studies)
    [1, 2]
    """
    both = set(finished_seeds(a)) & set(finished_seeds(b))
    return [seed for seed in a.plan.seeds if seed in both]


def finished_seeds(study: Study) -> list[int]:
    """The seeds of which every member has finished, ascending."""
    return sorted(set(study.plan.seeds) - set(study.plan.seed[~study.finished].tolist()))


def best_of(study: Study, folder: Path, name: str, mode: str, seeds: list[int]) -> tuple[int, np.ndarray]:
    """The configuration with the best mean over these seeds, and its values (seeds,); the first among equals.

    One that has no finite value for one of them isn't in the running.

    Raises:
        ValueError: none has.
    """
    places = [study.plan.seeds.index(seed) for seed in seeds]
    values = np.stack([study.values_by_seed(name, c)[places] for c in range(len(study.plan.space))])
    means = (1.0 if mode == "min" else -1.0) * values.mean(axis=1)
    if not np.isfinite(means).any():
        raise ValueError(
            f"{folder}: got no configuration with a finite {name} for all {len(seeds)} common seeds; expected one"
        )
    best = int(np.argmin(np.where(np.isfinite(means), means, np.inf)))
    return best, values[best]


def cautions(studies: list[Study], folders: tuple[Path, Path]) -> list[str]:
    """What keeps the comparison from being one of equals."""
    first, second = (Store(folder).read().identity for folder in folders)
    found = []
    if first["data"] != second["data"] or first["folds"] != second["folds"]:
        found.append("caution: the studies have different data, so the difference is of the data too")
    if first["settings"]["study_seed"] != second["settings"]["study_seed"]:
        found.append("caution: the studies have different study seeds, so pairs have no random numbers in common")
    counts = [len(study.plan.space) for study in studies]
    if counts[0] != counts[1]:
        found.append("caution: the best of more configurations looks better, since these seeds have chosen it")
    return found


def _few(study: Study) -> str:
    seeds = finished_seeds(study)
    return ", ".join(map(str, seeds[:8])) + (", …" if len(seeds) > 8 else "") or "none"


def _in_words(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else shown(list(value) if isinstance(value, tuple) else value)
