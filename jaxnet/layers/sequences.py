"""Batches of sequences of unequal length: padded values, and how long each one is.

    Sequence(values, lengths)    values (batch, time, features), lengths (batch,) integers

What stands at t ≥ length is padding: layers neither read it nor let a gradient reach it, and write 0 there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.layers.combinators import check_layers
from jaxnet.layers.layer import Layer, as_spec


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sequence:
    """A pytree of padded `values` (batch, time, features) and their `lengths` (batch,), 0 … time.

    Its gradient is a Sequence too, with None for the lengths. Lengths beyond `time` mean all of it.

    >>> Sequence(jnp.ones((2, 3, 1)), jnp.array([3, 1])).mask().tolist()
    [[True, True, True], [True, False, False]]
    """

    values: Any
    lengths: Any

    def mask(self) -> jax.Array:
        """(batch, time): where there's no padding."""
        times = jnp.arange(self.values.shape[1], dtype=self.lengths.dtype)
        return times.reshape(1, -1) < self.lengths.reshape(-1, 1)


def pad(sequences: Iterable[Any], time: int | None = None) -> Sequence:
    """A `Sequence` of NumPy arrays from arrays (t_i, features), filled up with zeros to the longest, or to `time`.

    Raises:
        ValueError: no sequences, arrays of other ranks or different features, one longer than `time`.

    >>> batch = pad([np.ones((3, 2)), np.ones((1, 2))])
    >>> batch.values.shape, batch.lengths.tolist()
    ((2, 3, 2), [3, 1])
    """
    arrays = [np.asarray(sequence) for sequence in sequences]
    shapes = [array.shape for array in arrays]
    if not arrays or any(len(shape) != 2 or shape[1] != shapes[0][1] for shape in shapes):
        raise ValueError(f"pad: got arrays of shapes {shapes[:5]}; expected (time, features) with the same features")
    longest = max(len(array) for array in arrays)
    time = longest if time is None else time
    if longest > time:
        raise ValueError(f"pad: got a sequence of {longest} steps; expected at most time={time}: cut it")
    values = np.zeros((len(arrays), time, shapes[0][1]), np.result_type(*arrays))
    for row, array in zip(values, arrays, strict=True):
        row[: len(array)] = array
    return Sequence(values, np.array([len(array) for array in arrays], np.int32))


def unpacked(x: Any, what: str) -> tuple[Any, Any]:
    """(values without what stands in the padding, mask or None) of a Sequence or a plain (batch, time, features).

    Raises:
        ValueError, TypeError: other shapes; values that aren't floating.

    >>> unpacked(jnp.ones((2, 3, 1)), "lstm")[1] is None
    True
    """
    values = x.values if isinstance(x, Sequence) else x
    if not hasattr(values, "ndim") or values.ndim != 3:
        got = f"shape {values.shape}" if hasattr(values, "shape") else type(values).__name__
        raise ValueError(f"{what}: got inputs of {got}; expected (batch, time, features), or a Sequence of them")
    if not jnp.issubdtype(values.dtype, jnp.inexact):
        raise TypeError(f"{what}: got inputs of dtype {values.dtype}; expected floats: convert them, or embed them")
    if not isinstance(x, Sequence):
        return values, None
    if x.lengths.shape != values.shape[:1] or not jnp.issubdtype(x.lengths.dtype, jnp.integer):
        raise ValueError(
            f"{what}: got lengths of shape {x.lengths.shape} and dtype {x.lengths.dtype}; expected {values.shape[:1]} "
            "integers, one for each sequence"
        )
    return blanked(values, x.mask()), x.mask()


def blanked(values: Any, mask: Any) -> Any:
    """`values` (batch, time, …), 0 in the padding; as they are for mask=None.

    >>> blanked(jnp.ones((1, 2, 1)), jnp.array([[True, False]])).tolist()
    [[[1.0], [0.0]]]
    """
    if mask is None:
        return values
    return jnp.where(mask.reshape(*mask.shape, *[1] * (values.ndim - 2)), values, jnp.zeros_like(values))


def packed(like: Any, values: Any, *, gradient: bool = False) -> Any:
    """`values` in the form of `like`: an array, or a Sequence of the same lengths (None in a gradient).

    >>> packed(jnp.ones(1), jnp.zeros(1)).tolist()
    [0.0]
    """
    return Sequence(values, None if gradient else like.lengths) if isinstance(like, Sequence) else values


def time_distributed(layer: Layer) -> Layer:
    """`layer` at every step of (batch, time, …) or of a Sequence, with the same parameters: y_t = f(x_t).

    It sees batch · time examples at once; its gradient is the sum over the steps. The padding counts as examples of
    zeros, so a layer that mixes examples (batch norm) would see it.

    >>> from jaxnet.layers import dense
    >>> net = time_distributed(dense(2))
    >>> params, state = net.init(jax.random.key(0), (4, 3))
    >>> net.apply(params, state, jnp.ones((5, 4, 3)))[0].shape
    (5, 4, 2)
    """
    check_layers("time_distributed", (layer,))
    rule: Any = layer.backward

    def init(key, spec):
        example = as_spec(spec)
        step = example.values if isinstance(example, Sequence) else example
        if len(step.shape) < 2:
            raise ValueError(f"time_distributed: got an example of shape {step.shape}; expected (time, features, …)")
        return layer.init(key, jax.ShapeDtypeStruct(step.shape[1:], step.dtype))

    def rows(x):
        """(batch · time, …), the mask, and how to go back."""
        values, mask = (blanked(x.values, x.mask()), x.mask()) if isinstance(x, Sequence) else (x, None)
        return values.reshape(-1, *values.shape[2:]), mask, lambda y: y.reshape(*values.shape[:2], *y.shape[1:])

    def apply(params, state, x, *, key=None, train=False):
        steps, mask, restore = rows(x)
        y, state = layer.apply(params, state, steps, key=key, train=train)
        return packed(x, blanked(restore(y), mask)), state

    def backward(params, state, x, dy, *, key=None, train=False):
        steps, mask, restore = rows(x)
        dvalues = blanked(dy.values if isinstance(x, Sequence) else dy, mask)
        dx, grads = rule(params, state, steps, dvalues.reshape(-1, *dvalues.shape[2:]), key=key, train=train)
        return packed(x, None if dx is None else blanked(restore(dx), mask), gradient=True), grads

    return Layer("time_distributed", init, apply, backward if rule else None, (("", layer),))
