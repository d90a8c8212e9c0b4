"""A network on parameters that are made from others.

    reparameterized(net, expand, pullback)
      expand(params, key)            -> the net's parameters
      pullback(params, key, dparams) -> the gradient by params, from that by the net's parameters

Tying, here, and all that `weights` does (low rank, weight norm, DropConnect, weight noise) go through it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.layers.combinators import added, check_layers
from jaxnet.layers.layer import Layer


def reparameterized(
    net: Layer,
    expand: Callable[[Any, Any], Any],
    pullback: Callable[[Any, Any, Any], Any] | None,
    *,
    contract: Callable[[Any], Any] | None = None,
    random: bool = False,
    name: str = "reparameterized",
    settings: tuple[tuple[str, Any], ...] = (),
) -> Layer:
    """`net` on other parameters: y = net(x; expand(params, key)), dparams = pullback(params, key, net's dparams).

    Args:
        net: any Layer.
        expand: the net's parameters from these; pure.
        pullback: its transposed derivative, written by hand; None for no backward rule.
        contract: the initial parameters from the net's own initial ones; they are the same when left out.
        random: whether `expand` draws from its key. Then it's used in training only, and inference runs the net on
            `params` as they are. Otherwise its key is None.
        name, settings: the kind and what `repr` shows, for a transformation that has a name.

    In training `net` gets `key` folded with 0 and a random `expand` that folded with 1.

    Raises:
        ValueError: training without a key, when random.

    >>> from jaxnet.layers import dense
    >>> doubled = reparameterized(dense(2), lambda params, key: jax.tree.map(lambda a: 2 * a, params),
    ...                           lambda params, key, grads: jax.tree.map(lambda g: 2 * g, grads))
    >>> params, state = doubled.init(jax.random.key(0), (3,))
    >>> x = jnp.ones((1, 3))
    >>> bool(jnp.allclose(doubled.apply(params, state, x)[0], 2 * x @ params["w"]))
    True
    """
    check_layers(name, (net,))
    rule: Any = net.backward
    back: Any = pullback

    def keys(key, train):
        """(the net's key, expand's key, whether to expand)."""
        if not random:
            return key, None, True
        if not train:
            return key, None, False
        if key is None:
            raise ValueError(f"{name} in training got key=None; expected a key: pass key=jax.random.key(…)")
        return jax.random.fold_in(key, 0), jax.random.fold_in(key, 1), True

    def init(key, spec):
        params, state = net.init(key, spec)
        return (contract(params) if contract else params), state

    def apply(params, state, x, *, key=None, train=False):
        net_key, own_key, expanding = keys(key, train)
        inner = expand(params, own_key) if expanding else params
        return net.apply(inner, state, x, key=net_key, train=train)

    def backward(params, state, x, dy, *, key=None, train=False):
        net_key, own_key, expanding = keys(key, train)
        inner = expand(params, own_key) if expanding else params
        dx, grads = rule(inner, state, x, dy, key=net_key, train=train)
        return dx, back(params, own_key, grads) if expanding else grads

    return Layer(name, init, apply, backward if rule and back else None, (("", net), *settings))


def tied(net: Layer, ties: Mapping[str, str], *, transpose: bool = False) -> Layer:
    """`net` with shared parameters: the one at each path of `ties` is that at its value, and isn't stored.

    Paths are names joined by dots, to an array ("dense_1.w") or to a whole layer ("dense_1"). With `transpose` the
    shared ones are transposed: a decoder tied to its encoder. The gradient by a shared parameter is the sum of those
    by its uses, a transposed use transposed back (Goodfellow §7.9, §6.5.6).

    Raises:
        ValueError: at init, a path that isn't there, a tie to what is itself tied, different shapes.

    >>> from jaxnet.layers import dense, serial, tanh
    >>> auto = tied(serial(dense(2), tanh(), dense(5)), {"dense_1.w": "dense_0.w"}, transpose=True)
    >>> params, _ = auto.init(jax.random.key(0), (5,))
    >>> jax.tree.map(jnp.shape, params)
    {'dense_0': {'b': (2,), 'w': (5, 2)}, 'dense_1': {'b': (5,)}}
    """
    ties = dict(ties)
    for path, source in ties.items():
        if any(_overlap(source, other) for other in ties):
            raise ValueError(
                f"tied: got {path!r} tied to {source!r}, which is itself tied; expected a stored parameter"
            )

    def turned(tree):
        return jax.tree.map(jnp.transpose, tree) if transpose else tree

    def expand(params, key):
        for path, source in ties.items():
            params = _put(params, path, turned(_get(params, source)))
        return params

    def pullback(params, key, grads):
        for path, source in ties.items():
            use = turned(_get(grads, path))
            grads = _drop(grads, path)
            grads = _put(grads, source, added(_get(grads, source), use))
        return grads

    def contract(params):
        for path, source in ties.items():
            uses = [jax.tree.map(jnp.shape, tree) for tree in (_get(params, path), turned(_get(params, source)))]
            if uses[0] != uses[1]:
                raise ValueError(
                    f"tied: got {path!r} of shape {uses[0]} and {source!r} of {uses[1]}; expected the same"
                )
            params = _drop(params, path)
        return params

    settings = (("ties", ties), ("transpose", True)) if transpose else (("ties", ties),)
    return reparameterized(net, expand, pullback, contract=contract, name="tied", settings=settings)


def _overlap(one: str, other: str) -> bool:
    """Whether one path is the other, or leads to it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")


def _get(tree: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(tree, dict) or name not in tree:
            has = f"names {sorted(tree)}" if isinstance(tree, dict) else "an array"
            raise ValueError(
                f"tied: got path {path!r}; expected a parameter's path: where {name!r} is asked, has {has}"
            )
        tree = tree[name]
    return tree


def _put(tree: Any, path: str, value: Any) -> Any:
    """A copy of the dict with `value` at `path`."""
    name, _, rest = path.partition(".")
    return tree | {name: _put(tree.get(name, {}), rest, value) if rest else value}


def _drop(tree: Any, path: str) -> Any:
    """A copy without what is at `path`, nor a dict that is empty thereafter."""
    name, _, rest = path.partition(".")
    left = _drop(tree[name], rest) if rest else {}
    others = {key: value for key, value in tree.items() if key != name}
    return others | {name: left} if left else others


def compute_dtype(net: Layer, dtype: Any) -> Layer:
    """`net` computed in `dtype`, say bfloat16: x and the parameters are cast on the way in, y back on the way out.

    The parameters, their gradients, y and dx keep the dtypes that they would have without it; the state isn't cast.
    Sums over the batch are rounded in `dtype` too (Goodfellow §4.1; "mixed precision", Micikevicius et al. 2018).

    Raises:
        TypeError: a dtype that isn't floating.

    >>> from jaxnet.layers import dense
    >>> net = compute_dtype(dense(2), jnp.bfloat16)
    >>> params, state = net.init(jax.random.key(0), (3,))
    >>> params["w"].dtype, net.apply(params, state, jnp.ones((1, 3), "float32"))[0].dtype
    (dtype('float32'), dtype('float32'))
    """
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"got compute_dtype(dtype={dtype!r}); expected a floating one such as jnp.bfloat16")

    def cast(tree, to=dtype):
        return jax.tree.map(lambda a: a.astype(to) if jnp.issubdtype(a.dtype, jnp.floating) else a, tree)

    def cast_like(tree, like):
        gradients, structure = jax.tree.flatten(tree, is_leaf=lambda a: a is None)
        leaves = zip(gradients, jax.tree.leaves(like), strict=True)
        return jax.tree.unflatten(structure, [None if g is None else g.astype(a.dtype) for g, a in leaves])

    def outside(x):
        """The dtype of y: that of x where it is floating."""
        return next((a.dtype for a in jax.tree.leaves(x) if jnp.issubdtype(a.dtype, jnp.floating)), float)

    inner = reparameterized(net, lambda params, key: cast(params), lambda params, key, grads: cast_like(grads, params))
    rule: Any = inner.backward

    def apply(params, state, x, *, key=None, train=False):
        y, state = inner.apply(params, state, cast(x), key=key, train=train)
        return cast(y, outside(x)), state

    def backward(params, state, x, dy, *, key=None, train=False):
        dx, grads = rule(params, state, cast(x), cast(dy), key=key, train=train)
        return None if dx is None else cast_like(dx, x), grads

    settings = (("", net), ("dtype", jnp.dtype(dtype).name))
    return Layer("compute_dtype", net.init, apply, backward if rule else None, settings)
