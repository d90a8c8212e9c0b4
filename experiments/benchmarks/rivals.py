"""The contenders that jaxnet's studies are timed against, each a well-tuned way to do one and the same job.

    .venv/bin/python experiments/benchmarks/rivals.py [1] [2] [3]

The job: train M independent members of a ReLU MLP, `units` = [inputs, hidden…, classes], by softmax cross-entropy and
Adam with a learning rate per member; every member has its own He-normal initialization and its own shuffling of all
N examples each epoch, N a multiple of the batch; no validation. A contender takes (x, y, units, batch, epochs, rates),
warms up and compiles, then trains, and returns the seconds per member-step of the training alone (initialization and
shuffling in) and each member's mean loss over its last epoch, (M,). Called again with equal shapes it doesn't compile
again. `main` runs the contenders in turn, ABAB…, and prints medians; members of the slow ones are few, since what
counts is the cost of a member-step. scikit-learn and torch choose the batches as the others do; scikit-learn alone
starts from Glorot-uniform weights.

Result (2 cores, torch 2.13.0, jax 0.10.2, scikit-learn 1.9.1; median µs a member-step; matmul peak 211 GFLOP/s,
memory 37 GB/s). The mean losses agree within 1.5 % (scikit-learn within 8 %, the loop of four members within 6 %).

                                  64-32-10   784-128-64-10     2-16-2
    plain vmap                        14.8             630       2.04
    torch.func, 1 thread              20.9           1,183       3.59
    torch.func, 2 threads             15.4             757       2.89
    torch.func compiled, 1 thread     10.9             880       1.38
    torch.func compiled, 2 threads     6.7             519       0.94
    torch loop, 1 thread               283           1,391        273
    scikit-learn                       191           1,286        151

The torch loop on two threads takes 1,150 for 784-128-64-10 and is not faster for the others.
"""

import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from importlib.util import find_spec
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from torch_rivals import Outcome, torch_func, torch_loop


class Case(NamedTuple):
    units: tuple[int, ...]
    batch: int
    examples: int
    members: int
    epochs: int
    width: int  # of the compiled torch.func, the fastest
    rounds: int


CASES = {
    "1": Case((64, 32, 10), batch=32, examples=1408, members=256, epochs=5, width=128, rounds=5),
    "2": Case((784, 128, 64, 10), batch=128, examples=12800, members=16, epochs=1, width=2, rounds=3),
    "3": Case((2, 16, 2), batch=4, examples=400, members=512, epochs=5, width=512, rounds=5),
}


