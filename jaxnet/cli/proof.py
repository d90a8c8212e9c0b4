"""The proof that the demo shows: each layer's hand-written backward against `jax.grad`, in float64, on real digits.

    python -m jaxnet.cli.proof      prints one JSON list of {"layer", "leaf", "shape", "error", "bound"}

A process of its own, because float64 is switched on for a whole process (JAX_ENABLE_X64=1), and beside the training.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def started() -> Iterator[subprocess.Popen]:
    """The proof as a process in float64 on the CPU, which never outlives the block; read it with `finished`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "jaxnet.cli.proof"],
        env=os.environ | {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()  # nothing to a process that has ended
        process.communicate()


def finished(process: subprocess.Popen) -> list[dict]:
    """Wait for the process; its rows.

    Raises:
        OSError: it failed; the message ends with what it wrote.
    """
    out, err = process.communicate()
    if process.returncode:
        raise OSError(f"the gradient proof failed (exit code {process.returncode}): {err.strip()[-500:]}")
    return json.loads(out)


def rows() -> list[dict]:
    """One row per array of parameters of a network with every activation and dropout, on 64 digits."""
    import jax

    import jaxnet as jn
    from jaxnet.testing import compare_gradients

    hidden = ("relu", "tanh", "sigmoid", "softplus", "softmax", "identity")
    parts = [part for name in hidden for part in (jn.dense(32), jn.layers.activation(name))]
    net = jn.serial(*parts, jn.dropout(0.3), jn.dense(10))
    x, y = (a[:64] for a in jn.data.load("digits"))
    params, state = net.init(jax.random.key(0), x.shape[1:])
    loss = jn.losses.softmax_cross_entropy
    report = compare_gradients(
        jn.penalized(jn.backprop(net, loss), l2=1e-3),
        jn.penalized(jn.loss_and_grad(net, loss), l2=1e-3),
        params, state, (jax.numpy.asarray(x), jax.numpy.asarray(y)), key=jax.random.key(1),
    )  # fmt: skip
    described = dict(
        zip([f"dense_{i}" for i in range(len(hidden) + 1)], [*hidden[:-1], "identity, dropout", "logits"], strict=True)
    )
    table = []
    for leaf in report.leaves:
        layer, _, name = leaf.path.partition(".")
        shown = f"dense → {described[layer]}" if layer in described else "softmax cross-entropy"
        table.append(
            {"layer": shown, "leaf": name or "loss", "shape": leaf.shape, "error": leaf.error, "bound": leaf.bound}
        )
    return table


if __name__ == "__main__":
    print(json.dumps(rows()))
