"""`jaxnet demo`: the gradients proven, one network trained, 64 networks trained at once, and a page that shows it.

Real digits, real runs, every number measured while you watch. The test set is looked at once, by the one network.
"""

import importlib.metadata
import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnet as jn
from jaxnet.cli import proof
from jaxnet.cli.interrupts import check, deferred
from jaxnet.cli.judge import confusion_table
from jaxnet.cli.progress import progress

EPOCHS, BATCH = 40, 32
UNITS, DROPOUT, DECAY, PEAK = [256, 128, 10], 0.3, 1e-2, 3e-3  # the one network
RATES, SEEDS, SMALL, SMALL_EPOCHS = np.geomspace(1e-3, 30.0, 16), 4, [32, 10], 30  # the population


def demo(out: Path, seed: int) -> None:
    """Run the demo and write its page to `out`; everything random follows from `seed`.

    Raises:
        FileNotFoundError: the folder of `out` doesn't exist; ImportError: matplotlib is missing.
    """
    from jaxnet.report import DemoResults, Mistake, ProofRow, write_demo

    began = time.perf_counter()
    out = Path(out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"got --out {out}; expected a folder that exists: make {out.parent} first")
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", min(2, os.cpu_count() or 1))  # before jax starts
    with deferred(), proof.started() as proving:
        examples = jn.data.load("digits")
        rest, test = jn.data.split(examples, 0.2, key=jax.random.key(seed))
        train, valid = jn.data.split(rest, 0.2, key=jax.random.key(seed + 1))
        data = jn.Data(train, valid)
        print(
            f"digits: {len(train[1])} to train on, {len(valid[1])} to validate, {len(test[1])} to test, 8 × 8 pixels\n"
        )

        net, fitted = one_network(data, seed)
        scores = jn.evaluate(net, fitted, test, jn.losses.softmax_cross_entropy)
        logits = jn.predict(net, fitted, test[0])
        predicted = np.asarray(jn.metrics.labels(logits))
        confusion = jn.metrics.confusion_matrix(predicted, test[1], 10)
        outcome = jn.outcomes.describe(fitted.outcome, fitted.epochs_run)
        print(f"{outcome}; parameters of epoch {int(fitted.best_epoch)}, the lowest validation loss, kept")
        print(f"test accuracy {scores['accuracy']:.2%} on {len(test[1])} digits it had never seen\n")
        print(confusion_table(confusion.tolist(), [str(k) for k in range(10)]) + "\n")

        accuracies, seconds = many_networks(data, seed)
        rows = proof.finished(proving)
    show_proof(rows)

    sure = np.asarray(jax.nn.softmax(logits)).max(axis=1)
    wrong = np.flatnonzero(predicted != test[1])
    write_demo(
        out,
        DemoResults(
            proof=[ProofRow(r["layer"], r["leaf"], tuple(r["shape"]), r["error"], r["bound"]) for r in rows],
            history={name: np.asarray(values) for name, values in fitted.history.items()},
            best_epoch=int(fitted.best_epoch),
            outcome=outcome,
            test_accuracy=scores["accuracy"],
            test_count=len(test[1]),
            rates=RATES,
            accuracies=accuracies,
            confusion=confusion,
            mistakes=[
                Mistake(test[0][i].reshape(8, 8), int(test[1][i]), int(predicted[i]), float(sure[i])) for i in wrong
            ],
            seconds=seconds | {"from command to this page": time.perf_counter() - began},
            settings=settings(seed, data, test),
            versions=versions(),
            scored_on="validation",
        ),
    )
    print(f"report: {out} ({out.stat().st_size / 1000:.0f} kB), {time.perf_counter() - began:.1f} s in all")


