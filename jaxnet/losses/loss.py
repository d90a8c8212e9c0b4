"""The record of every loss, and what the losses share about shapes and targets."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def _no_check(spec, target) -> None:
    pass


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss per example, its gradient by the output, and the check of concrete targets.

    `gradient=None` means there's no hand-written gradient: `loss_and_grad` works, `backprop` refuses.
    `outputs` says what the outputs are: "values" (predictions themselves), "bits" (logits for targets 0/1), "margins"
    (scores for targets ±1), "classes" (logits, one per class), "" for anything else; metrics and heads go by it.
    `ignore` is the label that counts as no label.

    >>> half = Loss("half", lambda output, target: output / 2)
    >>> half(jnp.array([4.0]), jnp.array([0.0])).tolist()
    [2.0]
    """

    name: str
    value: Callable[[Array, Array], Array]
    gradient: Callable[[Array, Array], Array] | None = None
    check: Callable[[jax.ShapeDtypeStruct, np.ndarray], None] = _no_check
    outputs: str = ""
    ignore: int | None = None

    def __call__(self, output: Array, target: Array) -> Array:
        return self.value(output, target)

    def __repr__(self) -> str:
        return f"<loss {self.name}>"


def as_loss(loss: "Loss | Callable[[Array, Array], Array]") -> Loss:
    """A `Loss` as it is; a bare function `(output, target) -> (batch,)`, such as optax's, as one without a gradient.

    Of a bare function it's only known that integer targets (n, …) for outputs (n, …, K) are labels: those outside of
    0…K − 1 are refused, since jax would read another class for them.

    Raises:
        TypeError: for what can't be called.

    >>> as_loss(lambda output, target: output - target).gradient is None
    True
    """
    if isinstance(loss, Loss):
        return loss
    if not callable(loss):
        raise TypeError(f"got loss {loss!r}; expected a jaxnet Loss or a function (output, target) -> (batch,)")
    name = getattr(loss, "__name__", "loss")

    def check(spec, target):
        classes = spec.shape[-1] if hasattr(spec, "shape") and spec.shape[1:] else 0
        if classes > 1 and target.shape == spec.shape[:-1] and target.dtype.kind in "iu":
            refuse(
                name,
                "label",
                target,
                (target < 0) | (target >= classes),
                f"0…{classes - 1}, since the network has {classes} outputs: number the classes from 0; give targets "
                "that aren't labels as floats, and a label that counts as none by jn.losses.Loss(name, f, ignore=-1)",
            )

    return Loss(name, loss, check=check)


def lacks_last_axis(name: str, output_shape, target_shape) -> bool:
    """False where the shapes are equal, True where only the output's last axis of one is missing; else an error.

    >>> lacks_last_axis("squared_error", (5, 1), (5,))
    True
    """
    if target_shape == output_shape:
        return False
    if output_shape[-1:] == (1,) and target_shape == output_shape[:-1]:
        return True
    raise ValueError(
        f"{name}: got targets of shape {target_shape} for outputs of shape {output_shape}; expected the same shape "
        "(a last axis of one may be missing): reshape the targets or change the last layer"
    )


def aligned(name: str, output, target):
    """The target in the output's shape and dtype.

    >>> aligned("squared_error", jnp.zeros((5, 1)), jnp.zeros(5, int)).shape
    (5, 1)
    """
    if lacks_last_axis(name, output.shape, target.shape):
        target = target[..., None]
    return target.astype(output.dtype)


def per_example(values):
    """The sum over all axes but the first.

    >>> per_example(jnp.ones((2, 3, 4))).tolist()
    [12.0, 12.0]
    """
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))


def where_valid(valid, values):
    """`values` where `valid`, else NaN; by multiplication, so that derivatives become NaN too.

    >>> where_valid(jnp.array([True, False]), jnp.ones(2)).tolist()
    [1.0, nan]
    """
    return values * jnp.where(valid, 1.0, jnp.nan).astype(values.dtype)


def check_real(name: str, target) -> None:
    """The targets are real numbers.

    Raises:
        TypeError: for text, objects, complex numbers.

    >>> check_real("squared_error", np.zeros(3))
    """
    if target.dtype.kind not in "fiub":
        raise TypeError(f"{name}: got targets of dtype {target.dtype}; expected real numbers: encode or cast them")


def check_targets_like(name: str, spec, target) -> None:
    """The targets are real and of the outputs' shape, where a last axis of one may be missing.

    >>> check_targets_like("squared_error", jax.ShapeDtypeStruct((5, 1), jnp.float32), np.zeros(5))
    """
    check_real(name, target)
    lacks_last_axis(name, spec.shape, target.shape)


def refuse(name: str, what: str, target, wrong, expected: str) -> None:
    """Raise for the first entry of `target` that is `wrong`, naming its example.

    Raises:
        ValueError: where any is.

    >>> refuse("poisson", "target", np.array([1, -1]), np.array([False, True]), "counts ≥ 0")
    Traceback (most recent call last):
    ValueError: poisson: got target -1 at example 1; expected counts ≥ 0
    """
    if wrong.any():
        example = int(np.argwhere(wrong)[0][0])
        raise ValueError(f"{name}: got {what} {target[wrong].flat[0]} at example {example}; expected {expected}")
