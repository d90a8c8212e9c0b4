"""Gradient functions, the noun between networks and training, and what wraps them.

    gradient(params, state, batch, *, key=None, train=False) -> ((loss, state), grads)

`roads` makes one of a network and a loss; the other modules take one and return one. They alter the objective: what
alters the update is an optimizer.
"""

from jaxnet.gradients.accumulation import accumulated
from jaxnet.gradients.attacks import adversarial, fgsm, pgd
from jaxnet.gradients.penalties import penalized, regularized, role
from jaxnet.gradients.perturbations import augmented, sam
from jaxnet.gradients.products import gauss_newton_vector_product, hessian_vector_product
from jaxnet.gradients.roads import GradientFunction, backprop, loss_and_grad, weighted_mean
from jaxnet.gradients.smoothness import activation_penalty, double_backprop, tangent_propagation, virtual_adversarial

__all__ = [
    "GradientFunction",
    "accumulated",
    "activation_penalty",
    "adversarial",
    "augmented",
    "backprop",
    "double_backprop",
    "fgsm",
    "gauss_newton_vector_product",
    "hessian_vector_product",
    "loss_and_grad",
    "penalized",
    "pgd",
    "regularized",
    "role",
    "sam",
    "tangent_propagation",
    "virtual_adversarial",
    "weighted_mean",
]
