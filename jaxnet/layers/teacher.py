"""Output recurrence: what the network said at one step, or what it should have said, is an input of the next."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import activations, initializers
from jaxnet.layers.layer import Layer, as_spec
from jaxnet.layers.recurrent import affine, affine_grads, check_width
from jaxnet.layers.sequences import Sequence, blanked, packed, unpacked


def output_rnn(
    units: int,
    outputs: int,
    *,
    teacher=1.0,
    activation: "str | activations.Activation" = "tanh",
    feedback: "str | activations.Activation" = "identity",
) -> Layer:
    """h_t = f(x_t w_x + b_x + p_t w_p), o_t = h_t w_o + b_o; p_t is the previous output, or the target.

    Output recurrence, teacher forcing and the middle between (Goodfellow §10.2, §10.2.1, fig. 10.4 and 10.6).
    The input is a pair (x, y): x (batch, time, features) or a `Sequence`, y (batch, time, outputs) the targets; or
    x alone. The outputs are o. p_1 = 0. In inference, and for x alone, p_t = g(o_{t−1}), g being `feedback` (softmax
    for one-hot targets). In training p_t = y_{t−1} with probability `teacher`, drawn per example and step, else
    g(o_{t−1}): 1 is teacher forcing, 0 runs free, between is scheduled sampling (Bengio et al. 2015; lower it
    during training; it may be traced). Gradients pass through g(o_{t−1}), so with teacher forcing alone the steps
    don't depend on each other.

    Backward, from the last step: do_t = dy_t + g's dp_{t+1} where it was fed, da_t = f's (do_t w_oᵀ), dp_t = da_t w_pᵀ.

    Raises:
        ValueError: units or outputs < 1, a probability outside [0, 1], targets of another shape; training without
            a key, unless teacher is 0 or 1.

    >>> net = output_rnn(4, 2)
    >>> x, y = jnp.ones((5, 7, 3)), jnp.ones((5, 7, 2))
    >>> spec = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), (x, y))
    >>> net.apply(*net.init(jax.random.key(0), spec), (x, y), train=True)[0].shape
    (5, 7, 2)
    """
    for name, count in (("units", units), ("outputs", outputs)):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"got output_rnn({name}={count!r}); expected a positive integer")
    fixed = isinstance(teacher, (int, float, np.number))
    if isinstance(teacher, (bool, str)) or (fixed and not 0 <= teacher <= 1):
        raise ValueError(f"got output_rnn(teacher={teacher!r}); expected the probability to feed the target, in [0, 1]")
    f, g = activations.get(activation), activations.get(feedback)
    what = f"output_rnn({units}, {outputs})"

    def init(key, spec):
        example = as_spec(spec)
        x = example[0] if isinstance(example, tuple) else example
        values = x.values if isinstance(x, Sequence) else x
        if len(values.shape) != 2:
            raise ValueError(
                f"{what}: got an example of spec {spec}; expected (time, features), or a pair with targets"
            )
        keys = jax.random.split(key, 5)
        uniform = initializers.uniform(units**-0.5)
        dtype = values.dtype
        return {
            "input": {"w": uniform(keys[0], (values.shape[1], units), dtype), "b": uniform(keys[1], (units,), dtype)},
            "feedback": {"w": uniform(keys[2], (outputs, units), dtype)},
            "output": {"w": uniform(keys[3], (units, outputs), dtype), "b": uniform(keys[4], (outputs,), dtype)},
        }, {}

    def unrolled(params, x, key, train):
        """All that the steps read and leave, time first."""
        x, y = x if isinstance(x, tuple) else (x, None)
        values, mask = unpacked(x, what)
        check_width(what, values, params["input"]["w"])
        shape = (*values.shape[:2], outputs)
        forced = jnp.zeros(shape[:2], bool)
        given = jnp.zeros(shape, values.dtype)
        if y is not None:
            targets = y.values if isinstance(y, Sequence) else y
            if targets.shape != shape:
                raise ValueError(f"{what}: got targets of shape {targets.shape}; expected {shape}")
            given = jnp.concatenate([given[:, :1], blanked(targets, mask)[:, :-1].astype(given.dtype)], axis=1)
            forced = _forced(forced, teacher if train else 0, key)
        u = affine(params["input"], values)
        u, given, forced, active = (jnp.swapaxes(a, 0, 1) for a in (u, given, forced, _full(mask, forced)))

        def step(said, at):
            u_t, given_t, forced_t, active_t = at
            p = jnp.where(forced_t.reshape(-1, 1), given_t, said)
            a = u_t + p @ params["feedback"]["w"]
            o = jnp.where(active_t.reshape(-1, 1), affine(params["output"], f.value(a)), jnp.zeros_like(said))
            return g.value(o), (p, a, o)

        _, (p, a, o) = jax.lax.scan(step, jnp.zeros((shape[0], outputs), u.dtype), (u, given, forced, active))
        return values, mask, forced, active, p, a, o

    def apply(params, state, x, *, key=None, train=False):
        *_, o = unrolled(params, x, key, train)
        return packed(x[0] if isinstance(x, tuple) else x, jnp.swapaxes(o, 0, 1)), state

    def backward(params, state, x, dy, *, key=None, train=False):
        values, mask, forced, active, p, a, o = unrolled(params, x, key, train)
        inputs = x[0] if isinstance(x, tuple) else x
        dy = jnp.swapaxes(dy.values if isinstance(inputs, Sequence) else dy, 0, 1)

        def back(dsaid, at):
            dy_t, a_t, o_t, forced_t, active_t = at
            do = jnp.where(active_t.reshape(-1, 1), dy_t + g.backward(o_t, dsaid), jnp.zeros_like(dy_t))
            da = f.backward(a_t, do @ params["output"]["w"].T)
            dp = da @ params["feedback"]["w"].T
            return jnp.where(forced_t.reshape(-1, 1), jnp.zeros_like(dp), dp), (do, da, dp)

        _, (do, da, dp) = jax.lax.scan(back, jnp.zeros_like(dy[0]), (dy, a, o, forced, active), reverse=True)
        grads = {
            "input": affine_grads(values, jnp.swapaxes(da, 0, 1)),
            "feedback": {"w": affine_grads(p, da)["w"]},
            "output": affine_grads(f.value(a), do),
        }
        dx = packed(inputs, blanked(jnp.swapaxes(da, 0, 1) @ params["input"]["w"].T, mask), gradient=True)
        if not isinstance(x, tuple):
            return dx, grads
        targets = x[1].values if isinstance(x[1], Sequence) else x[1]
        if not jnp.issubdtype(targets.dtype, jnp.inexact):
            return (dx, packed(x[1], None, gradient=True)), grads
        used = jnp.swapaxes(jnp.where(forced.reshape(*forced.shape, 1), dp, jnp.zeros_like(dp)), 0, 1)
        dgiven = jnp.concatenate([used[:, 1:], jnp.zeros_like(used[:, :1])], axis=1).astype(targets.dtype)
        return (dx, packed(x[1], blanked(dgiven, mask), gradient=True)), grads

    settings: tuple[tuple[str, Any], ...] = (("", units), ("", outputs), ("teacher", teacher), ("feedback", g.name))
    return Layer("output_rnn", init, apply, backward, settings)


def _full(mask, like):
    return jnp.ones_like(like) if mask is None else mask


def _forced(blank, teacher, key):
    """(batch, time): where the target is fed; never at the first step, which has none before it."""
    never = isinstance(teacher, (int, float, np.number)) and teacher == 0
    always = isinstance(teacher, (int, float, np.number)) and teacher == 1
    if never:
        return blank
    if always:
        draws = ~blank
    elif key is None:
        raise ValueError("output_rnn in training got key=None; expected a key: pass key=jax.random.key(…)")
    else:
        draws = jax.random.bernoulli(key, jnp.asarray(teacher, jnp.result_type(float)), blank.shape)
    return draws.at[:, 0].set(False)
