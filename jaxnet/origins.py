"""Where a number that isn't finite comes from: a traced function evaluated one operation at a time.

    origin(function, *args)  ->  Origin, or None where the result is finite

The result is followed back, operation by operation, through operands that aren't finite either, to the first one
that made inf or NaN of finite operands. What passes by without reaching the result (a −inf that a mask hides) is
never blamed. Loops and calls are entered. The layer is read off the names that combinators give to what they trace.
"""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

# Operations whose output at a place comes from operands at other places.
MIXING = {
    "conv_general_dilated", "cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum", "dot_general", "gather", "rev",
    "scatter", "sort", "transpose",
}  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """The operation (or the argument) that the first non-finite number comes from."""

    operation: str  # the primitive, such as "log"; "" for an argument that came in non-finite
    layer: str  # path such as "residual_0.dense_1"; "" outside of all layers
    backward: bool  # whether it belongs to automatic differentiation's way back
    output: np.ndarray  # what it made
    operands: tuple[np.ndarray, ...]
    at: tuple[int, ...]  # the place in `output` that isn't finite, of several that with the largest operands
    argument: int | None = None  # of the function's flattened arguments
    step: int | None = None  # of the innermost loop


def scope_of(equation: Any) -> tuple[str, bool]:
    """The layer's path an equation was traced in, and whether it's on the way back.

    >>> def f(x):
    ...     with jax.named_scope("dense_0"):
    ...         return 2 * x
    >>> scope_of(jax.make_jaxpr(jax.grad(f))(1.0).eqns[-1])
    ('dense_0', True)
    """
    stack = str(equation.source_info.name_stack)
    names = re.split(r"[/()]", re.sub(r"(transpose|jvp|vmap|jit|rematted_computation|checkpoint)(?=\(|$|/)", "", stack))
    return ".".join(name for name in names if name), "transpose(" in stack


def evaluate(jaxpr: Any, equation: Any, values: list[Any]) -> list[Any]:
    """The outputs of one equation of `jaxpr` for the values of its operands, which may be traced.

    >>> jaxpr = jax.make_jaxpr(jnp.cos)(0.0).jaxpr
    >>> [float(v) for v in evaluate(jaxpr, jaxpr.eqns[0], [0.0])]
    [1.0]
    """
    operands = {v: value for v, value in zip(equation.invars, values, strict=True) if not hasattr(v, "val")}
    outputs = [v for v in equation.outvars if type(v).__name__ != "DropVar"]
    alone = jaxpr.replace(
        constvars=[], invars=list(operands), outvars=outputs, eqns=[equation], effects=equation.effects
    )
    results = iter(jaxpr_as_fun(ClosedJaxpr(alone, ()))(*operands.values()))
    return [next(results) if type(v).__name__ != "DropVar" else None for v in equation.outvars]


def origin(function: Callable, *args: Any) -> Origin | None:
    """The origin of the first non-finite number in function(*args), arrays only; None where all are finite.

    >>> found = origin(lambda x: jnp.log(x - 1).sum(), jnp.array([3.0, 1.0]))
    >>> found.operation, found.at, [o.tolist() for o in found.operands]
    ('log', (1,), [[2.0, 0.0]])
    """
    leaves, structure = jax.tree.flatten(args)
    closed = jax.make_jaxpr(lambda *leaves: jax.tree.leaves(function(*jax.tree.unflatten(structure, leaves))))(*leaves)
    return _origin(closed.jaxpr, closed.consts, leaves, "", False, None)


def finite(value: Any) -> bool:
    """Whether every entry is; integers, booleans and keys are.

    >>> finite(jnp.array([1.0, jnp.inf])), finite(jnp.array([1]))
    (False, True)
    """
    dtype = jnp.result_type(value)
    return not jnp.issubdtype(dtype, jnp.inexact) or bool(jnp.all(jnp.isfinite(value)))


def _origin(jaxpr, constants, args, scope, backward, step) -> Origin | None:
    known: dict[Any, Any] = dict(zip(jaxpr.constvars, constants, strict=True)) | dict(
        zip(jaxpr.invars, args, strict=True)
    )
    makers: dict[Any, int] = {}

    def read(variable):
        return variable.val if hasattr(variable, "val") else known[variable]

    for i, equation in enumerate(jaxpr.eqns):
        outputs = evaluate(jaxpr, equation, [read(v) for v in equation.invars])
        known |= dict(zip(equation.outvars, outputs, strict=True))
        makers |= dict.fromkeys(equation.outvars, i)
    bad = [v for v in jaxpr.outvars if not hasattr(v, "val") and not finite(known[v])]
    blamed: set[int] = set()  # equations that made it of finite operands
    given: set[int] = set()  # arguments
    seen: set[Any] = set()
    while bad:
        variable = bad.pop()
        if variable in seen:
            continue
        seen.add(variable)
        if variable not in makers:
            given |= {i for i, v in enumerate(jaxpr.invars) if v is variable}
            continue
        equation = jaxpr.eqns[makers[variable]]
        sources = [v for v in _relevant(equation, read, known[variable]) if not finite(read(v))]
        computed = [v for v in sources if not hasattr(v, "val")]
        if not computed:  # of finite operands, or of an infinity that is written into the code
            blamed.add(makers[variable])
        bad += computed
    if given:
        first = min(given)
        value = np.asarray(args[first])
        return Origin("", scope, backward, value, (), _first(value), argument=first, step=step)
    if not blamed:
        return None
    equation = jaxpr.eqns[min(blamed)]
    name, back = scope_of(equation)
    inner_scope = ".".join(part for part in (scope, name) if part)
    values = [read(v) for v in equation.invars]
    found = _inside(equation, values, inner_scope, backward or back, step)
    if found is not None and found.argument is None:
        return found
    output = next(np.asarray(known[v]) for v in equation.outvars if known[v] is not None and not finite(known[v]))
    made = Origin(
        equation.params.get("name", equation.primitive.name), inner_scope, backward or back, output,
        tuple(map(np.asarray, values)), _first(output), step=step,
    )  # fmt: skip
    return dataclasses.replace(made, at=worst(made))


