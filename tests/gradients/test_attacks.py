"""Adversarial examples: exact on linear models, within the box, worse than noise; training on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import roads
from vjp_proof import agree

import jaxnet as jn
from jaxnet import layers
from jaxnet.gradients import fgsm, pgd
from jaxnet.testing import Case

pytestmark = pytest.mark.numerical
FLOAT = jnp.result_type(float)
EPS = float(jnp.finfo(FLOAT).eps)
RNG = np.random.default_rng(0)
NET = layers.serial(layers.dense(8), layers.tanh(), layers.dense(3))
CASE = Case(
    NET,
    jn.losses.softmax_cross_entropy,
    jax.tree.map(lambda a: jnp.asarray(RNG.normal(size=a.shape), FLOAT), NET.init(jax.random.key(0), (4,))[0]),
    {},
    (jnp.asarray(RNG.normal(size=(16, 4)), FLOAT), jnp.asarray(RNG.integers(0, 3, 16), jnp.int32)),
    jax.random.key(0),
)


def loss_at(x):
    z, _ = CASE.net.apply(CASE.params, {}, x)
    return np.asarray(CASE.loss(z, CASE.batch[1]), np.float64)


@pytest.mark.source("GB-7.13-linear-l1", "GB-7.13-FGSM")
def test_a_linear_output_moves_by_epsilon_times_the_l1_norm():
    rng = np.random.default_rng(1)
    net, n = layers.dense(1), 50
    params = {"w": jnp.asarray(rng.normal(size=(n, 1)), FLOAT), "b": jnp.zeros(1, FLOAT)}
    x = jnp.asarray(rng.normal(size=(6, n)), FLOAT)
    below = net.apply(params, {}, x)[0] - 1.0  # targets below: the attack raises the output
    moved = fgsm(net, jn.losses.squared_error, 0.25)(params, {}, (x, below))
    change = net.apply(params, {}, moved)[0] - net.apply(params, {}, x)[0]
    np.testing.assert_allclose(change, 0.25 * float(jnp.sum(jnp.abs(params["w"]))), rtol=1e3 * EPS)


@pytest.mark.source("GB-7.13-FGSM")
def test_attacks_stay_in_the_box_and_are_worse_than_noise():
    x, epsilon = CASE.batch[0], 0.05
    key = jax.random.key(0)
    fast = fgsm(CASE.net, CASE.loss, epsilon)(CASE.params, {}, CASE.batch)
    several = pgd(CASE.net, CASE.loss, epsilon, steps=5, rate=0.02)
    for moved in (fast, several(CASE.params, {}, CASE.batch), several(CASE.params, {}, CASE.batch, key=key)):
        assert np.max(np.abs(moved - x)) <= epsilon * (1 + 64 * EPS)
        assert np.all(loss_at(moved) >= loss_at(x))
        noise = x + epsilon * jax.random.rademacher(key, x.shape, FLOAT)
        assert np.mean(loss_at(moved) - loss_at(x)) > 2 * np.mean(loss_at(noise) - loss_at(x))
    assert np.mean(loss_at(several(CASE.params, {}, CASE.batch))) >= np.mean(loss_at(fast)) * (1 - 1e-3)
    one = pgd(CASE.net, CASE.loss, epsilon, steps=1, rate=epsilon)(CASE.params, {}, CASE.batch)
    np.testing.assert_allclose(one, fast, atol=4 * EPS)


def test_the_direction_is_each_examples_own_by_finite_differences():
    """Raising the loss of example i moves nothing else."""
    x, _ = CASE.batch
    fast = np.asarray(fgsm(CASE.net, CASE.loss, 0.1)(CASE.params, {}, CASE.batch) - x)
    h = 1e-3
    for j in range(x.shape[1]):
        slope = (loss_at(x.at[:, j].add(h)) - loss_at(x.at[:, j].add(-h))) / (2 * h)
        clear = np.abs(slope) > 1e-2
        np.testing.assert_allclose(fast[clear, j], 0.1 * np.sign(slope[clear]), rtol=1e-4)
        assert clear.sum() >= 8


def test_bounds_are_kept():
    x, y = CASE.batch
    moved = fgsm(CASE.net, CASE.loss, 3.0, bounds=(-1.0, 1.0))(CASE.params, {}, (x, y))
    assert np.min(moved) == -1
    assert np.max(moved) == 1
    attack = pgd(CASE.net, CASE.loss, 3.0, steps=2, rate=1.0, bounds=(-1.0, 1.0))
    assert np.max(np.abs(attack(CASE.params, {}, (x, y), key=jax.random.key(0)))) <= 1


@pytest.mark.source("GB-7.13-adv-train")
def test_the_gradient_is_of_both_halves_and_none_goes_through_the_attack():
    attack = fgsm(CASE.net, CASE.loss, 0.1)
    moved = attack(CASE.params, {}, CASE.batch)
    for gradient in roads(CASE):
        clean, g = gradient(CASE.params, {}, CASE.batch)
        attacked, a = gradient(CASE.params, {}, (moved, CASE.batch[1]))
        (loss, _), grads = jn.adversarial(gradient, attack, share=0.3)(CASE.params, {}, CASE.batch)
        expected = 0.7 * clean[0] + 0.3 * attacked[0], jax.tree.map(lambda p, q: 0.7 * p + 0.3 * q, g, a)
        agree((loss, grads), expected)


def test_what_cannot_be_is_refused():
    x, y = CASE.batch
    with pytest.raises(TypeError, match="expected floats"):
        fgsm(CASE.net, CASE.loss, 0.1)(CASE.params, {}, (x.astype(jnp.int32), y))
    with pytest.raises(ValueError, match="got steps=0"):
        pgd(CASE.net, CASE.loss, 0.1, steps=0, rate=0.1)
    with pytest.raises(ValueError, match="got share=2"):
        jn.adversarial(roads(CASE)[0], fgsm(CASE.net, CASE.loss, 0.1), share=2)
