"""Penalties: the hand-written gradient against autodiff of the formula, and what the textbooks say they do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from vjp_proof import agree

import jaxnet as jn
from jaxnet.training import train_state

pytestmark = pytest.mark.numerical
NET = jn.mlp([3, 2], activation="tanh")
RNG = np.random.default_rng(0)
FLOAT = jnp.result_type(float)
BATCH = jnp.asarray(RNG.normal(size=(5, 4)), FLOAT), jnp.asarray(RNG.normal(size=(5, 2)), FLOAT)
PARAMS = jax.tree.map(lambda a: jnp.asarray(RNG.normal(size=a.shape), FLOAT), NET.init(jax.random.key(0), (4,))[0])
PLAIN = jn.loss_and_grad(NET, jn.losses.squared_error)
BY_HAND = jn.backprop(NET, jn.losses.squared_error)


def expected(penalty):
    """(loss, grads) of the plain loss plus penalty(params), by autodiff."""
    return jax.value_and_grad(lambda p: PLAIN(p, {}, BATCH)[0][0] + penalty(p))(PARAMS)


def weights(params):
    return [layer["w"] for layer in params.values()]


@pytest.mark.source("GB-7.1.1-L2", "GB-7.1.2-L1", "GB-5.2.2-OMEGA", "GB-7.1-weights-only")
def test_elastic_net_is_its_formula_on_the_weights_alone():
    def penalty(params):
        return sum(0.3 * 0.5 * jnp.sum(w**2) + 0.2 * jnp.sum(jnp.abs(w)) for w in weights(params))

    for road in (PLAIN, BY_HAND):
        (loss, _), grads = jn.penalized(road, l2=0.3, l1=0.2)(PARAMS, {}, BATCH)
        agree((loss, grads), expected(penalty))


@pytest.mark.source("GB-7.1-per-layer-alpha")
def test_a_strength_for_each_leaf():
    alphas = jax.tree.map(lambda _: 0.0, PARAMS)
    alphas["dense_0"]["w"], alphas["dense_1"]["b"] = 0.5, 2.0

    def penalty(p):
        return 0.25 * jnp.sum(p["dense_0"]["w"] ** 2) + jnp.sum(p["dense_1"]["b"] ** 2)

    (loss, _), grads = jn.penalized(BY_HAND, l2=alphas)(PARAMS, {}, BATCH)
    agree((loss, grads), expected(penalty))
    alike = {name: {"w": 0.3, "b": 0.0} for name in PARAMS}
    one, each = (jn.penalized(BY_HAND, l2=a, l1=a)(PARAMS, {}, BATCH) for a in (0.3, alike))
    jax.tree.map(np.testing.assert_array_equal, one, each)


@pytest.mark.source("GB-7.1-penalized-objective", "GB-7.1-weights-only")
def test_no_strength_changes_no_bit_and_biases_get_none():
    plain = BY_HAND(PARAMS, {}, BATCH)
    for zero in (0.0, jnp.zeros(())):  # untraced and traced
        jax.tree.map(np.testing.assert_array_equal, jn.penalized(BY_HAND, l2=zero, l1=zero)(PARAMS, {}, BATCH), plain)
    _, grads = jn.penalized(BY_HAND, l2=5.0, l1=3.0)(PARAMS, {}, BATCH)
    for name in PARAMS:
        np.testing.assert_array_equal(grads[name]["b"], plain[1][name]["b"])


@pytest.mark.source("GB-7.1.1-L2", "M-8.1b")
def test_a_step_without_a_loss_shrinks_the_weights_by_one_factor():
    """w ← (1 − ηα) w; with the λ‖W‖² of a source that drops the 2, the factor would be 1 − 2ηλ."""

    def flat(params, state, batch, *, key=None, train=False):
        return (jnp.zeros((), FLOAT), state), jax.tree.map(jnp.zeros_like, params)

    rate, alpha, steps = 0.1, 0.5, 7
    optimizer = optax.sgd(rate)
    step = jax.jit(jn.train_step(jn.penalized(flat, l2=alpha), optimizer))
    now = train_state(PARAMS, {}, optimizer, jax.random.key(0))
    for _ in range(steps):
        now, _ = step(now, BATCH)
    for got, w in zip(weights(now.params), weights(PARAMS), strict=True):
        np.testing.assert_allclose(got, (1 - rate * alpha) ** steps * w, rtol=1e-6)
        assert not np.allclose(got, (1 - 2 * rate * alpha) ** steps * w, rtol=1e-3)


@pytest.mark.source("GB-7.1.2-L1")
def test_the_slope_of_l1_is_a_sign_that_is_zero_at_zero():
    params = {"w": jnp.array([[-1e-30, 0.0, 1e3]])}

    def zero(params, state, batch, *, key=None, train=False):
        return (jnp.zeros(()), state), jax.tree.map(jnp.zeros_like, params)

    _, grads = jn.penalized(zero, l1=0.5)(params, {}, ())
    assert grads["w"].tolist() == [[-0.5, 0.0, 0.5]]


@pytest.mark.source("GB-5.6.1-MAP")
@pytest.mark.parametrize("prior", ["gaussian", "laplace"])
def test_a_penalty_is_a_log_prior(prior):
    """−log p(w) of N(0, 1/α) or Laplace(0, 1/α), constants and all, has the penalty's gradient."""
    alpha = 0.7

    def minus_log_prior(params, state, batch, *, key=None, train=False):
        each = jax.scipy.stats.norm.logpdf if prior == "gaussian" else jax.scipy.stats.laplace.logpdf
        scale = alpha**-0.5 if prior == "gaussian" else 1 / alpha
        return -sum(jnp.sum(each(w, scale=scale)) for w in weights(params))

    penalty = jn.penalized(PLAIN, **{"l2" if prior == "gaussian" else "l1": alpha})
    agree(jn.regularized(PLAIN, minus_log_prior, 1.0)(PARAMS, {}, BATCH)[1], penalty(PARAMS, {}, BATCH)[1])


