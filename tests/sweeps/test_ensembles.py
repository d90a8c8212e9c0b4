"""Ensembles against Goodfellow's formula, brute force and scikit-learn."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from jaxnet.sweeps.ensembles import average_predictions, average_probabilities, calibration, disagreement

seeds = st.integers(0, 2**32 - 1)
sizes = st.sampled_from([(2, 1, 2), (2, 5, 3), (5, 20, 10)])


def rng(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def logits_of(seed, members, n, classes):
    return rng(seed).normal(0, 3, (members, n, classes))


def softmax(logits):
    e = np.exp(logits)
    return e / e.sum(-1, keepdims=True)


@pytest.mark.source("GB-7.11-ensemble-formula")
@pytest.mark.parametrize(("v", "c"), [(1.0, 0.3), (1.0, 0.0), (2.0, 2.0), (1.0, 0.9)])
def test_error_of_an_average_of_models(v, c):
    """v/k + (k−1)·c/k for Gaussian errors of variance v and covariance c; k = 1 … 20, within 3 standard errors."""
    n, most = 20_000, 20
    shared, own = rng(1).normal(size=(1, n)), rng(2).normal(size=(most, n))
    errors = math.sqrt(c) * shared + math.sqrt(v - c) * own
    for k in range(1, most + 1):
        squares = average_predictions(errors[:k]).mean ** 2
        assert abs(squares.mean() - (v / k + (k - 1) * c / k)) < 3 * squares.std() / math.sqrt(n)
        assert squares.mean() <= (errors[:k] ** 2).mean() * (1 + 1e-12)


@pytest.mark.source("GB-7.11-ensemble-formula")
@given(seeds, st.integers(1, 6))
def test_error_of_an_average_of_models_is_exact_for_their_own_moments(seed, k):
    """With v and c measured on the same errors the formula is an identity, whatever their distribution."""
    errors = rng(seed).normal(size=(k, 11)) ** 3
    v = (errors**2).mean()
    pairs = [(errors[i] * errors[j]).mean() for i, j in itertools.permutations(range(k), 2)]
    c = np.mean(pairs) if pairs else 0.0
    np.testing.assert_allclose((average_predictions(errors).mean ** 2).mean(), v / k + (k - 1) * c / k, rtol=1e-9)


def test_average_predictions_of_any_shape():
    outputs = rng().normal(size=(4, 3, 2, 2))
    found = average_predictions(outputs)
    np.testing.assert_allclose(found.mean, sum(outputs) / 4)
    np.testing.assert_allclose(found.variance, sum((o - found.mean) ** 2 for o in outputs) / 3)
    one = average_predictions(outputs[:1])
    assert np.array_equal(one.mean, outputs[0])
    assert np.isnan(one.variance).all()
    assert one.variance.shape == (3, 2, 2)


@given(seeds, sizes)
def test_average_probabilities_average_softmaxes(seed, size):
    logits = logits_of(seed, *size)
    found = average_probabilities(logits)
    np.testing.assert_allclose(found, np.mean([softmax(member) for member in logits], axis=0), rtol=1e-12)
    np.testing.assert_allclose(found, average_probabilities(logits[::-1] + 700), rtol=1e-9)


def test_average_probabilities_of_jax_arrays():
    logits = jnp.asarray(logits_of(0, 3, 4, 5), jnp.float32)
    np.testing.assert_allclose(average_probabilities(logits), jax.nn.softmax(logits).mean(0), rtol=1e-5)


@given(seeds, sizes)
def test_the_ensemble_is_never_worse_than_its_members_on_average(seed, size):
    """Jensen: −log and the squared error are convex."""
    logits = logits_of(seed, *size)
    labels = rng(seed + 1).integers(0, size[2], size[1])
    members = [calibration(softmax(member), labels) for member in logits]
    together = calibration(average_probabilities(logits), labels)
    nll = np.mean([m.negative_log_likelihood for m in members])
    assert together.negative_log_likelihood <= nll + 1e-12
    assert together.brier <= np.mean([m.brier for m in members]) + 1e-12


@given(seeds, sizes)
def test_disagreement_by_brute_force(seed, size):
    logits = logits_of(seed, *size)
    found = disagreement(logits)
    labels = logits.argmax(-1)
    shares = [np.mean(x != y) for x, y in itertools.combinations(labels, 2)]
    np.testing.assert_allclose(found.labels, np.mean(shares), atol=1e-12)
    p = softmax(logits)
    mean = p.mean(0)
    np.testing.assert_allclose(found.total, -(mean * np.log(mean)).sum(-1), rtol=1e-9)
    np.testing.assert_allclose(found.mean_entropy, -(p * np.log(p)).sum(-1).mean(0), rtol=1e-9)
    np.testing.assert_allclose(found.total, found.mean_entropy + found.mutual_information, rtol=1e-9)
    assert (found.mutual_information >= 0).all()
    assert (found.mutual_information <= math.log(size[0]) + 1e-12).all()


def test_disagreement_at_its_ends():
    """All alike; each certain of another class; −inf for a class that can't occur."""
    same = disagreement(np.repeat(logits_of(0, 1, 500, 4), 3, axis=0))
    assert same.labels == 0
    np.testing.assert_allclose(same.mutual_information, 0, atol=1e-15)
    assert (same.mutual_information >= 0).all()
    certain = np.where(np.eye(3, dtype=bool)[:, None], 0.0, -np.inf)
    apart = disagreement(certain)
    assert apart.labels == 1
    np.testing.assert_allclose(apart.total, math.log(3))
    np.testing.assert_allclose(apart.mean_entropy, 0)
    np.testing.assert_allclose(apart.mutual_information, math.log(3))


