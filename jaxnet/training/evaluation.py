"""What a network is worth on a set: its loss and metrics, and its predictions, in inference."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.data.checks import check_targets, outputs_of, positive_integer, prepared_inputs, prepared_set
from jaxnet.data.sets import number_of_examples, take
from jaxnet.gradients import weighted_mean
from jaxnet.heads import Head, attached
from jaxnet.layers import Layer
from jaxnet.losses import Loss
from jaxnet.metrics import Metric, as_metric, default
from jaxnet.training.batches import cuts, scan_batches

PIECE = 1024  # examples evaluated at a time unless said otherwise


def judge(
    net: Layer,
    loss: Loss,
    metrics: Mapping[str, Metric],
    params,
    state,
    examples,
    rows=None,
    size: int = PIECE,
) -> dict[str, Any]:
    """{"loss": …, metric: …} of `examples` (x, y[, weight]), or of those at `rows`, inside a compiled program.

    Each value is Σ wv / Σ w over the set, computed in pieces of at most `size` examples.

    >>> from jaxnet import losses, mlp
    >>> net = mlp([1])
    >>> params, state = net.init(jax.random.key(0), (2,))
    >>> examples = jnp.zeros((3, 2)), jnp.array([[1.0], [2.0], [3.0]])
    >>> float(judge(net, losses.squared_error, {}, params, state, examples, size=2)["loss"] * 3)
    7.0
    """
    count = number_of_examples(examples) if rows is None else rows.shape[0]

    def values(piece):
        x, y = piece[:2]
        output, _ = net.apply(params, state, x)
        return {"loss": loss.value(output, y)} | {name: m.value(output, y) for name, m in metrics.items()}

    def sums(piece):
        if len(piece) == 2:
            return jax.tree.map(lambda v: jnp.sum(v, axis=0), values(piece))
        w = piece[2]
        return jax.tree.map(
            lambda v: jnp.sum(v * w.astype(v.dtype).reshape(-1, *[1] * (v.ndim - 1)), axis=0), values(piece)
        )

    if count <= size:
        totals = sums(examples if rows is None else take(examples, rows))
    else:
        order = jnp.arange(count, dtype=jnp.int32) if rows is None else rows
        _, runs = scan_batches(lambda c, at: (c, sums(take(examples, at))), (), order, size)
        parts = [jax.tree.map(lambda v: jnp.sum(v, axis=0), ys) for _, ys in runs]
        totals = jax.tree.map(lambda *v: sum(v[1:], v[0]), *parts)

    chosen = examples[1:] if rows is None else take(tuple(examples[1:]), rows)
    target, weight = chosen[0], chosen[1] if len(chosen) == 2 else None
    if weight is None:
        means = jax.tree.map(lambda v: v / count, totals)
    else:
        means = jax.tree.map(lambda v: v / jnp.sum(weight).astype(v.dtype), totals)
    return {"loss": means["loss"]} | {name: m.finish(means[name], target, weight) for name, m in metrics.items()}


def resolved_metrics(loss: Loss, metrics: Mapping[str, Callable] | None) -> dict[str, Metric]:
    """The metrics by name; the loss's default ones for None.

    Raises:
        TypeError: not a mapping from names to functions; ValueError: a metric named "loss".

    >>> from jaxnet import losses
    >>> resolved_metrics(losses.squared_error, None)
    {'r2': <metric r2>}
    """
    if metrics is None:
        return dict(default(loss))
    if not isinstance(metrics, Mapping) or not all(callable(m) for m in metrics.values()):
        raise TypeError(
            f"got metrics {metrics!r}; expected a dict from names to functions (output, target) -> (batch,)"
        )
    if "loss" in metrics:
        raise ValueError('got a metric named "loss"; expected another name, since the loss is reported under it')
    return {name: as_metric(m) for name, m in metrics.items()}


def predict(net: Layer, fitted: Any, x: Any, *, size: int = PIECE):
    """The network's outputs on `x`, in inference: logits or predicted means, (n, …).

    `fitted` is what `fit` returned (anything with `params` and `state`). x (n, …) is an array or a pytree of them,
    computed in pieces of at most `size` examples. For classes take `jn.metrics.labels(outputs)`; with a `Head` give
    `head.on(net)` and read the outputs by the head.

    Raises:
        ValueError, TypeError: x isn't finite, not numbers, or of another width than the network's.

    >>> import jaxnet as jn, types
    >>> net = jn.mlp([3])
    >>> params, state = net.init(jax.random.key(0), (2,))
    >>> predict(net, types.SimpleNamespace(params=params, state=state), jnp.zeros((5, 2))).shape
    (5, 3)
    """
    size = positive_integer("size", size)
    if not isinstance(net, Layer) or not (hasattr(fitted, "params") and hasattr(fitted, "state")):
        raise TypeError(
            f"predict: got {type(net).__name__} and {type(fitted).__name__}; expected a Layer and what jn.fit returned"
        )
    x = prepared_inputs("x", x)
    count = number_of_examples(x)
    pieces = []
    for cut in cuts(count, size):
        for i in range(cut.batches):
            start = cut.start + i * cut.size
            piece = jax.tree.map(lambda a, s=start, n=cut.size: a[s : s + n], x)
            pieces.append(net.apply(fitted.params, fitted.state, piece)[0])
    return pieces[0] if len(pieces) == 1 else jax.tree.map(lambda *p: jnp.concatenate(p), *pieces)


def evaluate(
    net: Layer,
    fitted: Any,
    examples: Any,
    loss: "Loss | Callable | Head",
    *,
    metrics: Mapping[str, Callable] | None = None,
    size: int = PIECE,
) -> dict[str, float]:
    """{"loss": …, "accuracy": …} of `fitted` on `examples` (x, y[, weight]): each Σ wv / Σ w over the set.

    Without `metrics` the loss's own: accuracy for classification, R² for regression. With a `Head` as the loss, `net`
    is the network without it.

    Raises:
        ValueError, TypeError: as `fit` for its data.

    >>> import jaxnet as jn, types
    >>> net = jn.mlp([1], weight_init=jn.initializers.constant(2.0))
    >>> params, state = net.init(jax.random.key(0), (1,))
    >>> x = jnp.array([[1.0], [2.0]])
    >>> evaluate(net, types.SimpleNamespace(params=params, state=state), (x, 2 * x), jn.losses.squared_error)
    {'loss': 0.0, 'r2': 1.0}
    """
    net, loss, metrics = attached(net, loss, metrics)
    examples = prepared_set("test", examples)
    check_targets(loss, outputs_of(net, loss, fitted.params, fitted.state, examples), examples[1])
    x, y, *weight = examples
    output = predict(net, fitted, x, size=size)
    result = {"loss": weighted_mean(loss.value(output, y), *weight)}
    for name, metric in resolved_metrics(loss, metrics).items():
        result[name] = metric.finish(weighted_mean(metric.value(output, y), *weight), y, *(weight or [None]))
    return {name: float(value) for name, value in result.items()}
