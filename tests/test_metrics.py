"""metrics against scikit-learn; what isn't finite is never right."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.metrics

from jaxnet import losses, metrics

TOLERANCE = 1e-12 if jax.config.jax_enable_x64 else 64 * float(np.finfo(np.float32).eps)
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 2, (40, 4)).astype(np.float32)
LABELS = RNG.integers(0, 4, 40)
BITS = RNG.integers(0, 2, (40, 3))
WEIGHT = RNG.choice([0.0, 0.5, 1.0, 3.0], 40)


def near(got, want):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE, strict=True)


def of_set(metric, output, target, weight=None):
    """The metric's value on a set, from the weighted mean of its values per example."""
    output, target = jnp.asarray(output, float), jnp.asarray(target)
    w = np.ones(len(output)) if weight is None else np.asarray(weight, float)
    values = np.asarray(metric(output, target), np.float64)
    mean = np.tensordot(w / w.sum(), values, axes=1)
    return metric.finish(jnp.asarray(mean, float), target, None if weight is None else jnp.asarray(weight, float))


# ── accuracy ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.newer
@pytest.mark.source("GB-5.1.2-ACC")
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("targets", ["labels", "int8 labels", "one-hot", "soft"])
def test_accuracy_is_scikit_learns(targets, weight):
    y = {
        "labels": LABELS,
        "int8 labels": LABELS.astype(np.int8),
        "one-hot": np.eye(4)[LABELS],
        "soft": 0.1 + 0.6 * np.eye(4)[LABELS],
    }[targets]
    want = sklearn.metrics.accuracy_score(LABELS, LOGITS.argmax(1), sample_weight=weight)
    near(of_set(metrics.accuracy, LOGITS, y, weight), want)
    errors = 1 - np.asarray(metrics.accuracy(jnp.asarray(LOGITS), jnp.asarray(y)))
    assert errors.sum() == sum(int(np.argmax(z)) != t for z, t in zip(LOGITS, LABELS, strict=True))


@pytest.mark.source("GB-5.1.2-ACC")
def test_accuracy_has_no_slope():
    slope = jax.grad(lambda z: jnp.sum(metrics.accuracy(z, jnp.asarray(LABELS))))(jnp.asarray(LOGITS))
    np.testing.assert_array_equal(slope, np.zeros_like(LOGITS))


BROKEN = [
    [np.nan, 0.0, 1.0, 2.0],
    [5.0, 0.0, 1.0, np.nan],
    [np.inf, 0.0, 1.0, 2.0],
    [1.0, -np.inf, 0.0, 0.5],
    [np.nan] * 4,
]


