"""How long one waits for the compiler: `fit` on digits alone and as a population of 64.

    .venv/bin/python experiments/benchmarks/compile_time.py

Seconds from the first call of `lower` to a program that can be called (tracing included, no cache), in a fresh process
each, the median of five. The run: 64-64-10 with dropout, AdamW, batch 32, validation, patience; two batch sizes, so two
scans. Also counts how often XLA compiles when one `jax.jit` serves 50 learning rates.

Result: 2.28 s (2.23…2.50) alone, 3.56 s (3.30…3.72) for 64 (2 cores, jax 0.10.2); one program for 50 rates.
"""

import statistics
import subprocess
import sys
import time

RUNS = 5


def measure(members: int) -> float:
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    import jaxnet as jn

    train, valid = jn.data.split(jn.data.load("digits"), 0.2, key=jax.random.key(0))
    data = jax.device_put(jn.Data(train, valid))

    def run(key, lr, data):
        optimizer = optax.adamw(lr, weight_decay=1e-2)
        net = jn.mlp([64, 10], dropout=0.3)
        program = jn.program(net, jn.losses.softmax_cross_entropy, optimizer, batch_size=32, patience=5)
        return jn.fit(key, program, data, epochs=30)

    keys, rates = jax.random.split(jax.random.key(0), members), jnp.geomspace(1e-4, 1e-1, members)
    function = run if members == 1 else jax.vmap(run, in_axes=(0, 0, None))
    arguments = (keys[0], rates[0], data) if members == 1 else (keys, rates, data)
    jax.block_until_ready(jnp.ones(3) + 1)  # the backend is up
    compiles = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration, **_: compiles.append(event) if "backend_compile" in event else None
    )
    began = time.perf_counter()
    compiled = jax.jit(function).lower(*arguments).compile()
    took = time.perf_counter() - began
    jax.block_until_ready(compiled(*arguments))
    if members == 1:
        one = jax.jit(function)
        for rate in [jnp.float32(r) for r in np.geomspace(1e-4, 1e-1, 50)]:
            jax.block_until_ready(one(keys[0], rate, data))
        print(f"  programs that XLA compiled for 50 learning rates: {len(compiles)}", file=sys.stderr)

    return took


def main() -> None:
    if len(sys.argv) == 2:
        print(measure(int(sys.argv[1])))
        return
    for members in (1, 64):
        outcomes = [
            subprocess.run([sys.executable, __file__, str(members)], check=True, capture_output=True, text=True)
            for _ in range(RUNS)
        ]
        times = [float(o.stdout) for o in outcomes]
        print(f"{members:2} member(s): {statistics.median(times):.2f} s ({min(times):.2f}…{max(times):.2f})")
        if members == 1:
            print(outcomes[0].stderr.splitlines()[-1])


if __name__ == "__main__":
    main()
