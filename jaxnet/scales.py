"""How large the numbers of one step are, layer by layer: outputs, gradients, parameters; dead and saturated units.

The step is traced once and evaluated operation by operation; the layer of each is read off the names that combinators
give to what they trace. A layer's output is its last floating result with a row per example.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.gradients import weighted_mean
from jaxnet.origins import evaluate, scope_of

# Bounded activations: a unit's output within 1 % of the range from a bound is saturated.
BOUNDS = {
    "tanh": (-1.0, 1.0), "hard_tanh": (-1.0, 1.0), "softsign": (-1.0, 1.0), "sigmoid": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
}  # fmt: skip


@dataclass(frozen=True)
class LayerRow:
    """One layer of the step. Scales are means of absolute values over the batch; NaN where there's nothing."""

    path: str
    shape: tuple[int, ...]  # of its output, with the batch
    output: float  # mean |h|
    deviation: float  # standard deviation of h
    largest: float  # max |h|
    gradient: float  # mean |∂L/∂h|, times the number of examples
    weights: float  # mean |θ| of its own parameters
    slope: float  # mean |∂L/∂θ|
    dead: float  # share of units (last axis) whose output is 0 for all examples
    saturated: float  # share of outputs within 1 % of a bound of tanh, sigmoid and their like


def layer_rows(net, loss, params, state, batch, grads, key, train) -> tuple[LayerRow, ...]:
    """One row for each layer of `net` that computed something on the batch, in order.

    `grads` are the loss's gradients by `params`; the rest is as for `explain`.

    >>> import jaxnet as jn
    >>> params = {"dense_0": {"w": jnp.full((1, 1), 2.0)}}
    >>> net, loss, batch = jn.serial(jn.dense(1, bias=False)), jn.losses.squared_error, (jnp.ones((4, 1)),) * 2
    >>> (row,) = layer_rows(net, loss, params, {}, batch, params, None, False)
    >>> row.path, row.output, row.gradient, row.weights
    ('dense_0', 2.0, 1.0, 2.0)
    """
    x, y, *weight = batch
    count = jax.tree.leaves(x)[0].shape[0]
    inputs, structure = jax.tree.flatten((params, x))

    def forward(*leaves):
        params, x = jax.tree.unflatten(structure, leaves)
        return net.apply(params, state, x, key=key, train=train)[0]

    closed, shape = jax.make_jaxpr(forward, return_shape=True)(*inputs)
    jaxpr, output = closed.jaxpr, jax.tree.structure(shape)
    last = _last_equations(jaxpr, count)

    def read(known, variable):
        return variable.val if hasattr(variable, "val") else known[variable]

    def run(changes):
        """The mean loss with a change of each layer's output, and those outputs."""
        known = dict(zip(jaxpr.constvars, closed.consts, strict=True)) | dict(zip(jaxpr.invars, inputs, strict=True))
        hidden = {}
        for i, equation in enumerate(jaxpr.eqns):
            results = evaluate(jaxpr, equation, [read(known, v) for v in equation.invars])
            known |= dict(zip(equation.outvars, results, strict=True))
            if i in last:
                path, variable = last[i]
                hidden[path] = known[variable] = known[variable] + changes[path]
        z = jax.tree.unflatten(output, [read(known, v) for v in jaxpr.outvars])
        return weighted_mean(loss.value(z, y), *weight), hidden

    zeros = {path: jnp.zeros(v.aval.shape, v.aval.dtype) for path, v in last.values()}
    slopes, hidden = jax.jit(jax.grad(run, has_aux=True))(zeros)
    return tuple(
        _row(path, np.asarray(hidden[path], np.float64), np.asarray(slopes[path], np.float64), params, grads, count)
        for _, (path, _) in sorted(last.items())
    )


def _last_equations(jaxpr, count) -> dict[int, tuple[str, Any]]:
    """equation -> (layer, variable) of the layers' outputs; a (count,) never stands for one of more axes."""
    found: dict[str, tuple[int, Any]] = {}
    for i, equation in enumerate(jaxpr.eqns):
        path, _ = scope_of(equation)
        for variable in equation.outvars:
            aval = variable.aval
            if not path or getattr(aval, "shape", ())[:1] != (count,) or not jnp.issubdtype(aval.dtype, jnp.floating):
                continue
            if path not in found or aval.ndim > 1 or found[path][1].aval.ndim == 1:
                found[path] = (i, variable)
    return {i: (path, variable) for path, (i, variable) in found.items()}


def _row(path, h, dh, params, grads, count) -> LayerRow:
    own, by_own = (_below(tree, path) for tree in (params, grads))
    bounds = BOUNDS.get(path.rsplit(".", 1)[-1].rsplit("_", 1)[0])
    near = 0.01 * (bounds[1] - bounds[0]) if bounds else 0.0
    units = np.all(h == 0, axis=tuple(range(h.ndim - 1))) if h.ndim > 1 else np.zeros(1)
    with np.errstate(all="ignore"):
        return LayerRow(
            path,
            h.shape,
            float(np.mean(np.abs(h))),
            float(np.std(h)),
            float(np.max(np.abs(h), initial=0)),
            float(np.mean(np.abs(dh)) * count),
            float(np.mean(np.abs(own))) if own.size else np.nan,
            float(np.mean(np.abs(by_own))) if by_own.size else np.nan,
            float(np.mean(units)),
            float(np.mean((h < bounds[0] + near) | (h > bounds[1] - near))) if bounds else 0.0,
        )


def _below(tree, path) -> np.ndarray:
    """All parameters of the layer itself, flat."""
    for name in path.split("."):
        tree = tree.get(name, {}) if isinstance(tree, dict) else {}
    leaves = [leaf for leaf in tree.values() if not isinstance(leaf, dict)] if isinstance(tree, dict) else []
    return np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in leaves]) if leaves else np.zeros(0)
