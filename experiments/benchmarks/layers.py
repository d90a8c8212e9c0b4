"""Each layer beside flax's (linen) and equinox's of the same kind, forward and backward.

    .venv/bin/python experiments/benchmarks/layers.py [--only conv lstm] [--rounds 9]

A call is the jitted gradient of Σ y dy by parameters and inputs (`jax.grad`, training mode); `once` is one call, `loop`
a `lax.scan` of ten steps of gradient descent on parameters and inputs, which is where layers are used in a study.
`backprop` is the hand-written backward in place of `jax.grad`. The contenders run in turn, ABC…, in slices of some
10 ms in one process, and a ratio is the median over rounds of ours / the rival's in the same round: above 1 jaxnet is
slower. Ratios above 1.10 are marked *. Every library has its own layout: equinox's layers are for one example with
channels first, so they run under `vmap`. Beside pooling, maxout and activations stands plain `flax.linen` or `jax.nn`.
Batches of 32.

Result (2 cores shared with other work, load 6 to 8, jax 0.10.2, flax 0.12.8, equinox 0.13.8; one run of 5 rounds,
3 for direct convolutions, taken piecemeal; ratios once, loop). Ratios of so busy a machine scatter by tens of per
cent and more, so a mark is a suspicion until it is seen again on a quiet one. Rows that aren't here weren't measured.

                                           / flax       / equinox   backprop / flax
    dense(64)          64              0.92, 0.35     0.69, 1.55*       1.20*, 0.55
    dense(256)         784             1.02, 1.00      0.96, 1.04        0.99, 0.96
    conv (3, 3) patches 14×14×16      1.23*, 0.05     1.45*, 0.23        0.61, 0.04
    conv (3, 3) direct  14×14×16       1.04, 0.02      0.83, 0.14        1.09, 0.02
    conv (5, 5) direct  14×14×16       0.96, 0.02      0.92, 0.13        0.98, 0.02
    conv (3, 3) direct stride 2        1.03, 0.08      0.85, 0.07        1.08, 0.06
    max_pool(2, 2)     14×14×16        0.17, 0.09      0.10, 0.09        0.14, 0.19
    average_pool(2, 2) 14×14×16       1.64*, 0.47               –       1.14*, 1.08
    batch_norm         256             0.66, 0.83               –       1.59*, 0.78
    batch_norm         14×14×16      1.84*, 2.08*               –      1.59*, 1.64*
    layer_norm         256           1.14*, 1.29*      0.98, 0.94       0.90, 1.15*
    rms_norm           256           1.17*, 1.11*      0.98, 0.98        1.07, 0.91
    embedding          50              1.07, 1.00               –        1.05, 1.01
    rnn                50×64          2.02*, 0.90               –        1.00, 0.81
    lstm               50×64          1.31*, 1.02               –      1.77*, 1.77*
    gru                50×64           1.08, 0.99               –      1.17*, 1.46*
    rnn                50×8           2.68*, 0.70               –        0.47, 0.55
    dropout            256             0.73, 1.00               –        0.75, 0.96
    maxout             256             0.09, 0.04      0.09, 0.04        0.08, 0.04
    prelu              256             1.09, 1.05      0.86, 0.80        1.02, 0.95
    relu               256             0.96, 1.06               –        1.01, 0.99
    tanh               256             1.01, 1.01               –        1.00, 1.04
    softmax            256             1.00, 1.00               –       1.02, 1.24*
"""

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxnet import layers

BATCH, STEPS, SLICE = 32, 10, 0.01
KEY = jax.random.key(0)
Function = Callable[[Any, Any], Any]  # (parameters, inputs) -> outputs


class Contender(NamedTuple):
    function: Function
    params: Any
    x: Any
    backward: Callable[[Any, Any, Any], Any] | None = None  # (parameters, inputs, dy) -> (dparameters, dx)


class Case(NamedTuple):
    name: str
    shape: tuple[int, ...]  # of one example, channels last
    layer: layers.Layer
    flax: nn.Module | Function | None
    equinox: Any = None  # a module for one example
    ids: int = 0  # integer inputs below this


