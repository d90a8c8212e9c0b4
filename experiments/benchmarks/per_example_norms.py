"""Norms of each example's gradient: by back-propagation alone, and through `vmap` of `jax.grad`.

    .venv/bin/python experiments/benchmarks/per_example_norms.py

A 784-512-256-10 network, batch 512, float32. Side by side in one process, in turn; the ratio is the median of the
pairs'. Memory is what XLA plans for temporaries and results.

Result (2 cores of a busy machine, jax 0.10.2; median, quartiles in brackets):

    time: vmap(grad) takes 52.3 (35.6…73.8) times as long as 31.1 ms
    memory: 785 MiB and 3.0 MiB, 261 times as much
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

import jaxnet as jn

BATCH, PAIRS = 512, 11


def main() -> None:
    net, loss = jn.mlp([512, 256, 10]), jn.losses.softmax_cross_entropy
    params, state = net.init(jax.random.key(0), (784,))
    rng = np.random.default_rng(0)
    batch = jnp.asarray(rng.normal(size=(BATCH, 784)), jnp.float32), jnp.asarray(rng.integers(0, 10, BATCH))

    def by_grad(params, batch):
        _, gradients = jn.per_example_gradients(net, loss)(params, state, batch)
        return jnp.sqrt(sum(jnp.sum(jnp.square(g.reshape(BATCH, -1)), axis=1) for g in jax.tree.leaves(gradients)))

    def by_norms(params, batch):
        return jn.per_example_norms(net, loss)(params, state, batch)

    contenders = [jax.jit(f).lower(params, batch).compile() for f in (by_norms, by_grad)]
    results = [np.asarray(f(params, batch)) for f in contenders]
    np.testing.assert_allclose(*results, rtol=1e-4)

    seconds = []
    for _ in range(PAIRS):
        pair = []
        for f in contenders:
            began = time.perf_counter()
            jax.block_until_ready(f(params, batch))
            pair.append(time.perf_counter() - began)
        seconds.append(pair)
    ratios = np.array([theirs / mine for mine, theirs in seconds])
    plans = [f.memory_analysis() for f in contenders]
    sizes = [(plan.temp_size_in_bytes + plan.output_size_in_bytes) / 2**20 for plan in plans]
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    ours = 1e3 * np.median(seconds, axis=0)[0]
    print(f"time: vmap(grad) takes {middle:.1f} ({low:.1f}…{high:.1f}) times as long as {ours:.1f} ms")
    print(f"memory: {sizes[1]:.0f} MiB and {sizes[0]:.1f} MiB, {sizes[1] / sizes[0]:.0f} times as much")


if __name__ == "__main__":
    main()
