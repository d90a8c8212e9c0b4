"""Digits: ten seeds, a new split each, as one compiled program.

    .venv/bin/python experiments/digits.py

Claim: a 64-512-256-10 network reads scikit-learn's 8 × 8 digits with at least 98 %
test accuracy, the mean over 10 seeds.
Each seed draws its own split (64 % training, 16 % validation, 20 % test, stratified), its own initial parameters, its
own order and dropout; validation chooses the epoch, the test set is looked at once. The ten runs are one `vmap`: the
split is the `rows` of `Data`, so all members share one copy of the images.

Result: mean 98.22 %, 95 % interval 97.77 % to 98.66 %; ten runs in 14.5 s, compiling included (2 cores, jax 0.10.2).
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnet as jn

SEEDS, EPOCHS, BATCH = 10, 60, 32


def split_rows(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of a stratified training, validation and test share."""
    key, again = jax.random.split(jax.random.key(seed))
    rest, test = jn.data.split((np.arange(len(labels)), labels), 0.2, key=key)
    train, valid = jn.data.split(rest, 0.2, key=again)
    return train[0], valid[0], test[0]


def main() -> None:
    x, y = jn.data.load("digits")
    splits = [split_rows(y, seed) for seed in range(SEEDS)]
    train, valid, test = (np.stack(parts) for parts in zip(*splits, strict=True))

    steps = EPOCHS * -(-train.shape[1] // BATCH)
    net = jn.mlp([512, 256, 10], dropout=0.5)
    optimizer = optax.adamw(optax.cosine_decay_schedule(3e-3, steps), weight_decay=1e-2)
    program = jn.program(net, jn.losses.softmax_cross_entropy, optimizer, batch_size=BATCH)

    def run(key, train_rows, valid_rows, test_rows, x, y):
        data = jn.Data((x, y), rows=train_rows, valid_rows=valid_rows)
        fitted = jn.fit(key, program, data, epochs=EPOCHS)
        logits, _ = net.apply(fitted.params, fitted.state, x[test_rows])
        return fitted, jn.metrics.accuracy(logits, y[test_rows]).mean()

    keys = jnp.stack([jax.random.fold_in(jax.random.key(0), seed) for seed in range(SEEDS)])
    began = time.perf_counter()
    fitted, accuracy = jax.jit(jax.vmap(run, in_axes=(0, 0, 0, 0, None, None)))(keys, train, valid, test, x, y)
    accuracy = np.asarray(accuracy)
    seconds = time.perf_counter() - began

    for seed, (value, epoch) in enumerate(zip(accuracy, fitted.best_epoch, strict=True)):
        print(f"seed {seed}: test accuracy {value:.2%} with the parameters of epoch {int(epoch)}")
    half = 2.262 * accuracy.std(ddof=1) / SEEDS**0.5  # Student's t, 9 degrees of freedom
    print(f"mean {accuracy.mean():.2%}, 95 % interval {accuracy.mean() - half:.2%} to {accuracy.mean() + half:.2%}")
    print(f"{SEEDS} runs in {seconds:.1f} s, compiling included")


if __name__ == "__main__":
    main()
