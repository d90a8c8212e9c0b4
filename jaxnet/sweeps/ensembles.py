"""What an ensemble of a study's members is worth: averages, how far members disagree, whether probabilities are honest.

    average_probabilities(logits) -> (n, classes)       the ensemble's answer, classification
    average_predictions(outputs) -> Average             the same for regression, with the variance across members
    disagreement(logits) -> Disagreement                in labels, and in nats
    calibration(probabilities, labels) -> Calibration   reliability bins and scores of one classifier or ensemble

Members stand on the leading axis. k members whose errors have mean square v and mean product c between two of them
have the mean squared error v/k + (k−1)·c/k once averaged (Goodfellow et al. 2016, eq. 7.50–7.51): averaging pays as far
as members err differently. Softmax is over the last axis; a class that can't occur may have the logit −inf.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = [
    "Average",
    "Calibration",
    "Disagreement",
    "average_predictions",
    "average_probabilities",
    "calibration",
    "disagreement",
]


class Average(NamedTuple):
    """The mean over members and their variance (with members − 1), both (n, …)."""

    mean: np.ndarray
    variance: np.ndarray


class Disagreement(NamedTuple):
    """How far members disagree; entropies in nats. total = mean_entropy + mutual_information."""

    labels: float  # mean over pairs of members of the share of examples that they label differently
    total: np.ndarray  # (n,), entropy of the average probabilities
    mean_entropy: np.ndarray  # (n,), what members agree is uncertain
    mutual_information: np.ndarray  # (n,), what they don't agree on


class Calibration(NamedTuple):
    """Reliability bins over the confidence (the largest probability), and scores."""

    edges: np.ndarray  # (bins + 1,); bin i holds the confidences in (edges[i], edges[i + 1]]
    confidence: np.ndarray  # (bins,), mean in the bin, NaN where it is empty
    accuracy: np.ndarray  # (bins,), share of right labels, NaN where empty
    n: np.ndarray  # (bins,), examples in the bin
    expected_error: float  # Σ n/Σn · |accuracy − confidence|
    maximum_error: float  # max |accuracy − confidence| over bins that aren't empty
    brier: float  # mean over examples of Σ (p − onehot)², in [0, 2]
    negative_log_likelihood: float  # mean −log p of the true label, nats; inf where that p is 0


def average_probabilities(logits: ArrayLike) -> np.ndarray:
    """The ensemble's class probabilities: mean over members of softmax(logits), (n, classes) (Goodfellow §7.11).

    Args:
        logits: (members, n, classes).

    Raises:
        ValueError, TypeError: for another shape, fewer than 2 classes, values that aren't finite (−inf excepted).

    >>> average_probabilities([[[0.0, 0.0]], [[0.0, -np.inf]]])
    array([[0.75, 0.25]])
    """
    from scipy.special import softmax

    return softmax(_checked_logits(logits, 1), axis=-1).mean(0)


def average_predictions(outputs: ArrayLike) -> Average:
    """The ensemble's regression: mean over members, and the unbiased variance across them, NaN for one member.

    Args:
        outputs: (members, n, …).

    Raises:
        ValueError, TypeError: for fewer axes, no member, values that aren't finite.

    >>> average_predictions([[1.0, 2.0], [3.0, 2.0]])
    Average(mean=array([2., 2.]), variance=array([2., 0.]))
    """
    outputs = _numbers("outputs", outputs)
    if outputs.ndim < 2 or not len(outputs):
        raise ValueError(f"outputs: got shape {outputs.shape}; expected (members, n, …): stack the members first")
    _check_finite("outputs", np.isfinite(outputs))
    variance = outputs.var(0, ddof=1) if len(outputs) > 1 else np.full(outputs.shape[1:], np.nan)
    return Average(outputs.mean(0), variance)


def disagreement(logits: ArrayLike) -> Disagreement:
    """How far members disagree: in their labels, and in nats.

    Per example, with p_m a member's probabilities and p̄ their mean: H(p̄) = mean H(p_m) + mean KL(p_m ‖ p̄). The total
    entropy is the mean entropy plus the mutual information of label and member (Depeweg et al. 2018), which measures
    how far members disagree (Lakshminarayanan et al. 2017, who sum where this is the mean).

    Args:
        logits: (members, n, classes), at least 2 members. Of probabilities, give the logarithm.

    Raises:
        ValueError, TypeError: as `average_probabilities`; fewer than 2 members or no example.

    >>> found = disagreement([[[0.0, -np.inf]], [[-np.inf, 0.0]]])
    >>> found.labels, round(float(found.mutual_information[0]), 4)
    (1.0, 0.6931)
    """
    from scipy.special import entr, rel_entr, softmax

    logits = _checked_logits(logits, 2)
    members, n, classes = logits.shape
    if not n:
        raise ValueError(f"logits: got shape {logits.shape}; expected at least 1 example")
    votes = (logits.argmax(-1)[..., None] == np.arange(classes)).sum(0)
    agreeing = (votes * (votes - 1)).sum(-1) / (members * (members - 1))
    each = softmax(logits, axis=-1)
    together = each.mean(0)
    mutual = np.maximum(rel_entr(each, together).sum(-1).mean(0), 0)
    return Disagreement(float(1 - agreeing.mean()), entr(together).sum(-1), entr(each).sum(-1).mean(0), mutual)


def calibration(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> Calibration:
    """Whether a classifier is right as often as it says: reliability bins, calibration errors, proper scores.

    Expected and maximum calibration error over bins of equal width (Guo et al. 2017, eq. 3 and 5; they depend on the
    bins, and small sets make them too large); Brier's score (1950) and the negative log-likelihood, which need no bins.

    Args:
        probabilities: (n, classes); rows sum to 1 within 1e-4.
        labels: integers (n,) in 0 … classes − 1.
        bins: the number of bins over (0, 1].

    Raises:
        ValueError, TypeError: for other shapes or dtypes, rows that aren't probabilities, labels out of range, no bin.

    >>> found = calibration([[0.75, 0.25], [0.75, 0.25]], [0, 1], bins=2)
    >>> found.accuracy, found.expected_error, found.brier
    (array([nan, 0.5]), 0.25, 0.625)
    """
    p = _checked_probabilities(probabilities)
    labels = _checked_labels(labels, *p.shape)
    if isinstance(bins, bool) or not isinstance(bins, (int, np.integer)) or bins < 1:
        raise ValueError(f"bins: got {bins!r}; expected an integer of at least 1, such as 15")
    bins = int(bins)
    n = len(p)
    edges = np.linspace(0, 1, bins + 1)
    top, right = p.max(-1), p.argmax(-1) == labels
    where = np.clip(np.searchsorted(edges, top, side="left") - 1, 0, bins - 1)
    count = np.bincount(where, minlength=bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        confidence = np.bincount(where, top, bins) / count
        accuracy = np.bincount(where, right, bins) / count
        likelihood = -np.log(p[np.arange(n), labels])
    gap = np.abs(accuracy - confidence)[count > 0]
    brier = ((p - (labels[:, None] == np.arange(p.shape[1]))) ** 2).sum(-1).mean()
    expected = float((count[count > 0] * gap).sum() / n)
    return Calibration(
        edges, confidence, accuracy, count, expected, float(gap.max()), float(brier), float(likelihood.mean())
    )


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name}: got dtype {array.dtype}; expected real numbers: convert to float32 or float64")
    return array.astype(np.float64)


def _check_finite(name: str, finite: np.ndarray) -> None:
    """Every member of `finite` (members, …) holds True alone; else the sentence names the members that don't."""
    bad = np.flatnonzero(~finite.reshape(len(finite), -1).all(1))
    if bad.size:
        listing = ", ".join(map(str, bad[:5])) + (", …" if bad.size > 5 else "")
        raise ValueError(
            f"{name}: got values that aren't finite in member {listing}; expected finite ones: leave out members that "
            "diverged"
        )


