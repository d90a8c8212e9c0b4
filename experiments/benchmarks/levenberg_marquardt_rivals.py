"""The sets and the contenders of levenberg_marquardt.py, each run from given parameters to a given RMSE.

A contender is made of a Job and returns a function () -> (seconds, RMSE, steps): it starts from `job.start` and ends at
the first point whose RMSE over all outputs is at most `job.target`, or after its most steps. None has a way to stop
at a value, so each gets the least that makes it one: ours ends its epochs, scipy's function raises, optimistix's
`terminate` looks at the residuals of its last accepted point.
"""

import csv
import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix
from jax.flatten_util import ravel_pytree
from scipy.optimize import least_squares

import jaxnet as jn

STEPS = 300
CLASSES = {  # of diamonds, from worst to best
    "cut": ("Fair", "Good", "Very Good", "Premium", "Ideal"),
    "color": tuple("JIHGFED"),
    "clarity": ("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"),
}
Run = Callable[[], tuple[float, float, int]]


class Job(NamedTuple):
    """A regression: the network, its data and how well it's to be fitted."""

    net: jn.Layer
    x: np.ndarray  # (n, inputs)
    y: np.ndarray  # (n, outputs), each of mean 0 and standard deviation 1
    target: float  # RMSE over all outputs
    start: Any  # parameters

    @property
    def data(self) -> jn.Data:
        return jn.Data((self.x, self.y))

    def loss_to_rmse(self, loss):
        """The loss is ½‖ŷ − y‖² summed over outputs, the mean over examples."""
        return np.sqrt(2 * np.asarray(loss) / self.y.shape[1])


def job(x: np.ndarray, y: np.ndarray, target: float, seed: int = 0) -> Job:
    """30 tanh units on standardized columns."""
    x, y = ((a - a.mean(0)) / a.std(0) for a in (x, y))
    net = jn.mlp([30, y.shape[1]], activation="tanh")
    return Job(net, x, y, target, start(net, x, jax.random.key(seed)))


def start(net: jn.Layer, x: np.ndarray, key) -> Any:
    """Where a run with this key starts."""
    return net.init(jax.random.fold_in(key, 0), x.shape[1:])[0]


def teacher(outputs: int, rows: int = 1000, inputs: int = 8, units: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Normal inputs, and what a network of ten tanh units with normal weights makes of them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, inputs))
    hidden = np.tanh(x @ rng.normal(size=(inputs, units)) / np.sqrt(inputs) + rng.normal(size=units))
    return x, hidden @ rng.normal(size=(units, outputs))


def diamonds(rows: int = 1000) -> tuple[np.ndarray, np.ndarray] | None:
    """Nine properties and the logarithm of the price of diamonds drawn without replacement; None without plotnine."""
    found = find_spec("plotnine")
    if found is None or not found.submodule_search_locations:
        return None
    with (Path(found.submodule_search_locations[0]) / "data" / "diamonds.csv").open() as file:
        everything = list(csv.DictReader(file))
    chosen = np.random.default_rng(0).choice(len(everything), rows, replace=False)
    table = [
        {name: CLASSES[name].index(value) if name in CLASSES else float(value) for name, value in everything[i].items()}
        for i in chosen
    ]
    price = np.log([[row.pop("price")] for row in table])
    return np.array([list(row.values()) for row in table]), price


def until(program: jn.Program, target_loss: float) -> jn.Program:
    """The same run, which also ends at the first epoch whose training loss is at most the target."""

    def epoch(carry, data):
        carry, row = program.epoch(carry, data)
        return carry._replace(done=carry.done | (row["train_loss"] <= target_loss)), row

    return dataclasses.replace(program, epoch=epoch, compiled={})


def our_program(job: Job) -> jn.Program:
    """Levenberg–Marquardt to the target of a job."""
    method = jn.optimizers.levenberg_marquardt()
    program = jn.program_full_batch(job.net, jn.losses.squared_error, method=method, gradient_tolerance=0.0)
    return until(program, job.target**2 * job.y.shape[1] / 2)


def ours(job: Job, dtype: str = "float64") -> Run:
    x64 = dtype == "float64"
    with precision(x64):
        x, y, params = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), dtype), (job.x, job.y, job.start))
        program, data, key = our_program(job), jn.Data((x, y)), jax.random.key(0)

    def run():
        with precision(x64):
            began = time.perf_counter()
            fitted = jax.block_until_ready(jn.fit(key, program, data, epochs=STEPS, params=params))
            seconds, steps = time.perf_counter() - began, int(fitted.epochs_run)
            return seconds, float(job.loss_to_rmse(fitted.history["train_loss"][steps - 1])), steps

    return run


@contextmanager
def precision(x64: bool) -> Iterator[None]:
    """Everything inside in float64, or in float32."""
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", x64)
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", before)


class Reached(Exception):
    """scipy has no other way to stop at a value."""


