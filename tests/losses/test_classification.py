"""Losses for classes against torch, scikit-learn and the formulas; options; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import sklearn.metrics

from jaxnet import losses

pytestmark = pytest.mark.numerical

X64 = jax.config.jax_enable_x64
DTYPE = np.float64 if X64 else np.float32
TOLERANCE = 1e-10 if X64 else 64 * float(np.finfo(np.float32).eps)
Z = np.random.default_rng(0).normal(0, 2, (6, 4)).astype(DTYPE)
LABELS = np.array([2, 0, 1, 1, 3, 0])
SOFT = np.random.default_rng(1).dirichlet(np.ones(4), 6).astype(DTYPE)
BITS = np.random.default_rng(2).integers(0, 2, (6, 4))
WEIGHTS = [0.5, 2.0, 1.0, 0.0]


def near(got, want, tolerance=TOLERANCE):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=10 * tolerance, strict=True)


def against_torch(loss, output, target, reference):
    """Values and the gradient of their sum, ours and torch's (`reference(torch, functional, z, y)` per example)."""
    torch = pytest.importorskip("torch")
    z = torch.tensor(output, requires_grad=True)
    values = reference(torch, torch.nn.functional, z, torch.tensor(target))
    values.sum().backward()
    near(loss.value(jnp.asarray(output), jnp.asarray(target)), values.detach().numpy())
    near(loss.gradient(jnp.asarray(output), jnp.asarray(target)), z.grad.numpy())


TORCH = {
    "labels": (losses.softmax_cross_entropy, LABELS, {}),
    "smoothing": (losses.cross_entropy(smoothing=0.1), LABELS, {"label_smoothing": 0.1}),
    "weights": (losses.cross_entropy(class_weights=WEIGHTS), LABELS, {"weight": WEIGHTS}),
    "ignore": (losses.cross_entropy(ignore=1), LABELS, {"ignore_index": 1}),
    "ignore −1": (losses.cross_entropy(ignore=-1), np.where(LABELS == 1, -1, LABELS), {"ignore_index": -1}),
    "all": (
        losses.cross_entropy(smoothing=0.2, class_weights=WEIGHTS, ignore=0),
        LABELS,
        {"label_smoothing": 0.2, "weight": WEIGHTS, "ignore_index": 0},
    ),
    "soft": (losses.cross_entropy(), SOFT, {}),
    "soft, smoothing, weights": (
        losses.cross_entropy(smoothing=0.2, class_weights=WEIGHTS),
        SOFT,
        {"label_smoothing": 0.2, "weight": WEIGHTS},
    ),
}


@pytest.mark.parametrize("case", TORCH)
def test_cross_entropy_is_torchs(case):
    loss, target, options = TORCH[case]

    def reference(torch, functional, z, y):
        given = dict(options)
        if "weight" in given:
            given["weight"] = torch.tensor(given["weight"], dtype=z.dtype)
        return functional.cross_entropy(z, y, reduction="none", **given)

    against_torch(loss, Z, target if target.dtype.kind == "f" else target.astype(np.int32).astype(np.int64), reference)


@pytest.mark.parametrize("positive_weight", [1.0, 3.0])
def test_binary_cross_entropy_is_torchs(positive_weight):
    def reference(torch, functional, z, y):
        weight = torch.full((4,), positive_weight, dtype=z.dtype)
        return functional.binary_cross_entropy_with_logits(z, y, reduction="none", pos_weight=weight).sum(-1)

    against_torch(losses.binary_cross_entropy(positive_weight=positive_weight), Z, BITS.astype(DTYPE), reference)