@pytest.mark.parametrize("label", range(4))
@pytest.mark.parametrize("logits", BROKEN)
def test_logits_that_are_not_finite_are_wrong_whatever_the_label(logits, label):
    output = jnp.array([logits, [0.0, 1.0, 2.0, 3.0]])
    assert metrics.accuracy(output, jnp.array([label, 3])).tolist() == [0.0, 1.0]
    assert metrics.accuracy(output, jnp.eye(4)[jnp.array([label, 3])]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("sizes", [((40,), (40,)), ((40, 1), (40,)), ((40, 1), (40, 1)), ((40, 3), (40, 3))], ids=str)
def test_binary_accuracy_is_scikit_learns(sizes, weight):
    outputs = sizes[0][1] if len(sizes[0]) > 1 else 1
    z, y = LOGITS[:, :outputs].reshape(sizes[0]), BITS[:, :outputs].reshape(sizes[1])
    right = 1 - sklearn.metrics.hamming_loss(
        BITS[:, :outputs].squeeze(), (LOGITS[:, :outputs] > 0).squeeze(), sample_weight=weight
    )
    near(of_set(metrics.binary_accuracy, z, y, weight), right)


@pytest.mark.parametrize("y", [0.0, 1.0])
@pytest.mark.parametrize("z", [np.nan, np.inf, -np.inf])
def test_binary_logits_that_are_not_finite_are_wrong(z, y):
    assert metrics.binary_accuracy(jnp.array([z, 2.0]), jnp.array([y, 1.0])).tolist() == [0.0, 1.0]
    assert metrics.binary_accuracy(jnp.array([[z, 2.0]]), jnp.array([[y, 1.0]])).tolist() == [0.5]


def test_binary_accuracy_at_the_borders():
    z, y = jnp.array([0.0, 0.0, 1e-30, -1e-30]), jnp.array([0.0, 1.0, 1.0, 0.0])
    assert metrics.binary_accuracy(z, y).tolist() == [1.0, 0.0, 1.0, 1.0]  # z = 0 is class 0
    assert metrics.binary_accuracy(jnp.array([1.0, 1.0]), jnp.array([0.5, 0.75])).tolist() == [0.0, 1.0]


LABELLED = [
    (LOGITS, LOGITS.argmax(1)),
    (LOGITS[:, 0], LOGITS[:, 0] > 0),
    (LOGITS[:, :1], LOGITS[:, 0] > 0),
    (LOGITS[:1], LOGITS[:1].argmax(1)),
]


@pytest.mark.parametrize(("output", "want"), LABELLED, ids=["(n, k)", "(n,)", "(n, 1)", "(1, k)"])
def test_labels_are_the_predicted_classes(output, want):
    got = metrics.labels(jnp.asarray(output))
    assert (got.dtype, got.tolist()) == (jnp.int32, np.asarray(want, int).tolist())


# ── R² ──────────────────────────────────────────────────────────────────────────────────────────────────────────

TARGETS = RNG.normal(1, 2, (40, 3)).astype(np.float32).astype(np.float64)
PREDICTED = TARGETS + RNG.normal(0, [0.1, 1, 4], (40, 3)).astype(np.float32).astype(np.float64)


@pytest.mark.numerical
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("sizes", [((40, 3), (40, 3)), ((40, 1), (40,)), ((40, 1), (40, 1)), ((40,), (40,))], ids=str)
def test_r2_is_scikit_learns(sizes, weight):
    outputs = 3 if sizes[0] == (40, 3) else 1
    y, predicted = TARGETS[:, :outputs], PREDICTED[:, :outputs]
    want = sklearn.metrics.r2_score(y, predicted, sample_weight=weight)
    near(of_set(metrics.r2, predicted.reshape(sizes[0]), y.reshape(sizes[1]), weight), want)


def test_r2_where_a_target_is_constant():
    """scikit-learn's rule: 1 if it's met exactly, else 0."""
    y, predicted = TARGETS[:32].copy(), PREDICTED[:32].copy()
    y[:, 0] = predicted[:, 0] = 3.0
    y[:, 1] = -0.5
    near(of_set(metrics.r2, predicted, y), sklearn.metrics.r2_score(y, predicted))
    for column, value in ((0, 1.0), (1, 0.0)):
        near(of_set(metrics.r2, predicted[:, [column]], y[:, column]), value)


def test_r2_of_integer_targets_and_of_the_mean():
    y = RNG.integers(0, 9, 40)
    near(of_set(metrics.r2, np.full((40, 1), y.mean()), y), 0.0)
    near(of_set(metrics.r2, y[:, None], y), 1.0)


# ── confusion matrix ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("classes", [4, 6])
def test_confusion_matrix_is_scikit_learns(classes):
    predicted = LOGITS.argmax(1)
    want = sklearn.metrics.confusion_matrix(LABELS, predicted, labels=range(classes))
    for got in (
        metrics.confusion_matrix(predicted, LABELS, classes),
        metrics.confusion_matrix(jnp.asarray(predicted)[:, None], jnp.asarray(LABELS, jnp.int8), classes),
    ):
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("predicted", "true", "sentence"),
    [
        ([0, 1], [0, 1, 1], r"got 2 predicted and 3 true labels; expected as many of each"),
        ([0, 3], [0, 1], r"got predicted labels 0…3; expected 0…2"),
        ([0, 1], [-1, 1], r"got true labels -1…1; expected 0…2"),
    ],
)
def test_confusion_matrix_refuses(predicted, true, sentence):
    with pytest.raises(ValueError, match=sentence):
        metrics.confusion_matrix(predicted, true, 3)


# ── the record ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_default_metrics_of_each_loss():
    assert metrics.default(losses.softmax_cross_entropy) == {"accuracy": metrics.accuracy}
    assert metrics.default(losses.sigmoid_cross_entropy) == {"accuracy": metrics.binary_accuracy}
    assert metrics.default(losses.squared_error) == {"r2": metrics.r2}
    assert metrics.default(losses.as_loss(optax.huber_loss)) == {}


def test_a_bare_function_is_a_metric_whose_mean_is_the_value():
    bare = metrics.as_metric(lambda output, target: jnp.abs(output - target))
    near(of_set(bare, LOGITS[:, 0], LABELS), np.abs(LOGITS[:, 0].astype(float) - LABELS).mean())
    assert metrics.as_metric(metrics.r2) is metrics.r2
    assert metrics.as_metric(optax.l2_loss).name == "l2_loss"
    assert repr(metrics.r2) == "<metric r2>"


@pytest.mark.source("M-6")
def test_default_metrics_go_by_what_the_outputs_are():
    names = {
        losses.huber(): ["r2"],
        losses.absolute_error: ["r2"],
        losses.hinge: ["accuracy"],
        losses.cross_entropy(smoothing=0.1): ["accuracy"],
        losses.cross_entropy(ignore=-1): [],
        losses.poisson: [],
        losses.gaussian(): [],
    }
    assert {loss: list(metrics.default(loss)) for loss in names} == names
    right = metrics.default(losses.hinge)["accuracy"](jnp.array([2.0, -1.0, 3.0]), jnp.array([1, 1, -1]))
    assert right.tolist() == [1.0, 0.0, 0.0]
