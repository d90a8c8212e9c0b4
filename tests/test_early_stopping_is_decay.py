"""Early stopping of descent from 0 on a quadratic is weight decay of strength 1/(steps · rate), through `fit`.

After T steps at rate η the share 1 − (1 − ηλ)^T of the solution is there in a direction of curvature λ; the penalty
½ α‖w‖² leaves λ/(λ + α) (Goodfellow eq. 7.40, 7.44).
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnet as jn

pytestmark = pytest.mark.numerical
FLOAT = jnp.result_type(float)
ATOL = 1e-12 if jnp.finfo(FLOAT).bits == 64 else 3e-6
CURVATURES = np.array([0.001, 0.01, 0.1, 1.0, 3.0])
RATE, STEPS = 1e-3, 1000
Q = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]  # directions in the space of weights
ROTATION = np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]  # and in that of examples
BEST = Q @ np.array([1.0, -1.0, 1.0, 1.0, -1.0])


def shares(curvatures, rate, steps, l2=0.0):
    """Qᵀw / Qᵀw* of a linear network with the Hessian Q diag(curvatures) Qᵀ, after full-batch training from 0."""
    x = ROTATION @ np.diag(np.sqrt(len(curvatures) * np.asarray(curvatures))) @ Q.T
    net, loss = jn.dense(1, bias=False, weight_init=jn.initializers.zeros()), jn.losses.squared_error
    gradient = jn.penalized(jn.backprop(net, loss), l2=l2)
    program = jn.program(net, loss, optax.sgd(rate), batch_size=len(x), gradient=gradient)
    data = jn.Data((x.astype(FLOAT), (x @ BEST)[:, None].astype(FLOAT)))
    fitted = jn.fit(jax.random.key(0), program, data, epochs=steps)
    return Q.T @ np.asarray(fitted.params["w"][:, 0], np.float64) / (Q.T @ BEST)


@pytest.mark.source("GB-7.8-es-L2-equiv", "GB-7.8-es-trajectory")
def test_stopped_and_decayed_networks_shrink_alike_in_flat_directions():
    """η = 0.001, T = 1,000, so α = 1: equal within 1 % where λ ≤ 0.01, and early stopping keeps more beyond."""
    stopped = shares(CURVATURES, RATE, STEPS)
    decayed = shares(CURVATURES, 0.4, 150, l2=1 / (RATE * STEPS))
    np.testing.assert_allclose(stopped, 1 - (1 - RATE * CURVATURES) ** STEPS, atol=ATOL)
    np.testing.assert_allclose(decayed, CURVATURES / (CURVATURES + 1), atol=ATOL)
    np.testing.assert_allclose(stopped, [0.0009995, 0.00995, 0.0952, 0.632, 0.950], atol=5e-4, rtol=1e-3)
    np.testing.assert_allclose(decayed, [0.0009990, 0.00990, 0.0909, 0.5, 0.75], atol=5e-5)
    apart = stopped / decayed - 1
    flat = CURVATURES <= 0.01
    assert np.all(np.abs(apart[flat]) < 0.01)
    assert np.all(apart[~flat] > 0.04)
    np.testing.assert_allclose(apart[1], 0.01 / 2, rtol=0.02)  # the leading term of the gap: λ/(2α)


@pytest.mark.source("GB-7.8-es-L2-equiv")
@pytest.mark.parametrize("curvature", [0.3, 1.5])
def test_they_are_equal_where_the_condition_of_equality_holds(curvature):
    """(1 − ηλ)^T = α/(λ + α) (eq. 7.44) has one α where all curvatures are one: then no direction differs."""
    rate, steps = 0.1, 7
    left = (1 - rate * curvature) ** steps
    same = np.full(5, curvature)
    stopped = shares(same, rate, steps)
    decayed = shares(same, 0.4, 150, l2=curvature * left / (1 - left))
    np.testing.assert_allclose(stopped, decayed, atol=ATOL)
    assert np.all(np.abs(shares(same, 0.4, 150, l2=1 / (rate * steps)) - stopped) > 0.01)  # 1/(Tη) is the limit only
