"""Metrics: what people read beside the loss.

A metric is any function `(output, target) -> (batch,)`; its value on a set is the weighted mean Σ wm / Σ w.
A `Metric` adds `finish(mean, target, weight)` for what isn't a mean over examples, such as R².
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnet import losses
from jaxnet.losses import mean_over_steps


def _mean_as_it_is(mean, target, weight):
    return mean


@dataclass(frozen=True, eq=False)
class Metric:
    """`value(output, target) -> (batch, …)`, averaged over the set; then `finish(mean, target, weight) -> scalar`.

    `target` is the whole set's, `weight` its weights (n,) or None.

    >>> float(accuracy(jnp.array([[0.1, 2.0], [3.0, 1.0]]), jnp.array([1, 1])).mean())
    0.5
    """

    name: str
    value: Callable[[Array, Array], Array]
    finish: Callable[[Array, Array, Array | None], Array] = _mean_as_it_is

    def __call__(self, output: Array, target: Array) -> Array:
        return self.value(output, target)

    def __repr__(self) -> str:
        return f"<metric {self.name}>"


def per_step(metric: "Metric | Callable[[Array, Array], Array]") -> Metric:
    """`metric` at each step of sequences, and its mean over an example's true steps; see `losses.per_step`.

    >>> steps = jnp.array([[[0.1, 2.0], [3.0, 1.0]]])
    >>> per_step(accuracy)(steps, jnp.array([[1, 1]])).tolist()
    [0.5]
    """
    value = as_metric(metric).value
    return Metric(f"per_step({as_metric(metric).name})", lambda output, target: mean_over_steps(value, output, target))


def as_metric(metric: "Metric | Callable[[Array, Array], Array]") -> Metric:
    """A `Metric` as it is; a bare function `(output, target) -> (batch,)` as one whose mean is the value.

    >>> as_metric(r2) is r2
    True
    """
    return metric if isinstance(metric, Metric) else Metric(getattr(metric, "__name__", "metric"), metric)


def labels(output: Array) -> Array:
    """The predicted class of logits: the largest of (n, classes), or z > 0 for (n,) and (n, 1). int32, shape (n,).

    >>> labels(jnp.array([[0.1, 2.0], [3.0, 1.0]])).tolist(), labels(jnp.array([-1.0, 1.0])).tolist()
    ([1, 0], [0, 1])
    """
    if output.ndim > 1 and output.shape[-1] > 1:
        return jnp.argmax(output, axis=-1).astype(jnp.int32)
    return (output > 0).reshape(output.shape[0]).astype(jnp.int32)


def _accuracy(output, target):
    true = jnp.argmax(target, axis=-1) if target.shape == output.shape else target
    finite = jnp.all(jnp.isfinite(output), axis=-1)
    return ((labels(output) == true.astype(jnp.int32)) & finite).astype(output.dtype)


accuracy = Metric("accuracy", _accuracy)
"""1 where the largest of the logits (n, classes) is the target's class, else 0. Targets are labels, one-hot or soft
(their largest counts). An example whose logits aren't all finite is wrong, whatever `argmax` would say."""


def _binary_accuracy(output, target):
    output, target = output.reshape(output.shape[0], -1), target.reshape(output.shape[0], -1)
    right = ((output > 0) == (target > 0.5)) & jnp.isfinite(output)
    return jnp.mean(right.astype(output.dtype), axis=-1)


binary_accuracy = Metric("accuracy", _binary_accuracy)
"""The share of an example's outputs z on the target's side (z > 0 for y > ½), targets 0/1 or ±1.
One that isn't finite is wrong."""


def _squared_residuals(output, target):
    if target.shape != output.shape:
        target = target[..., None]
    return jnp.square(output - target.astype(output.dtype))


def _explained(mean, target, weight):
    y = target.astype(mean.dtype).reshape(target.shape[0], *mean.shape)
    w = jnp.ones(y.shape[:1], y.dtype) if weight is None else weight.astype(y.dtype)
    w = (w / jnp.sum(w)).reshape(-1, *[1] * mean.ndim)
    centre = jnp.sum(w * y, axis=0, keepdims=True)
    variance = jnp.sum(w * jnp.square(y - centre), axis=0)
    constant = variance == 0
    share = 1 - mean / jnp.where(constant, jnp.ones_like(variance), variance)
    return jnp.mean(jnp.where(constant, (mean == 0).astype(mean.dtype), share))


r2 = Metric("r2", _squared_residuals, _explained)
"""1 − Σ w(ŷ − y)² / Σ w(y − ȳ)², the mean over outputs; where the target is constant, 1 if exact and else 0.
The same as scikit-learn's `r2_score`."""


def default(loss: losses.Loss) -> Mapping[str, Metric]:
    """The metrics that `program` reports when none are named: accuracy for classification, R² for regression.

    None for other losses, and for those with an `ignore` label.

    >>> list(default(losses.squared_error)), list(default(losses.softmax_cross_entropy))
    (['r2'], ['accuracy'])
    """
    if loss.ignore is not None:  # an accuracy would count what the loss leaves out
        return {}
    signs = {"accuracy": binary_accuracy}
    known = {"classes": {"accuracy": accuracy}, "bits": signs, "margins": signs, "values": {"r2": r2}}
    return known.get(loss.outputs, {})


def confusion_matrix(predicted, true, classes: int) -> np.ndarray:
    """Counts (classes, classes) of int64: row the true class, column the predicted one.

    Raises:
        ValueError: for arrays of different lengths, or a label out of range.

    >>> confusion_matrix([0, 1, 1], [0, 1, 0], 2).tolist()
    [[1, 1], [0, 1]]
    """
    p, t = np.asarray(predicted).ravel(), np.asarray(true).ravel()
    if p.shape != t.shape:
        raise ValueError(f"got {p.size} predicted and {t.size} true labels; expected as many of each")
    for name, values in (("predicted", p), ("true", t)):
        if values.size and (values.min() < 0 or values.max() >= classes):
            raise ValueError(f"got {name} labels {values.min()}…{values.max()}; expected 0…{classes - 1}")
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (t, p), 1)
    return counts