@pytest.mark.source("M-6")
def test_hinge_is_the_formula_scikit_learns_and_torchs():
    y = (2 * BITS - 1).astype(DTYPE)

    def reference(torch, functional, z, y):
        return torch.clamp(1 - y * z, min=0).sum(-1)

    against_torch(losses.hinge, Z, y, reference)
    against_torch(losses.squared_hinge, Z, y, lambda torch, f, z, y: (torch.clamp(1 - y * z, min=0) ** 2).sum(-1))
    mean = jnp.mean(losses.hinge(jnp.asarray(Z[:, 0]), jnp.asarray(y[:, 0])))
    near(mean, sklearn.metrics.hinge_loss(y[:, 0], Z[:, 0]))


@pytest.mark.source("GB-7.5.1-label-smoothing")
def test_smoothing_of_bits_goes_halfway_to_a_coin():
    """q = (1 − ε) y + ε/2, and torch's loss of q."""

    def reference(torch, functional, z, y):
        q = 0.7 * y + 0.15
        return functional.binary_cross_entropy_with_logits(z, q, reduction="none").sum(-1)

    against_torch(losses.binary_cross_entropy(smoothing=0.3), Z, BITS.astype(DTYPE), reference)


@pytest.mark.source("GB-7.5.1-label-smoothing")
def test_smoothing_asks_for_the_books_targets():
    """ε/k and 1 − (k − 1)ε/k; ε spread over the k − 1 other classes alone is another loss."""
    k, eps = 4, 0.1
    right = np.full((6, k), eps / k)
    right[np.arange(6), LABELS] = 1 - (k - 1) / k * eps
    near(right.sum(axis=1), np.ones(6))
    smoothed = losses.cross_entropy(smoothing=eps)(jnp.asarray(Z), jnp.asarray(LABELS))
    log_p = scipy.special.log_softmax(Z.astype(np.float64), axis=1)
    near(smoothed, -(right * log_p).sum(axis=1))
    other = np.full((6, k), eps / (k - 1))
    other[np.arange(6), LABELS] = 1 - eps
    with pytest.raises(AssertionError):
        near(smoothed, -(other * log_p).sum(axis=1))
    near(
        losses.cross_entropy(smoothing=0.0)(jnp.asarray(Z), jnp.asarray(LABELS)),
        losses.softmax_cross_entropy(jnp.asarray(Z), jnp.asarray(LABELS)),
    )


@pytest.mark.source("GB-7.5.1-label-noise")
def test_known_label_noise_is_smoothing():
    """A label right with probability 1 − ε, else one of the other classes: smoothing by ε k / (k − 1)."""
    k, eps = 4, 0.15
    z = jnp.asarray(Z)
    of_class = np.stack([losses.softmax_cross_entropy(z, jnp.full(6, c)) for c in range(k)], axis=1).astype(np.float64)
    chance = np.full((6, k), eps / (k - 1))
    chance[np.arange(6), LABELS] = 1 - eps
    near(losses.cross_entropy(smoothing=eps * k / (k - 1))(z, jnp.asarray(LABELS)), (chance * of_class).sum(axis=1))


@pytest.mark.source("GB-10.2-loss")
def test_a_sequence_loss_sums_over_time_and_padding_adds_nothing():
    z = np.random.default_rng(4).normal(0, 2, (3, 5, 4)).astype(DTYPE)
    labels, lengths = np.random.default_rng(5).integers(0, 4, (3, 5)), [5, 2, 3]
    padded = np.where(np.arange(5) < np.array(lengths)[:, None], labels, -1)
    loss = losses.cross_entropy(ignore=-1)
    log_p = scipy.special.log_softmax(z.astype(np.float64), axis=-1)
    want = [-sum(log_p[i, t, labels[i, t]] for t in range(n)) for i, n in enumerate(lengths)]
    near(loss(jnp.asarray(z), jnp.asarray(padded)), want)
    slope = np.asarray(loss.gradient(jnp.asarray(z), jnp.asarray(padded)))
    assert [np.flatnonzero(np.abs(s).any(axis=1)).tolist() for s in slope] == [list(range(n)) for n in lengths]


