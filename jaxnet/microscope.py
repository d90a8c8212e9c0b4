"""The microscope: one training step, layer by layer, and where its first inf or NaN comes from.

    print(explain(net, params, state, batch, loss=loss))

Per layer: how large its outputs and the loss's gradient by them are, how large its parameters' gradients are beside
the parameters, which of its units are dead or saturated. Above the table one sentence: healthy, or the layer, the
operation, the example and the numbers that made the first non-finite number that reaches the loss or a gradient.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.gradients import GradientFunction, loss_and_grad
from jaxnet.heads import Head, attached
from jaxnet.layers import Layer
from jaxnet.losses import Loss
from jaxnet.origins import Origin, finite, origin, pointwise, worst
from jaxnet.scales import LayerRow, layer_rows
from jaxnet.tables import table


@dataclass(frozen=True)
class Explanation:
    """What `explain` found; true when everything is finite, printed as a sentence and a table."""

    sentence: str
    layer: str  # path of the layer to blame; "" for none, or what isn't a layer's
    operation: str  # the primitive, such as "log"; "" for an argument that came in non-finite
    example: int | None  # index in the batch, where there's one
    backward: bool  # whether the number appeared on the way back
    loss: float
    rows: tuple[LayerRow, ...]

    def __bool__(self) -> bool:
        return not self.sentence.startswith("not finite")

    def __str__(self) -> str:
        head = ("layer", "mean |h|", "std h", "max |h|", "mean |dh|", "mean |w|", "mean |dw|", "dead", "satur.")
        lines = []
        for row in self.rows:
            numbers = (row.output, row.deviation, row.largest, row.gradient, row.weights, row.slope)
            cells = ["" if np.isnan(v) and i > 3 else f"{v:.2g}" for i, v in enumerate(numbers)]
            lines.append(
                (row.path, *cells, *(f"{share:.0%}" if share > 0 else "" for share in (row.dead, row.saturated)))
            )
        return f"{self.sentence}\n\n{table(head, lines, right=range(1, 9))}"


def explain(
    net: Layer,
    params: Any,
    state: Any,
    batch: Any,
    *,
    loss: "Loss | Callable | Head",
    key: jax.Array | None = None,
    train: bool = True,
    gradient: GradientFunction | None = None,
) -> Explanation:
    """One step of `net` on `batch` under the microscope; nothing is changed.

    Args:
        net, params, state: as for `net.apply`.
        batch: (x, y) or (x, y, weight), concrete arrays.
        loss: a `Loss`, a function (output, target) -> (batch,), or a `Head`, whose layer is appended to `net`.
        key: the step's key, where training needs one. The key that `train_step` used shows the same step again.
        train: whether to run as in training.
        gradient: the gradient function to look into, the one of `jn.program(…, gradient=…)`; None for that of automatic
            differentiation. With `backprop` a layer whose hand-written backward makes the NaN is named.

    An operation is found by evaluating one after the other, without jit: a reordered sum can overflow in one and not in
    the other.

    Raises:
        ValueError, TypeError: what the network says of its inputs.

    >>> import jaxnet as jn
    >>> net = jn.serial(jn.dense(2), jn.relu(), jn.dense(1))
    >>> params, state = net.init(jax.random.key(0), (3,))
    >>> params["dense_1"]["w"] = params["dense_1"]["w"].at[0].set(jnp.inf)
    >>> explain(net, params, state, (jnp.ones((4, 3)), jnp.ones((4, 1))), loss=jn.losses.squared_error).sentence
    'not finite: parameter dense_1.w is inf at [0, 0] before the step'
    """
    net, loss, _ = attached(net, loss, None)
    batch = jax.tree.map(jnp.asarray, tuple(batch))
    x, y = batch[:2]

    def values(params, state, x):
        output, after = net.apply(params, state, x, key=key, train=train)
        with jax.named_scope("loss"):
            return loss.value(output, y), after

    each, after = jax.jit(values)(params, state, x)
    look = gradient or loss_and_grad(net, _named_loss(loss))

    def gradients(params):
        return look(params, state, batch, key=key, train=train)

    (mean, _), grads = jax.jit(gradients)(params)
    rows = layer_rows(net, loss, params, state, batch, grads, key, train)
    total = float(mean)

    def blamed(sentence, layer="", operation="", example=None, backward=False):
        return Explanation(f"not finite: {sentence}", layer, operation, example, backward, total, rows)

    if all(finite(leaf) for leaf in jax.tree.leaves((mean, grads, after))):
        sentence = "healthy: the loss and every gradient are finite"
        hidden = [row.path for row in rows if not np.isfinite([row.output, row.gradient]).all()]
        if hidden:
            sentence += f", though numbers of {', '.join(hidden)} aren't: something later hides them"
        return Explanation(sentence, "", "", None, False, total, rows)
    given = _given(params, state, batch)
    if given is not None:
        return blamed(given[0], example=given[1])
    wrong = _target(loss, net, params, state, x, y)
    if wrong is not None:
        return blamed(wrong[0], "loss", example=wrong[1])
    found = None
    if not all(finite(leaf) for leaf in jax.tree.leaves((each, after))):
        found = origin(values, params, state, x)
    if found is None:
        found = origin(gradients, params)
        found = dataclasses.replace(found, backward=True) if found else None  # the values themselves are finite
    if found is None:
        return blamed("in the compiled step, but not where operations run one by one: an overflow of a reordered sum")
    count = jax.tree.leaves(x)[0].shape[0]
    if not found.backward and found.output.shape[:1] == (count,):
        found = dataclasses.replace(found, at=worst(found, ~np.isfinite(np.asarray(each, np.float64))))
    sentence, example = _said(found, count)
    return blamed(sentence, found.layer, found.operation, example, found.backward)


def _named_loss(loss: Loss) -> Loss:
    """The loss traced under the name "loss"."""

    def value(output, target):
        with jax.named_scope("loss"):
            return loss.value(output, target)

    return Loss(loss.name, value)


# ── what came in ────────────────────────────────────────────────────────────────────────────────────────────────


def _given(params, state, batch):
    """(sentence, example) of the first array that isn't finite before anything is computed, or None."""
    x, y, *weight = batch
    for kind, tree in (("parameter", params), ("state", state), ("input", x), ("target", y), ("weight", weight)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if finite(leaf):
                continue
            values = np.asarray(leaf, np.float64)
            at = [int(i) for i in np.argwhere(~np.isfinite(values))[0]]
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            if kind in ("parameter", "state"):
                return f"{kind} {name} is {values[tuple(at)]} at {at} before the step", None
            return (
                f"{kind} {f'{name} ' if name and kind == 'input' else ''}of example {at[0]} is {values[tuple(at)]}",
                at[0],
            )
    return None


def _target(loss, net, params, state, x, y):
    """(sentence, example) of a target that the loss refuses, or None."""
    output = jax.eval_shape(lambda p, s, x: net.apply(p, s, x)[0], params, state, x)
    for i in range(np.shape(y)[0] if np.ndim(y) else 0):
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), output)
        try:
            loss.check(one, np.asarray(y)[i : i + 1])
        except (ValueError, TypeError) as error:
            return str(error).replace(" at example 0", f" at example {i}", 1), i
    return None


