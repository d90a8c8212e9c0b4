"""Weights that are factored, normalized or random: `reparameterized` on every leaf named `w`, wherever it is.

    low_rank(net, r)        w = u v
    weight_norm(net)        w = g v / ‖v‖, for each unit
    dropconnect(net, rate)  w ⊙ m / (1 − rate) in training
    weight_noise(net, std)  w + std ε in training

Biases, norm scales and the like stay as they are. A factored leaf becomes a dict of its factors, `w.u` and `w.v`.
Draws for the i-th weight, in the order of the tree, come from the key folded with i.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.layers.layer import Layer
from jaxnet.layers.reparameterized import reparameterized


def _on_weights(function: Callable, *trees: Any, key: jax.Array | None = None) -> Any:
    """The first tree with each `w` replaced by function(w's of all trees, key folded with its number)."""
    count = 0

    def visit(trees):
        nonlocal count
        result = {}
        for name in sorted(trees[0]):
            inner = [tree[name] for tree in trees]
            if name == "w":
                result[name] = function(*inner, None if key is None else jax.random.fold_in(key, count))
                count += 1
            else:
                result[name] = visit(inner) if isinstance(inner[0], dict) else inner[0]
        return result

    return visit(trees)


def low_rank(net: Layer, rank: int) -> Layer:
    """w = u v with u (inputs, rank), v (rank, units); du = dw vᵀ, dv = uᵀ dw.

    At first u v is the best approximation of that rank to net's initial w, from its singular values: u = U √S and
    v = √S Vᵀ (Eckart–Young; Goodfellow §2.8).

    Raises:
        ValueError: rank < 1; at init, a weight that isn't a matrix or has a side shorter than rank.

    >>> from jaxnet.layers import dense
    >>> params, _ = low_rank(dense(6), 2).init(jax.random.key(0), (5,))
    >>> jax.tree.map(jnp.shape, params)
    {'b': (6,), 'w': {'u': (5, 2), 'v': (2, 6)}}
    """
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"got low_rank(rank={rank!r}); expected a positive integer")

    def factors(w, key):
        if w.ndim != 2 or min(w.shape) < rank:
            raise ValueError(
                f"low_rank: got a weight of shape {w.shape}; expected a matrix with sides of at least {rank}"
            )
        u, s, v = jnp.linalg.svd(w, full_matrices=False)
        root = jnp.sqrt(s[:rank])
        return {"u": u[:, :rank] * root.reshape(1, rank), "v": root.reshape(rank, 1) * v[:rank]}

    def back(dw, w, key):
        return {"u": dw @ w["v"].T, "v": w["u"].T @ dw}

    return reparameterized(
        net,
        lambda params, key: _on_weights(lambda w, key: w["u"] @ w["v"], params),
        lambda params, key, grads: _on_weights(back, grads, params),
        contract=lambda params: _on_weights(factors, params),
        name="low_rank",
        settings=(("rank", rank),),
    )


def weight_norm(net: Layer) -> Layer:
    """w = g v / ‖v‖ for each unit, the norm over all axes of w but the last (Salimans & Kingma 2016, eq. 2–3).

    dg = Σ dw v / ‖v‖ and dv = g / ‖v‖ (dw − v / ‖v‖ dg): orthogonal to v. At first v = w and g = ‖w‖. A unit with
    v = 0 has w = 0 and gets dg = 0, dv = g dw: no NaN.

    >>> from jaxnet.layers import dense
    >>> params, _ = weight_norm(dense(6)).init(jax.random.key(0), (5,))
    >>> jax.tree.map(jnp.shape, params)
    {'b': (6,), 'w': {'g': (6,), 'v': (5, 6)}}
    """

    def norm(v):
        """‖v‖ with the axes kept; 1 where v = 0."""
        square = jnp.sum(jnp.square(v), axis=tuple(range(v.ndim - 1)), keepdims=True)
        return jnp.sqrt(jnp.where(square == 0, jnp.ones_like(square), square))

    def factors(w, key):
        return {"g": jnp.sqrt(jnp.sum(jnp.square(w), axis=tuple(range(w.ndim - 1)))), "v": w}

    def weight(w, key):
        size = norm(w["v"])
        return w["g"].reshape(size.shape) * (w["v"] / size)

    def back(dw, w, key):
        size = norm(w["v"])
        unit = w["v"] / size
        dg = jnp.sum(dw * unit, axis=tuple(range(dw.ndim - 1)), keepdims=True)
        return {"g": dg.reshape(w["g"].shape), "v": w["g"].reshape(size.shape) / size * (dw - unit * dg)}

    return reparameterized(
        net,
        lambda params, key: _on_weights(weight, params),
        lambda params, key, grads: _on_weights(back, grads, params),
        contract=lambda params: _on_weights(factors, params),
        name="weight_norm",
    )


