"""Does a loss keep the contract of `jaxnet.losses`? The whole battery, for anybody's loss."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.gradients import backprop, loss_and_grad
from jaxnet.layers import dense, serial
from jaxnet.losses import Loss, as_loss
from jaxnet.testing.gradcheck import Parts, check_by_values
from jaxnet.testing.gradients import compare_gradients, compare_trees, rounded_once_more
from jaxnet.testing.reports import Report, Skipped, Wrong, run_checks

BATCH = 5


def check_loss(
    loss: Loss | Callable,
    outputs: int | tuple[int, ...] = 3,
    *,
    target: Any = None,
    extremes: tuple[float, float] = (-1e4, 1e4),
    bound: float | None = None,
    seed: int = 0,
) -> Report:
    """The whole battery for a loss: its gradient, shapes, weights, extremes, types, and examples by themselves.

    The hand-written gradient is the derivative of the value by `jax.vjp` and by five-point differences; there's one
    number per example, which no other example changes; values and gradients stay finite at huge outputs; a batch's
    weights count as repetitions. Of a bare function, or without a gradient, everything else is checked.

    Args:
        loss: a `Loss`, or a function (output, target) -> (batch,).
        outputs: the number of outputs of an example, or their shape.
        target: an array with the batch in front. Drawn when it's None and `loss.outputs` says what it may be:
            "values", "bits", "margins" or "classes".
        extremes: the lowest and highest outputs tried, with every pattern of signs; (-1e4, 0) where more is infinite.
        bound: the share of the scale that errors may have; `tolerance` unless given.
        seed: of everything drawn.

    Raises:
        TypeError: not a loss; ValueError: no target where it can't be drawn.

    >>> from jaxnet import losses
    >>> report = check_loss(losses.Loss("half", lambda o, y: jnp.sum((o - y) ** 2, 1) / 2, lambda o, y: 2 * (o - y)),
    ...                     target=np.ones((5, 3)))
    >>> print(report["gradient = autodiff"].verdict, report["one number per example"].verdict)
    WRONG ok
    """
    loss = as_loss(loss)
    rng = np.random.default_rng(seed)
    shape = (outputs,) if isinstance(outputs, int) else tuple(outputs)
    target = _drawn_target(loss, shape, rng) if target is None else np.asarray(target)
    output = rng.normal(0, 1.5, (len(target), *shape)).astype(np.float32)
    tests = _Battery(loss, output, target, extremes, bound, rng)
    title = f"{loss!r} of {len(target)} × {shape} outputs, targets of shape {target.shape}"
    return run_checks(title, [(name, partial(check, tests)) for name, check in CHECKS.items()])


def _drawn_target(loss, shape, rng):
    if loss.outputs == "values":
        return rng.normal(0, 1.5, (BATCH, *shape))
    if loss.outputs == "bits":
        return rng.integers(0, 2, (BATCH, *shape))
    if loss.outputs == "margins":
        return 2 * rng.integers(0, 2, (BATCH, *shape)) - 1
    if loss.outputs == "classes":
        return rng.integers(0, shape[-1], (BATCH, *shape[:-1]))
    raise ValueError(
        f"check_loss: got target=None for {loss!r}, whose outputs are {loss.outputs!r}; expected an array of targets, "
        "the batch in front, or a Loss(outputs=…) of values, bits, margins or classes"
    )


@dataclass
class _Battery:
    loss: Loss
    drawn_output: np.ndarray
    drawn_target: np.ndarray
    extremes: tuple[float, float]
    bound: float | None
    rng: np.random.Generator

    def arrays(self, dtype=None):
        """(output, target): floats in the dtype, labels int32."""
        dtype = dtype or jnp.result_type(float)
        integers = self.drawn_target.dtype.kind not in "f"
        return jnp.asarray(self.drawn_output, dtype), jnp.asarray(self.drawn_target, jnp.int32 if integers else dtype)

    def both(self, output, target):
        """(values, gradient by hand or None, gradient of their sum by autodiff)."""
        value, pullback = jax.vjp(lambda o: self.loss.value(o, target), output)
        by_hand = self.loss.gradient(output, target) if self.loss.gradient else None
        return value, by_hand, pullback(jnp.ones_like(value))[0]

    @cached_property
    def results(self):
        """(`both` of the arrays, [`both` of outputs rounded once more])."""
        (output, target), run = self.arrays(), jax.jit(self.both)
        near = [rounded_once_more(output, seed) for seed in range(2)]
        return run(output, target), [run(a, target) for a in near]


def _one_number(tests):
    output, target = tests.arrays()
    value = jax.eval_shape(tests.loss.value, output, target)
    if value.shape != output.shape[:1]:
        raise Wrong(
            f"got a result of shape {value.shape} for {len(output)} examples; expected {output.shape[:1]}: leave the "
            "mean over the batch to the gradient function"
        )
    if value.weak_type:
        raise Wrong("got a weak type; expected the dtype of the outputs")
    return f"shape {value.shape}"


def _checked(tests):
    output, _ = tests.arrays()
    tests.loss.check(jax.ShapeDtypeStruct(output.shape, output.dtype), tests.drawn_target)
    return "these targets pass"


def _named(result):
    return dict(zip(("value", "gradient", "autodiff"), result, strict=True))


def _compare(tests, tested, keep=("value", "gradient", "autodiff")):
    """The results against those that were compiled."""
    expected, *near = ({k: v for k, v in _named(r).items() if k in keep} for r in (tests.results[0], *tests.results[1]))
    return compare_trees({k: tested[k] for k in expected}, expected, bound=tests.bound, near=near)


def _autodiff(tests):
    if tests.loss.gradient is None:
        raise Skipped("no hand-written gradient")
    (_, by_hand, by_autodiff), _ = tests.results
    for what, got, want in (("shape", by_hand.shape, by_autodiff.shape), ("dtype", by_hand.dtype, by_autodiff.dtype)):
        if got != want:
            raise Wrong(f"got a gradient of {what} {got}; expected that of the outputs, {want}")
    return _compare(tests, {"autodiff": by_hand}, keep=("autodiff",))


def _differences(tests):
    output, target = tests.arrays()
    result, near = tests.results
    road = 2 if result[1] is None else 1
    parts = Parts(lambda o: tests.loss.value(o, target), (output,), np.ones(len(output)))
    return check_by_values(parts, [result[road]], [[a[road]] for a in near], complex_step=False, bound=tests.bound)


def _alone(tests):
    """No example changes another's value or gradient."""
    one_by_one = jax.vmap(lambda o, y: jax.tree.map(lambda a: a[0], tests.both(o[None], y[None])))
    return _compare(tests, _named(jax.jit(one_by_one)(*tests.arrays())))


