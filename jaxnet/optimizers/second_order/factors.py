"""The curvature of a loss in a network's outputs, as a factor: H = ∂²ℓ/∂ŷ² = L Lᵀ, example by example.

The generalised Gauss–Newton matrix of a network is Σ Jᵀ H J, J the outputs' Jacobian, so its rows are those of Lᵀ J:
they come from back-propagating the columns of L instead of the loss's gradient (Schraudolph 2002; Martens 2020 §8).
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet import activations
from jaxnet.losses import Loss

ELEMENTWISE = ("squared_error", "poisson", "squared_hinge")  # each output by itself, convex; "bits" too
SMALLEST = 1e-30  # of a curvature: outputs far off have none left in rounding, but still a slope


def factor(loss: Loss, output: Array, target: Array) -> tuple[Array, Array]:
    """(columns of L (k, n, …outputs), s (k, n)) with Σ_k L_k L_kᵀ = ∂²ℓ/∂ŷ² and Σ_k L_k s_k = ∂ℓ/∂ŷ.

    Squared error: L = I, s = ŷ − y. Losses of each output by itself (sigmoid cross-entropy, Poisson, squared hinge):
    L = diag √ℓ″, s = ℓ′/√ℓ″. Softmax cross-entropy: L_c = √(t p_c) (e_c − p), s_c = ∂ℓ/∂z_c / √(t p_c), with p the
    probabilities and t the weights' sum, 1 without smoothing and class weights.

    Raises:
        ValueError: another loss; class logits that aren't (n, classes).

    >>> from jaxnet import losses
    >>> columns, s = factor(losses.squared_error, jnp.array([[3.0]]), jnp.array([1.0]))
    >>> columns.tolist(), s.tolist()
    ([[[1.0]]], [[2.0]])
    """
    if loss.gradient is not None and loss.outputs == "classes":
        return _of_classes(loss, output, target)
    if loss.gradient is not None and (loss.name in ELEMENTWISE or loss.outputs == "bits"):
        return _elementwise(loss, output, target)
    raise ValueError(
        f"got loss {loss.name}; expected one whose curvature in the outputs is known and positive: squared_error, "
        "softmax_cross_entropy, sigmoid_cross_entropy, poisson or squared_hinge; for any other take lbfgs"
    )


def _elementwise(loss, output, target):
    slope = loss.gradient(output, target)
    if loss.name == "squared_error":
        root = jnp.ones_like(output)
        s = slope
    else:
        _, curvature = jax.jvp(lambda z: loss.gradient(z, target), (output,), (jnp.ones_like(output),))
        root = jnp.sqrt(jnp.maximum(curvature, SMALLEST))
        s = slope / root
    n = output.shape[0]
    root, s = root.reshape(n, -1), s.reshape(n, -1)
    columns = root.T[:, :, None] * jnp.eye(root.shape[1], dtype=root.dtype)[:, None, :]
    return columns.reshape(-1, *output.shape), s.T


def _of_classes(loss, output, target):
    if output.ndim != 2:
        raise ValueError(f"{loss.name}: got logits of shape {output.shape}; expected (batch, classes)")
    classes = output.shape[1]
    p = activations.softmax(output)
    # ℓ(z) = t log Σ e^z − q·z, so at z = 0 the loss itself is t log(classes)
    total = loss.value(jnp.zeros_like(output), target) / jnp.log(jnp.full((), classes, output.dtype))
    root = jnp.sqrt(jnp.maximum(total[:, None] * p, SMALLEST))
    columns = root.T[:, :, None] * (jnp.eye(classes, dtype=p.dtype)[:, None, :] - p[None])
    return columns, (loss.gradient(output, target) / root).T