def test_ignored_entries_of_many_labels():
    y = np.where(BITS[:, :1] == 1, -1, BITS)
    kept = (y >= 0).astype(float)
    value = losses.binary_cross_entropy(ignore=-1)(jnp.asarray(Z), jnp.asarray(y))
    each = np.logaddexp(0, Z.astype(np.float64)) - BITS * Z
    near(value, (kept * each).sum(axis=1))


@pytest.mark.source("GB-6.2.2.3-NMINUS1", "M-6.2")
def test_the_other_logit_is_pinned():
    """softmax([0, z])₁ = σ(z); the printed form pins the logit of the class asked about, which gives σ(−z)."""
    z = Z[:, :1]
    pinned = np.concatenate([np.zeros_like(z), z], axis=1)
    binary = losses.sigmoid_cross_entropy(jnp.asarray(z), jnp.ones((6, 1)))
    near(losses.softmax_cross_entropy(jnp.asarray(pinned), jnp.ones(6, int)), binary)
    with pytest.raises(AssertionError):
        near(losses.softmax_cross_entropy(jnp.asarray(pinned), jnp.zeros(6, int)), binary)


@pytest.mark.source("GB-3.9.1-BERN")
def test_bernoulli_moments_and_probability():
    import scipy.stats

    z, p = Z[:, 0], scipy.special.expit(Z[:, 0].astype(np.float64))
    for y in (0, 1):
        near(losses.sigmoid_cross_entropy(jnp.asarray(z), jnp.full(6, y)), -scipy.stats.bernoulli.logpmf(y, p))
    draws = np.random.default_rng(0).random((20_000, 6)) < p
    for got, want, spread in (
        (draws.mean(axis=0), p, np.sqrt(p * (1 - p))),
        (draws.var(axis=0), p * (1 - p), np.sqrt(p * (1 - p)) * np.abs(1 - 2 * p)),
    ):
        assert (np.abs(got - want) <= 4 * spread / np.sqrt(20_000) + 1e-3).all()


REFUSED = [
    (lambda: losses.cross_entropy(smoothing=1.0), ValueError, r"smoothing=1\.0; expected a share"),
    (lambda: losses.cross_entropy(class_weights=[1, -1]), ValueError, r"got weights \(1\.0, -1\.0\)"),
    (lambda: losses.cross_entropy(ignore=True), TypeError, r"got ignore=True; expected an integer label"),
    (lambda: losses.binary_cross_entropy(positive_weight=np.inf), ValueError, r"got weights \(inf,\)"),
]


@pytest.mark.parametrize(("make", "error", "sentence"), REFUSED)
def test_options_out_of_range_are_refused(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()


CHECKED = [
    (losses.hinge, (3,), [0, 1, 1], ValueError, r"hinge: got target 0 at example 0; expected −1 or \+1: map 0/1"),
    (losses.squared_hinge, (2, 2), [[1, -1], [1, 2]], ValueError, r"squared_hinge: got target 2 at example 1"),
    (losses.cross_entropy(ignore=-1), (3, 4), [0, -1, -2], ValueError, r"got label -2 at example 2"),
    (losses.cross_entropy(class_weights=[1, 2]), (3, 4), [0, 1, 2], ValueError, r"2 class weights for 4 outputs"),
    (losses.binary_cross_entropy(ignore=-1), (2,), [-1, -2], ValueError, r"got target -2 at example 1"),
]


@pytest.mark.source("M-6")
@pytest.mark.parametrize(("loss", "shape", "target", "error", "sentence"), CHECKED)
def test_targets_of_another_loss_are_refused(loss, shape, target, error, sentence):
    with pytest.raises(error, match=sentence):
        loss.check(jax.ShapeDtypeStruct(shape, jnp.float32), np.array(target))


def test_unsigned_labels_hold_no_negative_ignored_one():
    y = jnp.asarray(LABELS.astype(np.uint32))
    near(losses.cross_entropy(ignore=-1)(jnp.asarray(Z), y), losses.softmax_cross_entropy(jnp.asarray(Z), y))
