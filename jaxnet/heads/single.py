"""The heads for one kind of target each. Trunks end in a hidden layer; the head's own layer is dense."""

from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnet import activations, losses, metrics
from jaxnet.heads.head import Head
from jaxnet.heads.layers import beside, constant_outputs
from jaxnet.layers import dense
from jaxnet.losses import Loss
from jaxnet.metrics import Metric


def _count(name: str, value: int, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"got {name}({value!r}); expected an integer of at least {least}")
    return value


def _paired(head: str, loss: Loss, outputs: str, expected: str) -> Loss:
    if not isinstance(loss, Loss) or loss.outputs != outputs:
        raise ValueError(f"{head}: got {loss!r}; expected {expected}, since this head gives {outputs}")
    return loss


def _refusing_integers(head: str, loss: Loss) -> Loss:
    """`loss`, which refuses concrete targets of an integer dtype: they're labels or counts more often than values."""

    def check(spec, target):
        if target.dtype.kind in "iub":
            raise TypeError(
                f"{head}: got targets of dtype {target.dtype}; expected real numbers: for class labels take "
                "heads.multiclass or heads.binary, for counts heads.poisson, else cast them, y.astype('float32')"
            )
        loss.check(spec, target)

    return replace(loss, check=check)


def _r2_of(mean: Callable[[Array], Array]) -> dict[str, Metric]:
    return {"r2": Metric("r2", lambda output, target: metrics.r2.value(mean(output), target), metrics.r2.finish)}


def _bias(values: list[float]):
    return lambda key, shape, dtype: jnp.asarray(values, dtype)


_POWERS = {"precision": -0.5, "variance": 0.5, "deviation": 1.0}  # of a scale, to make a standard deviation of it


def _normal_limits(mean, deviation, level):
    z = NormalDist().inv_cdf((1 + level) / 2)
    return mean - z * deviation, mean + z * deviation


def regression(targets: int = 1, *, loss: Loss = losses.squared_error) -> Head:
    """Values: dense(targets) by the squared error, or another loss on values. Predicts the `mean` (by the absolute
    error the median). Integer targets are refused.

    Raises:
        ValueError: targets < 1; a loss that isn't on values.

    >>> regression(2).mean(jnp.ones((3, 2))).shape
    (3, 2)
    """
    name = f"regression({_count('regression', targets)})"
    loss = _paired(name, loss, "values", "squared_error, absolute_error or huber(δ)")
    return Head(
        name,
        dense(targets),
        _refusing_integers(name, loss),
        {"mean": lambda o: o},
        targets,
        targets,
        metrics=metrics.default(loss),
    )


def binary(targets: int = 1, *, loss: Loss = losses.sigmoid_cross_entropy) -> Head:
    """Labels 0/1, one or several: dense(targets) by the sigmoid cross-entropy. Predicts `probabilities` of 1 and
    `labels`, (n,) for one target.

    Raises:
        ValueError: targets < 1; a loss that isn't on logits of 0/1.

    >>> binary().labels(jnp.array([[-1.0], [2.0]])).tolist()
    [0, 1]
    """
    name = f"binary({_count('binary', targets)})"
    loss = _paired(name, loss, "bits", "sigmoid_cross_entropy or binary_cross_entropy(…) on 0/1")
    predict: dict[str, Callable] = {
        "probabilities": activations.sigmoid,
        "labels": metrics.labels if targets == 1 else lambda o: (o > 0).astype(jnp.int32),
    }
    return Head(name, dense(targets), loss, predict, targets, targets, metrics=metrics.default(loss))


def margin(*, loss: Loss = losses.hinge) -> Head:
    """Labels −1/+1: dense(1) by the hinge loss, or the squared one. Predicts `labels`, −1 or +1 (−1 at score 0).

    Raises:
        ValueError: a loss that isn't on margins.

    >>> margin().labels(jnp.array([[-1.0], [2.0]])).tolist()
    [-1, 1]
    """
    loss = _paired("margin()", loss, "margins", "hinge or squared_hinge on ±1")
    predict: dict[str, Callable] = {"labels": lambda o: 2 * metrics.labels(o) - 1}
    return Head("margin()", dense(1), loss, predict, 1, 1, metrics=metrics.default(loss))


def multiclass(classes: int, *, loss: Loss = losses.softmax_cross_entropy) -> Head:
    """Labels 0…classes − 1: dense(classes) by the softmax cross-entropy. Predicts `probabilities` and `labels`.

    Raises:
        ValueError: classes < 2; a loss that isn't on logits of classes.

    >>> multiclass(3).labels(jnp.array([[0.0, 2.0, 1.0]])).tolist()
    [1]
    """
    name = f"multiclass({_count('multiclass', classes, 2)})"
    loss = _paired(name, loss, "classes", "softmax_cross_entropy or cross_entropy(…) on labels")
    predict: dict[str, Callable] = {"probabilities": activations.softmax, "labels": metrics.labels}
    return Head(name, dense(classes), loss, predict, classes, 1, True, metrics.default(loss))


def poisson(targets: int = 1) -> Head:
    """Counts: dense(targets), the log rates, by the Poisson likelihood. Predicts the `mean`, e^z.

    >>> poisson().mean(jnp.zeros((1, 1))).tolist()
    [[1.0]]
    """
    name = f"poisson({_count('poisson', targets)})"
    return Head(name, dense(targets), losses.poisson, {"mean": jnp.exp}, targets, targets, metrics=_r2_of(jnp.exp))


