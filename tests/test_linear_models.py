"""Networks of one layer are the textbook's linear models: scikit-learn's answers, through `fit`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge

import jaxnet as jn
from jaxnet import layers, losses

pytestmark = pytest.mark.numerical
FLOAT = jnp.result_type(float)
RNG = np.random.default_rng(0)
N = 60
X = RNG.normal(size=(N, 3)) * np.array([2.0, 1.0, 0.5])
VALUES = X @ np.array([1.0, -2.0, 3.0]) + 4.0 + 0.5 * RNG.normal(size=N)
BITS = (X @ np.array([1.0, -1.0, 0.5]) + RNG.logistic(size=N) > 0).astype(int)
CLASSES = np.argmax(X @ RNG.normal(size=(3, 3)) + RNG.gumbel(size=(N, 3)), axis=1)
COUNTS = RNG.poisson(np.exp(0.3 * X[:, 0] - 0.5 * X[:, 1] + 0.5))


def fitted(units, loss, y, l2=0.0, x=X):
    """One dense layer by full-batch L-BFGS from `fit`: (weights, biases)."""
    net = jn.serial(layers.dense(units))
    gradient = jn.penalized(jn.backprop(net, loss), l2=l2)
    program = jn.program(net, loss, optax.lbfgs(), batch_size=len(x), gradient=gradient)
    y = np.asarray(y, np.int32 if np.issubdtype(np.asarray(y).dtype, np.integer) else FLOAT)
    run = jn.fit(jax.random.key(0), program, jn.Data((np.asarray(x, FLOAT), y)), epochs=60)
    return (np.asarray(run.params["dense_0"][name], np.float64) for name in ("w", "b"))


@pytest.mark.source("GB-5.1.4-NORMAL", "GB-5.2.2-WD", "GB-7.1.1-ridge")
@pytest.mark.parametrize("alpha", [0.0, 3.0])
def test_least_squares_and_ridge(alpha):
    """scikit-learn adds α‖w‖² to the sum of squares: here ½ α‖w‖²/n on the mean of ½ squares."""
    w, b = fitted(1, losses.squared_error, VALUES[:, None], l2=alpha / N)
    model = (Ridge(alpha=alpha, tol=1e-12) if alpha else LinearRegression()).fit(X, VALUES)
    np.testing.assert_allclose(w[:, 0], model.coef_, rtol=1e-6)
    np.testing.assert_allclose(b[0], model.intercept_, rtol=1e-6)


@pytest.mark.source("GB-5.7.1-LOGREG")
def test_logistic_regression_of_two_and_of_three_classes():
    strength = 2.0
    w, b = fitted(1, losses.sigmoid_cross_entropy, BITS[:, None].astype(float), l2=1 / (strength * N))
    model = LogisticRegression(C=strength, tol=1e-12, max_iter=10000).fit(X, BITS)
    np.testing.assert_allclose(w[:, 0], model.coef_[0], rtol=1e-6)
    np.testing.assert_allclose(b[0], model.intercept_[0], rtol=1e-6)
    w, b = fitted(3, losses.softmax_cross_entropy, CLASSES, l2=1 / (strength * N))
    model = LogisticRegression(C=strength, tol=1e-12, max_iter=10000).fit(X, CLASSES)
    np.testing.assert_allclose(w, model.coef_.T, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(b - b.mean(), model.intercept_ - model.intercept_.mean(), rtol=1e-6, atol=1e-6)


def test_poisson_regression():
    """scikit-learn halves the deviance, whose gradient is that of −log p; and adds ½ α‖w‖² to its mean."""
    w, b = fitted(1, losses.poisson, COUNTS[:, None].astype(float), l2=0.1)
    model = PoissonRegressor(alpha=0.1, tol=1e-12, max_iter=10000).fit(X, COUNTS)
    np.testing.assert_allclose(w[:, 0], model.coef_, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(b[0], model.intercept_, rtol=1e-6)


@pytest.mark.source("GB-2.9-MINNORM", "GB-2.9-PINV")
def test_descent_from_zero_ends_at_the_solution_of_smallest_norm():
    """With more unknowns than equations: the pseudoinverse's, which is also ridge's as its strength vanishes."""
    x, y = RNG.normal(size=(4, 7)), RNG.normal(size=4)
    w = descended(x, y)
    best = np.linalg.pinv(x) @ y
    np.testing.assert_allclose(w, best, rtol=1e-9)
    null = np.linalg.svd(x)[2][-1]
    for step in (-0.5, 0.5):
        assert np.linalg.norm(w) < np.linalg.norm(w + step * null)
        np.testing.assert_allclose(x @ (w + step * null), y, rtol=1e-8)
    errors = [
        np.linalg.norm(np.linalg.solve(x.T @ x + alpha * np.eye(7), x.T @ y) - w) for alpha in (1e-1, 1e-3, 1e-5, 1e-7)
    ]
    assert np.all(np.diff(errors) < 0)
    assert errors[-1] < 1e-6


def descended(x, y):
    """w after full-batch gradient descent from w = 0."""
    gradient = jn.backprop(jn.serial(layers.dense(1, bias=False)), losses.squared_error)
    batch = jnp.asarray(x, FLOAT), jnp.asarray(y[:, None], FLOAT)
    rate = 1.0 / np.linalg.eigvalsh(x @ x.T / len(x))[-1]

    def step(params, _):
        return jax.tree.map(lambda w, g: w - rate * g, params, gradient(params, {}, batch)[1]), None

    params, _ = jax.lax.scan(step, {"dense_0": {"w": jnp.zeros((x.shape[1], 1), FLOAT)}}, None, length=5000)
    return np.asarray(params["dense_0"]["w"])[:, 0]


@pytest.mark.source("GB-5.2-CAP")
def test_the_degree_of_a_polynomial_is_its_capacity():
    """Degree d passes through d + 1 points, a smaller one doesn't; the training error falls with the degree."""
    t = np.linspace(-1, 1, 5)
    y = np.sin(3 * t) + 0.3 * np.cos(9 * t)
    errors = []
    for degree in (1, 2, 4):
        basis = np.polynomial.legendre.legvander(t, degree)
        w, b = fitted(1, losses.squared_error, y[:, None], x=basis[:, 1:])
        errors.append(np.mean((basis[:, 1:] @ w[:, 0] + b[0] - y) ** 2))
        expected = np.polynomial.legendre.legfit(t, y, degree)
        np.testing.assert_allclose([b[0], *w[:, 0]], expected, rtol=1e-5, atol=1e-6)
    assert errors[0] > errors[1] > 1e-3
    assert errors[2] < 1e-12


@pytest.mark.source("GB-4.4-REPARAM")
def test_a_constraint_goes_away_by_reparameterization():
    """min ½ wᵀA w − cᵀw on the unit circle, by descent on an angle; = the best of a million points of the circle."""
    a, c = np.array([[2.0, 0.3], [0.3, 0.5]]), np.array([1.0, -0.7])

    def objective(angle):
        w = jnp.stack([jnp.cos(angle), jnp.sin(angle)])
        return 0.5 * w @ jnp.asarray(a, FLOAT) @ w - jnp.asarray(c, FLOAT) @ w

    angle, _ = jax.lax.scan(
        lambda angle, _: (angle - 0.1 * jax.grad(objective)(angle), None), jnp.zeros((), FLOAT), None, length=2000
    )
    circle = np.linspace(0, 2 * np.pi, 10**6)
    w = np.stack([np.cos(circle), np.sin(circle)])
    values = 0.5 * np.einsum("in,ij,jn->n", w, a, w) - c @ w
    np.testing.assert_allclose(objective(angle), values.min(), atol=1e-10)
