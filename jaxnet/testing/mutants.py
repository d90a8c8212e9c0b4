"""Planted defects of back-propagation: a comparator that lets one of them through proves nothing.

Ten mistakes that people make, each a change at one place of the computation: in a layer's rule, in what is made of the
batch, or in the gradient of a parameter.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet import activations
from jaxnet.gradients import GradientFunction, backprop, penalized, role
from jaxnet.layers import Layer, serial
from jaxnet.layers.combinators import names
from jaxnet.losses import Loss


def _same(value, *others):
    return value


@dataclass(frozen=True)
class _Defect:
    """What is changed: tanh's (dx, x, dy), the factor of the data's gradient for n examples, the gradients at last."""

    name: str
    rule: Callable = _same  # (dx, x, dy) -> dx of the first tanh
    factor: Callable[[int], float] = lambda n: 1.0
    grads: Callable = _same  # (grads, params, l2, n, first dense layer's name) -> grads


def _each(grads, name, change):
    """The leaves of that role changed."""
    return jax.tree_util.tree_map_with_path(lambda path, g: change(g) if role(path) == name else g, grads)


def _penalty(which):
    def grads(grads, params, l2, n, first):
        return jax.tree_util.tree_map_with_path(
            lambda path, g, p: g + jnp.asarray(l2, p.dtype) * p if role(path) == which else g, grads, params
        )

    return grads


def _first(name, change):
    """One array of the first dense layer changed."""

    def grads(grads, params, l2, n, first):
        return grads | {first: grads[first] | {name: change(grads[first][name])}}

    return grads


DEFECTS = (
    _Defect("sum for mean", factor=lambda n: n),
    _Defect("mean over n - 1", factor=lambda n: n / (n - 1)),
    _Defect("penalty on biases", grads=_penalty("b")),
    _Defect("penalty twice", grads=_penalty("w")),
    _Defect("mean for sum in the bias gradient", grads=lambda g, p, l2, n, f: _each(g, "b", lambda v: v / n)),
    _Defect("first bias gradient zero", grads=_first("b", jnp.zeros_like)),
    _Defect("derivative omitted in one layer", rule=lambda dx, x, dy: dy),
    _Defect("1 - |h|^1.98 for tanh'", rule=lambda dx, x, dy: dx * _nearly(activations.tanh(x))),
    _Defect("one unit times 1.01", rule=lambda dx, x, dy: dx.at[:, 0].multiply(1.01)),
    _Defect("one weight times 1.05", grads=_first("w", lambda w: w.at[0, 0].multiply(1.05))),
)


def _nearly(h):
    """(1 − |h|^1.98) / (1 − h²), 0.99 at |h| = 1."""
    gap = 1 - h**2
    return jnp.where(gap > 1e-6, (1 - jnp.abs(h) ** 1.98) / jnp.where(gap > 1e-6, gap, 1), 0.99)


def mutants(net: Layer, loss: Loss, *, l2: float = 0.1, together: int = 1) -> dict[str, GradientFunction]:
    """The ten planted defects, name -> wrong gradient function, of back-propagation with the penalty ½ l2 ‖w‖².

    The right one is `penalized(loss_and_grad(net, loss), l2=l2)`. The defects: the batch's sum for its mean, and its
    mean over n − 1; the penalty on biases, and twice; the bias gradient's mean for its sum, and zero in the first
    layer; the derivative of the first tanh omitted, off by a power of 1.98 for 2, and off by 1 % in one unit; one
    weight's gradient off by 5 %.

    Args:
        net: `serial`, with a dense layer that has a bias, and a tanh. Batches have more than one example.
        loss: with a hand-written gradient.
        l2: the penalty.
        together: how many defects at once: 2 gives the 45 pairs, named "a + b".

    Raises:
        ValueError: a network in which a defect would change nothing; together outside of 1 to 10.

    >>> import jaxnet as jn
    >>> from jaxnet.testing import compare_gradients
    >>> net, loss = jn.serial(jn.dense(4), jn.tanh(), jn.dense(2)), jn.losses.squared_error
    >>> batch = jnp.ones((3, 2)), jnp.zeros((3, 2))
    >>> right = jn.penalized(jn.loss_and_grad(net, loss), l2=0.1)
    >>> wrong = mutants(net, loss)["sum for mean"]
    >>> bool(compare_gradients(wrong, right, *net.init(jax.random.key(0), (2,)), batch))
    False
    """
    parts = tuple(part for _, part in net.settings if isinstance(part, Layer)) if net.name == "serial" else ()
    dense = next((part for part in parts if part.name == "dense"), None)
    if dense is None or ("bias", False) in dense.settings or all(part.name != "tanh" for part in parts):
        raise ValueError(
            f"mutants: got {net!r}; expected serial(dense(…), tanh(), …), the first dense layer with a bias: the "
            "defects are planted in these"
        )
    if not 1 <= together <= len(DEFECTS):
        raise ValueError(f"mutants: got together={together}; expected 1 to {len(DEFECTS)}")
    groups = combinations(DEFECTS, together)
    return {" + ".join(d.name for d in group): _planted(parts, loss, l2, group) for group in groups}


def _planted(parts: tuple[Layer, ...], loss: Loss, l2: float, defects: tuple[_Defect, ...]) -> GradientFunction:
    at = next(i for i, part in enumerate(parts) if part.name == "tanh")
    first = next(name for name, part in zip(names(parts), parts, strict=True) if part.name == "dense")
    rule: Any = parts[at].backward

    def backward(params, state, x, dy, *, key=None, train=False):
        dx, grads = rule(params, state, x, dy, key=key, train=train)
        for defect in defects:
            dx = defect.rule(dx, x, dy)
        return dx, grads

    plain = backprop(serial(*parts[:at], replace(parts[at], backward=backward), *parts[at + 1 :]), loss)

    def scaled(params, state, batch, *, key=None, train=False):
        value, grads = plain(params, state, batch, key=key, train=train)
        for defect in defects:
            grads = jax.tree.map(lambda g, d=defect: g * d.factor(batch[0].shape[0]), grads)
        return value, grads

    def gradient(params, state, batch, *, key=None, train=False):
        value, grads = penalized(scaled, l2=l2)(params, state, batch, key=key, train=train)
        for defect in defects:
            grads = defect.grads(grads, params, l2, batch[0].shape[0], first)
        return value, grads

    return gradient