def gaussian(targets: int = 1, *, scale: str = "precision", shared: bool = False) -> Head:
    """Values with their spread: k means and k scales, by the Gaussian likelihood. A scale is a "precision", a
    "variance" or a standard "deviation", through softplus; it depends on x, or, `shared`, is one learned number for
    each target. Scales start at 1.

    Predicts `mean` and `interval`. A shared variance ends at the mean squared residual.

    Raises:
        ValueError: targets < 1; an unknown scale.
    Source: Goodfellow §6.2.2.4, eq. 6.34, 8.24.

    >>> lower, upper = gaussian().interval(jnp.array([[0.0, losses.raw_of(1.0)]]), 0.95)
    >>> [round(float(a[0, 0]), 2) for a in (lower, upper)]
    [-1.96, 1.96]
    """
    k = _count("gaussian", targets)
    name, loss = f"gaussian({k})", losses.gaussian(scale)
    start = losses.raw_of(1.0)
    layer = (
        beside({"mean": dense(k), "scale": constant_outputs(k, start)})
        if shared
        else dense(2 * k, bias_init=_bias([0.0] * k + [start] * k))
    )

    def mean(output):
        return output[..., :k]

    def interval(output, level):
        centre, s = losses.mean_and_scale(output)
        return _normal_limits(centre, s ** _POWERS[scale], level)

    predict: dict[str, Callable] = {"mean": mean, "interval": interval}
    return Head(name, layer, _refusing_integers(name, loss), predict, 2 * k, k, metrics=_r2_of(mean))


def multivariate_gaussian(targets: int) -> Head:
    """Values with their whole covariance: d means and the Cholesky factor of the precision, which starts at the
    identity. Predicts `mean`, `covariance` (n, d, d) and each target's own `interval`.

    >>> head = multivariate_gaussian(2)
    >>> head.predict["covariance"](jnp.array([[0, 0, losses.raw_of(1.0), 0, losses.raw_of(0.5)]])).round(3).tolist()
    [[[1.0, 0.0], [0.0, 4.0]]]
    """
    d = _count("multivariate_gaussian", targets)
    name = f"multivariate_gaussian({d})"
    rows, columns = np.tril_indices(d)
    start = [0.0] * d + [losses.raw_of(1.0) if i == j else 0.0 for i, j in zip(rows, columns, strict=True)]

    def mean(output):
        return output[..., :d]

    def covariance(output):
        _, factor = losses.mean_and_factor(output)
        eye = jnp.broadcast_to(jnp.eye(d, dtype=factor.dtype), factor.shape)
        inverse = jax.lax.linalg.triangular_solve(factor, eye, left_side=True, lower=True)
        return jnp.swapaxes(inverse, -1, -2) @ inverse

    def interval(output, level):
        deviation = jnp.sqrt(jnp.diagonal(covariance(output), axis1=-2, axis2=-1))
        return _normal_limits(mean(output), deviation, level)

    loss = _refusing_integers(name, losses.multivariate_gaussian)
    predict: dict[str, Callable] = {"mean": mean, "interval": interval, "covariance": covariance}
    layer = dense(len(start), bias_init=_bias(start))
    return Head(name, layer, loss, predict, len(start), d, metrics=_r2_of(mean))


def mixture(components: int, targets: int = 1) -> Head:
    """Values with several branches: a mixture density network of Gaussians. Predicts the `mean`, Σ π_i μ_i, and the
    components' weights as `probabilities`; `losses.mixture_parameters` gives all of it. The components start side by
    side, as m equal shares of a unit Gaussian with the standard deviation 1/m: from one place they part slowly.

    >>> mixture(2).mean(jnp.array([[0.0, 0.0, -3.0, 5.0, 0.0, 0.0]])).tolist()
    [[1.0]]
    """
    m, d = _count("mixture", components), _count("mixture", targets)
    name = f"mixture({m}, {d})"

    def probabilities(output):
        return activations.softmax(output[..., :m])

    def mean(output):
        _, means, _ = losses.mixture_parameters(output, m)
        return jnp.sum(probabilities(output)[..., None] * means, axis=-2)

    apart = [NormalDist().inv_cdf((i + 0.5) / m) for i in range(m)]
    start = [0.0] * m + [v for v in apart for _ in range(d)] + [losses.raw_of(float(m * m))] * (m * d)
    loss = _refusing_integers(name, losses.mixture(m))
    predict: dict[str, Callable] = {"mean": mean, "probabilities": probabilities}
    return Head(name, dense(len(start), bias_init=_bias(start)), loss, predict, len(start), d, metrics=_r2_of(mean))


def quantile(*levels: float) -> Head:
    """Conditional quantiles of one target: dense(levels) by the pinball loss. Predicts the `interval` between the
    outermost levels, which must be the level asked for: quantile(0.05, 0.95).interval(outputs, 0.9).

    Raises:
        ValueError: levels that don't increase within 0…1.

    >>> [a.tolist() for a in quantile(0.05, 0.5, 0.95).interval(jnp.array([[1.0, 2.0, 4.0]]), 0.9)]
    [[[1.0]], [[4.0]]]
    """
    name, k = f"quantile{levels}", len(levels)
    loss = _refusing_integers(name, losses.quantile(*levels))  # raises for wrong levels first

    def interval(output, level):
        if abs(levels[0] - (1 - level) / 2) > 1e-6 or abs(levels[-1] - (1 + level) / 2) > 1e-6:
            raise ValueError(
                f"{name}: got level={level}; expected {levels[-1] - levels[0]:g} centred on ½: make a head with "
                f"the levels {(1 - level) / 2:g} and {(1 + level) / 2:g}"
            )
        return output[..., :1], output[..., -1:]

    return Head(name, dense(k), loss, {"interval": interval}, k, 1)
