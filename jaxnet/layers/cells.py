"""Cells: one step of a recurrence and its hand-derived backward rule, elementwise; the sums are in `recurrent`.

    step(u, v, carry)             -> carry     u = x_t w_x + b_x and v = h_{t−1} w_h + b_h: (batch, gates · units)
    backward(u, v, carry, dcarry) -> du, dv, dcarry through all but v

`carry` is a tuple of (batch, units), h first; equations and order of gates are torch's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from jaxnet import activations

_sigmoid, _tanh = activations.sigmoid, activations.tanh


@dataclass(frozen=True, eq=False)
class Cell:
    """A step, its backward rule, the number of its gates and of the arrays it carries.

    >>> gru_cell.gates, lstm_cell.carries
    (3, 2)
    """

    name: str
    gates: int
    carries: int
    step: Callable[[Any, Any, tuple], tuple]
    backward: Callable[[Any, Any, tuple, tuple], tuple[Any, Any, tuple]]


def rnn_cell(activation: activations.Activation) -> Cell:
    """h′ = f(u + v), that is h_t = f(x_t w_x + b_x + h_{t−1} w_h + b_h) (Goodfellow eq. 10.8–10.9); da = f's dh.

    >>> rnn_cell(activations.tanh).gates
    1
    """

    def step(u, v, carry):
        return (activation.value(u + v),)

    def backward(u, v, carry, dcarry):
        da = activation.backward(u + v, dcarry[0])
        return da, da, (jnp.zeros_like(dcarry[0]),)

    return Cell("rnn", 1, 1, step, backward)


def _lstm_step(u, v, carry):
    i, f, g, o = jnp.split(u + v, 4, axis=-1)
    c = _sigmoid(f) * carry[1] + _sigmoid(i) * _tanh(g)
    return _sigmoid(o) * _tanh(c), c


def _lstm_backward(u, v, carry, dcarry):
    i, f, g, o = jnp.split(u + v, 4, axis=-1)
    dh, dc = dcarry
    c = _sigmoid(f) * carry[1] + _sigmoid(i) * _tanh(g)
    dc = dc + _tanh.backward(c, dh * _sigmoid(o))
    da = jnp.concatenate(
        [
            _sigmoid.backward(i, dc * _tanh(g)),
            _sigmoid.backward(f, dc * carry[1]),
            _tanh.backward(g, dc * _sigmoid(i)),
            _sigmoid.backward(o, dh * _tanh(c)),
        ],
        axis=-1,
    )
    return da, da, (jnp.zeros_like(dh), dc * _sigmoid(f))


lstm_cell = Cell("lstm", 4, 2, _lstm_step, _lstm_backward)
"""Gates i, f, g, o = u + v: c′ = σ(f) c + σ(i) tanh g, h′ = σ(o) tanh c′ (Hochreiter & Schmidhuber 1997; torch)."""


def _gru_gates(u, v):
    """(the pre-activations of r and z, that of n, n's part of v)."""
    (u_r, u_z, u_n), (v_r, v_z, v_n) = jnp.split(u, 3, axis=-1), jnp.split(v, 3, axis=-1)
    return u_r + v_r, u_z + v_z, u_n + _sigmoid(u_r + v_r) * v_n, v_n


def _gru_step(u, v, carry):
    _, z, n, _ = _gru_gates(u, v)
    return ((1 - _sigmoid(z)) * _tanh(n) + _sigmoid(z) * carry[0],)


def _gru_backward(u, v, carry, dcarry):
    r, z, n, v_n = _gru_gates(u, v)
    dh = dcarry[0]
    dz = _sigmoid.backward(z, dh * (carry[0] - _tanh(n)))
    dn = _tanh.backward(n, dh * (1 - _sigmoid(z)))
    dr = _sigmoid.backward(r, dn * v_n)
    du, dv = jnp.concatenate([dr, dz, dn], axis=-1), jnp.concatenate([dr, dz, dn * _sigmoid(r)], axis=-1)
    return du, dv, (dh * _sigmoid(z),)


gru_cell = Cell("gru", 3, 1, _gru_step, _gru_backward)
"""Gates r, z, n: r = σ(u_r + v_r), z = σ(u_z + v_z), n = tanh(u_n + r v_n), h′ = (1 − z) n + z h.

torch's form of Cho et al. 2014: the reset gate multiplies h w_n + b_n, not h, and z keeps the old h."""