def pointwise(found: Origin) -> list[np.ndarray]:
    """The numeric operands that have an entry for each of the output's, or broadcast to it.

    >>> found = origin(lambda x: x / jnp.zeros(1), jnp.ones(2))
    >>> [o.tolist() for o in pointwise(found)]
    [[1.0, 1.0], [0.0]]
    """
    shape = found.output.shape
    if found.operation in MIXING:
        return []

    def fits(o):
        return o.ndim == len(shape) and all(m in (1, n) for m, n in zip(o.shape, shape, strict=True))

    operands = [o for o in found.operands if jnp.issubdtype(o.dtype, jnp.number)]
    return [o.reshape((1,) * len(shape)) if o.size == 1 else o for o in operands if o.size == 1 or fits(o)]


def worst(found: Origin, rows: np.ndarray | None = None) -> tuple[int, ...]:
    """Of the places that aren't finite the one with the largest operands, the first of equals.

    `rows` (bool, as long as the output) says which of them to prefer.

    >>> found = origin(lambda x: jnp.log(x), jnp.array([0.0, 1.0, 0.0]))
    >>> worst(found), worst(found, np.array([False, False, True]))
    ((0,), (2,))
    """
    wrong = ~np.isfinite(found.output.astype(np.float64))
    if rows is not None and wrong[rows].any():
        wrong = wrong & rows.reshape(-1, *[1] * (wrong.ndim - 1))
    size = np.zeros(found.output.shape)
    for operand in pointwise(found):
        size = size + np.abs(operand.astype(np.float64))
    return tuple(int(i) for i in np.unravel_index(np.argmax(np.where(wrong, size, -1.0)), wrong.shape))


def _relevant(equation, read, output):
    """The operands that can be to blame: of a selection those that are taken somewhere where the output is bad."""
    if equation.primitive.name != "select_n":
        return equation.invars
    which, *cases = equation.invars
    wrong = ~np.isfinite(np.asarray(output, np.float64)) if jnp.issubdtype(output.dtype, jnp.inexact) else False
    taken = np.broadcast_to(np.asarray(read(which)), np.shape(output))[np.broadcast_to(wrong, np.shape(output))]
    return [case for i, case in enumerate(cases) if np.any(taken == i)]


def _inside(equation, values, scope, backward, step) -> Origin | None:
    """The origin within a call or loop; None for a plain operation."""
    name, settings = equation.primitive.name, equation.params
    if name == "scan":
        return _inside_scan(equation, values, scope, backward)
    if name == "while":
        return _inside_while(settings, values, scope, backward)
    if name == "cond":
        index, *operands = values
        branch = settings["branches"][int(index)]
        return _origin(branch.jaxpr, branch.consts, operands, scope, backward, step)
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in settings:
            inner = settings[key]
            jaxpr, constants = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, [])
            if len(jaxpr.invars) == len(values):
                return _origin(jaxpr, constants, values, scope, backward, step)
    return None


def _inside_scan(equation, values, scope, backward):
    settings, body = equation.params, equation.params["jaxpr"]
    # What is carried has the body's own rank, what is stacked one axis more.
    carried = sum(o.aval.ndim == i.aval.ndim for o, i in zip(equation.outvars, body.jaxpr.outvars, strict=True))
    stacked = sum(v.aval.ndim > i.aval.ndim for v, i in zip(equation.invars, body.jaxpr.invars, strict=True))
    fixed = len(values) - stacked - carried
    constants, carry, rows = values[:fixed], values[fixed : fixed + carried], values[fixed + carried :]
    run, order = jaxpr_as_fun(body), range(settings["length"])
    for t in reversed(order) if settings["reverse"] else order:
        args = [*constants, *carry, *(row[t] for row in rows)]
        found = _origin(body.jaxpr, body.consts, args, scope, backward, t)
        if found is not None:
            return found
        carry = run(*args)[:carried]
    return None


def _inside_while(settings, values, scope, backward):
    body, condition = settings["body_jaxpr"], settings["cond_jaxpr"]
    of_condition, of_body = settings["cond_nconsts"], settings["body_nconsts"]
    tests, constants, carry = values[:of_condition], values[of_condition:][:of_body], values[of_condition + of_body :]
    go_on, run = (jaxpr_as_fun(jaxpr) for jaxpr in (condition, body))
    t = 0
    while bool(go_on(*tests, *carry)[0]):
        found = _origin(body.jaxpr, body.consts, [*constants, *carry], scope, backward, t)
        if found is not None:
            return found
        carry, t = run(*constants, *carry), t + 1
    return None


def _first(value: np.ndarray) -> tuple[int, ...]:
    """The first place that isn't finite."""
    wrong = ~np.isfinite(value.astype(np.float64))
    return tuple(int(i) for i in np.argwhere(wrong)[0]) if wrong.any() else ()
