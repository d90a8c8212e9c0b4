"""Rates by coordinate, from the size of past gradients: AdaGrad, RMSProp and Adadelta.

    adagrad            r ← r + g²                  θ ← θ − η g/(√r + δ)
    rmsprop            r ← ρ r + (1 − ρ) g²        θ ← θ − η g/√(r + δ)        or g/(√r + δ), placement="outside"
    centered_rmsprop   and m ← ρ m + (1 − ρ) g     θ ← θ − η g/√(r − m² + δ)
    rmsprop_nesterov   r as above, g = g(θ + μ v)  v ← μ v − η g/√(r + δ)      θ ← θ + v
    adadelta           r as above                  u = −g √(x + ε)/√(r + ε),  x ← ρ x + (1 − ρ) u²,  θ ← θ + u

r, m, v, x start at 0. The sources put δ in different places: see each rule.
"""

from typing import Any

import jax.numpy as jnp
import optax

from jaxnet.optimizers.rule import check, number, rounded, rule


def adagrad(learning_rate: Any, epsilon: Any = 1e-7) -> optax.GradientTransformation:
    """r ← r + g²;  θ ← θ − η g/(√r + δ)  (Duchi et al. 2011; Goodfellow alg. 8.4; Bishop eq. 7.39, 7.40).

    A constant gradient gives steps of η/√k. `optax.adagrad` starts r at 0.1 and has δ within the root.

    Args:
        learning_rate: η, a number or a schedule.
        epsilon: δ > 0, outside the root: Goodfellow 1e-7, Bishop 1e-8.

    Raises:
        ValueError: η < 0, δ ≤ 0.

    >>> rule, g = adagrad(1.0), jnp.full((), 3.0)
    >>> state = rule.init(g)
    >>> for _ in range(4):
    ...     update, state = rule.update(g, state)
    >>> round(float(update), 4)  # -1/√4
    -0.5
    """
    check("adagrad", learning_rate, epsilon)

    def move(scalars, g, r):
        rate, delta = scalars
        r = r + g * g
        return -rate * g / (jnp.sqrt(r) + delta), r

    return rule(("squares",), lambda k: (number(learning_rate, k), number(epsilon, k)), move)


def rmsprop(
    learning_rate: Any, decay: Any = 0.9, epsilon: Any = 1e-6, placement: str = "inside"
) -> optax.GradientTransformation:
    """r ← ρ r + (1 − ρ) g²;  θ ← θ − η g/√(r + δ)  (Hinton 2012; Goodfellow alg. 8.5).

    The first step is η/√(1 − ρ), for lack of a bias correction. The MIT 6.036 notes (§7.2.3) print this rule as
    "Adadelta"; Zeiler's is `adadelta`.

    Args:
        learning_rate: η, a number or a schedule.
        decay: ρ in [0, 1).
        epsilon: δ > 0; Goodfellow 1e-6, Bishop 1e-8.
        placement: "inside" the root (Goodfellow, the MIT notes) or "outside", g/(√r + δ) (Bishop eq. 7.41, 7.42).

    Raises:
        ValueError: η < 0, ρ outside [0, 1), δ ≤ 0, another placement.

    >>> rule, g = rmsprop(1.0, decay=0.75), jnp.full((), 8.0)
    >>> round(float(rule.update(g, rule.init(g))[0]), 4)  # 1/√(1 − 0.75)
    -2.0
    """
    check("rmsprop", learning_rate, epsilon, decay=decay)
    if placement not in ("inside", "outside"):
        raise ValueError(f"rmsprop: got placement={placement!r}; expected 'inside' or 'outside' the root")

    def move(scalars, g, r):
        rate, rho, delta = scalars
        r = (1 - rho) * (g * g) + rho * r
        root = jnp.sqrt(r + delta) if placement == "inside" else jnp.sqrt(r) + delta
        return -rate * g / root, r

    return rule(("squares",), lambda k: (number(learning_rate, k), number(decay, k), number(epsilon, k)), move)


