"""K-FAC: natural-gradient steps for networks of dense layers, at the cost of a few gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet import outcomes
from jaxnet.gradients.products import shares
from jaxnet.optimizers.second_order.damping import damped
from jaxnet.optimizers.second_order.factors import factor
from jaxnet.optimizers.second_order.kronecker import Pair, factors, preconditioned
from jaxnet.optimizers.second_order.memory import check_bytes
from jaxnet.optimizers.second_order.method import Method, Move, Problem, State, all_finite, dot, method, norm
from jaxnet.optimizers.second_order.natural_gradient import penalized


class Memory(NamedTuple):
    """What K-FAC keeps between steps."""

    damping: Array  # () λ
    pairs: dict[str, Pair]  # averaged factors of each layer
    step: Any  # the last one, like the parameters


def kfac(
    *, damping: Any = 0.01, decay: Any = 0.0, momentum: bool = True, samples: int | None = None, seed: int = 0
) -> Method:
    """θ ← θ + αΔ + μδ with Δ = −(F + λI)⁻¹ g by a Kronecker-factored Fisher matrix, δ the step before.

    α and μ minimize the quadratic model gᵀd + ½ dᵀ(G + λI)d, G the exact generalised Gauss–Newton matrix (M&G §6.4, 7).
    λ is raised until the value falls and relaxed as the model proves right (§6.5), so the value never rises on the
    batch at hand. Each factor gets its share of λ, π√λ and √λ/π (§6.3). l2 counts as curvature.

    Args:
        damping: the first λ > 0, traced or not; 0 is allowed where no factor is singular.
        decay: of the factors' averages over steps, in [0, 1): 0 takes the batch's alone, right for the whole set;
            0.95 for minibatches (§5). At step k it's at most 1 − 1/k.
        momentum: False leaves out δ.
        samples: None takes the expectation over the network's own targets exactly, one backward pass for each output;
            a number propagates so many random mixtures of them (±1 times each), for networks with many outputs.
        seed: of the random signs.

    For dense layers on plain rows within `serial`, `branch`, `parallel` and `residual`. Memory: for each layer
    (inputs + 1)² + units². Outcomes: damping exhausted, non-finite.

    Raises:
        ValueError: settings out of range; at the first step, before any compile, another layer with parameters, a loss
            whose curvature isn't known.
    Source: Martens & Grosse 2015.

    >>> import jaxnet as jn
    >>> from jaxnet.optimizers.second_order.of_network import of_network
    >>> batch = jnp.array([[1.0], [2.0]]), jnp.array([[3.0], [6.0]])
    >>> problem = of_network(jn.dense(1, bias=False), jn.losses.squared_error, {}, batch)
    >>> method = kfac(damping=0.0)
    >>> float(method.step(problem, method.init(problem, {"w": jnp.ones((1, 1))})).params["w"][0, 0])
    3.0
    """
    for name, number, top in (("damping", damping, float("inf")), ("decay", decay, 1)):
        if isinstance(number, (int, float)) and not 0 <= number < top:
            raise ValueError(f"kfac: got {name}={number}; expected a number ≥ 0 and < {top}")
    if samples is not None and (isinstance(samples, bool) or not isinstance(samples, int) or samples < 1):
        raise ValueError(f"kfac: got samples={samples!r}; expected a positive integer, or None for the expectation")

    def measured(problem: Problem, params: Any, iteration: Array) -> dict[str, Pair]:
        net, loss, state, (x, y, *weight), _ = problem.network  # type: ignore[misc]
        columns, _ = factor(loss, net.apply(params, state, x, train=True)[0], y)
        if samples is not None:
            key = jax.random.fold_in(jax.random.key(seed), iteration)
            signs = jax.random.rademacher(key, (samples, *columns.shape[:2]), columns.dtype) / samples**0.5
            columns = jnp.einsum("skn,kn...->sn...", signs.astype(columns.dtype), columns)
        return factors(net, params, state, x, columns, tuple(weight))

    def first(problem: Problem, params, value, gradient) -> Memory:
        shapes = jax.eval_shape(lambda p: measured(problem, p, jnp.zeros((), jnp.int32)), params)
        numbers = 3 * sum(leaf.size for leaf in jax.tree.leaves(shapes))
        check_bytes(
            "kfac", numbers * value.dtype.itemsize, cure="a layer is too wide for matrices of its square: lbfgs"
        )
        return Memory(
            jnp.asarray(damping, value.dtype),
            jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes),
            jax.tree.map(jnp.zeros_like, params),
        )

    def move(problem: Problem, state: State) -> Move:
        *_, l2 = problem.network  # type: ignore[misc]
        memory, gradient = state.memory, state.gradient
        now = measured(problem, state.params, state.iteration)
        seen = state.iteration.astype(state.value.dtype)
        kept = jnp.minimum(seen / (seen + 1), jnp.asarray(decay, seen.dtype))
        pairs = jax.tree.map(lambda old, new: kept.astype(new.dtype) * (old - new) + new, memory.pairs, now)
        inner = curvature(problem, state.params)

        def propose(damping):
            total = damping + jnp.asarray(l2, damping.dtype)
            direction = jax.tree.map(jnp.negative, preconditioned(gradient, pairs, total))
            directions = [direction, memory.step] if momentum else [direction]
            return best_combination(gradient, inner, directions, damping)

        size = jnp.sum(jnp.stack([jnp.trace(pair.a) * jnp.trace(pair.g) for pair in pairs.values()]))
        scale = jnp.maximum(size, norm(gradient) / (1 + norm(state.params)))
        trial = damped(problem, state.params, state.value, gradient, propose, memory.damping, scale)
        step = jax.tree.map(jnp.subtract, trial.params, state.params)
        ended = jnp.where(all_finite(pairs), outcomes.DAMPING_EXHAUSTED, outcomes.NON_FINITE)
        return Move(
            trial.params,
            trial.value,
            trial.gradient,
            Memory(trial.damping, pairs, step),
            trial.evaluations,
            jnp.where(trial.accepted, outcomes.RUNNING, ended),
        )

    return method("kfac", first, move, needs="network")


def curvature(problem: Problem, params: Any):
    """directions -> the matrix of uᵀ(G + l2)v of each pair of them, G the generalised Gauss–Newton matrix.

    uᵀGv = Σ w (Lᵀ J u)·(Lᵀ J v) / Σ w costs a forward pass for each direction.
    """
    net, loss, state, (x, y, *weight), l2 = problem.network  # type: ignore[misc]
    z, along = jax.linearize(lambda p: net.apply(p, state, x, train=True)[0], params)
    columns, _ = factor(loss, z, y)
    each = shares(columns[0].reshape(z.shape[0], -1), *weight)[:, 0]

    def heights(direction):
        return jnp.sum(columns * along(direction), axis=tuple(range(2, columns.ndim)))

    def inner(directions):
        rows = [heights(d) for d in directions]
        return jnp.stack(
            [
                jnp.stack(
                    [jnp.sum(r * q * each) + dot(penalized(u, l2), v) for q, v in zip(rows, directions, strict=True)]
                )
                for r, u in zip(rows, directions, strict=True)
            ]
        )

    return inner


def best_combination(gradient: Any, inner: Any, directions: list, damping: Array) -> tuple[Any, Array]:
    """The combination d of one or two directions with the least gᵀd + ½ dᵀ(C + λI)d, and the fall that C foretells.

    The second is left out where it's zero or parallel to the first.
    """
    curved = inner(directions)
    gram = jnp.stack([jnp.stack([dot(u, v) for v in directions]) for u in directions])
    slope = jnp.stack([dot(gradient, u) for u in directions])
    model = curved + damping * gram
    weights = -slope / model[0, 0]
    if len(directions) == 2:
        area = model[0, 0] * model[1, 1] - model[0, 1] ** 2
        safe = area > 1e3 * jnp.finfo(area.dtype).eps * model[0, 0] * model[1, 1]
        both = jnp.stack(
            [model[0, 1] * slope[1] - model[1, 1] * slope[0], model[0, 1] * slope[0] - model[0, 0] * slope[1]]
        ) / jnp.where(safe, area, 1)
        weights = jnp.where(safe, both, jnp.stack([weights[0], jnp.zeros_like(area)]))
    step = jax.tree.map(lambda *leaves: sum(w * leaf for w, leaf in zip(weights, leaves, strict=True)), *directions)
    return step, -jnp.dot(weights, slope) - weights @ curved @ weights / 2
