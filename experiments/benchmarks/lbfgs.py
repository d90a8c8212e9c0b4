"""Does L-BFGS train a network by its whole batch as fast as scipy's L-BFGS-B does?

    .venv/bin/python experiments/benchmarks/lbfgs.py [digits | fashion]

All three start from the same parameters in float32, keep ten pairs and stop at the first iteration whose loss is at
most the target: ours and optax.lbfgs (its default zoom line search) in one compiled loop, scipy's with one compiled
value_and_grad of the flat vector. In turn, ABCABC…; seconds are the median of the pairs, compile time beside it.
scipy's BLAS gets one thread: with two, its threads and XLA's fight over the cores, and it takes 3 to 4 times as long.

Two cores, other work beside it: digits 34 ms, 0.72 of scipy's time (optax 0.77); 784-128-10 2.7 s, 0.51 of it (optax
0.65). Steps and evaluations nearly agree: 36 steps by 38 evaluations (scipy 35 by 36), 99 by 108 (107 by 114). The
first call, mostly compiling, takes 4 s longer than the next (scipy's at most 0.4 s, optax's 3 s). So: no slower than
scipy; and optax in one compiled loop isn't slow either.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is imported
import contextlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize as scipy_minimize

import jaxnet as jn
from jaxnet.optimizers.second_order.lbfgs import lbfgs
from jaxnet.optimizers.second_order.method import of_function

CASES = {  # name: (data, rows, units, target loss, pairs)
    "digits": ("digits", 1437, [64, 10], 1e-2, 7),
    "fashion": ("fashion_mnist", 4000, [128, 10], 0.2, 3),
}
STEPS = 2000


class Reached(Exception):
    """scipy has no other way to stop at a value."""


def ours(fun, params, target):
    method, problem = lbfgs(), of_function(fun)

    @jax.jit
    def run(params):
        def going_on(state):
            return (state.value > target) & (state.iteration < STEPS)

        state = jax.lax.while_loop(going_on, lambda s: method.step(problem, s), method.init(problem, params))
        return state.value, state.iteration, state.evaluations

    return lambda: run(params)


def of_optax(fun, params, target):
    optimizer = optax.lbfgs(memory_size=10)
    value_and_grad = optax.value_and_grad_from_state(fun)

    @jax.jit
    def run(params):
        def going_on(loop):
            _, _, value, count = loop
            return (value > target) & (count < STEPS)

        def body(loop):
            params, state, _, count = loop
            value, grad = value_and_grad(params, state=state)
            updates, state = optimizer.update(grad, state, params, value=value, grad=grad, value_fn=fun)
            params = optax.apply_updates(params, updates)
            return params, state, optax.tree.get(state, "value"), count + 1

        with jax.numpy_dtype_promotion("standard"):
            start = (params, optimizer.init(params), jnp.asarray(jnp.inf, jnp.float32), jnp.asarray(0))
            _, _, value, count = jax.lax.while_loop(going_on, body, start)
        return value, count, jnp.asarray(-1)

    return lambda: run(params)


def of_scipy(fun, params, target):
    flat, tree = ravel_pytree(params)
    value_and_grad = jax.jit(jax.value_and_grad(lambda v: fun(tree(v))))
    start = np.asarray(flat, np.float64)

    def run():
        seen = [np.inf, 0, 0]

        def evaluate(v):
            value, grad = value_and_grad(jnp.asarray(v, jnp.float32))
            seen[0], seen[2] = float(value), seen[2] + 1
            return seen[0], np.asarray(grad, np.float64)

        def after(intermediate_result):
            seen[0], seen[1] = intermediate_result.fun, seen[1] + 1
            if seen[0] <= target:
                raise Reached

        options = {"maxcor": 10, "maxiter": STEPS, "maxfun": 2 * STEPS, "gtol": 0, "ftol": 0}
        with contextlib.suppress(Reached):
            scipy_minimize(evaluate, start, jac=True, method="L-BFGS-B", callback=after, options=options)
        return seen

    return run


def timed(run):
    begin = time.perf_counter()
    found = [float(a) for a in jax.block_until_ready(run())]
    return time.perf_counter() - begin, found


def main(names) -> None:
    for case in names or CASES:
        data, rows, units, target, pairs = CASES[case]
        x, y = (a[:rows] for a in jn.data.load(data))
        net = jn.mlp(units)
        params, state = net.init(jax.random.key(0), x.shape[1:])
        x, y = jnp.asarray(x, jnp.float32) / jnp.max(x), jnp.asarray(y)

        def fun(params, net=net, state=state, x=x, y=y):
            return jnp.mean(jn.losses.softmax_cross_entropy(net.apply(params, state, x)[0], y))

        runs = {"ours": ours, "scipy": of_scipy, "optax": of_optax}
        runs = {name: make(fun, params, target) for name, make in runs.items()}
        first = {name: timed(run)[0] for name, run in runs.items()}
        took = {name: [] for name in runs}
        for _ in range(pairs):
            for name, run in runs.items():
                seconds, found = timed(run)
                took[name].append((seconds, *found))
        print(f"{case}: {x.shape[1]}-{'-'.join(map(str, units))}, {rows} rows, to a loss of {target}")
        for name, rows_of in took.items():
            seconds = statistics.median(row[0] for row in rows_of)
            _, value, steps, evaluations = rows_of[-1]
            ratio = statistics.median(row[0] / base[0] for row, base in zip(rows_of, took["scipy"], strict=True))
            print(
                f"  {name:<6} {seconds:7.3f} s, {ratio:5.2f} of scipy's   {steps:4.0f} steps, {evaluations:4.0f} "
                f"evaluations, {seconds / steps * 1e3:6.2f} ms a step, loss {value:.5f}; first call "
                f"{first[name] - seconds:+.2f} s",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
