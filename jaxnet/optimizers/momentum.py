"""Momentum: heavy ball in its two forms, and Nesterov's.

    momentum            v ← μ v − η g(θ)               θ ← θ + v
    averaged_momentum   m ← γ m + (1 − γ) g(θ)         θ ← θ − η' m      the same path for η = η'(1 − γ)
    nesterov            v ← μ v − η g(θ + μ v)         θ ← θ + v

A constant gradient gives steps of η‖g‖/(1 − μ) in the end. Nesterov's rule wants the gradient at the point ahead,
φ = θ + μ v. It gets it by a change of variable: the parameters that are trained *are* φ, with g = g(φ)

    v' = μ v − η g      φ' = θ + v' + μ' v' = φ + (1 + μ') v' − μ v

and `nesterov_parameters` gives θ = φ − μ v back.
"""

from typing import Any

import jax
import optax

from jaxnet.optimizers.rule import RuleState, check, number, rule


def momentum(learning_rate: Any, decay: Any = 0.9) -> optax.GradientTransformation:
    """v ← μ v − η g;  θ ← θ + v  (Goodfellow alg. 8.2; Bishop alg. 7.3; MIT 6.036 notes §7.2.2, form V).

    The rate is within the velocity: one that falls acts from then on. With `optax.sgd(η, momentum=μ)`, equal at a
    constant rate, it scales the whole velocity at once.

    Args:
        learning_rate: η, a number or a schedule.
        decay: μ in [0, 1), a number or a schedule; 0 is gradient descent. Common: 0.5, 0.9, 0.99.

    Raises:
        ValueError: η < 0, μ outside [0, 1).

    >>> import jax.numpy as jnp
    >>> rule = momentum(1.0, 0.5)
    >>> state = rule.init(jnp.zeros(()))
    >>> for _ in range(3):
    ...     update, state = rule.update(jnp.ones(()), state)
    >>> float(update)  # -(1 + 1/2 + 1/4), on the way to -2
    -1.75
    """
    check("momentum", learning_rate, decay=decay)

    def move(scalars, g, v):
        rate, mu = scalars
        v = mu * v - rate * g
        return v, v

    return rule(("velocity",), lambda k: (number(learning_rate, k), number(decay, k)), move)


def averaged_momentum(learning_rate: Any, decay: Any = 0.9) -> optax.GradientTransformation:
    """m ← γ m + (1 − γ) g;  θ ← θ − η m: steps along a moving average (MIT 6.036 notes §7.2.2, form M).

    The path of `momentum(η(1 − γ), γ)` when both are constant.

    Args:
        learning_rate: η, a number or a schedule.
        decay: γ in [0, 1), a number or a schedule; 0 is gradient descent.

    Raises:
        ValueError: η < 0, γ outside [0, 1).

    >>> import jax.numpy as jnp
    >>> rule = averaged_momentum(1.0, 0.5)
    >>> float(rule.update(jnp.ones(()), rule.init(jnp.zeros(())))[0])
    -0.5
    """
    check("averaged_momentum", learning_rate, decay=decay)

    def move(scalars, g, m):
        rate, gamma = scalars
        m = (1 - gamma) * g + gamma * m
        return -rate * m, m

    return rule(("average",), lambda k: (number(learning_rate, k), number(decay, k)), move)


def nesterov(learning_rate: Any, decay: Any = 0.9) -> optax.GradientTransformation:
    """v ← μ v − η g(θ + μ v);  θ ← θ + v  (Goodfellow alg. 8.3; Bishop eq. 7.34), written for φ = θ + μ v.

    Start it at the source's θ₀ (v₀ = 0, so φ₀ = θ₀) and give it gradients at the parameters it trains. With
    constant rates it's `optax.sgd(η, momentum=μ, nesterov=True)`.

    Args:
        learning_rate: η, a number or a schedule.
        decay: μ in [0, 1), a number or a schedule; 0 is gradient descent.

    Raises:
        ValueError: η < 0, μ outside [0, 1).

    >>> import jax.numpy as jnp
    >>> rule, ahead = nesterov(1.0, 0.5), jnp.zeros(())
    >>> update, state = rule.update(jnp.ones(()), rule.init(ahead))
    >>> float(ahead + update), float(nesterov_parameters(state, ahead + update))  # θ₁ = v₁ = -1 and φ₁ = θ₁ + v₁/2
    (-1.5, -1.0)
    """
    check("nesterov", learning_rate, decay=decay)

    def move(scalars, g, lead):
        rate, mu_next = scalars
        v = lead - rate * g
        return (1 + mu_next) * v - lead, mu_next * v

    return rule(("lead",), lambda k: (number(learning_rate, k), number(decay, k + 1)), move)


def nesterov_parameters(opt_state: Any, params: Any) -> Any:
    """The source's θ = φ − μ v of a run with `nesterov` or `rmsprop_nesterov`; for `program(averaged=…)`.

    Args:
        opt_state: the optimizer's state, of a chain too.
        params: φ, the parameters that are trained.

    Raises:
        ValueError: a state without a look-ahead, or with several.

    >>> import jax.numpy as jnp
    >>> float(nesterov_parameters(nesterov(0.1).init(jnp.ones(())), jnp.ones(())))
    1.0
    """
    nodes = jax.tree.leaves(opt_state, is_leaf=lambda node: isinstance(node, RuleState))
    found = [node for node in nodes if isinstance(node, RuleState) and "lead" in node.slots]
    if len(found) != 1:
        raise ValueError(
            f"nesterov_parameters: got an optimizer with {len(found)} look-aheads; expected one, from "
            "nesterov(…) or rmsprop_nesterov(…)"
        )
    return jax.tree.map(lambda p, lead: (p.astype(lead.dtype) - lead).astype(p.dtype), params, found[0].slots["lead"])