def cases() -> Iterator[Case]:
    for n, units in ((64, 64), (784, 256)):
        yield Case(f"dense({units})", (n,), layers.dense(units), nn.Dense(units), eqx.nn.Linear(n, units, key=KEY))

    image, sequence = (14, 14, 16), (64, 16)
    for text, shape, units, kernel, options in (
        ("", image, 32, (3, 3), {}),
        ("", image, 32, (5, 5), {}),
        (" VALID", image, 32, (3, 3), {"padding": "VALID"}),
        (" stride 2", image, 32, (3, 3), {"stride": 2}),
        (" dilation 2", image, 32, (3, 3), {"dilation": 2}),
        (" groups 4", image, 32, (3, 3), {"groups": 4}),
        (" depthwise", image, 16, (3, 3), {"groups": 16}),
        ("", sequence, 32, (5,), {}),
    ):
        axes = len(kernel)
        stride, dilation = options.get("stride", 1), options.get("dilation", 1)
        padding, groups = options.get("padding", "SAME"), options.get("groups", 1)
        rivals = (
            nn.Conv(units, kernel, stride, padding, kernel_dilation=dilation, feature_group_count=groups),
            eqx.nn.Conv(axes, shape[-1], units, kernel, stride, padding, dilation=dilation, groups=groups, key=KEY),
        )
        for method in ("patches", "direct"):
            same = {"stride": stride, "dilation": dilation, "padding": padding, "method": method}
            depthwise = groups == shape[-1]
            layer = (
                layers.depthwise_conv(kernel, **same)
                if depthwise
                else layers.conv(units, kernel, groups=groups, **same)
            )
            yield Case(f"conv{kernel}{text} {method}", shape, layer, *rivals)
    for method in ("patches", "direct"):
        yield Case(
            f"conv_transpose stride 2 {method}",
            (7, 7, 16),
            layers.conv_transpose(16, (4, 4), stride=2, method=method),
            nn.ConvTranspose(16, (4, 4), (2, 2)),
        )

    yield Case(
        "max_pool(2, 2)", image, layers.max_pool((2, 2)), lambda _, x: nn.max_pool(x, (2, 2), (2, 2)),
        eqx.nn.MaxPool2d(2, 2),
    )  # fmt: skip
    yield Case(
        "average_pool(2, 2)", image, layers.average_pool((2, 2)), lambda _, x: nn.avg_pool(x, (2, 2), (2, 2)),
        eqx.nn.AvgPool2d(2, 2),
    )  # fmt: skip
    for shape in ((256,), image):
        yield Case("batch_norm", shape, layers.batch_norm(), nn.BatchNorm(use_running_average=False))
    yield Case("layer_norm", (256,), layers.layer_norm(), nn.LayerNorm(), eqx.nn.LayerNorm(256))
    yield Case("rms_norm", (256,), layers.rms_norm(), nn.RMSNorm(), eqx.nn.RMSNorm(256))
    yield Case(
        "embedding", (50,), layers.embedding(1000, 64), nn.Embed(1000, 64),
        None, 1000,
    )  # fmt: skip
    for units in (64, 8):
        yield Case("rnn", (50, units), layers.rnn(units), nn.RNN(nn.SimpleCell(units)))
        yield Case("lstm", (50, units), layers.lstm(units), nn.RNN(nn.OptimizedLSTMCell(units)))
        yield Case("gru", (50, units), layers.gru(units), nn.RNN(nn.GRUCell(units)))
    yield Case("dropout", (256,), layers.dropout(0.5), nn.Dropout(0.5, deterministic=False))
    yield Case("maxout", (256,), layers.maxout(2), lambda _, x: x.reshape(-1, 128, 2).max(-1), eqx.nn.Lambda(
        lambda x: x.reshape(128, 2).max(-1)
    ))  # fmt: skip
    yield Case("prelu", (256,), layers.prelu(shared=True), nn.PReLU(), eqx.nn.PReLU(0.25))
    for name in ("relu", "tanh", "softplus", "softmax"):
        yield Case(name, (256,), getattr(layers, name)(), partial(_elementwise, getattr(jax.nn, name)))


def _elementwise(f, params, x):
    return f(x)