def test_any_objective_can_be_added_and_strengths_can_be_swept():
    def toward(params, state, batch, *, key=None, train=False):
        return sum(jnp.sum((a - 1) ** 2) for a in jax.tree.leaves(params))

    def both(strength):
        gradient = jn.regularized(jn.penalized(BY_HAND, l2=strength, l1=strength), toward, strength)
        (loss, _), grads = gradient(PARAMS, {}, BATCH)
        return loss, grads

    swept = jax.vmap(both)(jnp.asarray([0.0, 0.4], FLOAT))
    formula = expected(
        lambda p: 0.4 * (
            toward(p, {}, BATCH) + sum(jnp.sum(w**2) / 2 + jnp.sum(jnp.abs(w)) for w in weights(p))
        )
    )  # fmt: skip
    agree(jax.tree.map(lambda a: a[1], swept), formula)
    (loss, _), grads = PLAIN(PARAMS, {}, BATCH)
    agree(jax.tree.map(lambda a: a[0], swept), (loss, grads))


def test_what_cannot_be_is_refused():
    for name in ("l1", "l2"):
        with pytest.raises(ValueError, match=rf"got {name}=-0\.1; expected a penalty α ≥ 0"):
            jn.penalized(PLAIN, **{name: {"w": -0.1}})
    with pytest.raises(ValueError, match="expected one number, or one for each parameter"):
        jn.penalized(PLAIN, l2={"w": 0.1})(PARAMS, {}, BATCH)
    for strength in ({"l2": 0.1}, {"l1": jnp.float32(0.1)}):
        with pytest.raises(ValueError, match=r"got matrices named \['kernel'\]; expected weights named 'w'"):
            jn.penalized(lambda params, *rest, **names: ((0.0, {}), params), **strength)(
                {"kernel": jnp.ones((2, 2))}, {}, ()
            )
