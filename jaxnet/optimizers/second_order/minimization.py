"""`minimize` and `least_squares`: a method, repeated until it's done, over any parameter tree.

    minimize(fun, params, method=…)              fun(params, *args) -> ()
    least_squares(residuals, params, method=…)   ½‖residuals(params, *args)‖²

Both are pure: with concrete arrays they check them and run one compiled function; inside `jit` and `vmap` they are
traced with the rest, and a member whose numbers go bad ends alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnet import outcomes
from jaxnet.optimizers.second_order.method import Method, Problem, State, largest, norm, of_function, of_residuals


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Minimum:
    """What a minimization leaves; a pytree, with a leading axis on every leaf after `vmap`."""

    params: Any  # of the last step taken, the lowest value found
    value: Array  # ()
    gradient: Any  # like params
    gradient_norm: Array  # () largest magnitude of the gradient's entries
    iterations: Array  # () int32
    evaluations: Array  # () int32, of the function, with or without its gradient
    outcome: Array  # () int32, see jaxnet.outcomes
    history: dict[str, Array]  # "value", "gradient_norm" -> (steps + 1,) from iteration 0; NaN beyond the end
    memory: Any  # the method's own arrays

    @property
    def sentence(self) -> str:
        """How it ended, of one minimization that isn't mapped."""
        return outcomes.describe(self.outcome, self.iterations)


class Tolerances(NamedTuple):
    """When a minimization is done; each may be traced."""

    gradient: Any = 1e-5  # largest magnitude of the gradient's entries: converged
    step: Any = 0.0  # ‖Δθ‖ relative to ‖θ‖; 0 never stops
    value: Any = 0.0  # fall of the value relative to its magnitude; 0 never stops


def settled(state: State, tolerances: Tolerances) -> Array:
    """The outcome of a state: RUNNING, or why it's done, () int32.

    A gradient within its tolerance is "converged" whatever else happened; a method's own reason comes next.

    >>> from jaxnet.optimizers.second_order.method import method, Move
    >>> still = method("still", lambda problem, params, value, gradient: (), lambda problem, state: None)
    >>> state = still.init(of_function(lambda p: p**2), jnp.array(0.0))
    >>> int(settled(state, Tolerances())) == outcomes.CONVERGED
    True
    """
    gradient, step, value = (jnp.asarray(t, state.value.dtype) for t in tolerances)
    small_gradient = largest(state.gradient) <= gradient
    small_step = (state.step_norm <= step * norm(state.params)) & (step > 0)
    small_change = (state.change <= value * jnp.abs(state.value)) & (value > 0)
    running = state.outcome == outcomes.RUNNING
    return jnp.select(
        [state.outcome == outcomes.NON_FINITE, small_gradient, running & small_step, running & small_change],
        [
            jnp.full((), outcomes.NON_FINITE, jnp.int32),
            jnp.full((), outcomes.CONVERGED, jnp.int32),
            jnp.full((), outcomes.STEP_BELOW_TOLERANCE, jnp.int32),
            jnp.full((), outcomes.CHANGE_BELOW_TOLERANCE, jnp.int32),
        ],
        state.outcome,
    )


def minimize(
    fun: Callable[..., Array],
    params: Any,
    *,
    method: Method,
    args: Sequence[Any] = (),
    steps: int = 1000,
    gradient_tolerance: Any = 1e-5,
    step_tolerance: Any = 0.0,
    value_tolerance: Any = 0.0,
) -> Minimum:
    """A local minimum of `fun(params, *args)`, () real, over a tree of real arrays `params`.

    Args:
        method: such as `jn.optimizers.lbfgs()`.
        args: arrays that the function needs, such as data: inputs of the compiled program, not constants in it. A
            second call with the same `fun`, `method` and shapes doesn't compile again.
        steps: the most iterations; static.
        gradient_tolerance: converged where no entry of the gradient exceeds it in magnitude.
        step_tolerance: stop where ‖Δθ‖ ≤ it · ‖θ‖. value_tolerance: stop where the value falls by ≤ it · |value|. Off
            at 0; neither is a proof of a minimum, and the outcome doesn't say converged.

    Raises:
        TypeError, ValueError: parameters that aren't finite real numbers, a value that isn't a real scalar, a
            method for other problems, numbers out of range; before any compile.

    >>> import jaxnet as jn
    >>> found = minimize(lambda p, a: jnp.sum((p["x"] - a) ** 2), {"x": jnp.zeros(2)}, args=(jnp.arange(2.0),),
    ...                  method=jn.optimizers.lbfgs())
    >>> found.params["x"].tolist(), found.sentence
    ([0.0, 1.0], 'converged at iteration ...: no entry of the gradient exceeds gradient_tolerance')
    """
    tolerances = Tolerances(gradient_tolerance, step_tolerance, value_tolerance)
    _check("minimize", fun, params, args, method, ("value",), steps, tolerances)
    shape = jax.eval_shape(fun, params, *args)
    if not isinstance(shape, jax.ShapeDtypeStruct) or shape.shape or not jnp.issubdtype(shape.dtype, jnp.floating):
        raise ValueError(f"minimize: got a function that returns {shape}; expected a real scalar: take its sum or mean")
    return _run(of_function, fun, method, int(steps), params, tuple(args), _cast(tolerances))