def residuals_of(job: Job) -> Callable:
    state = job.net.init(jax.random.key(0), job.x.shape[1:])[1]
    x, y = jnp.asarray(job.x), jnp.asarray(job.y)
    return lambda params: (job.net.apply(params, state, x)[0] - y).ravel()


def jacobians(job: Job) -> dict[str, Callable]:
    """flat parameters -> (N, P), compiled: of all residuals at once, and of each example by itself."""
    _, unravel = ravel_pytree(job.start)
    whole = residuals_of(job)

    def one(flat, x, y):
        return (job.net.apply(unravel(flat), {}, x[None])[0] - y).ravel()

    x, y = jnp.asarray(job.x), jnp.asarray(job.y)

    def by_example(flat):
        return jax.vmap(jax.jacrev(one), (None, 0, 0))(flat, x, y).reshape(y.size, -1)

    found: dict[str, Callable] = {name: jax.jit(rule(lambda f: whole(unravel(f)))) for name, rule in
             (("jacfwd", jax.jacfwd), ("jacrev", jax.jacrev))}  # fmt: skip
    return found | {"by example": jax.jit(by_example)}


def of_scipy(job: Job, jacobian: Callable, steps: int = STEPS) -> Run:
    """trf, its default solver (an SVD of the Jacobian each step); `x_scale` as it comes."""
    flat, unravel = ravel_pytree(job.start)
    residuals = residuals_of(job)
    compiled = jax.jit(lambda f: residuals(unravel(f)))
    begin = np.asarray(flat, np.float64)
    jax.block_until_ready((compiled(begin), jacobian(begin)))

    def run():
        seen = [np.inf, 0]

        def function(flat):
            found = np.asarray(compiled(flat))
            seen[0] = min(seen[0], float(np.sqrt(np.mean(found**2))))
            if seen[0] <= job.target:
                raise Reached
            return found

        def slope(flat):
            seen[1] += 1
            return np.asarray(jacobian(flat))

        began = time.perf_counter()
        with suppress(Reached):
            least_squares(function, begin, slope, method="trf", ftol=None, xtol=1e-15, gtol=None, max_nfev=steps)
        return time.perf_counter() - began, seen[0], seen[1]

    return run


def of_optimistix(job: Job, mode: str = "fwd") -> Run:
    """optimistix.LevenbergMarquardt as it comes: damped steps by QR of the Jacobian."""
    residuals = residuals_of(job)

    class Until(optimistix.LevenbergMarquardt):
        def terminate(self, fn, y, args, options, state, tags):
            near = jnp.mean(jnp.square(state.f_info.residual)) <= job.target**2
            return near & ~state.first_step, optimistix.RESULTS.successful

    solver: Any = Until(rtol=1e-12, atol=1e-12)  # type: ignore[call-arg]

    @jax.jit
    def solve(params):
        found: Any = optimistix.least_squares(
            lambda p, _: residuals(p), solver, params, max_steps=STEPS, throw=False, options={"jac": mode}
        )
        return jnp.sqrt(jnp.mean(jnp.square(residuals(found.value)))), found.stats["num_steps"]

    def run():
        began = time.perf_counter()
        rmse, steps = jax.block_until_ready(solve(job.start))
        return time.perf_counter() - began, float(rmse), int(steps)

    return run


def adam(job: Job, batch: int, rates: np.ndarray) -> Callable[[float], dict[str, float]]:
    """seconds -> what Adam leaves after as many epochs as fit in them, at its best rate, constant or annealed."""
    net, key, x, data = job.net, jax.random.key(0), jnp.asarray(job.x), jn.Data((job.x, job.y))
    residuals = residuals_of(job)

    def trained(rate, annealed, data, epochs):
        steps = epochs * (len(x) // batch)

        def schedule(count):
            share = jnp.minimum(count / steps, 1.0)
            return rate * jnp.where(annealed, (1 + jnp.cos(jnp.pi * share)) / 2, 1.0)

        program = jn.program(net, jn.losses.squared_error, optax.adam(schedule), batch_size=batch)
        fitted = jn.fit(key, program, data, epochs=epochs, params=job.start)
        return jnp.sqrt(jnp.mean(jnp.square(residuals(fitted.params))))

    def run(seconds: float) -> dict[str, float]:
        probe = 50
        alone = jax.jit(lambda rate: trained(rate, False, data, probe)).lower(rates[0]).compile()
        took = []
        for _ in range(5):
            began = time.perf_counter()
            alone(rates[0]).block_until_ready()
            took.append(time.perf_counter() - began)
        epochs = max(1, round(seconds / float(np.median(took)) * probe))
        grid = np.repeat(rates, 2), np.tile([False, True], len(rates))
        rmse = np.asarray(jax.jit(jax.vmap(lambda rate, a: trained(rate, a, data, epochs)))(*grid))
        best = int(np.nanargmin(rmse))
        return {"rmse": float(rmse[best]), "rate": float(grid[0][best]), "annealed": float(grid[1][best]),
                "steps": epochs * (len(x) // batch)}  # fmt: skip

    return run
