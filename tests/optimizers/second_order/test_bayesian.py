"""Bayesian regularization beside scikit-learn's, and the parameters' covariance beside scipy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from sklearn.linear_model import BayesianRidge, LogisticRegression

import jaxnet as jn
from jaxnet import outcomes
from jaxnet.optimizers.second_order.bayesian import bayesian_regularization
from jaxnet.optimizers.second_order.covariance import covariance, covariance_of_residuals
from jaxnet.optimizers.second_order.levenberg_marquardt import levenberg_marquardt
from jaxnet.optimizers.second_order.minimization import Tolerances, least_squares, repeated
from jaxnet.optimizers.second_order.of_network import of_network

RNG = np.random.default_rng(0)
X = RNG.normal(size=(30, 4)) * [1.0, 2.0, 0.5, 1.0]
Y = X @ [1.0, 0.0, -0.5, 0.02] + 0.3 * RNG.normal(size=30)


@pytest.mark.numerical
@pytest.mark.float64
@pytest.mark.parametrize("as_network", [True, False])
def test_linear_regression_is_scikit_learns_bayesian_ridge(as_network):
    """α, β and the weights at the fixed point of the evidence; γ by its formula."""
    expected = BayesianRidge(
        fit_intercept=False, alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0, max_iter=5000, tol=1e-12
    )
    expected.fit(X, Y)
    method = bayesian_regularization()
    if as_network:
        net = jn.dense(1, bias=False)
        problem = of_network(net, jn.losses.squared_error, {}, (jnp.asarray(X), jnp.asarray(Y)))
        run = jax.jit(lambda p: repeated(method, problem, p, 500, Tolerances(jnp.array(1e-10))))
        found = run({"w": jnp.zeros((4, 1))})
        weights = found.params["w"][:, 0]
    else:
        found = least_squares(lambda p: X @ p - Y, jnp.zeros(4), method=method, steps=500, gradient_tolerance=1e-9)
        weights = found.params
    assert int(found.outcome) == outcomes.CONVERGED, found.sentence
    np.testing.assert_allclose(weights, expected.coef_, rtol=1e-6)
    np.testing.assert_allclose(found.memory.alpha, expected.lambda_, rtol=1e-6)
    np.testing.assert_allclose(found.memory.beta, expected.alpha_, rtol=1e-6)
    eigenvalues = np.linalg.eigvalsh(X.T @ X) * expected.alpha_
    np.testing.assert_allclose(found.memory.gamma, np.sum(eigenvalues / (eigenvalues + expected.lambda_)), rtol=1e-6)


@pytest.mark.long
@pytest.mark.numerical
@pytest.mark.float64
def test_it_keeps_a_network_from_fitting_noise():
    """20 noisy points of a sine by 20 tanh units: the error on the sine itself is far below that of plain LM."""
    x = jnp.linspace(-1.0, 1.0, 20)[:, None]
    noise = jnp.asarray(RNG.normal(size=(20, 1)), x.dtype)
    net = jn.serial(jn.dense(20), jn.layers.tanh(), jn.dense(1))
    params, _ = net.init(jax.random.key(0), (1,))
    batch = x, jnp.sin(3 * x) + 0.2 * noise
    problem = of_network(net, jn.losses.squared_error, {}, batch)
    between = jnp.linspace(-1.0, 1.0, 101)[:, None]

    def error(method):
        found = jax.jit(lambda p: repeated(method, problem, p, 60, Tolerances(jnp.array(1e-6))))(params)
        assert np.all(np.isfinite(found.value))
        output, _ = net.apply(found.params, {}, between)
        return float(jnp.sqrt(jnp.mean(jnp.square(output - jnp.sin(3 * between))))), found.memory

    regularized, memory = error(bayesian_regularization())
    plain, _ = error(levenberg_marquardt())
    assert regularized < 0.15 < plain
    assert 3 < float(memory.gamma) < 12
    assert 8 < float(memory.beta) < 80  # the noise's precision is 25


def test_what_bayesian_regularization_refuses():
    net = jn.dense(1)
    params, _ = net.init(jax.random.key(0), (4,))
    batch = jnp.asarray(X), jnp.asarray(Y > 0)
    with pytest.raises(ValueError, match="loss sigmoid_cross_entropy; expected squared_error"):
        bayesian_regularization().init(of_network(net, jn.losses.sigmoid_cross_entropy, {}, batch), params)
    with pytest.raises(ValueError, match=r"l2=0.1; expected 0"):
        bayesian_regularization().init(of_network(net, jn.losses.squared_error, {}, batch, 0.1), params)


@pytest.mark.numerical
@pytest.mark.float64
def test_covariance_is_curve_fits():
    t = np.linspace(0, 3, 25)
    y = 2 * np.exp(-1.3 * t) + 0.5 + 0.05 * RNG.normal(size=25)

    def curve(t, a, b, c):
        return a * np.exp(-b * t) + c

    expected, pcov = scipy.optimize.curve_fit(curve, t, y, p0=[1.0, 1.0, 0.0], xtol=1e-14, ftol=1e-14)

    def residuals(p, t, y):
        return p[0] * jnp.exp(-p[1] * t) + p[2] - y

    found = least_squares(residuals, jnp.array([1.0, 1.0, 0.0]), args=(t, y), method=levenberg_marquardt())
    np.testing.assert_allclose(found.params, expected, rtol=1e-5)
    ours = covariance_of_residuals(residuals, found.params, args=(t, y))
    np.testing.assert_allclose(ours, pcov, rtol=1e-4)
    with pytest.raises(ValueError, match="got 2 rows for 3 parameters"):
        covariance_of_residuals(residuals, found.params, args=(t[:2], y[:2]))


@pytest.mark.numerical
@pytest.mark.float64
def test_covariance_of_networks():
    """Weighted linear regression; logistic regression's inverse information, XᵀWX + prior, by hand."""
    x, y, w = jnp.asarray(X), jnp.asarray(Y), jnp.asarray(RNG.integers(1, 4, 30), jnp.float64)
    net = jn.dense(1, bias=False)
    repeated_x, repeated_y = (np.repeat(a, np.asarray(w, int), axis=0) for a in (X, Y))
    solution = np.linalg.lstsq(repeated_x, repeated_y, rcond=None)[0]
    ours = covariance(net, jn.losses.squared_error, {"w": jnp.asarray(solution)[:, None]}, {}, (x, y, w), variance=0.09)
    np.testing.assert_allclose(ours, 0.09 * np.linalg.inv(repeated_x.T @ repeated_x), rtol=1e-9)

    labels = np.asarray(Y > 0, np.int32)
    logistic = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-12, max_iter=1000).fit(X, labels)
    p = logistic.predict_proba(X)[:, 1]
    information = X.T @ (X * (p * (1 - p))[:, None]) + np.eye(4)
    params = {"w": jnp.asarray(logistic.coef_.T)}
    ours = covariance(net, jn.losses.sigmoid_cross_entropy, params, {}, (x, jnp.asarray(labels)), l2=1 / 30)
    np.testing.assert_allclose(ours, np.linalg.inv(information), rtol=1e-9)
    pair = {"w": jnp.concatenate([jnp.zeros((4, 1)), params["w"]], axis=1)}
    both = covariance(
        jn.dense(2, bias=False), jn.losses.softmax_cross_entropy, pair, {}, (x, jnp.asarray(labels)), l2=1 / 30
    )
    curvature = np.kron(X.T @ (X * (p * (1 - p))[:, None]), [[1, -1], [-1, 1]]) + np.eye(8)
    np.testing.assert_allclose(both, np.linalg.inv(curvature), rtol=1e-8, atol=1e-12)