def centered_rmsprop(learning_rate: Any, decay: Any = 0.9, epsilon: Any = 1e-6) -> optax.GradientTransformation:
    """m ← ρ m + (1 − ρ) g;  r ← ρ r + (1 − ρ) g²;  θ ← θ − η g/√(r − m² + δ)  (Graves 2013).

    r − m² is the gradient's variance. It's kept ≥ 0, which rounding alone wouldn't (`optax.rmsprop(centered=True)`
    gives NaN for large constant gradients).

    Args:
        learning_rate: η, a number or a schedule.
        decay: ρ in [0, 1).
        epsilon: δ > 0, inside the root.

    Raises:
        ValueError: η < 0, ρ outside [0, 1), δ ≤ 0.

    >>> rule, g = centered_rmsprop(1.0, decay=0.5), jnp.full((), 8.0)
    >>> round(float(rule.update(g, rule.init(g))[0]), 4)  # 1/√(½ − ½²)
    -2.0
    """
    check("centered_rmsprop", learning_rate, epsilon, decay=decay)

    def move(scalars, g, m, r):
        rate, rho, delta = scalars
        m = (1 - rho) * g + rho * m
        r = (1 - rho) * (g * g) + rho * r
        variance = jnp.maximum(r - m * m, jnp.zeros_like(r))
        return -rate * g / jnp.sqrt(variance + delta), m, r

    return rule(("mean", "squares"), lambda k: (number(learning_rate, k), number(decay, k), number(epsilon, k)), move)


def rmsprop_nesterov(
    learning_rate: Any, momentum: Any = 0.9, decay: Any = 0.9, epsilon: Any = 1e-6
) -> optax.GradientTransformation:
    """g = g(θ + μ v);  r ← ρ r + (1 − ρ) g²;  v ← μ v − η g/√(r + δ);  θ ← θ + v  (Goodfellow alg. 8.6).

    Written for φ = θ + μ v, as `nesterov` is; `nesterov_parameters` gives θ. The algorithm is printed without δ, which
    makes NaN of a coordinate whose gradients are 0; here δ stands where algorithm 8.5 has it.

    Args:
        learning_rate: η, a number or a schedule.
        momentum: μ in [0, 1), a number or a schedule; 0 is `rmsprop`.
        decay: ρ in [0, 1).
        epsilon: δ > 0, inside the root.

    Raises:
        ValueError: η < 0, μ or ρ outside [0, 1), δ ≤ 0.

    >>> rule, g = rmsprop_nesterov(1.0, momentum=0.5, decay=0.75), jnp.full((), 8.0)
    >>> round(float(rule.update(g, rule.init(g))[0]), 4)  # v = -2, φ = v + v/2
    -3.0
    """
    check("rmsprop_nesterov", learning_rate, epsilon, momentum=momentum, decay=decay)

    def numbers(k):
        return number(learning_rate, k), number(momentum, k + 1), number(decay, k), number(epsilon, k)

    def move(scalars, g, r, lead):
        rate, mu_next, rho, delta = scalars
        r = (1 - rho) * (g * g) + rho * r
        step = rate * g / jnp.sqrt(r + delta)
        lead = rounded(mu_next * (lead - step))
        return lead - step, r, lead

    return rule(("squares", "lead"), numbers, move)


def adadelta(decay: Any = 0.95, epsilon: Any = 1e-6) -> optax.GradientTransformation:
    """r ← ρ r + (1 − ρ) g²;  u = −g √(x + ε)/√(r + ε);  x ← ρ x + (1 − ρ) u²;  θ ← θ + u  (Zeiler 2012, alg. 1).

    There's no rate: √(x + ε) takes its place, so that the step has θ's units. The rule that the MIT 6.036 notes call
    Adadelta is `rmsprop`. `optax.adadelta(1.0)` is this rule with ρ = 0.9 (without the 1.0 it goes uphill).

    Args:
        decay: ρ in [0, 1).
        epsilon: ε > 0, inside both roots; it sets the first steps' size.

    Raises:
        ValueError: ρ outside [0, 1), ε ≤ 0.

    >>> rule, g = adadelta(decay=0.75, epsilon=1e-6), jnp.full((), 8.0)
    >>> round(float(rule.update(g, rule.init(g))[0]), 6)  # √ε/√(1 − 0.75)
    -0.002
    """
    check("adadelta", epsilon=epsilon, decay=decay)

    def move(scalars, g, r, x):
        rho, delta = scalars
        r = (1 - rho) * (g * g) + rho * r
        u = -g / (jnp.sqrt(r + delta) / jnp.sqrt(x + delta))
        return u, r, (1 - rho) * (u * u) + rho * x

    return rule(("squares", "moves"), lambda k: (number(decay, k), number(epsilon, k)), move)
