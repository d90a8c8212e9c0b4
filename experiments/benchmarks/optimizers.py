"""What a training step costs with each rule of `jaxnet.optimizers`, beside optax's nearest rule.

    .venv/bin/python experiments/benchmarks/optimizers.py [rule ...]

Both run in one process in turn, ABAB…, as in step_cost.py, in the same scan over the same batches, with the rate an
argument of the program; the ratio is the median of the pairs' ratios, quartiles in brackets. `alone` is one network,
`of 8` a vmapped population whose members have rates of their own. One program against itself (`the same twice`)
shows what the machine's noise makes of 1.
"""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from step_cost import compared

import jaxnet as jn
from jaxnet import optimizers

CASES = {  # name: (inputs, units, batch, steps, pairs)
    "64-32-10, batch 32": (64, [32, 10], 32, 400, 21),
    "784-512-256-10, batch 128": (784, [512, 256, 10], 128, 8, 9),
}
RULES = {  # name: ours, optax's nearest
    "the same twice": (optax.adam, optax.adam),
    "momentum": (optimizers.momentum, lambda rate: optax.sgd(rate, momentum=0.9)),
    "nesterov": (optimizers.nesterov, lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True)),
    "adagrad": (optimizers.adagrad, optax.adagrad),
    "rmsprop": (optimizers.rmsprop, optax.rmsprop),
    "centered_rmsprop": (optimizers.centered_rmsprop, lambda rate: optax.rmsprop(rate, centered=True)),
    "rmsprop_nesterov": (
        optimizers.rmsprop_nesterov,
        lambda rate: optax.rmsprop(rate, momentum=0.9, nesterov=True),
    ),
    "adadelta": (lambda rate: optimizers.adadelta(epsilon=rate), lambda rate: optax.adadelta(1.0, 0.95, rate)),
    "adam": (optimizers.adam, optax.adam),
    "adamax": (optimizers.adamax, optax.adamax),
    "amsgrad": (optimizers.amsgrad, optax.amsgrad),
}
MEMBERS = 8


def trainer(rule, inputs, units, batch, steps, members):
    """() -> parameters after a scan of steps, compiled."""
    net = jn.mlp(units)
    gradient = jn.loss_and_grad(net, jn.losses.softmax_cross_entropy)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.random((16, batch, inputs)), jnp.float32)
    y = jnp.asarray(rng.integers(0, units[-1], (16, batch)), jnp.int32)
    params, state = net.init(jax.random.key(0), (inputs,))

    def train(rate, x, y):
        optimizer = rule(rate)

        def step(carry, i):
            params, opt_state = carry
            _, grads = gradient(params, state, (x[i], y[i]))
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps) % 16)[0][0]

    if members is None:
        rates, run = jnp.asarray(1e-3, jnp.float32), jax.jit(train)
    else:
        rates, run = jnp.linspace(1e-4, 1e-3, members, dtype=jnp.float32), jax.jit(jax.vmap(train, (0, None, None)))
    return lambda: run(rates, x, y)


def main(names) -> None:
    for case, (inputs, units, batch, steps, pairs) in CASES.items():
        print(case)
        for name in names or RULES:
            cells = []
            for members in (None, MEMBERS):
                ours, theirs = (trainer(rule, inputs, units, batch, steps, members) for rule in RULES[name])
                ratio, low, high, took = compared(ours, theirs, pairs)
                each = took / steps / (members or 1) * 1e6
                cells.append(
                    f"{'alone' if members is None else f'of {members}':<5} {ratio:5.2f}  ({low:.2f}…{high:.2f}) "
                    f"{each:7.1f} µs a step"
                )
            print(f"  {name:<17} " + "    ".join(cells), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
