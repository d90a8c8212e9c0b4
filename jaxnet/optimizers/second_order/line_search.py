"""Line searches: how far to go along a direction.

    search.along(problem, state, direction, first) -> Found        φ(α) = f(θ + α d), the first trial α = `first`

Three of them are one bounded loop that keeps a bracket: `low` lowers the function enough and still falls too steeply,
`high` goes too far. A step is accepted where

    φ(α) ≤ φ(0) + c₁ α φ'(0)        it lowers the function enough (Armijo)
    |φ'(α)| ≤ c₂ |φ'(0)|            the slope is gone (strong Wolfe; c₂ = ∞ for `backtracking` and `exact`)

Near a minimum the first line drowns in rounding: φ(0) and φ(α) agree in nearly all digits. Where they agree to ten
units in the last place, φ'(α) ≤ (2c₁ − 1) φ'(0) stands for it, which is the same on a quadratic, and is computed from
gradients alone (Hager & Zhang 2005, "approximate Wolfe"). So a method goes on as long as its gradients mean something.
A step that lowers neither the value nor the gradient's norm isn't taken. What isn't finite is too far.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxnet import outcomes
from jaxnet.optimizers.second_order.method import Problem, State, choose, dot, norm

GRID = tuple(10.0**e for e in np.linspace(-4.0, 1.0, 16))  # three steps per power of ten


class Found(NamedTuple):
    """Where a search ends. Without success params, value and gradient are those that it started from."""

    ok: Array  # () bool
    step: Array  # () α; 0 without success
    params: Any
    value: Array
    gradient: Any
    evaluations: Array  # () int32


@dataclass(frozen=True, eq=False)
class Search:
    """A record of one function, compared by identity."""

    name: str
    along: Callable[[Problem, State, Any, Array], Found]

    def __repr__(self) -> str:
        return f"<line search {self.name}>"


class Trial(NamedTuple):
    step: Array
    value: Array
    slope: Array


class _Loop(NamedTuple):
    trial: Trial
    low: Trial
    high: Trial
    params: Any
    gradient: Any
    tried: Array
    done: Array


def strong_wolfe(decrease: float = 1e-4, curvature: float = 0.9, trials: int = 25) -> Search:
    """A step under the strong Wolfe conditions (Nocedal & Wright §3.5), which keep sᵀy > 0 for quasi-Newton methods.

    Args:
        decrease: c₁ in (0, ½).
        curvature: c₂ in (c₁, 1); 0.9 for quasi-Newton methods, 0.1 for conjugate gradients.
        trials: the most evaluations. If they don't suffice, a step that lowers the function enough is taken.

    Raises:
        ValueError: numbers out of range.

    >>> from jaxnet.optimizers.second_order.method import of_function
    >>> from jaxnet.optimizers.second_order.descent import gradient_descent
    >>> square = of_function(lambda p: p**2)
    >>> state = gradient_descent().init(square, jnp.array(3.0))
    >>> found = strong_wolfe(curvature=0.1).along(square, state, jnp.array(-1.0), jnp.array(1.0))
    >>> float(found.step), int(found.evaluations)
    (3.0, 2)
    """
    _check("strong_wolfe", decrease, trials)
    if not decrease < curvature < 1:
        raise ValueError(f"strong_wolfe: got curvature={curvature!r}; expected a number in ({decrease}, 1)")

    def along(problem, state, direction, first):
        return _bracketed(problem, state, direction, first, decrease, curvature, trials)

    return Search(f"strong_wolfe({decrease}, {curvature})", along)


def backtracking(decrease: float = 1e-4, trials: int = 40) -> Search:
    """The first step that lowers the function enough, from `first` down (Armijo; Nocedal & Wright alg. 3.1).

    A step too long is shortened to the minimum of the cubic through values and slopes, to 0.1 … 0.9 of it.

    Args:
        decrease: c₁ in (0, ½).
        trials: the most evaluations.

    Raises:
        ValueError: numbers out of range.

    >>> from jaxnet.optimizers.second_order.method import of_function
    >>> from jaxnet.optimizers.second_order.descent import gradient_descent
    >>> square = of_function(lambda p: p**2)
    >>> state = gradient_descent().init(square, jnp.array(3.0))
    >>> float(backtracking().along(square, state, jnp.array(-1.0), jnp.array(8.0)).step)
    3.0
    """
    _check("backtracking", decrease, trials)

    def along(problem, state, direction, first):
        return _bracketed(problem, state, direction, first, decrease, np.inf, trials)

    return Search(f"backtracking({decrease})", along)


def exact(decrease: float = 1e-4, trials: int = 40) -> Search:
    """α = −gᵀd / dᵀHd, the minimum of a quadratic, by one Hessian-vector product (Goodfellow eq. 4.10, alg. 8.9).

    Where the curvature dᵀHd isn't positive, the first trial is the method's; where the function isn't quadratic and α
    doesn't lower it enough, α is shortened as by `backtracking`. The product counts as one evaluation.

    Args:
        decrease: c₁ in (0, ½).
        trials: the most evaluations.

    Raises:
        ValueError: numbers out of range.

    >>> from jaxnet.optimizers.second_order.method import of_function
    >>> from jaxnet.optimizers.second_order.descent import gradient_descent
    >>> square = of_function(lambda p: p**2)
    >>> state = gradient_descent().init(square, jnp.array(3.0))
    >>> float(exact().along(square, state, jnp.array(-2.0), jnp.array(1.0)).step)
    1.5
    """
    _check("exact", decrease, trials)

    def along(problem, state, direction, first):
        def gradient(params):
            return problem.value_and_grad(params)[1]

        bent = jax.jvp(gradient, (state.params,), (direction,))[1]
        curvature = dot(direction, bent).astype(state.value.dtype)
        step = -dot(state.gradient, direction).astype(state.value.dtype) / curvature
        first = jnp.where((curvature > 0) & jnp.isfinite(step), step, first)
        found = _bracketed(problem, state, direction, first, decrease, np.inf, trials)
        return found._replace(evaluations=found.evaluations + 1)

    return Search(f"exact({decrease})", along)


def grid(steps: Sequence[float] = GRID) -> Search:
    """The best of a list of steps, evaluated side by side; none, if no one lowers the value (Goodfellow §4.3).

    Args:
        steps: the α, each > 0; the method's `first` isn't looked at.

    Raises:
        ValueError: no step, or one that isn't a positive number.

    >>> from jaxnet.optimizers.second_order.method import of_function
    >>> from jaxnet.optimizers.second_order.descent import gradient_descent
    >>> square = of_function(lambda p: p**2)
    >>> state = gradient_descent().init(square, jnp.array(3.0))
    >>> float(grid([0.5, 2.0, 8.0]).along(square, state, jnp.array(-1.0), jnp.array(1.0)).step)
    2.0
    """
    listed = np.asarray(steps, float)
    if listed.ndim != 1 or not listed.size or not np.all((listed > 0) & np.isfinite(listed)):
        raise ValueError(f"grid: got steps={steps!r}; expected a list of positive numbers")

    def along(problem, state, direction, first):
        trials = jnp.concatenate([jnp.zeros(1), jnp.asarray(listed)], dtype=state.value.dtype)
        values = jax.vmap(lambda step: problem.value(moved(state.params, step, direction)))(trials)
        values = jnp.where(jnp.isnan(values), jnp.inf, values).at[0].set(state.value)
        best = jnp.argmin(values)
        params = moved(state.params, trials[best], direction)
        value, gradient = problem.value_and_grad(params)
        ok = (best > 0) & (value < state.value)
        return _found(ok, state, trials[best], params, value, gradient, jnp.asarray(listed.size + 1))

    return Search(f"grid of {listed.size}", along)


def moved(params: Any, step: Array, direction: Any) -> Any:
    """θ + α d, leaf by leaf.

    >>> float(moved(jnp.array(1.0), jnp.array(0.5), jnp.array(4.0)))
    3.0
    """
    return jax.tree.map(lambda p, d: p + step.astype(p.dtype) * d.astype(p.dtype), params, direction)


def first_trial(state: State, slope: Array, last_step: Array, last_slope: Array) -> Array:
    """The first α of methods whose directions have no natural length.

    α φ'(0) is what it was in the last step, within a factor of ten (Nocedal & Wright §3.5); before it the step's
    length is at most 1: min(1, 1/‖g‖). `last_step` is 0 before the first step.

    >>> from jaxnet.optimizers.second_order.method import of_function
    >>> from jaxnet.optimizers.second_order.descent import gradient_descent
    >>> state = gradient_descent().init(of_function(lambda p: p**2), jnp.array(2.0))
    >>> float(first_trial(state, jnp.array(-16.0), jnp.array(0.0), jnp.array(0.0)))
    0.25
    >>> float(first_trial(state, jnp.array(-16.0), jnp.array(0.5), jnp.array(-32.0)))
    1.0
    """
    fresh = jnp.minimum(1.0, 1 / norm(state.gradient)).astype(slope.dtype)
    ratio = jnp.clip(last_slope / slope, 0.1, 10.0)
    return jnp.where((last_step > 0) & jnp.isfinite(ratio), last_step * ratio, fresh)


def _bracketed(problem, state, direction, first, decrease, curvature, trials) -> Found:
    dtype = state.value.dtype
    slope_0 = dot(state.gradient, direction).astype(dtype)
    rounding = 10 * jnp.finfo(dtype).eps * jnp.abs(state.value)

    def going_on(loop):
        return ~loop.done & (loop.tried < trials)

    def body(loop):
        step = loop.trial.step
        params = moved(state.params, step, direction)
        value, gradient = problem.value_and_grad(params)
        now = Trial(step, value.astype(dtype), dot(gradient, direction).astype(dtype))
        armijo = now.value <= state.value + decrease * step * slope_0
        nearly = (jnp.abs(now.value - state.value) <= rounding) & (now.slope <= (2 * decrease - 1) * slope_0)
        enough = (armijo | nearly) & jnp.isfinite(now.value) & jnp.isfinite(now.slope)
        steep = now.slope < curvature * slope_0
        count = loop.tried + 1
        done = enough & ((jnp.abs(now.slope) <= -curvature * slope_0) | (count == trials))
        low = choose(enough & steep, now, loop.low)
        high = choose(enough & steep, loop.high, now)
        further = jnp.where(jnp.isinf(high.step), _beyond(loop.low, now), _between(low, high, count))
        further = jnp.where((count == trials - 1) & (low.step > 0), low.step, further)  # the last: one known as enough
        trial = now._replace(step=jnp.where(done, step, further))
        gradient = choose(jnp.ones((), bool), gradient, loop.gradient)
        return _Loop(trial, low, high, params, gradient, count, done)

    start = Trial(jnp.zeros((), dtype), state.value, slope_0)
    none = Trial(*(jnp.full((), jnp.inf, dtype) for _ in range(3)))
    useless = ~(slope_0 < 0) | (state.outcome != outcomes.RUNNING)
    trial = start._replace(step=first.astype(dtype))
    count = jnp.where(useless, trials, 0).astype(jnp.int32)
    loop = _Loop(trial, start, none, state.params, state.gradient, count, jnp.zeros((), bool))
    end = jax.lax.while_loop(going_on, body, loop)
    better = (end.trial.value < state.value) | (norm(end.gradient) < norm(state.gradient))
    evaluations = jnp.where(useless, 0, end.tried)
    return _found(end.done & better, state, end.trial.step, end.params, end.trial.value, end.gradient, evaluations)


def _found(ok, state, step, params, value, gradient, evaluations) -> Found:
    params, value, gradient = choose(ok, (params, value, gradient), (state.params, state.value, state.gradient))
    return Found(ok, jnp.where(ok, step, jnp.zeros_like(step)), params, value, gradient, evaluations.astype(jnp.int32))


def _beyond(before: Trial, now: Trial) -> Array:
    """Where the slope would vanish if it went on rising as it did, in 1.1 … 10 times the step."""
    secant = now.step - now.slope * (now.step - before.step) / (now.slope - before.slope)
    return jnp.where(now.slope > before.slope, jnp.clip(secant, 1.1 * now.step, 10 * now.step), 10 * now.step)


def _between(low: Trial, high: Trial, count: Array) -> Array:
    """The minimum of the cubic through both ends; the middle, where many trials didn't suffice.

    Where the values agree up to rounding, the zero of the line through the slopes. Where the upper end isn't finite,
    a tenth of the way as long as nothing else is known, then half.
    """
    width = high.step - low.step
    rise = low.slope + high.slope - 3 * (high.value - low.value) / width
    root = jnp.sqrt(jnp.maximum(rise**2 - low.slope * high.slope, 0.0))
    cubic = 1 - (high.slope + root - rise) / (high.slope - low.slope + 2 * root)
    line = low.slope / (low.slope - high.slope)
    scale = jnp.maximum(jnp.abs(low.value), jnp.abs(high.value))
    close = jnp.abs(high.value - low.value) <= 100 * jnp.finfo(width.dtype).eps * scale
    share = jnp.where(close & (high.slope > 0), line, cubic)
    share = jnp.where(jnp.isfinite(share) & (count < 8), share, 0.5)
    share = jnp.where(jnp.isfinite(high.value) & jnp.isfinite(high.slope), share, jnp.where(low.step > 0, 0.5, 0.1))
    return low.step + jnp.clip(share, 0.1, 0.9) * width


def _check(name, decrease, trials) -> None:
    if not 0 < decrease < 0.5:
        raise ValueError(f"{name}: got decrease={decrease!r}; expected a number in (0, 0.5)")
    if isinstance(trials, bool) or not isinstance(trials, int) or trials < 2:
        raise ValueError(f"{name}: got trials={trials!r}; expected an integer ≥ 2")
