"""What a computation costs, read off its jaxpr before anything is compiled.

FLOPs of matrix products and convolutions are counted exactly; everything else counts the numbers it makes. A scan
counts as often as it runs, a while loop once, of a cond the dearer branch. Intermediate results are followed from
where they're made to where they're last used.
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


# One x86-64 core with AVX-512 and XLA's CPU backend, members side by side: fitted to three networks of population.py
FLOPS_A_SECOND, NUMBERS_A_SECOND, PRODUCT_SECONDS = 1.8e11, 8e9, 0.3e-6


def operations(function: Callable[..., Any], *arguments: Any) -> Operations:
    """The operations of `function(*arguments)`, whose arguments may be shapes.

    >>> operations(lambda a, b: (a @ b) + 1.0, np.zeros((2, 3)), np.zeros((3, 4)))
    Operations(flops=48.0, numbers=8.0, products=1.0)
    """
    return _counted(jax.make_jaxpr(function)(*arguments).jaxpr)


def seconds(cost: Operations) -> float:
    """About how long they take on one device of this class of machine.

    >>> round(seconds(Operations(1.8e9, 0, 0)), 3)
    0.01
    """
    return cost.flops / FLOPS_A_SECOND + cost.numbers / NUMBERS_A_SECOND + cost.products * PRODUCT_SECONDS


def live_bytes(function: Callable[..., Any], *arguments: Any) -> int:
    """The most bytes of intermediate results that are needed at one time, were none of them fused into others.

    >>> live_bytes(lambda x: (2 * x) + 1.0, np.zeros(3, np.float32))  # 2 x, and the sum
    24
    """
    return _live(jax.make_jaxpr(function)(*arguments).jaxpr)


def _live(jaxpr: Any) -> int:
    last = {v: i for i, equation in enumerate(jaxpr.eqns) for v in equation.invars if not hasattr(v, "val")}
    kept = {v for v in jaxpr.outvars if not hasattr(v, "val")}
    live: dict[Any, int] = {}
    most = 0
    for i, equation in enumerate(jaxpr.eqns):
        inside = max((_live(getattr(j, "jaxpr", j)) for j in _jaxprs(equation.params)), default=0)
        live |= {v: int(np.prod(v.aval.shape)) * v.aval.dtype.itemsize for v in equation.outvars}
        most = max(most, sum(live.values()) + inside)
        live = {v: size for v, size in live.items() if v in kept or last.get(v, -1) > i}
    return most


def _counted(jaxpr: Any) -> Operations:
    total = Operations(0.0, 0.0, 0.0)
    for equation in jaxpr.eqns:
        inner = [getattr(p, "jaxpr", p) for p in _jaxprs(equation.params)]
        if equation.primitive.name == "cond":
            one = max((_counted(j) for j in inner), key=seconds)
        elif inner:
            times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
            one = Operations(*(times * sum(parts) for parts in zip(*map(_counted, inner), strict=True)))
        elif equation.primitive.name in ("dot_general", "conv_general_dilated"):
            one = Operations(_product_flops(equation), 0.0, 1.0)
        else:
            one = Operations(0.0, float(sum(np.prod(v.aval.shape) for v in equation.outvars)), 0.0)
        total = Operations(*(a + b for a, b in zip(total, one, strict=True)))
    return total


def _jaxprs(params: dict[str, Any]) -> list[Any]:
    """The jaxprs among an equation's parameters."""
    found = []
    for value in params.values():
        for one in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(getattr(one, "jaxpr", one), "eqns"):
                found.append(one)
    return found


def _product_flops(equation: Any) -> float:
    out = float(np.prod(equation.outvars[0].aval.shape))
    left, right = (v.aval.shape for v in equation.invars[:2])
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return 2 * out * float(np.prod([left[i] for i in contracted]))
    features = equation.params["dimension_numbers"].rhs_spec[0]
    return 2 * out * float(np.prod(right)) / right[features]