def plain_vmap(x, y, units: Sequence[int], batch: int, epochs: int, rates) -> Outcome:
    """jax and optax by hand: `jit(vmap(train))` on the first device, `jax.random.permutation` each epoch."""
    program = _plain_program(tuple(units), batch, epochs, len(x), len(rates))
    arguments = (
        jax.random.split(jax.random.key(0), len(rates)),
        jnp.asarray(rates, jnp.float32),
        jnp.asarray(x, jnp.float32),
        jnp.asarray(y, jnp.int32),
    )
    jax.block_until_ready(arguments)
    began = time.perf_counter()
    losses = np.asarray(program(*arguments))
    return (time.perf_counter() - began) / (len(rates) * epochs * (len(x) // batch)), losses


@lru_cache
def _plain_program(units: tuple[int, ...], batch: int, epochs: int, examples: int, members: int):
    def loss(params, x, y):
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = params[-1]
        return optax.softmax_cross_entropy_with_integer_labels(x @ w + b, y).mean()

    def train(key, rate, x, y):
        optimizer = optax.adam(rate)
        start, order = jax.random.split(key)
        params = [
            (jax.random.normal(k, (m, n)) * (2 / m) ** 0.5, jnp.zeros(n))
            for k, m, n in zip(jax.random.split(start, len(units) - 1), units, units[1:], strict=False)
        ]

        def step(carry, rows):
            params, opt_state = carry
            value, grads = jax.value_and_grad(loss)(params, x[rows], y[rows])
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), value

        def epoch(carry, key):
            rows = jax.random.permutation(key, examples).reshape(-1, batch)
            carry, values = jax.lax.scan(step, carry, rows)
            return carry, values.mean()

        _, losses = jax.lax.scan(epoch, (params, optimizer.init(params)), jax.random.split(order, epochs))
        return losses[-1]

    shapes = (
        jax.eval_shape(lambda: jax.random.split(jax.random.key(0), members)),
        jax.ShapeDtypeStruct((members,), jnp.float32),
        jax.ShapeDtypeStruct((examples, units[0]), jnp.float32),
        jax.ShapeDtypeStruct((examples,), jnp.int32),
    )
    return jax.jit(jax.vmap(train, in_axes=(0, 0, None, None))).lower(*shapes).compile()


def scikit_learn(x, y, units: Sequence[int], batch: int, epochs: int, rates) -> Outcome:
    """scikit-learn's MLPClassifier, one member after another."""
    x, y = np.asarray(x, np.float32), np.asarray(y)
    models = [
        _classifier(units[1:-1], batch, epochs).set_params(learning_rate_init=float(rate), random_state=seed)
        for seed, rate in enumerate(rates)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would like to go on
        began = time.perf_counter()
        for model in models:
            model.fit(x, y)
    losses = np.array([model.loss_curve_[-1] for model in models])
    return (time.perf_counter() - began) / (len(models) * epochs * (len(x) // batch)), losses


def _classifier(hidden: Sequence[int], batch: int, epochs: int):
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(tuple(hidden), alpha=0, batch_size=batch, max_iter=epochs, tol=0, n_iter_no_change=epochs)


def sklearn_grid_search(
    x, y, folds, rates, decays, hidden: Sequence[int], epochs: int, seeds: int, batch: int, *, share: float = 1
) -> tuple[float, float]:
    """scikit-learn's GridSearchCV over rates × decays × seeds with all cores: (seconds, best mean accuracy).

    A configuration is a rate and a decay; its score is the mean over folds (how many, or pairs of indices) and seeds.
    `hidden` are the sizes of the hidden layers. share < 1 runs that share of the configurations, evenly spread, and
    scales their seconds up; the score is then the best among those. The start of the worker processes is in, once; a
    refit is not.
    """
    from sklearn.model_selection import GridSearchCV

    x, y = np.asarray(x, np.float32), np.asarray(y)
    everything = [{"learning_rate_init": [float(r)], "alpha": [float(d)]} for r in rates for d in decays]
    wanted = max(1, round(share * len(everything)))
    grid = [everything[i * len(everything) // wanted] | {"random_state": [*range(seeds)]} for i in range(wanted)]

    def search(grid, epochs: int):
        return GridSearchCV(_classifier(hidden, batch, epochs), grid, cv=folds, n_jobs=-1, refit=False).fit(x, y)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        began = time.perf_counter()
        search(grid[0], 1)  # the worker processes start and import
        started = time.perf_counter()
        scores = search(grid, epochs).cv_results_["mean_test_score"]
        took = time.perf_counter() - started
    return started - began + took * len(everything) / wanted, float(scores.reshape(wanted, seeds).mean(1).max())


def matmul_peak() -> tuple[float, float]:
    """float32 matrix products through XLA, GFLOP/s, best over sizes: by the first device, by all local ones at once."""

    @jax.jit
    def chain(a, b, count):
        return jax.lax.fori_loop(0, count, lambda _, a: a @ b, a)

    found = []
    for devices in (jax.local_devices()[:1], jax.local_devices()):
        rates = []
        for n in (512, 1024, 2048):
            square = np.random.default_rng(0).normal(size=(n, n)).astype(np.float32) / math.sqrt(n)
            count = max(1, 4 * 1024**3 // n**3)
            rates.append(2 * n**3 * count * len(devices) / _fastest(chain, devices, square, square, count) / 1e9)
        found.append(max(rates))
    return found[0], found[1]


def memory_bandwidth() -> float:
    """GB/s of a ← a/2 + b through XLA, arrays of 128 MiB: two reads, one write; first device or all, what is more."""

    @jax.jit
    def triad(a, b, count):
        return jax.lax.fori_loop(0, count, lambda _, a: 0.5 * a + b, a)

    array, count = np.ones(1 << 25, np.float32), 8
    return max(
        3 * array.nbytes * count * len(devices) / _fastest(triad, devices, array, array, count) / 1e9
        for devices in (jax.local_devices()[:1], jax.local_devices())
    )


def _fastest(function: Callable, devices, *arguments) -> float:
    """Seconds of the fastest of five calls on all `devices` at once, a thread for each."""
    placed = [jax.device_put(arguments, device) for device in devices]
    times = []
    with ThreadPoolExecutor(len(devices)) as pool:
        for _ in range(6):  # the first compiles
            began = time.perf_counter()
            list(pool.map(lambda own: jax.block_until_ready(function(*own)), placed))
            times.append(time.perf_counter() - began)
    return min(times[1:])


def contenders(case: Case) -> dict[str, Callable[[], Outcome]]:
    """The contenders of a case by name, with torch in each variant that was the fastest somewhere."""
    units, members = case.units, case.members
    x, y = learnable(units, case.examples)
    rates = np.geomspace(1e-3, 3e-3, members, dtype=np.float32)
    few = np.geomspace(1e-3, 3e-3, 4, dtype=np.float32)
    job, width = (x, y, units, case.batch, case.epochs), case.width
    found: dict[str, Callable[[], Outcome]] = {"plain vmap": partial(plain_vmap, *job, rates)}
    if find_spec("torch"):
        for threads in (1, 2):
            at = f"{threads} thread{'s' * (threads > 1)}"
            found |= {
                f"torch loop, {at}": partial(torch_loop, *job, few, threads=threads),
                f"torch.func, {at}": partial(torch_func, *job, rates, threads=threads),
                f"torch.func compiled, {at}": partial(
                    torch_func, *job, rates, threads=threads, width=width, compiled=True
                ),
            }
    return found | {"scikit-learn": partial(scikit_learn, *job, few)}


def learnable(units: Sequence[int], examples: int) -> tuple[np.ndarray, np.ndarray]:
    """x (N, inputs) float32, y (N,) int32: digits for 64 inputs and 10 classes, else Gaussian blobs that overlap."""
    rng = np.random.default_rng(0)
    if (units[0], units[-1]) == (64, 10):
        from sklearn.datasets import load_digits

        digits = load_digits()
        rows = rng.permutation(len(digits.target))[:examples]
        return (digits.data[rows] / 16).astype(np.float32), digits.target[rows].astype(np.int32)
    y = rng.integers(0, units[-1], examples)
    centers = rng.normal(size=(units[-1], units[0])) * (3 / math.sqrt(units[0]))
    return (centers[y] + rng.normal(size=(examples, units[0]))).astype(np.float32), y.astype(np.int32)


def main() -> None:
    one, together = matmul_peak()
    print(f"matmul peak {one:.0f} GFLOP/s by one device, {together:.0f} by {jax.local_device_count()}; ", end="")
    print(f"memory {memory_bandwidth():.0f} GB/s", flush=True)
    if not find_spec("torch"):
        print("torch is not installed: `.venv/bin/pip install torch==2.13.0` adds its rows")
    for name in sys.argv[1:] or CASES:
        case = CASES[name]
        shape = "-".join(map(str, case.units))
        print(f"{shape}, batch {case.batch}, {case.members} members: µs a member-step; mean loss")
        runs = contenders(case)
        outcomes: dict[str, list[Outcome]] = {contender: [] for contender in runs}
        for _ in range(case.rounds):
            for contender, run in runs.items():
                outcomes[contender].append(run())
        for contender, rounds in outcomes.items():
            times = [1e6 * seconds for seconds, _ in rounds]
            loss = np.mean([losses.mean() for _, losses in rounds])
            print(
                f"  {contender:<32}{statistics.median(times):8.2f}  ({min(times):.2f}…{max(times):.2f})  {loss:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
