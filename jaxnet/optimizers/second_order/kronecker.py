"""The Fisher matrix of a network of dense layers, approximated by a Kronecker product for each layer: F ≈ A ⊗ G.

For a layer z = ā W, ā = [x 1], with δ the derivative of log p(y|x) by z, y drawn from the network's own distribution:

    A = Σ w ā āᵀ / Σ w        G = Σ w E[δ δᵀ] / Σ w        (F + λI)⁻¹ V ≈ (A + π√λ I)⁻¹ V (G + √λ/π I)⁻¹

A layer is named by its path in the parameters, "dense_0" or "residual_0/dense_0".
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.linalg import cho_factor, cho_solve

from jaxnet.gradients.products import shares
from jaxnet.layers import Layer, identity
from jaxnet.layers.combinators import added, parts

SIDE_BY_SIDE = ("branch", "parallel", "residual")


class Pair(NamedTuple):
    """The two factors of one layer."""

    a: Array  # (inputs + 1, inputs + 1); (inputs, inputs) without a bias
    g: Array  # (units, units)


def forward(net: Layer, params: Any, state: Any, x: Any, taps: "dict[str, Array] | None" = None, path: tuple = ()):
    """The outputs as in training, and the inputs and outputs of each dense layer: y, {path: (x, z)}.

    Enters `serial`, `branch`, `parallel` and `residual`. taps: {path: what is added to z}.

    Raises:
        ValueError: another layer with parameters; a dense layer on more than plain rows.

    >>> import jaxnet as jn
    >>> net = jn.mlp([4, 2])
    >>> _, found = forward(net, *net.init(jax.random.key(0), (3,)), jnp.ones((5, 3)))
    >>> {path: (x.shape, z.shape) for path, (x, z) in found.items()}
    {'dense_0': ((5, 3), (5, 4)), 'dense_1': ((5, 4), (5, 2))}
    """
    held = tuple(part for _, part in net.settings if isinstance(part, Layer))
    found: dict[str, tuple[Array, Array]] = {}
    if net.name == "serial":
        for name, layer, own, own_state, _ in parts(held, params, state, None):
            x, more = forward(layer, own, own_state, x, taps, (*path, name))
            found |= more
        return x, found
    if net.name in SIDE_BY_SIDE:
        held = (*held, identity())[:2] if net.name == "residual" else held
        xs = x if net.name == "parallel" else (x,) * len(held)
        ys = []
        for (name, layer, own, own_state, _), part in zip(parts(held, params, state, None), xs, strict=True):
            y, more = forward(layer, own, own_state, part, taps, (*path, name))
            ys.append(y)
            found |= more
        return (added(*ys) if net.name == "residual" else tuple(ys)), found
    y, _ = net.apply(params, state, x, train=True)
    if not params:
        return y, found
    if net.name != "dense" or x.ndim != 2:
        what = f"{net!r} on inputs of shape {x.shape}" if net.name == "dense" else f"{net!r}, which has parameters"
        raise ValueError(
            f"kfac: got {what}, at {'/'.join(path) or 'the top'}; expected dense layers on plain rows, in serial, "
            "branch, parallel or residual: use lbfgs, or frozen(…) to keep a layer as it is"
        )
    name = "/".join(path)
    z = y if taps is None else y + taps[name]
    return z, {name: (x, z)}


def factors(net: Layer, params: Any, state: Any, x: Any, columns: Array, weight: tuple) -> dict[str, Pair]:
    """The pair of each dense layer; `columns` (k, n, …outputs) are such that Σ_k column columnᵀ = E[∂ℓ/∂ŷ ∂ℓ/∂ŷᵀ].

    Each column is propagated back once.

    >>> import jaxnet as jn
    >>> found = factors(jn.dense(1), {"w": jnp.ones((1, 1)), "b": jnp.ones(1)}, {}, jnp.array([[1.0], [3.0]]),
    ...                 jnp.ones((1, 2, 1)), ())
    >>> found[""].a.tolist(), found[""].g.tolist()
    ([[5.0, 2.0], [2.0, 1.0]], [[1.0]])
    """
    shapes = jax.eval_shape(lambda p, x: forward(net, p, state, x)[1], params, x)
    taps = {name: jnp.zeros(z.shape, z.dtype) for name, (_, z) in shapes.items()}
    _, pullback, found = jax.vjp(lambda taps: forward(net, params, state, x, taps), taps, has_aux=True)
    slopes = jax.vmap(lambda column: pullback(column)[0])(columns)

    def pair(name):
        rows = found[name][0]
        if "b" in at(params, name):
            rows = jnp.concatenate([rows, jnp.ones((len(rows), 1), rows.dtype)], axis=1)
        each = shares(rows, *weight)
        a = jnp.einsum("ni,nj->ij", rows * each, rows, precision="highest")
        g = jnp.einsum("kni,knj->ij", slopes[name] * each, slopes[name], precision="highest")
        return Pair(a, g)

    return {name: pair(name) for name in found}


def preconditioned(gradient: Any, pairs: dict[str, Pair], damping: Array) -> Any:
    """(A + π√λ I)⁻¹ V (G + √λ/π I)⁻¹ for each layer's gradient V; π² = (tr A / dim A) / (tr G / dim G).

    NaN where a damped factor isn't positive definite.
    """
    result: Any = {}
    for name, pair in pairs.items():
        own = at(gradient, name)
        v = jnp.concatenate([own["w"], own["b"][None]]) if "b" in own else own["w"]
        means = [jnp.trace(m) / len(m) for m in pair]
        known = (means[0] > 0) & (means[1] > 0)
        pi = jnp.sqrt(jnp.where(known, means[0], 1) / jnp.where(known, means[1], 1))
        root = jnp.sqrt(damping)
        left, right = (
            m + d * jnp.eye(len(m), dtype=m.dtype) for m, d in zip(pair, (pi * root, root / pi), strict=True)
        )
        v = cho_solve(cho_factor(left, lower=True), v)
        v = cho_solve(cho_factor(right, lower=True), v.T).T
        result = put(result, name, {"w": v[:-1], "b": v[-1]} if "b" in own else {"w": v})
    return result


def at(tree: Any, path: str) -> Any:
    """The part of nested dicts at a path.

    >>> at({"a": {"b": 1}}, "a/b")
    1
    """
    for name in path.split("/") if path else ():
        tree = tree[name]
    return tree


def put(tree: Any, path: str, value: Any) -> Any:
    """Nested dicts with `value` at a path.

    >>> put({"a": {"b": 1}}, "a/c", 2)
    {'a': {'b': 1, 'c': 2}}
    """
    if not path:
        return value
    name, _, rest = path.partition("/")
    return tree | {name: put(tree.get(name, {}), rest, value)}
