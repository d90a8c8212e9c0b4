"""Losses for classes: sigmoid and softmax cross-entropy on logits, hinge on scores."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import activations
from jaxnet.losses.loss import Loss, aligned, check_real, check_targets_like, per_example, refuse, where_valid


def _check_options(name, smoothing, weights, ignore) -> None:
    if not 0 <= smoothing < 1:
        raise ValueError(f"{name}: got smoothing={smoothing}; expected a share 0 ≤ ε < 1, such as 0.1")
    if not all(0 <= w < float("inf") for w in weights):
        raise ValueError(f"{name}: got weights {tuple(weights)}; expected finite numbers ≥ 0")
    if ignore is not None and (isinstance(ignore, bool) or not isinstance(ignore, int)):
        raise TypeError(f"{name}: got ignore={ignore!r}; expected an integer label, such as -1")


def _kept(target, ignore):
    """Which targets count: all that aren't `ignore`."""
    if ignore is None:
        return None
    if jnp.issubdtype(target.dtype, jnp.integer) and not (
        jnp.iinfo(target.dtype).min <= ignore <= jnp.iinfo(target.dtype).max
    ):
        return jnp.ones(target.shape, bool)
    return target != jnp.asarray(ignore, target.dtype)


# ── sigmoid cross-entropy ───────────────────────────────────────────────────────────────────────────────────────


def binary_cross_entropy(
    *,
    smoothing: float = 0.0,
    positive_weight: float = 1.0,
    ignore: int | None = None,
    name: str = "binary_cross_entropy",
) -> Loss:
    """−Σ_k c q_k log σ(z_k) + (1 − q_k) log(1 − σ(z_k)), q = (1 − ε) y + ε / 2, on logits z.

    ε is `smoothing`, c is `positive_weight`. Gradient: (1 − q + c q) σ(z) − c q. Logits (n,), (n, 1) or (n, outputs),
    targets in [0, 1]; those equal to `ignore` add nothing.
    `sigmoid_cross_entropy` is the one without options. `name` is what errors call it.

    Raises:
        ValueError, TypeError: for options out of range.
    Source: Goodfellow eq. 6.24–6.26, §7.5.1.

    >>> loss = binary_cross_entropy(positive_weight=3.0)
    >>> [round(float(v), 4) for v in loss(jnp.zeros(2), jnp.array([0, 1]))]
    [0.6931, 2.0794]
    """
    _check_options(name, smoothing, (positive_weight,), ignore)

    def parts(output, target):
        """(c q, 1 − q + c q, which entries are valid, which count)"""
        y = aligned(name, output, target)
        kept = _kept(y, ignore)
        valid = (y >= 0) & (y <= 1)
        q = (1 - smoothing) * y + smoothing / 2 if smoothing else y
        positive = q if positive_weight == 1 else positive_weight * q
        total = jnp.ones_like(q) if positive_weight == 1 else 1 - q + positive
        if kept is not None:
            positive, total = (jnp.where(kept, a, jnp.zeros_like(a)) for a in (positive, total))
            valid |= ~kept
        return positive, total, valid

    def value(output, target):
        positive, total, valid = parts(output, target)
        return per_example(where_valid(valid, total * activations.softplus(output) - positive * output))

    def gradient(output, target):
        positive, total, valid = parts(output, target)
        return where_valid(valid, total * activations.sigmoid(output) - positive)

    def check(spec, target):
        check_targets_like(name, spec, target)
        wrong = ~((target >= 0) & (target <= 1))
        refuse(
            name,
            "target",
            target,
            wrong if ignore is None else wrong & (target != ignore),
            "0, 1 or a probability between: use 0/1 labels (−1/+1 belong to the hinge loss), or softmax_cross_entropy "
            "for more classes",
        )

    return Loss(name, value, gradient, check, "bits", ignore)


