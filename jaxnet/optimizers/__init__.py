"""Optimizers: optax transformations of the gradient, `chain`ed by optax.

    optimizer.init(params) -> state        optimizer.update(grads, state, params) -> updates, state

First the rules, with each source's formula where the sources differ from optax:

    momentum, averaged_momentum, nesterov                            Goodfellow §8.3, Bishop §7.3.1
    adagrad, rmsprop, centered_rmsprop, rmsprop_nesterov, adadelta   Goodfellow §8.5, Bishop §7.3.3, Zeiler 2012
    adam, adamax, amsgrad                                            Kingma & Ba 2015, Reddi et al. 2018

Where optax has the source's rule, it *is* the rule, and the tests prove it:

    gradient descent, SGD   θ ← θ − η g                              optax.sgd(η)
    AdamW                   θ ← θ − η (m̂/(√v̂ + ε) + λ θ)             optax.adamw(η, weight_decay=λ)
    Nadam                   m̂ = β₁ m/(1 − β₁ᵗ⁺¹) + (1 − β₁) g/(1 − β₁ᵗ)   optax.nadam(η)
    Lion                    θ ← θ − η (sign(β₁ m + (1 − β₁) g) + λ θ),  m ← β₂ m + (1 − β₂) g
                                                                     optax.lion(η, weight_decay=λ)

(AdamW: Loshchilov & Hutter 2019, whose λ is η λ here. Nadam: Dozat 2016 with constant β₁, without the further factor β₂
of its algorithm 2. Lion: Chen et al. 2023.) optax keeps averages in the parameters' dtype, where
bfloat16 makes 0.999 a 1: for such parameters say `optax.adam(…, b2=0.99)` or take the rules above.

Then what stands last in a chain: averages of the parameters, lookahead, constraints.

Methods that see the whole function, not one gradient, are no transformations: they are `Method`s for `jn.minimize`,
`jn.least_squares` and `jn.program_full_batch` (see `jaxnet.optimizers.second_order`).
"""

from jaxnet.optimizers.adam import adam, adamax, amsgrad
from jaxnet.optimizers.adaptive import adadelta, adagrad, centered_rmsprop, rmsprop, rmsprop_nesterov
from jaxnet.optimizers.averaging import (
    averaged_parameters,
    exponential_average,
    polyak_average,
    stochastic_weight_average,
)
from jaxnet.optimizers.constraints import max_norm, non_negative, norm_ball, projected, proximal_l1
from jaxnet.optimizers.lookahead import lookahead
from jaxnet.optimizers.momentum import averaged_momentum, momentum, nesterov, nesterov_parameters
from jaxnet.optimizers.second_order import (
    Method,
    bayesian_regularization,
    bfgs,
    conjugate_gradient,
    covariance,
    covariance_of_residuals,
    gauss_newton,
    gradient_descent,
    kfac,
    lbfgs,
    levenberg_marquardt,
    line_search,
    natural_gradient,
    newton,
    saddle_free_newton,
)

__all__ = [
    "Method",
    "adadelta",
    "adagrad",
    "adam",
    "adamax",
    "amsgrad",
    "averaged_momentum",
    "averaged_parameters",
    "bayesian_regularization",
    "bfgs",
    "centered_rmsprop",
    "conjugate_gradient",
    "covariance",
    "covariance_of_residuals",
    "exponential_average",
    "gauss_newton",
    "gradient_descent",
    "kfac",
    "lbfgs",
    "levenberg_marquardt",
    "line_search",
    "lookahead",
    "max_norm",
    "momentum",
    "natural_gradient",
    "nesterov",
    "nesterov_parameters",
    "newton",
    "non_negative",
    "norm_ball",
    "polyak_average",
    "projected",
    "proximal_l1",
    "rmsprop",
    "rmsprop_nesterov",
    "saddle_free_newton",
    "stochastic_weight_average",
]
