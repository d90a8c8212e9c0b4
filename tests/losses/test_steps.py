"""The loss per step: a masked mean by NumPy, both roads, padding that never matters, a run that trains on it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy
from vjp_proof import agree

import jaxnet as jn
from jaxnet import layers, losses, metrics
from jaxnet.layers import Sequence

pytestmark = pytest.mark.numerical
FLOAT = jnp.result_type(float)
RTOL = 1e-12 if jax.config.jax_enable_x64 else 1e-5
RNG = np.random.default_rng(0)
Z, LABELS = jnp.asarray(RNG.normal(size=(4, 5, 3)), FLOAT), RNG.integers(0, 3, (4, 5)).astype(np.int32)
LENGTHS = np.array([5, 2, 0, 1], np.int32)
SEQUENCE = Sequence(Z, jnp.asarray(LENGTHS))
LOSS = losses.per_step(losses.softmax_cross_entropy)


def test_it_is_the_masked_mean():
    log_p = scipy.special.log_softmax(np.asarray(Z, np.float64), axis=-1)
    each = [[-log_p[i, t, LABELS[i, t]] for t in range(n)] for i, n in enumerate(LENGTHS)]
    want = [np.mean(row) if row else 0.0 for row in each]
    np.testing.assert_allclose(LOSS(SEQUENCE, LABELS), want, rtol=RTOL)
    full = -np.take_along_axis(log_p, LABELS[..., None], 2).mean((1, 2))
    np.testing.assert_allclose(LOSS(Z, LABELS), full, rtol=RTOL)
    right = np.argmax(Z, axis=-1) == LABELS
    shares = [right[i, :n].mean() if n else 0.0 for i, n in enumerate(LENGTHS)]
    np.testing.assert_allclose(metrics.per_step(metrics.accuracy)(SEQUENCE, jnp.asarray(LABELS)), shares, rtol=RTOL)


TARGETS = {
    "softmax": (losses.softmax_cross_entropy, LABELS),
    "squared": (losses.squared_error, RNG.normal(size=(4, 5, 3)).astype(FLOAT)),
    "hinge": (losses.hinge, np.sign(RNG.normal(size=(4, 5, 3))).astype(FLOAT)),
    "bits": (losses.sigmoid_cross_entropy, RNG.integers(0, 2, (4, 5, 3)).astype(np.int32)),
    "ignored": (losses.cross_entropy(ignore=-1), np.where(RNG.random((4, 5)) < 0.3, -1, LABELS).astype(np.int32)),
}


@pytest.mark.parametrize("name", TARGETS)
def test_both_roads_and_no_padding(name):
    """By hand, by autodiff, and after everything in the padding became NaN or another label: the same."""
    base, target = TARGETS[name]
    loss, padding = losses.per_step(base), ~np.asarray(SEQUENCE.mask())

    def by_autodiff(values, target):
        return jax.grad(lambda v: jnp.sum(loss(Sequence(v, SEQUENCE.lengths), target)))(values)

    got = loss.gradient(SEQUENCE, jnp.asarray(target))
    assert got.lengths is None
    assert not np.asarray(got.values)[padding].any()
    np.testing.assert_allclose(got.values, by_autodiff(Z, jnp.asarray(target)), rtol=RTOL, atol=RTOL)
    dirty = jnp.where(padding[..., None], jnp.nan, Z)
    spoilt = np.where(padding.reshape(4, 5, *[1] * (target.ndim - 2)), 99, target).astype(target.dtype)
    for road in (by_autodiff, lambda v, y: loss.gradient(dataclasses.replace(SEQUENCE, values=v), y).values):
        clean, soiled = road(Z, jnp.asarray(target)), road(dirty, jnp.asarray(spoilt))
        np.testing.assert_array_equal(clean, soiled)
    np.testing.assert_array_equal(
        loss(SEQUENCE, jnp.asarray(target)), loss(dataclasses.replace(SEQUENCE, values=dirty), jnp.asarray(spoilt))
    )


def test_a_network_learns_a_label_at_each_step():
    """Whether the sum so far is positive; the gradient of the whole network by both roads."""
    lengths = RNG.integers(1, 7, 96)
    rows = [RNG.normal(size=(n, 1)).astype(FLOAT) for n in lengths]
    y = np.zeros((96, 6), np.int32)
    for i, row in enumerate(rows):
        y[i, : len(row)] = np.cumsum(row) > 0
    x = layers.pad(rows, 6)
    net = jn.serial(jn.gru(8), layers.time_distributed(jn.dense(2)))
    params, state = net.init(jax.random.key(0), layers.spec_of(x))
    batch = jax.tree.map(jnp.asarray, (x, y))
    roads = [make(net, LOSS) for make in (jn.backprop, jn.loss_and_grad)]
    agree(*jax.jit(lambda params: [road(params, state, batch) for road in roads])(params))
    measured = {"accuracy": metrics.per_step(metrics.accuracy)}
    program = jn.program(net, LOSS, optax.adam(0.03), batch_size=32, metrics=measured)
    fitted = jn.fit(jax.random.key(0), program, jn.Data((x, y), (x, y)), epochs=20)
    assert fitted.metrics["valid_accuracy"] > 0.95
    outputs = np.asarray(jn.predict(net, fitted, x).values)
    right = np.argmax(outputs, axis=-1) == y
    by_hand = np.mean([right[i, :n].mean() for i, n in enumerate(lengths)])
    np.testing.assert_allclose(fitted.metrics["valid_accuracy"], by_hand, rtol=1e-5)


def test_targets_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"got targets of shape \(4, 4\) for outputs of shape \(4, 5, 3\)"):
        LOSS(SEQUENCE, LABELS[:, :4])
    wrong = LABELS.copy()
    wrong[1, 0] = 3
    spec = jax.eval_shape(lambda: SEQUENCE)
    with pytest.raises(ValueError, match="got label 3"):
        LOSS.check(spec, wrong)
    data = jn.Data((Sequence(np.zeros((4, 5, 1), np.float32), LENGTHS), wrong))
    net = jn.serial(jn.gru(2), layers.time_distributed(jn.dense(3)))
    with pytest.raises(ValueError, match="got label 3"):
        jn.fit(jax.random.key(0), jn.program(net, LOSS, optax.sgd(0.1), batch_size=2), data, epochs=1)
