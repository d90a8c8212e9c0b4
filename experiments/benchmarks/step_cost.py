"""What a `fit` costs beside the leanest hand-written scan of raw jax and optax, and beside scikit-learn's MLP.

    .venv/bin/python experiments/benchmarks/step_cost.py

Side by side in one process: the contenders run in turn, ABAB…, and the ratio is the median of the pairs' ratios, so a
noisy machine moves both. The lean scan is what one writes by hand for one network and one data set: parameters in a
list, `jax.value_and_grad`, Adam, batches by index, `jax.random.permutation`, no validation, nothing kept but the loss.
The number of examples is a multiple of the batch, since the lean scan drops a remainder. `own shuffle` gives the lean
scan jaxnet's cheaper shuffle, so that what is left is the cost of everything else. Validation evaluates a tenth of
the examples each epoch. Compile time is left out (see compile_time.py); the checks of the data are in.

Result (2 cores, jax 0.10.2; median ratio, quartiles in brackets):

    64-32-10, batch 32
      fit                       / lean scan                0.84  (0.82…0.86)
      fit                       / lean scan, own shuffle   1.03  (0.99…1.04)
      fit, validation, patience / lean scan                0.88  (0.88…0.91)
      fit, validation, patience / lean scan, own shuffle   1.07  (1.05…1.08)
      scikit-learn              / fit                     10.11  (9.79…10.15)
    784-512-256-10, batch 128
      fit                       / lean scan                1.00  (0.99…1.03)
      fit                       / lean scan, own shuffle   1.06  (0.99…1.06)
      fit, validation, patience / lean scan                1.06  (1.02…1.07)
      fit, validation, patience / lean scan, own shuffle   1.06  (0.99…1.07)
      scikit-learn              / fit                      5.72  (4.24…11.15)
"""

import itertools
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnet as jn
from jaxnet.training.batches import shuffled

CASES = {  # name: (inputs, units, batch, examples, epochs, pairs)
    "64-32-10, batch 32": (64, [32, 10], 32, 1408, 30, 41),
    "784-512-256-10, batch 128": (784, [512, 256, 10], 128, 12800, 5, 9),
}


def lean(units, batch, examples, epochs, permutation):
    """The hand-written run: (key, x, y) -> parameters."""
    optimizer = optax.adam(1e-3)

    def loss(params, x, y):
        for w, b in params[:-1]:
            x = jax.nn.relu(x @ w + b)
        w, b = params[-1]
        return optax.softmax_cross_entropy_with_integer_labels(x @ w + b, y).mean()

    @jax.jit
    def train(key, x, y):
        sizes, params = [x.shape[1], *units], []
        for i, (m, n) in enumerate(zip(sizes, units, strict=False)):
            params.append((jax.random.normal(jax.random.fold_in(key, i), (m, n)) * (2 / m) ** 0.5, jnp.zeros(n)))

        def epoch(carry, key):
            def step(carry, rows):
                params, opt_state = carry
                value, grads = jax.value_and_grad(loss)(params, x[rows], y[rows])
                updates, opt_state = optimizer.update(grads, opt_state, params)
                return (optax.apply_updates(params, updates), opt_state), value

            carry, values = jax.lax.scan(step, carry, permutation(key, examples).reshape(-1, batch))
            return carry, values.mean()

        return jax.lax.scan(epoch, (params, optimizer.init(params)), jax.random.split(key, epochs))

    return train


def seconds(function) -> float:
    began = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - began


def compared(ours, theirs, pairs: int) -> tuple[float, float, float, float]:
    """Median ratio, its quartiles, and the median seconds of `ours`, over alternating pairs."""
    ours(), theirs()
    times = np.array([(seconds(ours), seconds(theirs)) for _ in range(pairs)])
    low, middle, high = np.quantile(times[:, 0] / times[:, 1], [0.25, 0.5, 0.75])
    return middle, low, high, float(np.median(times[:, 0]))


def scikit_learn(x, y, units, batch, epochs):
    from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(
        units[:-1], batch_size=batch, max_iter=epochs, learning_rate_init=1e-3, alpha=0, tol=0, n_iter_no_change=epochs
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would like to go on
        model.fit(x, y)


def measure(inputs, units, batch, examples, epochs, pairs) -> None:
    """Print one case's table."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((examples + examples // 10, inputs)), jnp.float32)
    y = jnp.asarray(rng.integers(0, units[-1], x.shape[0]), jnp.int32)
    train, valid, key = (x[:examples], y[:examples]), (x[examples:], y[examples:]), jax.random.key(0)
    net, loss = jn.mlp(units), jn.losses.softmax_cross_entropy
    plain = jn.program(net, loss, optax.adam(1e-3), batch_size=batch)
    watched = jn.program(net, loss, optax.adam(1e-3), batch_size=batch, patience=epochs + 1)
    hand = lean(units, batch, examples, epochs, jax.random.permutation)
    cheaper = lean(units, batch, examples, epochs, shuffled)
    host = np.asarray(train[0]), np.asarray(train[1])

    contenders = {
        "fit": lambda: jn.fit(key, plain, jn.Data(train), epochs=epochs).params,
        "fit, validation, patience": lambda: jn.fit(key, watched, jn.Data(train, valid), epochs=epochs).params,
        "lean scan": lambda: hand(key, *train),
        "lean scan, own shuffle": lambda: cheaper(key, *train),
        "scikit-learn": lambda: scikit_learn(*host, units, batch, epochs),
    }
    steps = epochs * examples // batch
    for one, other in itertools.product(list(contenders)[:2], list(contenders)[2:4]):
        show(one, other, compared(contenders[one], contenders[other], pairs), steps)
    show("scikit-learn", "fit", compared(contenders["scikit-learn"], contenders["fit"], 3), steps)


def show(one, other, result, steps) -> None:
    ratio, low, high, took = result
    print(
        f"  {one:<25} / {other:<22} {ratio:6.2f}  ({low:.2f}…{high:.2f})  {took / steps * 1e6:7.1f} µs a step",
        flush=True,
    )


def main() -> None:
    for name, case in CASES.items():
        print(f"{name}: {case[4]} epochs of {case[3]:,} examples")
        measure(*case)


if __name__ == "__main__":
    main()