@given(seeds, sizes, st.sampled_from([1, 2, 10, 15]))
def test_calibration_is_scikit_learns(seed, size, bins):
    _, n, classes = size
    p = softmax(logits_of(seed, *size)[0])
    labels = rng(seed + 1).integers(0, classes, n)
    found = calibration(p, labels, bins)
    right, top = p.argmax(-1) == labels, p.max(-1)
    filled = found.n > 0
    accuracy, confidence = calibration_curve(right, top, n_bins=bins)
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], confidence)
    assert np.isnan(found.accuracy[~filled]).all()
    assert np.isnan(found.confidence[~filled]).all()
    assert found.n.tolist() == np.histogram(top, found.edges)[0].tolist()  # no confidence is on an edge
    gaps = np.abs(accuracy - confidence)
    np.testing.assert_allclose(found.expected_error, (gaps * found.n[filled]).sum() / n)
    np.testing.assert_allclose(found.maximum_error, gaps.max())
    np.testing.assert_allclose(found.negative_log_likelihood, log_loss(labels, p, labels=range(classes)), rtol=1e-9)
    if classes == 2:
        binary = brier_score_loss(labels, p[:, 1], pos_label=1)
        np.testing.assert_allclose(found.brier, 2 * binary, rtol=1e-9)


def test_calibration_by_hand():
    """An edge belongs to the bin below it; a true label of probability 0 costs infinitely much."""
    found = calibration([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]], [0, 2, 2], bins=2)
    assert found.edges.tolist() == [0, 0.5, 1]
    assert found.n.tolist() == [1, 2]
    np.testing.assert_allclose(found.confidence, [0.5, 0.9])
    np.testing.assert_allclose(found.accuracy, [1, 0.5])
    np.testing.assert_allclose(found.expected_error, (0.5 + 2 * 0.4) / 3)
    np.testing.assert_allclose(found.maximum_error, 0.5)
    np.testing.assert_allclose(found.brier, (0.5 + 0.04 + 0.64 + 1 + 0) / 3)
    assert found.negative_log_likelihood == math.inf


