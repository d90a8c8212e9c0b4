"""Recurrent layers: a cell scanned over time, forwards or backwards, and backpropagation through time by hand.

x is (batch, time, features), or a `Sequence` of unequal lengths; h_0 = 0 (and c_0 = 0). The output is the whole
sequence of h_t, (batch, time, units), or with `last` the state after the last step, (batch, units). Parameters:
`input.w` (features, gates · units), `hidden.w` (units, gates · units) and their biases `b`: torch's weight_ih and
weight_hh, transposed. They start uniform in ±1/√units, as torch's.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet import activations, initializers
from jaxnet.layers.cells import Cell, gru_cell, lstm_cell, rnn_cell
from jaxnet.layers.combinators import check_layers
from jaxnet.layers.graph import branch, concatenate
from jaxnet.layers.layer import Layer, as_spec
from jaxnet.layers.sequences import Sequence, blanked, packed, unpacked


def rnn(
    units: int,
    *,
    activation: "str | activations.Activation" = "tanh",
    last: bool = False,
    reverse: bool = False,
) -> Layer:
    """The simple recurrence h_t = f(x_t w_x + b_x + h_{t−1} w_h + b_h) (Goodfellow eq. 10.8–10.9).

    Backpropagation through time, from the last step: da_t = f′(a_t) (dy_t + da_{t+1} w_hᵀ), dw_h = Σ_t h_{t−1}ᵀ da_t,
    dw_x = Σ_t x_tᵀ da_t, dx_t = da_t w_xᵀ (Goodfellow §10.2.2; Werbos 1990). `reverse` runs from the last step
    to the first; `last` gives only the final h.

    Raises:
        ValueError: units < 1, an unknown activation; inputs that aren't (batch, time, features).

    >>> net = rnn(4)
    >>> net.apply(*net.init(jax.random.key(0), (7, 3)), jnp.ones((2, 7, 3)))[0].shape
    (2, 7, 4)
    """
    f = activations.get(activation)
    settings = (("activation", f.name),) if f is not activations.tanh else ()
    return _recurrent(rnn_cell(f), units, last, reverse, settings)


def lstm(units: int, *, last: bool = False, reverse: bool = False) -> Layer:
    """Long short-term memory: c_t = σ(f) c_{t−1} + σ(i) tanh g, h_t = σ(o) tanh c_t (Hochreiter & Schmidhuber 1997).

    (i, f, g, o) = x_t w_x + b_x + h_{t−1} w_h + b_h, in torch's order; the output is h.

    Raises:
        ValueError: units < 1; inputs that aren't (batch, time, features).

    >>> net = lstm(4, last=True)
    >>> net.apply(*net.init(jax.random.key(0), (7, 3)), jnp.ones((2, 7, 3)))[0].shape
    (2, 4)
    """
    return _recurrent(lstm_cell, units, last, reverse)


def gru(units: int, *, last: bool = False, reverse: bool = False) -> Layer:
    """Gated recurrent unit: h_t = (1 − z) n + z h_{t−1}, n = tanh(u_n + r v_n), torch's form of Cho et al. 2014.

    u = x_t w_x + b_x, v = h_{t−1} w_h + b_h, r = σ(u_r + v_r), z = σ(u_z + v_z), in the order r, z, n.

    Raises:
        ValueError: units < 1; inputs that aren't (batch, time, features).

    >>> net = gru(4)
    >>> jax.tree.map(jnp.shape, net.init(jax.random.key(0), (7, 3))[0])["hidden"]
    {'b': (12,), 'w': (4, 12)}
    """
    return _recurrent(gru_cell, units, last, reverse)


def bidirectional(make: Callable[..., Layer]) -> Layer:
    """[→h_t ←h_t]: the outputs of make(reverse=False) and of make(reverse=True), concatenated.

    The network of Schuster & Paliwal 1997. The parameters are by name, `lstm_0` forwards and `lstm_1` backwards.

    Raises:
        TypeError: `make` doesn't make Layers.

    >>> from functools import partial
    >>> net = bidirectional(partial(lstm, 4))
    >>> net.apply(*net.init(jax.random.key(0), (7, 3)), jnp.ones((2, 7, 3)))[0].shape
    (2, 7, 8)
    """
    directions = (make(reverse=False), make(reverse=True))
    check_layers("bidirectional", directions)
    both, merge = branch(*directions), concatenate()
    rule: Any = both.backward
    join: Any = merge.backward

    def apply(params, state, x, *, key=None, train=False):
        ys, state = both.apply(params, state, x, key=key, train=train)
        return merge.apply({}, {}, ys)[0], state

    def backward(params, state, x, dy, *, key=None, train=False):
        ys, _ = both.apply(params, state, x, key=key, train=train)
        return rule(params, state, x, join({}, {}, ys, dy)[0], key=key, train=train)

    return Layer("bidirectional", both.init, apply, backward if rule else None, (("", directions[0]),))


def check_width(what: str, values: Any, w: Any) -> None:
    """Refuse inputs of another width than the weights'.

    >>> check_width("rnn", jnp.ones((2, 3, 4)), jnp.ones((4, 5)))
    """
    if values.shape[-1] != w.shape[0]:
        raise ValueError(
            f"{what}: got inputs of shape {values.shape}; expected (batch, time, {w.shape[0]}) for weights of shape "
            f"{w.shape}: give the data and the `spec` of init the same width"
        )


def affine(part: dict, x: Any) -> Any:
    """x w + b over the last axis.

    >>> affine({"w": jnp.eye(2), "b": jnp.ones(2)}, jnp.zeros((1, 2))).tolist()
    [[1.0, 1.0]]
    """
    return x @ part["w"] + part["b"].reshape((1,) * (x.ndim - 1) + (-1,))


def affine_grads(x: Any, dz: Any) -> dict:
    """{"w": Σ xᵀ dz, "b": Σ dz} over all axes but the last.

    >>> affine_grads(jnp.ones((3, 2)), jnp.ones((3, 1)))["w"].tolist()
    [[3.0], [3.0]]
    """
    rows = dz.reshape(-1, dz.shape[-1])
    return {"w": x.reshape(-1, x.shape[-1]).T @ rows, "b": jnp.sum(rows, axis=0)}


def _chosen(active, new, old):
    """`new` where the step isn't padding, else `old`; tuples of (batch, units)."""
    if active is None:
        return new
    return tuple(jnp.where(active.reshape(-1, 1), n, o) for n, o in zip(new, old, strict=True))


