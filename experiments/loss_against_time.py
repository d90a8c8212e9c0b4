"""Is a second-order step worth its time? Training loss of small networks against the seconds that it took.

    .venv/bin/python experiments/loss_against_time.py [--out docs/pictures/loss_against_time.svg]

Claim: when Levenberg–Marquardt has run its epochs on the regression, its median training loss is less than a hundredth
of what L-BFGS, K-FAC and Adam have by then; on the classification L-BFGS and K-FAC come to a loss of 1e-4 sooner than
Adam. Medians over the restarts; checked, exit 1 if not so.

The regression: 500 examples of 8 numbers that a network of 10 tanh units made, for one of 20. The classification: 300
of scikit-learn's 8 × 8 digits, for 8 tanh units. Eight restarts, float32, the same starts for all. Adam takes batches
of 50, at the best of five rates; the others take the whole set. An epoch's time is the median over the restarts,
without compiling; the methods take turns.

Result: on the regression Levenberg–Marquardt ends at 1e-14 after 0.09 s, where L-BFGS and K-FAC have 1e-7 and 2e-7 and
Adam 1e-4. A loss of 1e-4 on the classification takes L-BFGS 0.010 s, K-FAC 0.014 s, Adam 0.045 s, and 0.5 s
Levenberg–Marquardt, which in each step forms a 610 × 610 matrix from 3,000 rows (2 cores, not quiet; jax 0.10.2).
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnet as jn
from jaxnet import optimizers

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "loss_against_time.svg"
RESTARTS, BATCH = 8, 50
RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
LOWER, GOAL, FLOOR = 100, 1e-4, 1e-15  # FLOOR of what is drawn
METHODS: dict[str, Callable[[], jn.optimizers.Method]] = {
    "Levenberg–Marquardt": optimizers.levenberg_marquardt,
    "L-BFGS": optimizers.lbfgs,
    "K-FAC": optimizers.kfac,
}


class Task(NamedTuple):
    """What is learned."""

    net: jn.Layer
    loss: jn.losses.Loss
    data: jn.Data
    epochs: Mapping[str, int]  # of each method


class Course(NamedTuple):
    """How the loss of one method fell."""

    loss: np.ndarray  # (restarts, epochs), the last one where the run ended by itself
    seconds: float  # of an epoch, one restart alone

    @property
    def median(self) -> np.ndarray:
        return np.median(self.loss, axis=0)

    @property
    def times(self) -> np.ndarray:
        """The end of each epoch."""
        return self.seconds * np.arange(1, self.loss.shape[1] + 1)

    def after(self, seconds: float) -> float:
        """The median loss by then, the lowest so far."""
        return float(np.min(self.median, where=self.times <= seconds, initial=np.inf))

    def reaches(self, goal: float) -> float:
        """Seconds until the median loss is at most the goal, inf if never."""
        return float(np.min(self.times, where=self.median <= goal, initial=np.inf))


def tasks(regression: int = 500, classification: int = 300, scale: float = 1.0) -> dict[str, Task]:
    """The two sets, of so many examples; `scale` shortens the runs."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(regression, 8))
    y = np.tanh(x @ rng.normal(size=(8, 10)) / np.sqrt(8) + rng.normal(size=10)) @ rng.normal(size=(10, 1))
    smooth = jn.Data((x.astype("float32"), ((y - y.mean()) / y.std()).astype("float32")))
    digits, labels = jn.data.load("digits")

    def epochs(**of: int) -> dict[str, int]:
        names = (*METHODS, "Adam")
        return {name: max(2, round(scale * count)) for name, count in zip(names, of.values(), strict=True)}

    return {
        "regression": Task(
            jn.mlp([20, 1], activation="tanh"), jn.losses.squared_error, smooth,
            epochs(lm=60, lbfgs=1000, kfac=300, adam=1000),
        ),
        "classification": Task(
            jn.mlp([8, 10], activation="tanh"), jn.losses.softmax_cross_entropy,
            jn.Data((digits[:classification], labels[:classification])), epochs(lm=20, lbfgs=150, kfac=40, adam=1000),
        ),
    }  # fmt: skip


def run_of(name: str, task: Task) -> Callable:
    """(rate, key) -> the losses of a run (epochs,) and how many epochs it had, compiled; only Adam uses the rate."""

    def run(rate, key, data):
        if name == "Adam":
            program = jn.program(task.net, task.loss, optax.adam(rate), batch_size=BATCH)
        else:
            program = jn.program_full_batch(task.net, task.loss, method=METHODS[name](), gradient_tolerance=0.0)
        fitted = jn.fit(key, program, data, epochs=task.epochs[name])
        return fitted.history["train_loss"], fitted.epochs_run

    data = jax.tree.map(jnp.asarray, task.data)
    compiled = jax.jit(run).lower(jnp.float32(1), jax.random.key(0), data).compile()
    return lambda rate, key: jax.block_until_ready(compiled(jnp.float32(rate), key, data))


