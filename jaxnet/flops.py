"""How many operations a computation has, read off its jaxpr; nothing runs and nothing is compiled.

Floating-point operations (FLOPs) of matrix products and convolutions are counted exactly, two for each multiply-add;
everything else counts the numbers it makes. A scan counts as often as it runs, a while loop once, of a cond the larger
branch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np


class Operations(NamedTuple):
    """A computation's size."""

    flops: float  # of matrix products and convolutions, 2 per multiply-add
    numbers: float  # made by everything else
    products: float  # how many matrix products and convolutions there are


def operations(function: Callable[..., Any], *arguments: Any) -> Operations:
    """The operations of `function(*arguments)`, whose arguments may be shapes.

    >>> operations(lambda a, b: (a @ b) + 1.0, np.zeros((2, 3)), np.zeros((3, 4)))
    Operations(flops=48.0, numbers=8.0, products=1.0)
    """
    return _counted(jax.make_jaxpr(function)(*arguments).jaxpr)


def inner_jaxprs(equation: Any) -> list[Any]:
    """The jaxprs that an equation runs: a scan's body, a cond's branches, a jitted function's own.

    >>> jaxpr = jax.make_jaxpr(jax.jit(jax.numpy.sin))(1.0)
    >>> [len(inner_jaxprs(equation)) for equation in jaxpr.jaxpr.eqns]
    [1]
    """
    found = []
    for value in equation.params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            inner = getattr(one, "jaxpr", one)
            if hasattr(inner, "eqns"):
                found.append(inner)
    return found


def _counted(jaxpr: Any) -> Operations:
    total = Operations(0.0, 0.0, 0.0)
    for equation in jaxpr.eqns:
        inner = [_counted(one) for one in inner_jaxprs(equation)]
        if equation.primitive.name == "cond":
            one = max(inner, key=lambda branch: branch.flops + branch.numbers)
        elif inner:
            times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
            one = Operations(*(times * sum(parts) for parts in zip(*inner, strict=True)))
        elif equation.primitive.name in ("dot_general", "conv_general_dilated"):
            one = Operations(_product_flops(equation), 0.0, 1.0)
        else:
            one = Operations(0.0, float(sum(np.prod(v.aval.shape) for v in equation.outvars)), 0.0)
        total = Operations(*(a + b for a, b in zip(total, one, strict=True)))
    return total


def _product_flops(equation: Any) -> float:
    out = float(np.prod(equation.outvars[0].aval.shape))
    left, right = (v.aval.shape for v in equation.invars[:2])
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2 * out * float(np.prod([left[i] for i in contracted]))
    features = equation.params["dimension_numbers"].rhs_spec[0]
    return 2 * out * float(np.prod(right)) / right[features]
