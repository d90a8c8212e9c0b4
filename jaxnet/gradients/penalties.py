"""Penalties added to the loss: on the parameters by hand, on anything by automatic differentiation.

penalized:    L + Σ_leaves ( α₂ ½‖w‖² + α₁ ‖w‖₁ )
regularized:  L + α Ω(params, state, batch)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.gradients.roads import GradientFunction


def role(path) -> str:
    """The role of a parameter: the last name of its path, "w", "b", "scale", ….

    >>> [role(path) for path, _ in jax.tree_util.tree_leaves_with_path({"dense_0": {"b": 0, "w": 1}})]
    ['b', 'w']
    """
    last = path[-1] if path else ""
    return str(getattr(last, "key", getattr(last, "name", getattr(last, "idx", last))))


def penalized(gradient: GradientFunction, *, l2: Any = 0.0, l1: Any = 0.0) -> GradientFunction:
    """`gradient` of the loss plus α₂ ½‖w‖² + α₁ ‖w‖₁ (elastic net), with the penalty's gradient α₂ w + α₁ sign(w).

    sign(0) = 0. Conventions without the ½ use λ = α₂/2. In a maximum a posteriori estimate α₂ is the precision of a
    Gaussian prior and α₁ the rate of a Laplace prior (Goodfellow §7.1, eq. 5.79, 7.1–7.5, 7.18–7.20; MIT 6.036 §8.1,
    which drops the factor 2 of its λ‖W‖²).

    Args:
        l2, l1: the strengths α ≥ 0, traced or not. A number acts on the weights, the leaves named `w`, never on biases
            or scales. A tree like the parameters' with a number for each leaf acts on each leaf as it says.

    Raises:
        ValueError: for α < 0; one number for matrices of which none is named `w`, as in other
            libraries' modules.

    >>> params = {"w": jnp.array([3.0]), "b": jnp.array([9.0])}
    >>> def zero(params, state, batch, *, key=None, train=False):
    ...     return (0.0, state), jax.tree.map(jnp.zeros_like, params)
    >>> (loss, _), grads = penalized(zero, l2=2.0)(params, {}, ())
    >>> float(loss), float(grads["w"][0]), float(grads["b"][0])
    (9.0, 6.0, 0.0)
    >>> (loss, _), grads = penalized(zero, l1={"w": 0.0, "b": 0.5})(params, {}, ())
    >>> float(loss), float(grads["w"][0]), float(grads["b"][0])
    (4.5, 0.0, 0.5)
    """
    for name, strengths in (("l2", l2), ("l1", l1)):
        for alpha in jax.tree.leaves(strengths):
            if isinstance(alpha, (int, float)) and not alpha >= 0:
                raise ValueError(f"penalized: got {name}={alpha}; expected a penalty α ≥ 0")

    def penalized_gradient(params, state, batch, *, key=None, train=False):
        (loss, state), grads = gradient(params, state, batch, key=key, train=train)
        for strengths, value, slope in ((l2, _half_square, _itself), (l1, jnp.abs, jnp.sign)):
            alphas = _per_leaf(strengths, params)
            pairs = list(zip(jax.tree.leaves(alphas), jax.tree.leaves(params), strict=True))
            loss = loss + sum(jnp.asarray(a, w.dtype) * jnp.sum(value(w)) for a, w in pairs if not _absent(a))
            grads = jax.tree.map(
                lambda g, a, w, slope=slope: g if _absent(a) else g + jnp.asarray(a, w.dtype) * slope(w),
                grads,
                alphas,
                params,
            )
        return (loss, state), grads

    return penalized_gradient


def check_weights(what: str, params: Any, cure: str) -> None:
    """Refuse matrices none of which is named `w`: what acts on weights would silently act on nothing.

    Raises:
        ValueError: naming them, with `cure` as what to do instead.

    >>> check_weights("penalized", {"b": jnp.zeros(2)}, "")
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    matrices = sorted({role(path) for path, leaf in leaves if jnp.ndim(leaf) > 1})
    if matrices and not any(role(path) == "w" for path, _ in leaves):
        raise ValueError(f"{what}: got matrices named {matrices}; expected weights named 'w': say which, {cure}")


def _half_square(w):
    return jnp.square(w) / 2


def _itself(w):
    return w


def _absent(alpha) -> bool:
    """A plain 0: nothing is computed for it."""
    return isinstance(alpha, (int, float)) and alpha == 0


def _per_leaf(strengths, params):
    """A strength for each leaf: a number is for the weights alone."""
    if jax.tree_util.treedef_is_leaf(jax.tree.structure(strengths)) and jnp.ndim(strengths) == 0:
        if not _absent(strengths):
            check_weights("penalized", params, "l2=rules.match(params, {r'.*kernel': 1e-4}, default=0.0)")
        return jax.tree_util.tree_map_with_path(lambda path, _: strengths if role(path) == "w" else 0.0, params)
    given, expected = (str(jax.tree.structure(tree)) for tree in (strengths, params))
    if given != expected:
        raise ValueError(
            f"penalized: got strengths of the tree {given}; expected one number, or one for each parameter: {expected}"
        )
    return strengths


def regularized(gradient: GradientFunction, penalty: Callable[..., Any], strength: Any) -> GradientFunction:
    """`gradient` of the loss plus α Ω, with Ω's gradient by automatic differentiation (Goodfellow eq. 7.1).

    Args:
        penalty: Ω, a function (params, state, batch, *, key, train) -> scalar. `activation_penalty`,
            `tangent_propagation`, `double_backprop` and `virtual_adversarial` make one; any other objective to train
            on beside the loss is one too (an unsupervised one, closeness to other weights, a log prior with its sign
            turned).
        strength: α, a number, traced or not.

    The penalty gets the step's own key, so that a network in it draws the same dropout masks as the loss.

    >>> def gradient(params, state, batch, *, key=None, train=False):
    ...     return (jnp.sum(params), state), jnp.ones_like(params)
    >>> def toward_one(params, state, batch, *, key=None, train=False):
    ...     return jnp.sum((params - 1) ** 2)
    >>> (loss, _), grads = regularized(gradient, toward_one, 0.5)(jnp.array([3.0]), {}, ())
    >>> float(loss), float(grads[0])
    (5.0, 3.0)
    """

    def regularized_gradient(params, state, batch, *, key=None, train=False):
        (loss, after), grads = gradient(params, state, batch, key=key, train=train)
        value, slopes = jax.value_and_grad(penalty)(params, state, batch, key=key, train=train)
        total = loss + jnp.asarray(strength, loss.dtype) * value
        return (total, after), jax.tree.map(lambda g, s: g + jnp.asarray(strength, g.dtype) * s, grads, slopes)

    return regularized_gradient