def test_calibration_tells_honest_probabilities_from_overconfident_ones():
    """Labels drawn from the probabilities themselves are calibrated; sharpened probabilities promise too much."""
    logits = rng(3).normal(0, 1, (50_000, 3))
    p = softmax(logits)
    labels = (rng(4).random((len(p), 1)) > p.cumsum(-1)).sum(-1).clip(0, 2)
    honest, sharp = calibration(p, labels), calibration(softmax(3 * logits), labels)
    assert honest.expected_error < 0.01 < 0.15 < sharp.expected_error
    assert honest.negative_log_likelihood < sharp.negative_log_likelihood
    assert honest.brier < sharp.brier
    filled = sharp.n > 500
    assert (sharp.accuracy < sharp.confidence)[filled].all()


HALF = np.full((2, 2), 0.5)
NEITHER = np.array([[[0.0, 1.0]], [[np.nan, 1.0]], [[0.0, np.inf]], [[-np.inf, -np.inf]], [[0.0, -np.inf]]])


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: average_probabilities(NEITHER), ValueError, "aren't finite in member 1, 2, 3; expected finite ones"),
        (lambda: disagreement(NEITHER), ValueError, "aren't finite in member 1, 2, 3;"),
        (lambda: average_probabilities(HALF), ValueError, r"logits: got shape \(2, 2\); expected \(members, n, classe"),
        (lambda: average_probabilities(np.zeros((2, 3, 1))), ValueError, "at least 2 classes: of a binary logit z"),
        (lambda: average_probabilities(np.zeros((0, 3, 2))), ValueError, "got 0 members; expected at least 1"),
        (lambda: average_probabilities([[["a", "b"]]]), TypeError, "logits: got dtype <U1; expected real numbers"),
        (lambda: disagreement(np.zeros((1, 3, 2))), ValueError, "got 1 members; expected at least 2"),
        (lambda: disagreement(np.zeros((2, 0, 2))), ValueError, "expected at least 1 example"),
        (lambda: average_predictions([1.0, 2.0]), ValueError, r"outputs: got shape \(2,\); expected \(members, n"),
        (lambda: average_predictions(np.zeros((0, 2))), ValueError, r"outputs: got shape \(0, 2\)"),
        (lambda: average_predictions([[1.0], [np.inf]]), ValueError, "outputs: got values .* in member 1;"),
        (lambda: calibration([0.5, 0.5], [0, 1]), ValueError, r"probabilities: got shape \(2,\)"),
        (lambda: calibration(np.zeros((0, 2)), []), ValueError, r"probabilities: got shape \(0, 2\)"),
        (lambda: calibration([[0.5, 0.5], [1.5, -0.5]], [0, 1]), ValueError, r"in row 1; expected numbers in \[0, 1\]"),
        (lambda: calibration([[-0.5, 0.75, 0.75]], [0]), ValueError, r"in row 0; expected numbers in \[0, 1\]"),
        (lambda: calibration([[0.5, np.nan]], [0]), ValueError, r"in row 0; expected numbers in \[0, 1\]"),
        (lambda: calibration([[0.5, 0.5], [0.5, 0.49]], [0, 1]), ValueError, "got a sum of 0.99 in row 1; expected 1"),
        (lambda: calibration(HALF, [0, 2]), ValueError, "labels: got 0 to 2; expected 0 to 1"),
        (lambda: calibration(HALF, [-1, 0]), ValueError, "labels: got -1 to 0; expected 0 to 1"),
        (lambda: calibration(HALF, [0.0, 1.0]), TypeError, "labels: got dtype float64; expected integers"),
        (lambda: calibration(HALF, [0]), ValueError, r"labels: got shape \(1,\); .*\(2,\)"),
        (lambda: calibration(HALF, [0, 1], bins=0), ValueError, "bins: got 0; expected an integer"),
        (lambda: calibration(HALF, [0, 1], bins=1.5), ValueError, "bins: got 1.5; expected an integer"),
    ],
)
def test_bad_input_is_refused(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
