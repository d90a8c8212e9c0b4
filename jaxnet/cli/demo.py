"""`jaxnet demo`: the gradients proven, one network trained, then a study of 1,000 runs, and a page that shows it.

Real digits, real runs, every number measured while you watch. The test set is looked at once, by the one network.
"""

import os
import statistics
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optax

import jaxnet as jn
from jaxnet.cli import info, proof
from jaxnet.cli.interrupts import check, deferred
from jaxnet.cli.judge import confusion_table
from jaxnet.sweeps.progress import Progress, shown
from jaxnet.training import progress

EPOCHS, BATCH = 40, 32
UNITS, DROPOUT, DECAY, PEAK = [256, 128, 10], 0.3, 1e-2, 3e-3  # the one network
RATES = [1e-4, 3e-4, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]  # the study: from tame to diverging
DECAYS = [0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
SEEDS, SMALL, SMALL_EPOCHS, SMALL_PATIENCE = 10, [32, 10], 25, 5


def demo(out: Path, seed: int) -> None:
    """Run the demo and write its page to `out`; everything random follows from `seed`.

    Raises:
        FileNotFoundError: the folder of `out` doesn't exist; ImportError: matplotlib is missing.
    """
    from jaxnet.report import DemoResults, Mistake, ProofRow, write_demo
    from jaxnet.report.study import study_in_words

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

        rows = proof.finished(proving)
        show_proof(rows)
        check()

        study, took, together = many_networks(data, seed)
        alone = one_of_them(study, data, seed)
    print(study_in_words(study))
    left = 1 - study.values["epochs_run"].mean() / SMALL_EPOCHS
    print(f"{took:.1f} s, compiling included; {left:.0%} of the epochs were never run: stopped early, or diverged")
    print(f"an epoch of one network takes {alone * 1e3:.2f} ms alone, {together * 1e3:.2f} ms in the study\n")

    sure = np.asarray(jax.nn.softmax(logits)).max(axis=1)
    wrong = np.flatnonzero(predicted != test[1])
    write_demo(
        out,
        DemoResults(
            proof=[ProofRow(r["layer"], r["leaf"], tuple(r["shape"]), r["error"], r["bound"]) for r in rows],
            study=study,
            history={name: np.asarray(values) for name, values in fitted.history.items()},
            best_epoch=int(fitted.best_epoch),
            outcome=outcome,
            test_accuracy=scores["accuracy"],
            test_count=len(test[1]),
            confusion=confusion,
            mistakes=[
                Mistake(test[0][i].reshape(8, 8), int(test[1][i]), int(predicted[i]), float(sure[i])) for i in wrong
            ],
            alone=alone,
            together=together,
            seconds={"study": took, "from command to this page": time.perf_counter() - began},
            settings=settings(seed, data, test),
            versions=versions(),
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
    with progress.shown(EPOCHS, "digits", sys.stdout) as report:
        fitted = jn.run(jax.random.key(seed), program, data, epochs=EPOCHS, report=report)
    return net, fitted


def small(hp) -> jn.Program:
    """A member of the study: its learning rate and weight decay are inputs of the one compiled program."""
    optimizer = optax.adamw(hp["lr"], weight_decay=hp["decay"])
    loss = jn.losses.softmax_cross_entropy
    return jn.program(jn.mlp(SMALL), loss, optimizer, batch_size=BATCH, patience=SMALL_PATIENCE)


def many_networks(data: jn.Data, seed: int) -> tuple[jn.Study, float, float]:
    """10 learning rates × 10 weight decays × 10 seeds.

    Returns the study, its seconds, and those of one network's epoch after compiling.
    """
    print(f"a study: 64-{'-'.join(map(str, SMALL))}, AdamW, at most {SMALL_EPOCHS} epochs", flush=True)
    compiling, began = 0.0, time.perf_counter()
    with shown(sys.stdout) as show:

        def report(progress: Progress) -> None:
            nonlocal compiling
            compiling = compiling if progress.done else progress.seconds
            show(progress)
            check()

        study = jn.sweep(
            small, {"lr": RATES, "decay": DECAYS}, data=data, epochs=SMALL_EPOCHS, seeds=SEEDS, study_seed=seed,
            rank_by="valid_accuracy", report=report,
        )  # fmt: skip
    took = time.perf_counter() - began
    return study, took, (took - compiling) / study.values["epochs_run"].sum()


def one_of_them(study: jn.Study, data: jn.Data, seed: int) -> float:
    """The seconds of an epoch of the study's best member by itself, compiled before."""
    best = study.best("valid_accuracy")
    key = jax.random.fold_in(jax.random.key(seed), best.seed)
    hp = {name: np.float32(value) for name, value in best.configuration.items()}
    alone = jax.jit(lambda key, hp, data: jn.fit(key, small(hp), data, epochs=SMALL_EPOCHS))
    fitted = jax.block_until_ready(alone(key, hp, data))
    runs = []
    for _ in range(5):
        check()
        began = time.perf_counter()
        jax.block_until_ready(alone(key, hp, data))
        runs.append(time.perf_counter() - began)
    return statistics.median(runs) / int(fitted.epochs_run)


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
        "study": f"64-{'-'.join(map(str, SMALL))}, relu, AdamW; at most {SMALL_EPOCHS} epochs, "
        f"patience {SMALL_PATIENCE}; {len(RATES)} learning rates × {len(DECAYS)} weight decays × {SEEDS} seeds",
        "seed": str(seed),
    }


def versions() -> dict[str, str]:
    """The versions that decide the numbers."""
    device = jax.devices()[0]
    return info.versions() | {"device": f"{device.device_kind} ({jax.default_backend()}, {jax.local_device_count()})"}