# ── what was computed ───────────────────────────────────────────────────────────────────────────────────────────


def _said(found: Origin, count: int) -> tuple[str, int | None]:
    """The sentence, and the example where the output has one row per example."""
    per_example = bool(found.at) and found.output.shape[0] == count
    example = found.at[0] if per_example else None
    value = found.output.astype(np.float64)[found.at]
    where = (
        f"layer {found.layer}" if found.layer and found.layer != "loss" else "the loss" if found.layer else "the step"
    )
    way = "the gradient" if found.backward else "the forward pass"
    operands = [float(np.broadcast_to(o, found.output.shape).astype(np.float64)[found.at]) for o in pointwise(found)]
    call = f"{found.operation}({', '.join(f'{o:.4g}' for o in operands)})" if operands else found.operation
    sentence = f"{call} = {value:g} in {way} of {where}" if operands else f"{call} gave {value:g} in {way} of {where}"
    if np.isinf(value) and 0 not in operands and all(map(finite, found.operands)):
        sentence += f", an overflow of {found.output.dtype}"
    if not operands and found.operands:
        largest = max(
            (float(np.abs(o.astype(np.float64)).max(initial=0)) for o in found.operands if o.dtype.kind != "b"),
            default=0,
        )
        sentence += f" from operands of at most {largest:.3g}"
    if found.step is not None:
        sentence += f", step {found.step}"
    if example is not None:
        sentence += f", example {example}"
    return sentence, example