def measure(task: Task, names: Iterable[str], restarts: int = RESTARTS) -> dict[str, Course]:
    """The course of each method, in turn at each restart."""
    programs = {name: run_of(name, task) for name in names}
    losses: dict[str, list[list[np.ndarray]]] = {
        name: [[] for _ in RATES[: len(RATES) if name == "Adam" else 1]] for name in programs
    }
    took: dict[str, list[float]] = {name: [] for name in programs}
    for seed in range(restarts):
        for name, run in programs.items():
            for rate, found in zip(RATES, losses[name], strict=False):
                began = time.perf_counter()
                row, epochs = run(rate, jax.random.fold_in(jax.random.key(0), seed))
                took[name].append((time.perf_counter() - began) / int(epochs))
                found.append(np.asarray(row))
    courses = {}
    for name, runs in losses.items():
        by_rate = [held(np.array(rows)) for rows in runs]
        best = np.argmin(np.nan_to_num([np.median(rows[:, -1]) for rows in by_rate], nan=np.inf))
        courses[name] = Course(by_rate[best], statistics.median(took[name]))
    return courses


def held(losses: np.ndarray) -> np.ndarray:
    """(restarts, epochs) whose ends, NaN, are filled with the last number.

    >>> held(np.array([[3.0, 2.0, np.nan]])).tolist()
    [[3.0, 2.0, 2.0]]
    """
    last = np.where(np.isnan(losses), 0, np.arange(losses.shape[1]))
    return np.take_along_axis(losses, np.maximum.accumulate(last, axis=1), axis=1)


def claim(regression: Mapping[str, Course], classification: Mapping[str, Course]) -> None:
    """What the file's head says.

    Raises:
        SystemExit: it isn't so.
    """
    first, *others = METHODS
    ours = regression[first]
    for name in (*others, "Adam"):
        other = regression[name].after(ours.times[-1])
        if not LOWER * ours.after(ours.times[-1]) < other:
            raise SystemExit(
                f"the claim failed: after {ours.times[-1]:.3f} s {name} has a loss of {other:.2e}, {first} of "
                f"{ours.after(ours.times[-1]):.2e}"
            )
    limit = classification["Adam"].reaches(GOAL)
    for name in others:
        seconds = classification[name].reaches(GOAL)
        if not (np.isfinite(seconds) and seconds < limit):
            raise SystemExit(f"the claim failed: {name} needs {seconds:.3f} s for a loss of {GOAL:g}, Adam {limit:.3f}")


def draw(path: Path, found: Mapping[str, Mapping[str, Course]]) -> None:
    """A panel for each set: medians, and bands from the lowest to the highest restart."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {
        "svg.hashsalt": path.stem,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    colours = ("#1f6fb4", "#d9600a", "#2a9d57", "#555555")
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        panels = figure.subplots(1, len(found), squeeze=False)[0]
        for panel, (title, courses) in zip(panels, found.items(), strict=True):
            for (name, course), colour in zip(courses.items(), colours, strict=False):
                kept = np.unique(np.geomspace(1, len(course.times), 100).astype(int)) - 1
                place = course.times[kept]
                low, high = (np.maximum(f(course.loss, axis=0)[kept], FLOOR) for f in (np.min, np.max))
                panel.loglog(place, np.maximum(course.median[kept], FLOOR), color=colour, linewidth=1.2, label=name)
                panel.fill_between(place, low, high, color=colour, alpha=0.2, linewidth=0)
            panel.set(title=title, xlabel="seconds of one run")
            panel.minorticks_off()
        panels[0].set_ylabel("training loss")
        panels[0].legend(frameon=False, fontsize=8)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description="Loss against time of second-order methods and Adam.")
    parser.add_argument("--out", type=Path, default=PICTURE, help="where the picture goes")
    out = parser.parse_args().out

    found = {}
    for title, task in tasks().items():
        found[title] = measure(task, (*METHODS, "Adam"))
        end = found[title]["Levenberg–Marquardt"].times[-1]
        print(title)
        for name, course in found[title].items():
            print(
                f"  {name:<20} {1e3 * course.seconds:7.2f} ms an epoch, {course.times[-1]:.2f} s; median loss "
                f"{course.after(end):.2e} after {end:.2f} s, {course.median[-1]:.2e} at the end; {GOAL:g} in "
                f"{course.reaches(GOAL):.3f} s",
                flush=True,
            )
    draw(out, found)
    claim(found["regression"], found["classification"])


if __name__ == "__main__":
    main()
