"""Networks, losses and batches drawn by Hypothesis, from a grid of shapes so small that compiled operations repeat."""

import os
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

import jaxnet as jn
from jaxnet import activations, layers, losses

ACTIVATIONS = tuple(name for name, f in activations.named.items() if f.differentiable)
LOSSES = ("squared_error", "sigmoid", "softmax labels", "softmax one-hot", "softmax soft")
WIDTHS = (1, 3, 8)
BATCHES = (1, 2, 7)


def examples(count: int):
    """Hypothesis settings: so many drawn examples, twenty times as many under scripts/test-long."""
    return settings(max_examples=count * (20 if os.environ.get("JAXNET_HYPOTHESIS") == "hunt" else 1))


@dataclass(frozen=True)
class Case:
    """A network with parameters, a loss and a batch for it."""

    parts: tuple[jn.Layer, ...]
    loss: losses.Loss
    params: Any
    batch: tuple
    key: jax.Array

    @property
    def net(self) -> jn.Layer:
        return jn.serial(*self.parts)

    def __repr__(self) -> str:
        shapes = [tuple(a.shape) for a in jax.tree.leaves(self.batch)]
        return f"Case({self.net}, {self.loss.name}, batch {shapes})"


@st.composite
def cases(
    draw,
    *,
    max_depth=4,
    widths=WIDTHS,
    batches=BATCHES,
    names=ACTIVATIONS,
    loss_names=LOSSES,
    dropout=True,
    weights=True,
):
    """A `Case`: depth 0 to `max_depth` hidden layers, every activation, loss, kind of target and weights."""
    loss_name = draw(st.sampled_from(loss_names), label="loss")
    outputs = draw(st.sampled_from([k for k in widths if k > 1 or "softmax" not in loss_name]), label="outputs")
    parts = []
    for _ in range(draw(st.integers(0, max_depth), label="depth")):
        parts.append(layers.dense(draw(st.sampled_from(widths)), bias=draw(st.integers(0, 4)) > 0))
        parts.append(layers.activation(draw(st.sampled_from(names))))
        if dropout and draw(st.integers(0, 3)) == 0:
            parts.append(layers.dropout(draw(st.sampled_from([0.0, 0.25, 0.5]))))
    parts.append(layers.dense(outputs))
    inputs, n = draw(st.sampled_from(widths), label="inputs"), draw(st.sampled_from(batches), label="batch")
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1), label="seed"))
    return case_of(
        tuple(parts),
        loss_name,
        inputs,
        outputs,
        n,
        rng,
        draw(st.sampled_from([None, "random", "zeros"])) if weights else None,
    )


def case_of(parts, loss_name, inputs, outputs, n, rng, weights=None) -> Case:
    """A `Case` whose parameters (biases too) and batch come from `rng`."""
    dtype = jnp.result_type(float)
    key = jax.random.key(int(rng.integers(2**31)))
    spec = jax.eval_shape(lambda k: jn.serial(*parts).init(k, (inputs,))[0], key)
    params = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) / max(1, s.shape[0]) ** 0.5, dtype), spec)
    x = jnp.asarray(rng.normal(size=(n, inputs)), dtype)
    if loss_name == "squared_error":
        y, loss = rng.normal(size=(n, outputs)), losses.squared_error
    elif loss_name == "sigmoid":
        y, loss = rng.random((n, outputs)).round(int(rng.integers(0, 3))), losses.sigmoid_cross_entropy
    else:
        y, loss = rng.integers(0, outputs, n), losses.softmax_cross_entropy
        if loss_name == "softmax one-hot":
            y = np.eye(outputs)[y]
        elif loss_name == "softmax soft":
            y = rng.dirichlet(np.ones(outputs), n)
    y = jnp.asarray(y, jnp.int32 if np.issubdtype(np.asarray(y).dtype, np.integer) else dtype)
    batch = (x, y)
    if weights is not None:
        w = rng.random(n) + 0.1
        if weights == "zeros":
            w[rng.random(n) < 0.5] = 0
        batch = (x, y, jnp.asarray(w, dtype))
    return Case(tuple(parts), loss, params, batch, key)


def roads(case: Case):
    """The two gradient functions of a case: by the hand-written rules, by automatic differentiation."""
    return jn.backprop(case.net, case.loss), jn.loss_and_grad(case.net, case.loss)
