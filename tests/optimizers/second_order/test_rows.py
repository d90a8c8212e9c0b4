"""The rows of the Gauss–Newton matrix against automatic differentiation, and the matrix against Hessians."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import given
from jax.flatten_util import ravel_pytree
from network_problems import NETS, TARGETS, network_problem

import jaxnet as jn
from jaxnet import layers, losses
from jaxnet.layers.layer import parameterless
from jaxnet.optimizers.second_order.method import of_residuals
from jaxnet.optimizers.second_order.natural_gradient import fisher
from jaxnet.optimizers.second_order.normal_equations import normal_matrix, rows_of
from jaxnet.optimizers.second_order.of_network import of_network


@pytest.mark.numerical
@pytest.mark.float64
@examples(6)
@given(
    net=st.sampled_from(list(NETS)),
    target=st.sampled_from(list(TARGETS)),
    weighted=st.booleans(),
    seed=st.integers(0, 9),
)
def test_the_rows_make_the_gauss_newton_matrix_and_the_gradient(net, target, weighted, seed):
    """AᵀA = Σ w Jᵀ ∇²ℓ J / Σ w by Hessian- and Jacobian-vector products, Aᵀs = ∇L without the penalty."""
    drawn, params = network_problem(net, target, weighted=weighted, l2=0.0, seed=seed)

    @jax.jit
    def both(params):
        a, s = rows_of(drawn, params)
        return (a.T @ a, a.T @ s), (fisher(drawn, params), ravel_pytree(drawn.value_and_grad(params)[1])[0])

    for ours, expected in zip(*both(params), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.numerical
@pytest.mark.parametrize("net", ["dense", "graph"])
def test_rows_of_squared_error_are_the_residuals_jacobian(net):
    drawn, params = network_problem(net, weighted=True)
    flat, unravel = ravel_pytree(params)
    network, _, state, (x, y, w), _ = drawn.network
    scale = jnp.sqrt(w / jnp.sum(w))[:, None]

    def residuals(v):
        return ((network.apply(unravel(v), state, x)[0] - y) * scale).T.ravel()  # an output's examples together

    a, s = jax.jit(lambda p: rows_of(drawn, p))(params)
    tolerance = 2e-5 if a.dtype == jnp.float32 else 1e-12
    np.testing.assert_allclose(a, jax.jit(jax.jacobian(residuals))(flat), rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(s, residuals(flat), rtol=tolerance, atol=tolerance)


@pytest.mark.numerical
@pytest.mark.float64
@pytest.mark.parametrize("target", ["labels", "bits", "counts"])
def test_of_a_linear_network_it_is_the_hessian(target):
    """The generalised Gauss–Newton matrix lacks only the curvature of the network."""
    loss, targets = TARGETS[target]
    rng = np.random.default_rng(1)
    net = layers.dense(3)
    params, _ = net.init(jax.random.key(1), (2,))
    x, y = jnp.asarray(rng.normal(size=(5, 2))), jnp.asarray(targets(rng, 5, 3))
    linear = of_network(net, loss, {}, (x, y))
    flat, unravel = ravel_pytree(params)
    hessian = jax.jit(jax.hessian(lambda v: linear.value(unravel(v))))(flat)
    np.testing.assert_allclose(jax.jit(lambda p: normal_matrix(linear, p)[0])(params), hessian, rtol=1e-9, atol=1e-12)


@pytest.mark.numerical
@pytest.mark.float64
@pytest.mark.parametrize("rows", [5, 2])
def test_residuals_are_differentiated_by_either_mode(rows):
    """Forward for five residuals of three parameters, reverse for two."""
    drawn = of_residuals(lambda p: jnp.sin(jnp.arange(1.0, rows + 1) * p["a"]) * p["b"][0] + p["b"][1])
    params = {"a": jnp.array(0.3), "b": jnp.array([2.0, 1.0])}
    a, s = jax.jit(lambda p: rows_of(drawn, p))(params)
    t = np.arange(1.0, rows + 1)
    expected = np.stack([2 * t * np.cos(0.3 * t), np.sin(0.3 * t), np.ones(rows)], axis=1)
    np.testing.assert_allclose(a, expected, rtol=1e-12)
    np.testing.assert_allclose(s, 2 * np.sin(0.3 * t) + 1, rtol=1e-12)


@pytest.mark.numerical
@pytest.mark.parametrize("piece", [1, 700])
def test_pieces_of_the_examples_sum_to_the_whole(piece):
    drawn, params = network_problem(n=7)
    (whole, gradient), (in_pieces, same) = jax.jit(lambda p: (normal_matrix(drawn, p), normal_matrix(drawn, p, piece)))(
        params
    )
    tolerance = 1e-5 if whole.dtype == jnp.float32 else 1e-12
    np.testing.assert_allclose(in_pieces, whole, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(same, gradient, rtol=tolerance, atol=tolerance)


def test_what_has_no_rows_is_refused():
    drawn, params = network_problem()
    network = drawn.network
    with pytest.raises(ValueError, match="loss absolute_error; expected one whose curvature"):
        rows_of(of_network(network.net, losses.absolute_error, {}, network.batch), params)
    mixing = layers.serial(layers.dense(2), layers.batch_norm(), layers.dense(3))
    with pytest.raises(ValueError, match="got batch norm"):
        rows_of(of_network(mixing, losses.squared_error, {}, network.batch), params)
    pair = layers.branch(layers.dense(1), layers.dense(1))
    with pytest.raises(ValueError, match="expected one array"):
        rows_of(of_network(pair, losses.squared_error, {}, network.batch), pair.init(jax.random.key(0), (2,))[0])
    with pytest.raises(ValueError, match="residuals, or a network"):
        normal_matrix(jn.optimizers.second_order.method.of_function(jnp.sum), jnp.ones(2))


@pytest.mark.numerical
@pytest.mark.parametrize("target", ["labels", "bits", "counts"])
def test_saturated_outputs_keep_their_gradient(target):
    """Far outputs have no curvature left; what there is stays finite and Aᵀs is still the gradient."""
    loss, _ = TARGETS[target]
    x = jnp.eye(3) * jnp.array([60.0, -60.0, 1.0])
    y = jnp.array([1, 0, 2]) if target == "labels" else jnp.zeros((3, 3)) + (jnp.arange(3) % 2)
    net = layers.dense(3, bias=False)
    drawn, params = of_network(net, loss, {}, (x, y)), {"w": jnp.eye(3)}
    (a, s), gradient = jax.jit(lambda p: (rows_of(drawn, p), drawn.value_and_grad(p)[1]["w"].ravel()))(params)
    assert np.all(np.isfinite(a))
    assert np.all(np.isfinite(s))
    scale = float(jnp.max(jnp.abs(gradient)))
    np.testing.assert_allclose((a.T @ s) / scale, gradient / scale, atol=1e-5)


@pytest.mark.numerical
@pytest.mark.float64
def test_members_may_differ_in_what_the_network_closes_over():
    """Under `vmap`, the matrix of each member is that of the member alone, in pieces too."""
    drawn, params = network_problem(n=7)
    net, loss, state, batch, _ = drawn.network

    def matrix(slope):
        scaled = layers.serial(
            parameterless("scaled", lambda x, key, train: slope * x, lambda x, dy, key, train: slope * dy), net
        )
        problem = of_network(scaled, loss, state, batch)
        return normal_matrix(problem, {"serial_0": params}, 1400)

    slopes = jnp.array([0.5, 2.0])
    together, alone = jax.jit(lambda s: (jax.vmap(matrix)(s), [matrix(slope) for slope in s]))(slopes)
    for member, expected in enumerate(alone):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[member], b, rtol=1e-12, atol=1e-14), together, expected)