def _checked_logits(logits: ArrayLike, fewest: int) -> np.ndarray:
    logits = _numbers("logits", logits)
    if logits.ndim != 3:
        raise ValueError(f"logits: got shape {logits.shape}; expected (members, n, classes): stack the members first")
    if len(logits) < fewest:
        raise ValueError(f"logits: got {len(logits)} members; expected at least {fewest}")
    if logits.shape[2] < 2:
        raise ValueError(
            f"logits: got shape {logits.shape}; expected at least 2 classes: of a binary logit z, "
            "give np.concatenate([np.zeros_like(z), z], axis=-1)"
        )
    _check_finite("logits", np.isfinite(logits.max(-1)))  # NaN and +inf pass through max; all −inf has no softmax
    return logits


def _checked_probabilities(probabilities: ArrayLike) -> np.ndarray:
    p = _numbers("probabilities", probabilities)
    if p.ndim != 2 or p.shape[1] < 2 or not len(p):
        raise ValueError(
            f"probabilities: got shape {p.shape}; expected (n, classes), n of 1 or more, classes of 2 or more"
        )
    cure = "of logits, use average_probabilities(logits[None])"
    bad = ~((p >= 0).all(1) & (p <= 1 + 1e-4).all(1))
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"probabilities: got {p[row]} in row {row}; expected numbers in [0, 1]: {cure}")
    sums = p.sum(1)
    row = int(np.abs(sums - 1).argmax())
    if abs(sums[row] - 1) > 1e-4:
        raise ValueError(f"probabilities: got a sum of {sums[row]:.6g} in row {row}; expected 1 within 1e-4: {cure}")
    return p


def _checked_labels(labels: ArrayLike, n: int, classes: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iu":
        raise TypeError(f"labels: got dtype {labels.dtype}; expected integers: use labels.astype(int)")
    if labels.shape != (n,):
        raise ValueError(f"labels: got shape {labels.shape}; expected one per row of probabilities: ({n},)")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels: got {labels.min()} to {labels.max()}; expected 0 to {classes - 1}: number the classes"
        )
    return labels
