"""Losses per example, on logits, each with its hand-derived gradient beside the value.

    value(output, target)    -> (batch,)             one number per example
    gradient(output, target) -> shape of output      ∂ value / ∂ output, written by hand
    check(spec, target)      -> None, or an error    what can be said of concrete targets before any compile

The batch loss that training minimizes is the weighted mean Σ wℓ / Σ w of these; it's formed in `gradients`.
Losses in nats. The squared error is ½‖ŷ − y‖² summed over the outputs of an example; the sources scale it
in other ways (Hagan: mean over outputs; Goodfellow eq. 5.4: no ½).

Inside a compiled program values can't raise. A label or target out of range makes its loss and gradient NaN, so the
run ends as diverged and never with a wrong number.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnet import activations


def _no_check(spec, target) -> None:
    pass


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss per example, its gradient by the output, and the check of concrete targets.

    `gradient=None` means there's no hand-written gradient: `loss_and_grad` works, `backprop` refuses.

    >>> float(squared_error(jnp.array([[3.0]]), jnp.array([[1.0]]))[0])
    2.0
    """

    name: str
    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array] | None = None
    check: Callable[[jax.ShapeDtypeStruct, np.ndarray], None] = _no_check

    def __call__(self, output: Array, target: Array) -> Array:
        return self.value(output, target)

    def __repr__(self) -> str:
        return f"<loss {self.name}>"


def as_loss(loss: "Loss | Callable[[Array, Array], Array]") -> Loss:
    """A `Loss` as it is; a bare function `(output, target) -> (batch,)`, such as optax's, without gradient or check.

    Raises:
        TypeError: for what can't be called.

    >>> as_loss(squared_error) is squared_error
    True
    """
    if isinstance(loss, Loss):
        return loss
    if not callable(loss):
        raise TypeError(f"got loss {loss!r}; expected a jaxnet Loss or a function (output, target) -> (batch,)")
    return Loss(getattr(loss, "__name__", "loss"), loss)


# ── shapes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _lacks_last_axis(name: str, output_shape, target_shape) -> bool:
    """False where the shapes are equal, True where only the output's last axis of one is missing; else an error."""
    if target_shape == output_shape:
        return False
    if output_shape[-1:] == (1,) and target_shape == output_shape[:-1]:
        return True
    raise ValueError(
        f"{name}: got targets of shape {target_shape} for outputs of shape {output_shape}; expected the same shape "
        "(a last axis of one may be missing): reshape the targets or change the last layer"
    )


def _aligned(name: str, output, target):
    """The target in the output's shape and dtype."""
    if _lacks_last_axis(name, output.shape, target.shape):
        target = target[..., None]
    return target.astype(output.dtype)


def _per_example(values):
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))


# ── squared error ───────────────────────────────────────────────────────────────────────────────────────────────


def _squared_error(output, target):
    return 0.5 * _per_example(jnp.square(output - _aligned("squared_error", output, target)))


def _squared_error_gradient(output, target):
    return output - _aligned("squared_error", output, target)


def _check_squared_error(spec, target):
    _check_real("squared_error", target)
    _lacks_last_axis("squared_error", spec.shape, target.shape)


squared_error = Loss("squared_error", _squared_error, _squared_error_gradient, _check_squared_error)
"""½ Σ_k (ŷ_k − y_k)²; gradient ŷ − y. The negative log-likelihood of a unit Gaussian (Goodfellow eq. 6.13)."""


# ── sigmoid cross-entropy ───────────────────────────────────────────────────────────────────────────────────────


def _where_valid(valid, values):
    """`values` where `valid`, else NaN; by multiplication, so that derivatives become NaN too."""
    return values * jnp.where(valid, 1.0, jnp.nan).astype(values.dtype)


def _sigmoid_cross_entropy(output, target):
    y = _aligned("sigmoid_cross_entropy", output, target)
    loss = activations.softplus(output) - y * output
    return _per_example(_where_valid((y >= 0) & (y <= 1), loss))


def _sigmoid_cross_entropy_gradient(output, target):
    y = _aligned("sigmoid_cross_entropy", output, target)
    return _where_valid((y >= 0) & (y <= 1), activations.sigmoid(output) - y)


def _check_sigmoid_cross_entropy(spec, target):
    name = "sigmoid_cross_entropy"
    _check_real(name, target)
    _lacks_last_axis(name, spec.shape, target.shape)
    wrong = ~((target >= 0) & (target <= 1))
    if wrong.any():
        raise ValueError(
            f"{name}: got target {_first(target, wrong)} at example {_where(wrong)}; expected 0, 1 or a probability "
            "between: use 0/1 labels (−1/+1 belong to the hinge loss), or softmax_cross_entropy for more classes"
        )