sigmoid_cross_entropy = binary_cross_entropy(name="sigmoid_cross_entropy")
"""Σ_k log(1 + e^{z_k}) − y_k z_k for logits z; gradient σ(z) − y. Logits (n,), (n, 1) or (n, outputs), targets in
[0, 1]. Finite at any logit, since it's computed from the logit and not from σ(z) (Goodfellow eq. 6.24–6.26)."""


# ── softmax cross-entropy ───────────────────────────────────────────────────────────────────────────────────────


def log_softmax(z):
    """z − log Σ e^z over the last axis, the largest z subtracted first.

    >>> log_softmax(jnp.array([1e4, 0.0])).tolist()
    [0.0, -10000.0]
    """
    shifted = z - jax.lax.stop_gradient(jnp.max(z, axis=-1, keepdims=True))
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True))


def _distribution(name, output, target, ignore):
    """(target as probabilities of the output's shape, 0 where it doesn't count; which examples are valid; kept)."""
    classes = output.shape[-1]
    if target.shape == output.shape:
        return target.astype(output.dtype), jnp.all(target >= 0, axis=-1), None
    if target.shape != output.shape[:-1]:
        raise ValueError(
            f"{name}: got targets of shape {target.shape} for logits of shape {output.shape}; expected labels of "
            f"shape {output.shape[:-1]} or probabilities of shape {output.shape}"
        )
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError(f"{name}: got labels of dtype {target.dtype}; expected integers: cast them, y.astype('int32')")
    label = target.astype(jnp.int32) if target.dtype.itemsize < 4 else target
    one_hot = label[..., None] == jnp.arange(classes, dtype=label.dtype).reshape((1,) * label.ndim + (classes,))
    return one_hot.astype(output.dtype), (label >= 0) & (label < classes), _kept(label, ignore)


def cross_entropy(
    *,
    smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    ignore: int | None = None,
    name: str = "cross_entropy",
) -> Loss:
    """−Σ_k w_k q_k log softmax(z)_k, q = (1 − ε) y + ε / K, on logits z (n, …, K).

    ε is `smoothing`: the true class is asked for 1 − (K − 1) ε / K, each other one for ε / K. w are `class_weights`,
    1 unless given. Gradient: softmax(z) Σ_k w_k q_k − w q. Targets are labels (n, …), or probabilities like z.
    Labels equal to `ignore` add 0 to the sum of their example, which still counts as one in a mean over examples: give
    it weight 0 if it shouldn't. The weighted loss isn't divided by the weights either.
    `softmax_cross_entropy` is the one without options. `name` is what errors call it.

    Raises:
        ValueError, TypeError: for options out of range.
    Source: Goodfellow eq. 6.30, §7.5.1; Szegedy et al. 2015.

    >>> loss = cross_entropy(smoothing=0.1, ignore=-1)
    >>> [round(float(v), 4) for v in loss(jnp.array([[2.0, 0.0], [2.0, 0.0]]), jnp.array([0, -1]))]
    [0.2269, 0.0]
    """
    weights = None if class_weights is None else tuple(float(w) for w in class_weights)
    _check_options(name, smoothing, weights or (), ignore)

    def weighted(output, target):
        """(w q, which examples are valid)"""
        q, valid, kept = _distribution(name, output, target, ignore)
        classes = output.shape[-1]
        if smoothing:
            q = (1 - smoothing) * q + smoothing / classes
        if weights is not None:
            check_weights(classes)
            q = q * jnp.asarray(weights, q.dtype).reshape((1,) * (q.ndim - 1) + (classes,))
        if kept is not None:
            q, valid = jnp.where(kept[..., None], q, jnp.zeros_like(q)), valid | ~kept
        return q, valid

    def value(output, target):
        q, valid = weighted(output, target)
        return per_example(where_valid(valid, jnp.sum(q * -log_softmax(output), axis=-1)))

    def gradient(output, target):
        q, valid = weighted(output, target)
        return where_valid(valid[..., None], activations.softmax(output) * jnp.sum(q, axis=-1, keepdims=True) - q)

    def check_weights(classes):
        if weights is not None and len(weights) != classes:
            raise ValueError(f"{name}: got {len(weights)} class weights for {classes} outputs; expected one per class")

    def check(spec, target):
        classes = spec.shape[-1] if spec.shape[1:] else 0
        if classes < 2:
            raise ValueError(
                f"{name}: got logits of shape {spec.shape}; expected (batch, classes) with at least 2 classes: end the "
                "network with one unit per class, or use sigmoid_cross_entropy with a single unit"
            )
        check_weights(classes)
        if target.shape == spec.shape:
            check_real(name, target)
            sums = target.sum(axis=-1, dtype=np.float64)
            wrong = (np.abs(sums - 1) > 1e-3) | (target < 0).any(axis=-1)
            if wrong.any():
                raise ValueError(
                    f"{name}: got a target row that sums to {sums[wrong].flat[0]} or has a negative entry at example "
                    f"{int(np.argwhere(wrong)[0][0])}; expected probabilities that sum to 1: normalize the rows"
                )
            return
        if target.dtype.kind not in "iu":
            raise TypeError(
                f"{name}: got labels of dtype {target.dtype}; expected integers 0…{classes - 1}: cast them, "
                "y.astype('int32'), or give probabilities of the logits' shape"
            )
        if target.shape != spec.shape[:-1]:
            raise ValueError(
                f"{name}: got labels of shape {target.shape} for logits of shape {spec.shape}; expected "
                f"{spec.shape[:-1]}"
            )
        wrong = (target < 0) | (target >= classes)
        refuse(
            name,
            "label",
            target,
            wrong if ignore is None else wrong & (target != ignore),
            f"0…{classes - 1}, since the network has {classes} outputs: number the classes from 0, or give the last "
            "layer more units",
        )

    return Loss(name, value, gradient, check, "classes", ignore)


