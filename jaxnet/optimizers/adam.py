"""Adam and its kin: a moving average of the gradient over the root of one of its squares.

m ← β₁ m + (1 − β₁) g          v ← β₂ v + (1 − β₂) g²          both from 0
m̂ = m/(1 − β₁ᵗ)                v̂ = v/(1 − β₂ᵗ)                 t = 1, 2, …

adam      θ ← θ − η m̂/(√v̂ + ε)           "outside": Kingma & Ba 2015, Goodfellow, Bishop, Hagan eq. 3.33
          θ ← θ − η m̂/√(v̂ + ε)           "inside":  MIT 6.036 notes
          θ ← θ − η_t m/(√v + ε)          "folded":  η_t = η √(1 − β₂ᵗ)/(1 − β₁ᵗ), Hagan eq. 3.34, 3.35
adamax    u ← max(β₂ u, |g|),            θ ← θ − η m̂/u
amsgrad   V ← max(V, v),                 θ ← θ − η m/(√V + ε)
"""

from typing import Any

import jax.numpy as jnp
import optax

from jaxnet.optimizers.rule import check, number, rule, unbiased


def adam(
    learning_rate: Any = 0.001,
    b1: Any = 0.9,
    b2: Any = 0.999,
    epsilon: Any = 1e-8,
    placement: str = "outside",
) -> optax.GradientTransformation:
    """θ ← θ − η m̂/(√v̂ + ε), with ε where each source has it (Kingma & Ba 2015; Goodfellow alg. 8.7).

    A constant gradient gives steps of η. "outside" is `optax.adam`. The three differ only where v̂ is near ε². Two
    misprints are put right: Hagan's η_t (eq. 3.34) is upside down, and Bishop's algorithm 7.4 has one minus too many.

    Args:
        learning_rate: η, a number or a schedule.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1): 0.999, Bishop 0.99. (Goodfellow's closed [0, 1] would divide by 0.)
        epsilon: ε > 0.
        placement: "outside" the root, "inside" it (MIT 6.036 notes §7.2.4), or "folded": the corrections in the rate,
            so that ε is as if it were ε/√(1 − β₂ᵗ) (Hagan eq. 3.34, 3.35).

    Raises:
        ValueError: η < 0, β₁ or β₂ outside [0, 1), ε ≤ 0, another placement.

    >>> rule, g = adam(0.5), jnp.array([3.0, -0.01])
    >>> [round(float(u), 4) for u in rule.update(g, rule.init(g))[0]]
    [-0.5, 0.5]
    """
    check("adam", learning_rate, epsilon, b1=b1, b2=b2)
    if placement not in ("outside", "inside", "folded"):
        raise ValueError(f"adam: got placement={placement!r}; expected 'outside', 'inside' or 'folded'")

    def numbers(k):
        first, second = number(b1, k), number(b2, k)
        return (
            number(learning_rate, k),
            first,
            second,
            number(epsilon, k),
            1 / unbiased(first, k),
            1 / unbiased(second, k),
        )

    def move(scalars, g, m, v):
        rate, beta1, beta2, eps, first, second = scalars
        m = (1 - beta1) * g + beta1 * m
        v = (1 - beta2) * (g * g) + beta2 * v
        if placement == "outside":
            root = jnp.sqrt(v * second) + eps
        elif placement == "inside":
            root = jnp.sqrt(v * second + eps)
        else:
            root = (jnp.sqrt(v) + eps) * jnp.sqrt(second)
        return -(rate * first) * m / root, m, v

    return rule(("mean", "squares"), numbers, move)


def adamax(learning_rate: Any = 0.002, b1: Any = 0.9, b2: Any = 0.999) -> optax.GradientTransformation:
    """u ← max(β₂ u, |g|);  θ ← θ − η m̂/u: Adam with the maximum norm (Kingma & Ba 2015, alg. 2).

    A coordinate whose gradients have all been 0 stays where it is (0/0 as printed). `optax.adamax` and torch add 1e-8
    to |g| instead.

    Args:
        learning_rate: η, a number or a schedule.
        b1, b2: β₁ and β₂ in [0, 1).

    Raises:
        ValueError: η < 0, β₁ or β₂ outside [0, 1).

    >>> rule, g = adamax(0.5), jnp.array([3.0, -0.01])
    >>> [round(float(u), 4) for u in rule.update(g, rule.init(g))[0]]
    [-0.5, 0.5]
    """
    check("adamax", learning_rate, b1=b1, b2=b2)

    def numbers(k):
        first = number(b1, k)
        return number(learning_rate, k) / unbiased(first, k), first, number(b2, k)

    def move(scalars, g, m, u):
        rate, beta1, beta2 = scalars
        m = (1 - beta1) * g + beta1 * m
        u = jnp.maximum(beta2 * u, jnp.abs(g))
        return -rate * m / jnp.where(u > 0, u, jnp.ones_like(u)), m, u

    return rule(("mean", "largest"), numbers, move)


def amsgrad(
    learning_rate: Any = 0.001, b1: Any = 0.9, b2: Any = 0.999, epsilon: Any = 1e-8
) -> optax.GradientTransformation:
    """V ← max(V, v);  θ ← θ − η m/(√V + ε): rates never rise (Reddi et al. 2018, alg. 2, without bias corrections).

    `optax.amsgrad` corrects both averages unless told not to, torch takes the maximum before the correction.

    Args:
        learning_rate: η, a number or a schedule; the paper's is η/√t, `schedules.power(η, -0.5)`.
        b1, b2: β₁ and β₂ in [0, 1).
        epsilon: ε > 0, outside the root; the paper has none.

    Raises:
        ValueError: η < 0, β₁ or β₂ outside [0, 1), ε ≤ 0.

    >>> rule, g = amsgrad(1.0, b1=0.5, b2=0.75), jnp.array([8.0, -8.0])
    >>> [round(float(u), 4) for u in rule.update(g, rule.init(g))[0]]  # ½/√¼
    [-1.0, 1.0]
    """
    check("amsgrad", learning_rate, epsilon, b1=b1, b2=b2)

    def numbers(k):
        return number(learning_rate, k), number(b1, k), number(b2, k), number(epsilon, k)

    def move(scalars, g, m, v, largest):
        rate, beta1, beta2, eps = scalars
        m = (1 - beta1) * g + beta1 * m
        v = (1 - beta2) * (g * g) + beta2 * v
        largest = jnp.maximum(largest, v)
        return -rate * m / (jnp.sqrt(largest) + eps), m, v, largest

    return rule(("mean", "squares", "largest"), numbers, move)
