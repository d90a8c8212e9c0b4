"""What is asked of a run before anything compiles: data and parameters suit the network, the loss and each other."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.data.checks import check_targets, concrete, outputs_of, prepared_array
from jaxnet.data.sets import Data
from jaxnet.layers import Layer
from jaxnet.losses import Loss


def checker(
    net: Layer, loss: Loss, initial: Callable[..., tuple[Any, Any]], batch_size: int | None, patience: int | None
) -> Callable[..., None]:
    """The function check(data, params=None) that raises for what doesn't fit `initial(key, data) -> params, state`.

    >>> from jaxnet import losses, mlp
    >>> net = mlp([1])
    >>> check = checker(net, losses.squared_error, lambda key, data: net.init(key, (2,)), 9, None)
    >>> check(Data((jnp.zeros((4, 2)), jnp.zeros((4, 1)))))
    Traceback (most recent call last):
    ValueError: got batch_size=9 for 4 training examples; expected at most as many: lower it
    """
    traced: dict[Any, Any] = {}  # what `shapes` found, so that the next run on data of the same shapes starts at once

    def shapes(data: Data):
        """The shapes of the parameters, and of the outputs on each set, by tracing network and loss once."""
        leaves, tree = jax.tree.flatten(data)
        known = (tree, tuple((a.shape, str(a.dtype)) for a in leaves))
        if known not in traced:
            fresh, state = jax.eval_shape(initial, jax.random.key(0), data)
            sets = {"train": data.train} | ({} if data.valid is None else {"valid": data.valid})
            traced[known] = fresh, {part: outputs_of(net, loss, fresh, state, s) for part, s in sets.items()}
        return traced[known]

    def check(data: Data, params=None) -> None:
        if batch_size is not None and batch_size > data.size:
            raise ValueError(
                f"got batch_size={batch_size} for {data.size} training examples; expected at most as many: lower it"
            )
        if patience is not None and data.judged is None:
            raise ValueError(
                f"got patience={patience} without a validation set; expected one to stop by: jn.Data(train, valid), or "
                "patience=None"
            )
        fresh, outputs = shapes(data)
        if params is not None:
            check_params(params, fresh)
        for part, examples in (("train", data.train), ("valid", data.valid)):
            if examples is not None:
                check_targets(loss, outputs[part], examples[1])

    return check


def check_params(params: Any, expected: Any) -> None:
    """`params` has the tree, shapes and dtypes of `expected` and only finite numbers.

    Raises:
        ValueError: names the leaf.

    >>> check_params({"w": jnp.zeros(2)}, {"w": jnp.zeros(3)})
    Traceback (most recent call last):
    ValueError: params['w']: got float32(2,); expected float32(3,), as the network's init makes it for these data
    """
    given = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}
    wanted = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(expected)}
    if missing := wanted.keys() - given.keys():
        raise ValueError(
            f"params: got no {', '.join(sorted(missing))}; expected the tree that the network's init makes"
        )
    if extra := given.keys() - wanted.keys():
        raise ValueError(f"params: got {', '.join(sorted(extra))}, which the network doesn't have")
    for name, leaf in given.items():
        one, other = (f"{jnp.result_type(a).name}{tuple(jnp.shape(a))}" for a in (leaf, wanted[name]))
        if one != other:
            raise ValueError(
                f"params{name}: got {one}; expected {other}, as the network's init makes it for these data"
            )
        if concrete(leaf):
            prepared_array(f"params{name}", leaf)
