"""The contract of every layer, and of every network: a network is a Layer.

    init(key, spec)                                          -> params, state
    apply(params, state, x, *, key=None, train=False)        -> y, state
    backward(params, state, x, dy, *, key=None, train=False) -> dx, dparams

`spec` is the shape of one example, (784,), or a pytree of ShapeDtypeStruct; x, y, dx and dy have a leading batch
axis. `params` and `state` are (nested) dicts of arrays, {} when there are none. `backward` is the hand-derived
reference: it takes the inputs of `apply`, the gradient by its output, and returns the gradients by x and by params.
`key` feeds what is random; `train` tells training from inference. A layer holds no array and no hidden state.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

Spec = Any
"""One example: a shape such as (784,), or a pytree of `jax.ShapeDtypeStruct`."""


@dataclass(frozen=True, eq=False)
class Layer:
    """A record of the three functions; compared by identity, never traced.

    `name` is the kind, "dense", from which `serial` makes the parameters' names; `settings` are pairs for people to
    read. `backward=None` means there's no hand-written rule: `loss_and_grad` works, `backprop` refuses.

    >>> double = Layer("double", lambda key, spec: ({}, {}),
    ...                lambda params, state, x, *, key=None, train=False: (2 * x, state),
    ...                lambda params, state, x, dy, *, key=None, train=False: (2 * dy, {}))
    >>> params, state = double.init(jax.random.key(0), (3,))
    >>> double.apply(params, state, jnp.ones((1, 3)))[0].tolist()
    [[2.0, 2.0, 2.0]]
    """

    name: str
    init: Callable[..., tuple[Any, Any]]
    apply: Callable[..., tuple[Any, Any]]
    backward: Callable[..., tuple[Any, Any]] | None = None
    settings: tuple[tuple[str, Any], ...] = ()

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v}' if k else str(v) for k, v in self.settings)})"


def as_spec(spec: Spec) -> Spec:
    """`spec` as a pytree of ShapeDtypeStruct: a shape stands for one array of JAX's default float.

    Raises:
        ValueError, TypeError: for a shape with an entry that isn't a positive integer.

    >>> as_spec((3,)).shape
    (3,)
    """
    if isinstance(spec, int):
        raise TypeError(f"got spec {spec}; expected the shape of one example, a tuple such as ({spec},)")
    if isinstance(spec, tuple) and not any(isinstance(s, jax.ShapeDtypeStruct) for s in jax.tree.leaves(spec)):
        if not all(isinstance(n, int) and n > 0 for n in spec):
            raise ValueError(f"got spec {spec}; expected the shape of one example, positive integers such as (784,)")
        return jax.ShapeDtypeStruct(spec, jnp.result_type(float))
    return spec


def spec_of(x: Any) -> Spec:
    """The spec of one example of a batch `x`: each leaf's shape without its first axis.

    >>> spec_of(jnp.zeros((32, 784))).shape
    (784,)
    """
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), x)


def batch_of(spec: Spec, size: int = 1) -> Any:
    """A batch of `size` examples of `spec`, as shapes and dtypes only.

    >>> batch_of((784,), 32).shape
    (32, 784)
    """
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct((size, *s.shape), s.dtype), as_spec(spec))


def output_spec(layer: Layer, params: Any, state: Any, spec: Spec) -> Spec:
    """The spec of one example of the layer's output in inference; nothing is computed.

    >>> from jaxnet.layers import dense
    >>> output_spec(dense(10), *dense(10).init(jax.random.key(0), (3,)), (3,)).shape
    (10,)
    """
    y, _ = jax.eval_shape(lambda p, s, x: layer.apply(p, s, x), params, state, batch_of(spec))
    return spec_of(y)


def parameterless(name: str, apply: Callable, backward: Callable, settings=()) -> Layer:
    """A Layer without parameters and state from `apply(x, key, train) -> y` and `backward(x, dy, key, train) -> dx`.

    >>> from jaxnet import activations
    >>> parameterless("tanh", lambda x, key, train: activations.tanh(x),
    ...               lambda x, dy, key, train: activations.tanh.backward(x, dy))
    tanh()
    """
    return Layer(
        name,
        lambda key, spec: ({}, {}),
        lambda params, state, x, *, key=None, train=False: (apply(x, key, train), state),
        lambda params, state, x, dy, *, key=None, train=False: (backward(x, dy, key, train), {}),
        settings,
    )
