"""What a computation costs, before anything is compiled: the time its operations take, the memory they need.

Intermediate results are followed from where they're made to where they're last used.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxnet.flops import Operations, inner_jaxprs, operations

__all__ = ["Operations", "live_bytes", "operations", "seconds"]

# One x86-64 core with AVX-512 and XLA's CPU backend, members side by side: fitted to three networks of population.py
FLOPS_A_SECOND, NUMBERS_A_SECOND, PRODUCT_SECONDS = 1.8e11, 8e9, 0.3e-6


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
        inside = max(map(_live, inner_jaxprs(equation)), default=0)
        live |= {v: int(np.prod(v.aval.shape)) * v.aval.dtype.itemsize for v in equation.outvars}
        most = max(most, sum(live.values()) + inside)
        live = {v: size for v, size in live.items() if v in kept or last.get(v, -1) > i}
    return most