def _recurrent(cell: Cell, units: int, last: bool, reverse: bool, settings: tuple = ()) -> Layer:
    if isinstance(units, bool) or not isinstance(units, int) or units < 1:
        raise ValueError(f"got {cell.name}(units={units!r}); expected a positive integer number of units")
    what = f"{cell.name}({units})"

    def init(key, spec):
        example = as_spec(spec)
        values = example.values if isinstance(example, Sequence) else example
        if not isinstance(values, jax.ShapeDtypeStruct) or len(values.shape) != 2:
            raise ValueError(f"{what}: got an example of spec {spec}; expected (time, features), or a Sequence of it")
        shapes = {"input": values.shape[1], "hidden": units}
        uniform, width = initializers.uniform(units**-0.5), cell.gates * units
        params = {}
        for i, (name, inputs) in enumerate(shapes.items()):
            key_w, key_b = jax.random.split(jax.random.fold_in(key, i))
            params[name] = {
                "w": uniform(key_w, (inputs, width), values.dtype),
                "b": uniform(key_b, (width,), values.dtype),
            }
        return params, {}

    def unrolled(params, x):
        """Per step: u, the carry that enters and v (time first), the mask; the final carry, the outputs."""
        values, mask = unpacked(x, what)
        check_width(what, values, params["input"]["w"])
        u = jnp.swapaxes(affine(params["input"], values), 0, 1)
        active = None if mask is None else mask.T

        def step(carry, at):
            u_t, active_t = at
            v = affine(params["hidden"], carry[0])
            new = _chosen(active_t, cell.step(u_t, v, carry), carry)
            return new, (new[0], carry, v)

        start = tuple(jnp.zeros((values.shape[0], units), u.dtype) for _ in range(cell.carries))
        end, (h, carries, v) = jax.lax.scan(step, start, (u, active), reverse=reverse)
        return (u, v, carries, active), end, blanked(jnp.swapaxes(h, 0, 1), mask)

    def apply(params, state, x, *, key=None, train=False):
        _, end, h = unrolled(params, x)
        return (end[0] if last else packed(x, h)), state

    def backward(params, state, x, dy, *, key=None, train=False):
        (u, v, carries, active), end, h = unrolled(params, x)
        values, mask = unpacked(x, what)
        dh = jnp.zeros_like(h) if last else blanked(dy.values if isinstance(x, Sequence) else dy, mask)
        w = params["hidden"]["w"]

        def back(dcarry, at):
            u_t, v_t, carry, active_t, dh_t = at
            d = (dcarry[0] + dh_t, *dcarry[1:])
            zeros = tuple(jnp.zeros_like(a) for a in d)
            du, dv, direct = cell.backward(u_t, v_t, carry, _chosen(active_t, d, zeros))
            before = (direct[0] + dv @ w.T, *direct[1:])
            if active_t is not None:  # in the padding the carry passes as it is
                before = _chosen(active_t, before, d)
            return before, (du, dv)

        start = (dy if last else jnp.zeros_like(end[0]), *[jnp.zeros_like(a) for a in end[1:]])
        steps = u, v, carries, active, jnp.swapaxes(dh, 0, 1)
        _, (du, dv) = jax.lax.scan(back, start, steps, reverse=not reverse)
        du = jnp.swapaxes(du, 0, 1)
        dx = blanked(du @ params["input"]["w"].T, mask)
        grads = {"input": affine_grads(values, du), "hidden": affine_grads(carries[0], dv)}
        return packed(x, dx, gradient=True), grads

    flags = tuple((name, True) for name, flag in (("last", last), ("reverse", reverse)) if flag)
    return Layer(cell.name, init, apply, backward, (("", units), *settings, *flags))