def contenders(case: Case) -> dict[str, Contender]:
    rng = np.random.default_rng(0)
    shape = (BATCH, *case.shape)
    x = jnp.asarray(rng.integers(0, case.ids, shape) if case.ids else rng.normal(size=shape).astype(np.float32))
    spec = jax.ShapeDtypeStruct(case.shape, x.dtype)
    params, state = case.layer.init(KEY, spec)

    def ours(p, x):
        return case.layer.apply(p, state, x, key=KEY, train=True)[0]

    def by_hand(p, x, dy):
        dx, dp = case.layer.backward(p, state, x, dy, key=KEY, train=True)
        return dp, dx

    found = {"ours": Contender(ours, params, x), "backprop": Contender(ours, params, x, by_hand)}
    if isinstance(case.flax, nn.Module):
        module, rngs = case.flax, {"params": KEY, "dropout": KEY}
        variables = dict(module.init(rngs, x))
        weights = variables.pop("params", {})

        def flax(p, x):
            return module.apply({"params": p, **variables}, x, rngs=rngs, mutable=[*variables])[0]

        found["flax"] = Contender(flax, weights, x)
    elif case.flax:
        found["flax"] = Contender(case.flax, {}, x)
    if case.equinox is not None:
        arrays, static = eqx.partition(case.equinox, eqx.is_inexact_array)

        def equinox(p, x):
            return jax.vmap(eqx.combine(p, static))(x)

        found["equinox"] = Contender(equinox, arrays, jnp.moveaxis(x, -1, 1))
    return found


def programs(contender: Contender) -> dict[str, Callable[[], Any]]:
    """The compiled calls without arguments, by situation."""
    function, params, x, backward = contender
    real = jnp.issubdtype(x.dtype, jnp.inexact)
    shape = jax.eval_shape(function, params, x).shape
    dy = jnp.asarray(np.random.default_rng(1).normal(size=shape).astype(np.float32))

    def gradient(p, x, dy):
        if backward:
            return backward(p, x, dy)
        objective = lambda p, x: jnp.sum(function(p, x) * dy)  # noqa: E731
        return jax.grad(objective, (0, 1))(p, x) if real else (jax.grad(objective)(p, x), None)

    def descend(p, x, dy):
        def step(carry, _):
            p, x = carry
            dp, dx = gradient(p, x, dy)
            p = jax.tree.map(lambda w, d: w - 1e-4 * d, p, dp)
            return (p, x - 1e-4 * dx if real else x), None

        return jax.lax.scan(step, (p, x), None, STEPS)[0]

    compiled = {"once": jax.jit(gradient), "loop": jax.jit(descend)}
    return {name: lambda f=f: f(params, x, dy) for name, f in compiled.items()}


def seconds(call: Callable[[], Any], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - began) / count


def compare(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds per call of each contender, round by round."""
    counts = {}
    for name, call in calls.items():
        jax.block_until_ready(call())  # compiles
        counts[name] = max(1, min(1000, round(SLICE / seconds(call, 1))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call, counts[name]))
    return times


def ratio(a: list[float], b: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def main(only: tuple[str, ...] = (), rounds: int = 9) -> None:
    """Compare the layers whose names contain one of `only`, all unless given."""
    head = ("µs", "/ flax", "/ equinox", "backprop / flax")
    print(f"{'layer':<34}{'example':<14}" + "".join(f"{w:>18}" for w in head) + "   once, loop (per step)")
    for case in cases():
        if only and not any(word in case.name for word in only):
            continue
        built = {name: programs(contender) for name, contender in contenders(case).items()}
        columns: dict[str, list[str]] = {name: [] for name in head}
        for situation, steps in (("once", 1), ("loop", STEPS)):
            times = compare({name: calls[situation] for name, calls in built.items()}, rounds)
            columns["µs"].append(f"{1e6 * statistics.median(times['ours']) / steps:.0f}")
            pairs = (("/ flax", "ours", "flax"), ("/ equinox", "ours", "equinox"))
            for column, a, b in (*pairs, ("backprop / flax", "backprop", "flax")):
                r = ratio(times[a], times[b]) if b in times else None
                columns[column].append("–" if r is None else f"{r:.2f}" + "*" * (r > 1.10))
        shown = "".join(f"{', '.join(values):>18}" for values in columns.values())
        print(f"{case.name:<34}{'×'.join(map(str, case.shape)):<14}{shown}", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