sigmoid_cross_entropy = Loss(
    "sigmoid_cross_entropy",
    _sigmoid_cross_entropy,
    _sigmoid_cross_entropy_gradient,
    _check_sigmoid_cross_entropy,
)
"""Σ_k log(1 + e^{z_k}) − y_k z_k for logits z; gradient σ(z) − y. Logits (n,), (n, 1) or (n, outputs), targets in
[0, 1]. Finite at any logit, since it's computed from the logit and not from σ(z) (Goodfellow eq. 6.24–6.26)."""


# ── softmax cross-entropy ───────────────────────────────────────────────────────────────────────────────────────


def _distribution(output, target):
    """(target as probabilities of the output's shape, which examples are valid); None for always valid."""
    name, classes = "softmax_cross_entropy", output.shape[-1]
    if target.shape == output.shape:
        return target.astype(output.dtype), jnp.all(target >= 0, axis=-1)
    if target.shape != output.shape[:-1]:
        raise ValueError(
            f"{name}: got targets of shape {target.shape} for logits of shape {output.shape}; expected labels of "
            f"shape {output.shape[:-1]} or probabilities of shape {output.shape}"
        )
    if not jnp.issubdtype(target.dtype, jnp.integer):
        raise TypeError(f"{name}: got labels of dtype {target.dtype}; expected integers: cast them, y.astype('int32')")
    label = target.astype(jnp.int32) if target.dtype.itemsize < 4 else target
    one_hot = label[..., None] == jnp.arange(classes, dtype=label.dtype).reshape((1,) * label.ndim + (classes,))
    return one_hot.astype(output.dtype), (label >= 0) & (label < classes)


def _log_softmax(z):
    shifted = z - jax.lax.stop_gradient(jnp.max(z, axis=-1, keepdims=True))
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=-1, keepdims=True))


def _softmax_cross_entropy(output, target):
    y, valid = _distribution(output, target)
    return _per_example(_where_valid(valid, -jnp.sum(y * _log_softmax(output), axis=-1)))


def _softmax_cross_entropy_gradient(output, target):
    y, valid = _distribution(output, target)
    return _where_valid(valid[..., None], activations.softmax(output) * jnp.sum(y, axis=-1, keepdims=True) - y)


def _check_softmax_cross_entropy(spec, target):
    name, classes = "softmax_cross_entropy", spec.shape[-1] if spec.shape[1:] else 0
    if classes < 2:
        raise ValueError(
            f"{name}: got logits of shape {spec.shape}; expected (batch, classes) with at least 2 classes: end the "
            "network with one unit per class, or use sigmoid_cross_entropy with a single unit"
        )
    if target.shape == spec.shape:
        _check_real(name, target)
        sums = target.sum(axis=-1, dtype=np.float64)
        wrong = (np.abs(sums - 1) > 1e-3) | (target < 0).any(axis=-1)
        if wrong.any():
            raise ValueError(
                f"{name}: got a target row that sums to {_first(sums, wrong)} or has a negative entry at example "
                f"{_where(wrong)}; expected probabilities that sum to 1: normalize the rows"
            )
        return
    if target.dtype.kind not in "iu":
        raise TypeError(
            f"{name}: got labels of dtype {target.dtype}; expected integers 0…{classes - 1}: cast them, "
            "y.astype('int32'), or give probabilities of the logits' shape"
        )
    if target.shape != spec.shape[:-1]:
        raise ValueError(
            f"{name}: got labels of shape {target.shape} for logits of shape {spec.shape}; expected {spec.shape[:-1]}"
        )
    wrong = (target < 0) | (target >= classes)
    if wrong.any():
        raise ValueError(
            f"{name}: got label {_first(target, wrong)} at example {_where(wrong)}; expected 0…{classes - 1}, since "
            f"the network has {classes} outputs: number the classes from 0, or give the last layer more units"
        )


softmax_cross_entropy = Loss(
    "softmax_cross_entropy",
    _softmax_cross_entropy,
    _softmax_cross_entropy_gradient,
    _check_softmax_cross_entropy,
)
"""−Σ_k y_k log softmax(z)_k for logits z (n, classes); gradient softmax(z) Σ_k y_k − y. Targets are labels (n,),
one-hot or soft probabilities (n, classes). Finite at any logit (Goodfellow eq. 6.30, §6.5.9)."""


# ── what concrete targets are asked ─────────────────────────────────────────────────────────────────────────────


def _check_real(name, target):
    if target.dtype.kind not in "fiub":
        raise TypeError(f"{name}: got targets of dtype {target.dtype}; expected real numbers: encode or cast them")


def _where(wrong) -> int:
    return int(np.argwhere(wrong)[0][0])


def _first(values, wrong):
    return values[wrong].flat[0]