def least_squares(
    residuals: Callable[..., Any],
    params: Any,
    *,
    method: Method,
    args: Sequence[Any] = (),
    steps: int = 1000,
    gradient_tolerance: Any = 1e-5,
    step_tolerance: Any = 0.0,
    value_tolerance: Any = 0.0,
) -> Minimum:
    """A local minimum of ½ Σ r², where r = `residuals(params, *args)` is an array or a tree of arrays.

    Arguments and errors are those of `minimize`; methods that need no residuals work too.

    >>> import jaxnet as jn
    >>> def residuals(p, t, y):
    ...     return p["a"] * jnp.exp(p["b"] * t) - y
    >>> t = jnp.linspace(0.0, 1.0, 5)
    >>> found = least_squares(residuals, {"a": jnp.array(1.0), "b": jnp.array(0.0)}, args=(t, 2 * jnp.exp(-t)),
    ...                       method=jn.optimizers.levenberg_marquardt())
    >>> round(float(found.params["a"]), 3), round(float(found.params["b"]), 3)
    (2.0, -1.0)
    """
    tolerances = Tolerances(gradient_tolerance, step_tolerance, value_tolerance)
    _check("least_squares", residuals, params, args, method, ("value", "residuals"), steps, tolerances)
    for leaf in (leaves := jax.tree.leaves(jax.eval_shape(residuals, params, *args))):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"least_squares: got residuals of dtype {leaf.dtype}; expected real floating numbers")
    if not sum(leaf.size for leaf in leaves):
        raise ValueError("least_squares: got no residuals; expected at least one")
    return _run(of_residuals, residuals, method, int(steps), params, tuple(args), _cast(tolerances))


def repeated(method: Method, problem: Problem, params: Any, steps: int, tolerances: Tolerances) -> Minimum:
    """The method's steps in one loop that ends with its minimization; the pure core of both.

    >>> import jaxnet as jn
    >>> int(repeated(jn.optimizers.newton(), of_function(lambda p: p**2), jnp.array(1.0), 9, Tolerances()).iterations)
    1
    """

    def noted(rows, state):
        found = {"value": state.value, "gradient_norm": largest(state.gradient)}
        return {n: rows[n].at[state.iteration].set(found[n]) for n in rows}

    def going_on(loop):
        state, outcome, _ = loop
        return (outcome == outcomes.RUNNING) & (state.iteration < steps)

    def body(loop):
        state, _, rows = loop
        state = method.step(problem, state)
        return state, settled(state, tolerances), noted(rows, state)

    state = method.init(problem, params)
    rows = {name: jnp.full(steps + 1, jnp.nan, state.value.dtype) for name in ("value", "gradient_norm")}
    state, outcome, rows = jax.lax.while_loop(going_on, body, (state, settled(state, tolerances), noted(rows, state)))
    return Minimum(
        state.params,
        state.value,
        state.gradient,
        largest(state.gradient),
        state.iteration,
        state.evaluations,
        jnp.where(outcome == outcomes.RUNNING, outcomes.STEP_LIMIT, outcome).astype(jnp.int32),
        rows,
        state.memory,
    )


def _cast(tolerances: Tolerances) -> Tolerances:
    """As arrays, so that a float and an np.float32 share one compiled program."""
    return Tolerances(*(jnp.asarray(t, jnp.result_type(float)) for t in tolerances))


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _run(problem_of, fun, method, steps, params, args, tolerances):
    return repeated(method, problem_of(lambda p: fun(p, *args)), params, steps, tolerances)


def _check(name, fun, params, args, method, kinds, steps, tolerances) -> None:
    if not callable(fun):
        raise TypeError(f"{name}: got {fun!r}; expected a function of (params, *args)")
    if not isinstance(method, Method):
        raise TypeError(f"{name}: got method {method!r}; expected a Method such as jn.optimizers.lbfgs()")
    if method.needs not in kinds:
        cure = {"residuals": "least_squares", "network": "program_full_batch"}[method.needs]
        raise ValueError(f"{name}: got {method.name}, which needs {method.needs}; expected another method, or {cure}")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"{name}: got steps={steps!r}; expected an integer ≥ 0")
    for what, value in zip(Tolerances._fields, tolerances, strict=True):
        if isinstance(value, (int, float)) and not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{name}: got {what}_tolerance={value}; expected a number ≥ 0")
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError(f"{name}: got params without any array; expected a tree of real arrays")
    for path, leaf in leaves:
        where = f"{name}: params{jax.tree_util.keystr(path)}"
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(f"{where}: got {jnp.result_type(leaf)}; expected floating numbers: cast them")
        if (values := _values(leaf)) is not None and not np.all(np.isfinite(values)):
            raise ValueError(f"{where}: got NaN or infinity; expected finite numbers to start from")


def _values(leaf) -> np.ndarray | None:
    """The numbers of a leaf, None where it stands for them inside a trace."""
    try:
        return np.asarray(leaf, np.float64)
    except jax.errors.TracerArrayConversionError:
        return None
