"""Several heads on one trunk: the loss is the weighted sum of theirs."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from jaxnet.heads.head import Head
from jaxnet.heads.layers import beside
from jaxnet.losses import Loss


def multitask(heads: Mapping[str, Head], weights: Mapping[str, float] | None = None) -> Head:
    """One trunk, several tasks: Σ_t w_t ℓ_t, each head with its own layer, outputs and columns of y.

    y is one array (n, columns) that holds the heads' targets side by side in the order of `heads`, class labels as
    whole numbers. `tasks(outputs)` gives the outputs by name, for each head to predict from. A task's gradient by the
    layer of another is 0. w_t is 1 unless given.

    Raises:
        ValueError: no heads; weights for other names, or not finite and ≥ 0.
        TypeError: what isn't a Head.
    Source: Goodfellow §7.7, fig. 7.2.

    >>> from jaxnet.heads import multiclass, regression
    >>> head = multitask({"size": regression(), "kind": multiclass(3)})
    >>> {name: part.shape for name, part in head.tasks(jnp.zeros((5, 4))).items()}
    {'size': (5, 1), 'kind': (5, 3)}
    >>> round(float(head.loss(jnp.zeros((1, 4)), jnp.array([[2.0, 1.0]]))[0]), 4)  # ½ 2² + log 3
    3.0986
    """
    heads = dict(heads)
    if not heads:
        raise ValueError('got no heads; expected at least one: {"size": regression()}')
    for name, head in heads.items():
        if not isinstance(head, Head):
            raise TypeError(f"multitask: got {head!r} as {name!r}; expected a Head, such as heads.regression()")
    weight = dict.fromkeys(heads, 1.0) | dict(weights or {})
    if weight.keys() != heads.keys() or not all(0 <= w < float("inf") for w in weight.values()):
        raise ValueError(f"multitask: got weights {dict(weights or {})}; expected numbers ≥ 0 for {', '.join(heads)}")
    at, column, output_of, columns_of = 0, 0, {}, {}
    for name, head in heads.items():
        output_of[name] = slice(at, at := at + head.outputs)
        columns_of[name] = slice(column, column := column + head.targets)
    columns, width = column, at

    def check_shape(output_shape, target_shape):
        if output_shape != (output_shape[0], width) or target_shape != (output_shape[0], columns):
            wanted = ", ".join(f"{head.targets} for {name}" for name, head in heads.items())
            raise ValueError(
                f"multitask: got targets of shape {target_shape} for outputs of shape {output_shape}; expected "
                f"(batch, {columns}), {wanted}, for (batch, {width}): put the targets side by side"
            )

    def parts(output, target):
        """(name, its head, its outputs, its targets), in order."""
        check_shape(output.shape, target.shape)
        for name, head in heads.items():
            y = target[:, columns_of[name]]
            if head.labelled:
                whole = y[:, 0] if jnp.issubdtype(y.dtype, jnp.integer) else jnp.round(y[:, 0])
                # what isn't a whole number is no label: −2³¹ is out of range, so the loss is NaN
                y = jnp.where(whole == y[:, 0], whole, jnp.full_like(whole, -(2**31))).astype(jnp.int32)
            yield name, head, output[:, output_of[name]], y

    def value(output, target):
        values = [weight[name] * head.loss.value(o, y) for name, head, o, y in parts(output, target)]
        return sum(values[1:], values[0])

    def gradient(output, target):
        pieces = []
        for name, head, o, y in parts(output, target):
            assert head.loss.gradient is not None
            pieces.append(weight[name] * head.loss.gradient(o, y))
        return jnp.concatenate(pieces, axis=-1)

    def check(spec, target):
        check_shape(spec.shape, target.shape)
        for name, head in heads.items():
            y = target[:, columns_of[name]]
            if head.labelled and target.dtype.kind in "fiub":
                wrong = np.flatnonzero(y[:, 0] != np.round(y[:, 0]))
                if wrong.size:
                    raise ValueError(
                        f"multitask, {name}: got label {y[wrong[0], 0]} at example {wrong[0]}; expected whole numbers"
                    )
                y = y[:, 0].astype(np.int64)
            try:
                head.loss.check(type(spec)((spec.shape[0], head.outputs), spec.dtype), y)
            except (TypeError, ValueError) as error:
                raise type(error)(f"multitask, {name}: {error}") from error

    complete = all(head.loss.gradient is not None for head in heads.values())
    loss = Loss("multitask", value, gradient if complete else None, check)
    predict = {"tasks": lambda output: {name: output[..., output_of[name]] for name in heads}}
    layer = beside({name: head.layer for name, head in heads.items()})
    return Head(f"multitask({', '.join(heads)})", layer, loss, predict, width, columns)