def _op_by_op(tests):
    return _compare(tests, _named(tests.both(*tests.arrays())))


def _extremes(tests):
    """Outputs of the lowest, 0 and the highest in drawn patterns, and all zero."""
    output, target = tests.arrays()
    low, high = tests.extremes
    drawn = tests.rng.choice([low, 0.0, high], (40, *output.shape))
    drawn[0] = 0
    value, by_hand, by_autodiff = jax.jit(jax.vmap(tests.both, (0, None)))(jnp.asarray(drawn, output.dtype), target)
    for what, a in (("values", value), ("hand-written gradients", by_hand), ("automatic gradients", by_autodiff)):
        if a is not None and not np.isfinite(a).all():
            at = np.argwhere(~np.isfinite(a))[0]
            example = drawn[tuple(at[:2])].tolist()
            raise Wrong(f"got {what} that aren't finite, at outputs {example} for target {target[at[1]]}")
    if by_hand is None:
        return f"finite at {low:g}, 0 and {high:g}"
    return compare_trees({"output": by_hand}, {"output": by_autodiff}, bound=tests.bound)


def _weights(tests):
    """A weighted mean over a batch: weights of 0, 1 and 2 are examples left out, taken, and taken twice."""
    output, target = tests.arrays()
    if output.ndim != 2:
        raise Skipped("outputs of more than one axis")
    net, counts = serial(dense(output.shape[1])), np.arange(len(output)) % 3
    width = output.shape[1]
    params = {"dense_0": {"w": jnp.eye(width, dtype=output.dtype), "b": jnp.zeros(width, output.dtype)}}
    road = loss_and_grad if tests.loss.gradient is None else backprop
    repeated = tuple(np.repeat(a, counts, axis=0) for a in (output, target))

    def on_repeated(params, state, batch, *, key=None, train=False):
        return road(net, tests.loss)(params, state, tuple(jnp.asarray(a) for a in repeated))

    batch = (output, target, jnp.asarray(counts, output.dtype))
    return compare_gradients(jax.jit(road(net, tests.loss)), jax.jit(on_repeated), params, {}, batch, bound=tests.bound)


def _dtypes(dtype, tests):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        output, target = tests.arrays(dtype)
        for what, a in zip(("value", "gradient"), jax.eval_shape(tests.both, output, target)[:2], strict=True):
            if a is not None and (a.dtype != dtype or a.weak_type):
                raise Wrong(f"got a {what} of {'weak ' * a.weak_type}{a.dtype} for outputs of {output.dtype}")
    return "keeps it"


CHECKS: dict[str, Callable] = {
    "one number per example": _one_number,
    "the check of targets": _checked,
    "gradient = autodiff": _autodiff,
    "five-point differences": _differences,
    "examples under vmap = together": _alone,
    "jit = op by op": _op_by_op,
    "extreme outputs": _extremes,
    "weights = repetitions": _weights,
    "bfloat16": partial(_dtypes, jnp.bfloat16),
    "float32": partial(_dtypes, jnp.float32),
}