softmax_cross_entropy = cross_entropy(name="softmax_cross_entropy")
"""−Σ_k y_k log softmax(z)_k for logits z (n, classes); gradient softmax(z) Σ_k y_k − y. Targets are labels (n,),
one-hot or soft probabilities (n, classes). Finite at any logit (Goodfellow eq. 6.30, §6.5.9)."""


# ── hinge ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _margins(name, output, target):
    """(y, max(0, 1 − y z)), NaN where y isn't ±1"""
    y = aligned(name, output, target)
    y = where_valid((y == 1) | (y == -1), y)
    return y, jax.nn.relu(1 - y * output)


def _hinge_gradient(output, target):
    y, short = _margins("hinge", output, target)
    return -y * where_valid(~jnp.isnan(short), (short > 0).astype(short.dtype))


def _squared_hinge_gradient(output, target):
    y, short = _margins("squared_hinge", output, target)
    return -2 * y * short


def _check_margins(name):
    def check(spec, target):
        check_targets_like(name, spec, target)
        cure = "−1 or +1: map 0/1 labels by 2 * y − 1, or use sigmoid_cross_entropy"
        refuse(name, "target", target, ~((target == 1) | (target == -1)), cure)

    return check


hinge = Loss(
    "hinge",
    lambda output, target: per_example(_margins("hinge", output, target)[1]),
    _hinge_gradient,
    _check_margins("hinge"),
    "margins",
)
"""Σ_k max(0, 1 − y_k z_k) for scores z and targets ±1; gradient −y where y z < 1, else 0, at the kink y z = 1 too
(MIT 6.036 §6). Scores (n,), (n, 1) or (n, outputs)."""

squared_hinge = Loss(
    "squared_hinge",
    lambda output, target: per_example(jnp.square(_margins("squared_hinge", output, target)[1])),
    _squared_hinge_gradient,
    _check_margins("squared_hinge"),
    "margins",
)
"""Σ_k max(0, 1 − y_k z_k)² for scores z and targets ±1; gradient −2 y max(0, 1 − y z): no kink (no ½, as in
scikit-learn)."""