def one_network(data: jn.Data, seed: int):
    """Train the one network under a progress bar; returns it and what the run left."""
    steps = EPOCHS * -(-data.size // BATCH)
    net = jn.mlp(UNITS, dropout=DROPOUT)
    optimizer = optax.adamw(optax.cosine_decay_schedule(PEAK, steps), weight_decay=DECAY)
    program = jn.program(net, jn.losses.softmax_cross_entropy, optimizer, batch_size=BATCH, patience=15)
    print(f"one network: {net}")
    with progress(EPOCHS, "digits") as report:
        fitted = jn.run(jax.random.key(seed), program, data, epochs=EPOCHS, report=report)
    return net, fitted


def small_run(key, rate, data):
    """One member: the same `fit`, its rate an argument. Returns its validation accuracy, NaN if it diverged."""
    optimizer = optax.sgd(rate, momentum=0.9)
    program = jn.program(jn.mlp(SMALL), jn.losses.softmax_cross_entropy, optimizer, batch_size=BATCH)
    fitted = jn.fit(key, program, data, epochs=SMALL_EPOCHS)
    accuracy = fitted.metrics["valid_accuracy"]
    return jnp.where(fitted.outcome == jn.outcomes.DIVERGED, jnp.nan, accuracy)


def many_networks(data: jn.Data, seed: int):
    """16 learning rates × 4 seeds by `vmap`, a share on each device, and one of them alone.

    Returns accuracies (rates, seeds) and seconds by label.
    """
    devices = jax.local_devices()
    keys = jax.vmap(lambda s: jax.random.fold_in(jax.random.key(seed), s))(jnp.arange(SEEDS))
    rates = jnp.asarray(RATES, jnp.result_type(float))
    count = len(RATES) * SEEDS
    members = jnp.tile(keys, len(RATES)), jnp.repeat(rates, SEEDS)
    shares = [
        jax.device_put(
            (*(a[i * count // len(devices) : (i + 1) * count // len(devices)] for a in members), data), device
        )
        for i, device in enumerate(devices)
    ]
    one = jax.device_put((keys[0], rates[len(RATES) // 2], data), devices[0])
    alone, population = jax.jit(small_run), jax.jit(jax.vmap(small_run, in_axes=(0, 0, None)))

    with ThreadPoolExecutor(len(devices)) as pool:  # a thread feeds each device

        def together():
            return np.concatenate(list(pool.map(lambda share: np.asarray(population(*share)), shares)))

        compiling = timed(lambda: (alone(*one), together()))[1]
        check()
        one_seconds = statistics.median(timed(alone, *one)[1] for _ in range(5))
        runs = [timed(together) for _ in range(3)]
    accuracies = runs[0][0].reshape(len(RATES), SEEDS)
    each_seconds = statistics.median(seconds for _, seconds in runs) / count

    best = int(np.argmax(np.nan_to_num(accuracies).mean(axis=1)))
    diverged = int(np.isnan(accuracies).sum())
    print(
        f"{count} networks at once: {len(RATES)} rates × {SEEDS} seeds, {SMALL_EPOCHS} epochs, by vmap of fit\n"
        f"  one alone {one_seconds * 1e3:.1f} ms, in the population {each_seconds * 1e3:.1f} ms per network "
        f"(devices: {len(devices)}); first calls, which compile, {compiling:.1f} s\n"
        f"  best learning rate {RATES[best]:.2g}: validation accuracy {accuracies[best].mean():.2%}; "
        f"{diverged} of {count} diverged\n"
    )
    return accuracies, {
        "one network alone": one_seconds,
        f"{count} networks at once, per network": each_seconds,
        "first calls of both, which compile": compiling,
    }


def timed(function, *args):
    """(result, seconds) of one call, waited for."""
    began = time.perf_counter()
    result = jax.block_until_ready(function(*args))
    return result, time.perf_counter() - began


def show_proof(rows: list[dict]) -> None:
    """The table of the proof, and its verdict."""
    print("hand-written backward against jax.grad, float64 (largest error as a share of the leaf's scale)")
    for r in rows:
        shape, mark = "×".join(map(str, r["shape"])) or "1", "ok" if r["error"] <= r["bound"] else "WRONG"
        print(f"  {r['layer']:<28} {r['leaf']:<5} {shape:<8} {r['error']:8.1e} ≤ {r['bound']:.0e}  {mark}")
    right = sum(r["error"] <= r["bound"] for r in rows)
    print(f"  {right} of {len(rows)} agree\n")


def settings(seed: int, data: jn.Data, test) -> dict[str, str]:
    """What was run, in words."""
    return {
        "data": f"digits: {data.size} training, {data.valid_size} validation, {len(test[1])} test examples",
        "network": f"64-{'-'.join(map(str, UNITS))}, relu, dropout {DROPOUT}",
        "optimizer": f"AdamW, learning rate {PEAK} falling by a cosine, weight decay {DECAY}",
        "run": f"batches of {BATCH}, at most {EPOCHS} epochs, patience 15",
        "population": f"64-{'-'.join(map(str, SMALL))}, relu, SGD with momentum 0.9, {SMALL_EPOCHS} epochs, "
        f"{len(RATES)} learning rates × {SEEDS} seeds",
        "seed": str(seed),
    }


def versions() -> dict[str, str]:
    """The versions that decide the numbers."""
    packages = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "optax", "numpy", "scikit-learn")}
    device = jax.devices()[0]
    return {
        "jaxnet": jn.__version__,
        **packages,
        "python": platform.python_version(),
        "device": f"{device.device_kind} ({jax.default_backend()}, {jax.local_device_count()})",
    }
