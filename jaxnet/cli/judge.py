"""A network from its record, its outputs, and what they're worth: shared by train and predict.

Everything after the network is NumPy in float64. `classes` is None for a regression; `target` holds the mean and scale
by which its targets were standardized.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import jaxnet as jn

MOST_SHOWN = 12  # classes in a printed confusion matrix
WIDEST = 12  # characters of a class in it


def network(spec: Mapping[str, Any]) -> jn.Layer:
    """The network that a run's record describes.

    >>> network({"inputs": 4, "units": [8, 3], "activation": "tanh", "dropout": 0.0})
    serial(dense(8), tanh(), dense(3))
    """
    return jn.mlp(spec["units"], activation=spec["activation"], dropout=spec["dropout"])


def outputs(net: jn.Layer, fitted: Any, x: np.ndarray) -> np.ndarray:
    """Logits or standardized predictions (n, outputs), in inference."""
    return np.asarray(jn.predict(net, fitted, x), np.float64)


def probabilities(output: np.ndarray) -> np.ndarray:
    """Of logits (n, classes), row by row.

    >>> probabilities(np.array([[1000.0, 1000.0]])).tolist()
    [[0.5, 0.5]]
    """
    shifted = np.exp(output - output.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def in_unit(output: np.ndarray, target: Mapping[str, float]) -> np.ndarray:
    """Standardized predictions (n, 1) in the target's unit, (n,).

    >>> in_unit(np.array([[0.5]]), {"mean": 10.0, "scale": 4.0}).tolist()
    [12.0]
    """
    return output[:, 0] * target["scale"] + target["mean"]


def score(
    output: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None = None,
    *,
    classes: Sequence[str] | None,
    target: Mapping[str, float] | None,
) -> dict[str, Any]:
    """{"n", "right", "accuracy", "confusion"} (rows the true classes) or {"n", "rmse", "r2"} of outputs (n, outputs).

    y (n,) are labels, or targets in their own unit. Means are weighted; counts aren't. A number that isn't finite,
    or R² of targets that don't vary, is None.

    >>> score(np.array([[0.0], [1.0]]), np.array([1.0, 4.0]), classes=None, target={"mean": 1.0, "scale": 2.0})
    {'n': 2, 'rmse': 0.7071..., 'r2': 0.777...}
    """
    if target is None:
        predicted, names = output.argmax(axis=1), classes or ()
        right = (predicted == y) & np.isfinite(output).all(axis=1)
        confusion = jn.metrics.confusion_matrix(predicted, y, len(names))
        result = {"n": len(y), "right": int(right.sum()), "accuracy": float(np.average(right, weights=weight))}
        return result | {"confusion": confusion.tolist()}
    true = y.astype(np.float64)
    error = np.average((in_unit(output, target) - true) ** 2, weights=weight)
    variance = np.average((true - np.average(true, weights=weight)) ** 2, weights=weight)
    r2 = 1 - error / variance if variance > 0 else np.nan
    return {"n": len(y), "rmse": finite(np.sqrt(error)), "r2": finite(r2)}


def sentence(scored: Mapping[str, Any], *, weighted: bool = False) -> str:
    """What `score` found, in words.

    >>> sentence({"n": 30, "right": 29, "accuracy": 29 / 30, "confusion": []})
    'accuracy 0.9667 (29 of 30 right)'
    >>> sentence({"n": 1, "rmse": 53.25, "r2": None})
    "RMSE 53.25 in the target's unit, R2 undefined (n = 1)"
    """
    by_weight = ", weighted" * weighted
    if "accuracy" in scored:
        return f"accuracy {scored['accuracy']:.4f}{by_weight} ({scored['right']:,} of {scored['n']:,} right)"
    rmse, r2 = (f"{scored[name]:.4g}" if scored[name] is not None else "undefined" for name in ("rmse", "r2"))
    return f"RMSE {rmse} in the target's unit, R2 {r2}{by_weight} (n = {scored['n']:,})"


def confusion_table(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> str:
    """The counts as text, rows the true classes and columns the predicted ones.

    >>> print(confusion_table([[9, 1], [0, 12]], ["cat", "dog"]))
    true \\ predicted  cat  dog
    cat                 9    1
    dog                 0   12
    """
    names = [name if len(name) <= WIDEST else f"{name[: WIDEST - 2]}.." for name in classes]
    width = max(*map(len, names), *(len(str(n)) for row in confusion for n in row))
    corner = "true \\ predicted"
    lines = [[corner, *names]] + [[name, *map(str, row)] for name, row in zip(names, confusion, strict=True)]
    return "\n".join(f"{first:{len(corner)}}  " + "  ".join(f"{c:>{width}}" for c in rest) for first, *rest in lines)


def finite(value: Any) -> float | None:
    """A number as JSON can hold it: None for NaN and infinity.

    >>> finite(np.float32(0.5)), finite(np.nan)
    (0.5, None)
    """
    return float(value) if np.isfinite(value) else None
