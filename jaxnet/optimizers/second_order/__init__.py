"""Methods that see the whole function: line searches, conjugate gradients, Newton and its approximations.

    minimize(fun, params, method=jn.optimizers.lbfgs())                              any function of a parameter tree
    least_squares(residuals, params, method=jn.optimizers.levenberg_marquardt())     ½‖residuals‖²
    jn.program_full_batch(net, loss, method=…)                                       a Program: fit, run, sweep take it

    gradient_descent, conjugate_gradient, bfgs, lbfgs          from gradients and a `line_search` (Goodfellow §8.6)
    newton, saddle_free_newton                                 from the Hessian
    gauss_newton, levenberg_marquardt, bayesian_regularization from the Jacobian of residuals or of a network's outputs
    natural_gradient, kfac                                     from a network's Fisher matrix

`covariance` and `covariance_of_residuals` say how well the data fix the parameters that were found.
"""

from jaxnet.optimizers.second_order import line_search
from jaxnet.optimizers.second_order.bayesian import bayesian_regularization
from jaxnet.optimizers.second_order.conjugate_gradient import conjugate_gradient
from jaxnet.optimizers.second_order.covariance import covariance, covariance_of_residuals
from jaxnet.optimizers.second_order.descent import gradient_descent
from jaxnet.optimizers.second_order.gauss_newton import gauss_newton
from jaxnet.optimizers.second_order.kfac import kfac
from jaxnet.optimizers.second_order.lbfgs import lbfgs
from jaxnet.optimizers.second_order.levenberg_marquardt import levenberg_marquardt
from jaxnet.optimizers.second_order.method import Method, Problem, State
from jaxnet.optimizers.second_order.minimization import Minimum, least_squares, minimize
from jaxnet.optimizers.second_order.natural_gradient import natural_gradient
from jaxnet.optimizers.second_order.newton import newton
from jaxnet.optimizers.second_order.quasi_newton import bfgs
from jaxnet.optimizers.second_order.saddle_free import saddle_free_newton

__all__ = [
    "Method",
    "Minimum",
    "Problem",
    "State",
    "bayesian_regularization",
    "bfgs",
    "conjugate_gradient",
    "covariance",
    "covariance_of_residuals",
    "gauss_newton",
    "gradient_descent",
    "kfac",
    "lbfgs",
    "least_squares",
    "levenberg_marquardt",
    "line_search",
    "minimize",
    "natural_gradient",
    "newton",
    "saddle_free_newton",
]