def dropconnect(net: Layer, rate) -> Layer:
    """w ⊙ m / (1 − rate) in training, m ~ Bernoulli(1 − rate) per weight; w itself in inference.

    `rate` is the probability to DROP a weight, in [0, 1), and may be traced. E[w ⊙ m / (1 − rate)] = w, and dw is
    masked and scaled likewise. One mask serves the whole batch; for one per example (Wan et al. 2013; Goodfellow
    §7.12) `vmap` over batches of one, each with its key.

    Raises:
        ValueError: a rate outside [0, 1); training without a key.

    >>> from jaxnet.layers import dense
    >>> net = dropconnect(dense(1, weight_init=lambda key, shape, dtype: jnp.ones(shape, dtype)), 0.5)
    >>> params, state = net.init(jax.random.key(0), (3,))
    >>> y, _ = net.apply(params, state, jnp.ones((1, 3)), key=jax.random.key(1), train=True)
    >>> float(y[0, 0]) in (0.0, 2.0, 4.0, 6.0)
    True
    """
    if isinstance(rate, (bool, str)) or (isinstance(rate, (int, float, np.number)) and not 0 <= rate < 1):
        raise ValueError(f"got dropconnect(rate={rate!r}); expected the probability to drop a weight, in [0, 1)")

    def masked(w, key):
        keep = 1 - jnp.asarray(rate, w.dtype)
        kept = jax.random.bernoulli(key, keep.astype(jnp.result_type(float)), w.shape)
        return jnp.where(kept, w / keep, jnp.zeros_like(w))

    def mask(params, key):
        return _on_weights(masked, params, key=key)

    return reparameterized(
        net, mask, lambda params, key, grads: mask(grads, key), random=True, name="dropconnect", settings=(("", rate),)
    )


def weight_noise(net: Layer, std) -> Layer:
    """w + std ε in training, ε ~ N(0, 1) per weight and step; w itself in inference. dw passes as it is.

    For small std it adds std² E‖∂y/∂w‖² (halved for ½ ‖y − t‖²) to the loss, a preference for flat minima, where the
    residuals average to zero or y is linear in w (Goodfellow §7.5, eq. 7.30–7.32, without that condition). `std`
    may be traced.

    Raises:
        ValueError: a negative std; training without a key.

    >>> from jaxnet.layers import dense
    >>> net = weight_noise(dense(2), 0.1)
    >>> params, state = net.init(jax.random.key(0), (3,))
    >>> net.apply(params, state, jnp.ones((1, 3)), key=jax.random.key(1), train=True)[0].shape
    (1, 2)
    """
    if isinstance(std, (bool, str)) or (isinstance(std, (int, float, np.number)) and not 0 <= std < float("inf")):
        raise ValueError(f"got weight_noise(std={std!r}); expected a standard deviation ≥ 0")

    def noisy(w, key):
        return w + jnp.asarray(std, w.dtype) * jax.random.normal(key, w.shape, w.dtype)

    return reparameterized(
        net,
        lambda params, key: _on_weights(noisy, params, key=key),
        lambda params, key, grads: grads,
        random=True,
        name="weight_noise",
        settings=(("", std),),
    )
