"""A layer's two roads to one gradient, and arguments drawn for them.

    forward   (params, state, x, key, train)     -> y, state
    by_hand   (params, state, x, dy, key, train) -> {"dx": …, "params": …}     the layer's own `backward`
    automatic (params, state, x, dy, key, train) -> the same by `jax.vjp` of its `apply`

dx is a dict by path of the floating arrays of x, and `dy` a list for the floating arrays of y.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.layers import Layer, batch_of
from jaxnet.testing.reports import Wrong


def floating(a: Any) -> bool:
    """Whether an array (or its shape and dtype) is floating.

    >>> floating(jnp.ones(2)), floating(None)
    (True, False)
    """
    return a is not None and jnp.issubdtype(a.dtype, jnp.inexact)


def named(tree: Any) -> dict[str, Any]:
    """Path -> leaf, for every leaf, None among them.

    >>> named({"a": (1, None)})
    {'a.0': 1, 'a.1': None}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda a: a is None)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def forms(tree: Any) -> dict[str, tuple]:
    """Path -> (shape, name of the dtype).

    >>> forms({"w": jnp.ones((2, 3), jnp.bfloat16)})
    {'w': ((2, 3), 'bfloat16')}
    """
    return {path: (tuple(a.shape), jnp.dtype(a.dtype).name) for path, a in named(tree).items()}


def check_finite(inputs: str, tree: Any) -> None:
    """Floating arrays without NaN and inf.

    Raises:
        Wrong: naming the inputs that gave others.

    >>> check_finite("ones", jnp.ones(2))
    """
    for path, a in named(tree).items():
        if floating(a) and not np.isfinite(np.asarray(a).astype(np.float64)).all():
            raise Wrong(f"got numbers that aren't finite for {inputs} ({path})")


def by_hand(layer: Layer, params, state, x, dy, key, train) -> dict:
    """The gradients of the layer's own rule.

    Raises:
        Wrong: dx that isn't like x, with None for integers.

    >>> from jaxnet.layers import tanh
    >>> by_hand(tanh(), {}, {}, jnp.zeros((1, 2)), [jnp.ones((1, 2))], None, False)["dx"]["x"].tolist()
    [[1.0, 1.0]]
    """
    y, _ = jax.eval_shape(lambda *args: layer.apply(*args, key=key, train=train), params, state, x)
    given, rule = iter(dy), layer.backward
    assert rule is not None
    found = rule(
        params, state, x, jax.tree.map(lambda a: next(given) if floating(a) else None, y), key=key, train=train
    )
    if not isinstance(found, tuple) or len(found) != 2:
        raise Wrong(f"backward: got {type(found).__name__}; expected the pair (dx, dparams)")
    dx, inputs = named(found[0]), named(x)
    if not any(floating(a) for a in inputs.values()) and all(a is None for a in dx.values()):
        dx = dict.fromkeys(inputs)  # None alone, for integers only
    for path, a in inputs.items():
        if floating(a) != (dx.get(path) is not None):
            got = "None" if dx.get(path) is None else f"an array of {dx[path].dtype}"
            raise Wrong(
                f"backward: got dx {got} for x {path} of {a.dtype}; expected the gradient, and None for integers"
            )
    return {"dx": {path or "x": dx[path] for path, a in inputs.items() if floating(a)}, "params": found[1]}


def automatic(layer: Layer, params, state, x, dy, key, train) -> dict:
    """The gradients by `jax.vjp`.

    >>> from jaxnet.layers import tanh
    >>> automatic(tanh(), {}, {}, jnp.zeros((1, 2)), [jnp.ones((1, 2))], None, False)["dx"]["x"].tolist()
    [[1.0, 1.0]]
    """
    leaves, structure = jax.tree.flatten(x)

    def forward(params, floats):
        given = iter(floats)
        inputs = jax.tree.unflatten(structure, [next(given) if floating(a) else a for a in leaves])
        y, _ = layer.apply(params, state, inputs, key=key, train=train)
        return [a for a in jax.tree.leaves(y) if floating(a)]

    _, pullback = jax.vjp(forward, params, [a for a in leaves if floating(a)])
    grads, dx = pullback(list(dy))
    return {
        "dx": dict(zip([path or "x" for path, a in named(x).items() if floating(a)], dx, strict=True)),
        "params": grads,
    }


def drawn_inputs(rng: np.random.Generator, spec: Any, size: int) -> Any:
    """A batch of NumPy arrays of a spec: standard normals, and integers 0 to 3.

    >>> drawn_inputs(np.random.default_rng(0), (3,), 2).shape
    (2, 3)
    """

    def leaf(a):
        return np.asarray(rng.normal(size=a.shape) if floating(a) else rng.integers(0, 4, a.shape), a.dtype)

    return jax.tree.map(leaf, batch_of(spec, size))


def moved(rng: np.random.Generator, tree: Any, by: float = 0.3) -> Any:
    """Floating arrays away from their initial values, so that no bias or shift is zero.

    >>> moved(np.random.default_rng(0), {"b": jnp.zeros(2)})["b"].shape
    (2,)
    """

    def leaf(a):
        return np.asarray(np.asarray(a, np.float64) + by * rng.normal(size=a.shape), a.dtype) if floating(a) else a

    return jax.tree.map(leaf, tree)


def strictly(function: Callable, *args: Any) -> Any:
    """function(*args) where no dtype and no rank is promoted silently.

    >>> strictly(lambda a: 2 * a, jnp.ones(1)).tolist()
    [2.0]
    """
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        return function(*args)
