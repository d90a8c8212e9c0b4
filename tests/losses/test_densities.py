"""Losses on values and densities against torch, SciPy and scikit-learn; what belongs to what; what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics

from jaxnet import losses

pytestmark = pytest.mark.numerical

X64 = jax.config.jax_enable_x64
DTYPE = np.float64 if X64 else np.float32
TOLERANCE = 1e-10 if X64 else 64 * float(np.finfo(np.float32).eps)


def drawn(shape, seed=0, scale=1.5):
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32).astype(DTYPE)


def near(got, want, scale=10.0):
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE * scale, strict=True)


def positive(a):
    return 1e-6 + np.logaddexp(0, np.asarray(a, np.float64))


def value_of(loss, output, target):
    return jax.jit(loss.value)(jnp.asarray(output), jnp.asarray(target))


Z, Y = drawn((6, 3)), drawn((6, 3), 1)
COUNTS = np.random.default_rng(2).poisson(2.0, (6, 3)).astype(DTYPE)


# ── values ──────────────────────────────────────────────────────────────────────────────────────────────────────

TORCH = {
    "l1": (losses.absolute_error, Y, lambda f, z, y: f.l1_loss(z, y, reduction="none")),
    "huber": (losses.huber(0.7), Y, lambda f, z, y: f.huber_loss(z, y, reduction="none", delta=0.7)),
    "huber is smooth l1": (losses.huber(1.0), Y, lambda f, z, y: f.smooth_l1_loss(z, y, reduction="none")),
    "poisson": (
        losses.poisson,
        COUNTS,
        lambda f, z, y: f.poisson_nll_loss(z, y, reduction="none", log_input=True) + (y + 1).lgamma(),
    ),
    "gaussian": (
        losses.gaussian("variance"),
        drawn((6, 1), 1),
        lambda f, z, y: f.gaussian_nll_loss(
            z[:, :1], y, 1e-6 + f.softplus(z[:, 1:2]), full=True, eps=1e-12, reduction="none"
        ),
    ),
    "precision": (
        losses.gaussian(),
        drawn((6, 1), 1),
        lambda f, z, y: f.gaussian_nll_loss(
            z[:, :1], y, 1 / (1e-6 + f.softplus(z[:, 1:2])), full=True, eps=1e-12, reduction="none"
        ),
    ),
}


@pytest.mark.parametrize("case", TORCH)
def test_value_and_gradient_are_torchs(case):
    torch = pytest.importorskip("torch")
    loss, target, reference = TORCH[case]
    output = Z[:, :2] if "gaussian" in loss.name else Z
    z = torch.tensor(output, requires_grad=True)
    values = reference(torch.nn.functional, z, torch.tensor(target)).sum(-1)
    values.sum().backward()
    near(loss.value(jnp.asarray(output), jnp.asarray(target)), values.detach().numpy())
    near(loss.gradient(jnp.asarray(output), jnp.asarray(target)), z.grad.numpy(), 100)


def test_pinball_is_scikit_learns():
    levels, y = (0.1, 0.5, 0.9), Y[:, 0]
    mean = np.mean(np.asarray(value_of(losses.quantile(*levels), Z, y), np.float64))
    near(mean, sum(sklearn.metrics.mean_pinball_loss(y, Z[:, i], alpha=q) for i, q in enumerate(levels)))
    near(value_of(losses.quantile(0.5), Z[:, :1], y) * 2, value_of(losses.absolute_error, Z[:, 0], y))


@pytest.mark.source("GB-6.2.1.2-MEDIAN")
@pytest.mark.parametrize("level", [0.25, 0.5, 0.75])
def test_quantile_loss_is_least_at_the_samples_quantile(level):
    """And the absolute error at its median, the squared at its mean."""
    sample = np.random.default_rng(0).exponential(size=41).astype(DTYPE)  # 40 intervals: these quantiles are entries
    tries = jnp.asarray(np.sort(np.append(sample, sample.mean())))

    def least(loss, columns):
        total = jax.vmap(lambda c: jnp.sum(loss.value(jnp.broadcast_to(c, (41, *columns)), jnp.asarray(sample))))
        return float(tries[np.argmin(total(tries))])

    assert least(losses.quantile(level), (1,)) == np.quantile(sample, level, method="inverted_cdf")
    assert least(losses.absolute_error, ()) == np.median(sample)
    assert least(losses.squared_error, ()) == sample.mean()


@pytest.mark.source("GB-3.9.4-LAP", "GB-5.5-NAME", "GB-6.2.1.1-NLL", "GB-3.9.3-GAUSS")
def test_losses_are_negative_log_densities():
    """Complete ones; squared and absolute error up to a constant (Goodfellow calls them equal: only so far)."""
    z64, y64 = Z.astype(np.float64), Y.astype(np.float64)
    near(value_of(losses.poisson, Z, COUNTS), -scipy.stats.poisson.logpmf(COUNTS, np.exp(z64)).sum(axis=1), 100)
    laplace = -scipy.stats.laplace.logpdf(y64, z64, 1.0).sum(axis=1)
    near(value_of(losses.absolute_error, Z, Y) + 3 * np.log(2), laplace)
    raw = drawn((6, 3), 5)
    output = np.concatenate([Z, raw], axis=1)
    precision = -scipy.stats.norm.logpdf(y64, z64, positive(raw) ** -0.5).sum(axis=1)
    variance = -scipy.stats.norm.logpdf(y64, z64, positive(raw) ** 0.5).sum(axis=1)
    near(value_of(losses.gaussian(), output, Y), precision, 100)
    near(value_of(losses.gaussian("variance"), output, Y), variance, 100)
    deviation = -scipy.stats.norm.logpdf(y64, z64, positive(raw)).sum(axis=1)
    near(value_of(losses.gaussian("deviation"), output, Y), deviation, 100)
    unit = np.concatenate([Z, np.full_like(Z, losses.raw_of(1.0))], axis=1)
    near(
        value_of(losses.gaussian(), unit, Y), value_of(losses.squared_error, Z, Y) + 1.5 * DTYPE(np.log(2 * np.pi)), 100
    )
    with pytest.raises(AssertionError):  # as printed, without the constant
        near(value_of(losses.gaussian(), unit, Y), value_of(losses.squared_error, Z, Y), 100)


@pytest.mark.source("GB-3.9.3-PREC", "GB-5.5-NEGNLL", "GB-3.9.3-GAUSS")
def test_precision_is_the_inverse_variance_and_the_loss_may_be_negative():
    mean, y = drawn((6, 1)), drawn((6, 1), 1)
    beta = np.array([[0.25], [0.5], [1.0], [2.0], [4.0], [16.0]])
    by_precision = np.concatenate([mean, [[losses.raw_of(float(b))] for b in beta[:, 0]]], axis=1).astype(DTYPE)
    by_variance = np.concatenate([mean, [[losses.raw_of(1 / float(b))] for b in beta[:, 0]]], axis=1).astype(DTYPE)
    near(value_of(losses.gaussian(), by_precision, y), value_of(losses.gaussian("variance"), by_variance, y), 1000)
    at_mean = value_of(losses.gaussian("variance"), np.array([[0.0, losses.raw_of(0.01)]], DTYPE), np.zeros(1, DTYPE))
    near(at_mean, [0.5 * np.log(2 * np.pi * 0.01)], 100)
    assert float(at_mean[0]) < 0
    near(value_of(losses.gaussian(), np.array([[0.0, losses.raw_of(1.0)]], DTYPE), np.zeros(1, DTYPE)), [0.9189385332])


@pytest.mark.source("GB-6.2.2.4-POS", "GB-3.10-INVSP")
@pytest.mark.parametrize("scale", [2e-6, 1e-3, 0.5, 1.0, 30.0, 1e3])
def test_raw_of_is_the_inverse_of_positive(scale):
    raw = losses.raw_of(scale)
    np.testing.assert_allclose(positive(raw), scale, rtol=1e-9)
    np.testing.assert_allclose(losses.positive(jnp.asarray(raw)), scale, rtol=1e-5)
    assert float(losses.positive(jnp.asarray(-1e4))) == pytest.approx(1e-6)
    assert round(losses.raw_of(1 + 1e-6), 4) == 0.5413


# ── full covariance ─────────────────────────────────────────────────────────────────────────────────────────────

D = 3
FULL = drawn((6, D + D * (D + 1) // 2), 6, 0.7)


def factors(output):
    """L, row by row, by the definition."""
    result = np.zeros((len(output), D, D))
    for n, row in enumerate(np.asarray(output, np.float64)):
        at = D
        for i in range(D):
            for j in range(i + 1):
                result[n, i, j] = positive(row[at]) if i == j else row[at]
                at += 1
    return result


@pytest.mark.source("GB-3.9.3-MVN", "GB-6.2.2.4-FULLCOV", "GB-3.9.3-PREC", "GB-2.11-DET")
def test_full_covariance_is_scipys_density():
    value, covariances = value_of(losses.multivariate_gaussian, FULL, Y), []
    for n, factor in enumerate(factors(FULL)):
        covariance = np.linalg.inv(factor @ factor.T)
        covariances.append(covariance)
        sign, logdet = np.linalg.slogdet(factor @ factor.T)
        assert sign == 1
        near(2 * np.log(np.diag(factor)).sum(), logdet)
        want = -scipy.stats.multivariate_normal.logpdf(Y[n].astype(float), FULL[n, :D].astype(float), covariance)
        near(value[n], want, 100)
    with pytest.raises(AssertionError):  # L Lᵀ taken as the covariance
        factor = factors(FULL)[0]
        near(
            value[0],
            -scipy.stats.multivariate_normal.logpdf(Y[0], FULL[0, :D].astype(float), factor @ factor.T),
            100,
        )


@pytest.mark.source("GB-3.9.3-MVN", "GB-2.6-DIAG")
def test_a_diagonal_factor_is_a_product_of_gaussians_without_linear_algebra():
    raw = drawn((6, D), 7)
    rows, columns = np.tril_indices(D)
    entries = np.zeros((6, len(rows)), DTYPE)
    entries[:, rows == columns] = raw
    full = np.concatenate([Z, entries], axis=1)
    log_precision = 2 * np.log(positive(raw))  # L_ii² is the precision
    want = -scipy.stats.norm.logpdf(Y, Z, np.exp(-log_precision / 2)).sum(axis=1)
    near(value_of(losses.multivariate_gaussian, full, Y), want, 100)
    diagonal = losses.gaussian()
    text = str(jax.make_jaxpr(lambda o, y: (diagonal.value(o, y), diagonal.gradient(o, y)))(full[:, :6], Y))
    assert not any(word in text for word in ("dot_general", "cholesky", "triangular_solve", "lu", "scatter"))


# ── mixtures ────────────────────────────────────────────────────────────────────────────────────────────────────

M = 3
MIXED = drawn((6, M * (1 + 2 * 2)), 8)
PAIRS = drawn((6, 2), 9)


def components(output, target):
    """log π_i N_i by the definition, one number at a time."""
    out = np.asarray(output, np.float64)
    joint = np.zeros((len(out), M))
    for n, i in np.ndindex(len(out), M):
        log_weights = scipy.special.log_softmax(out[n, :M])
        mean, raw = out[n, M + 2 * i : M + 2 * i + 2], out[n, 3 * M + 2 * i : 3 * M + 2 * i + 2]
        joint[n, i] = log_weights[i] + scipy.stats.norm.logpdf(target[n], mean, positive(raw) ** -0.5).sum()
    return joint


@pytest.mark.source("GB-6.2.2.4-MDN", "GB-3.9.6-MIX", "GB-6.2.2.4-OMEGA")
def test_mixture_is_the_sum_of_densities_and_survives_where_it_underflows():
    joint = components(MIXED, PAIRS)
    near(value_of(losses.mixture(M), MIXED, PAIRS), -np.log(np.exp(joint).sum(axis=1)), 100)
    far = np.full((6, 2), 300.0, DTYPE)
    assert np.exp(components(MIXED, far)).sum(axis=1).min() == 0
    value = value_of(losses.mixture(M), MIXED, far)
    np.testing.assert_allclose(value, -scipy.special.logsumexp(components(MIXED, far), axis=1), rtol=1e-5)
    parts = losses.mixture_parameters(jnp.asarray(MIXED), M)
    assert [a.shape for a in parts] == [(6, M), (6, M, 2), (6, M, 2)]


@pytest.mark.source("GB-6.2.2.4-RESP")
def test_the_gradient_weighs_components_by_their_responsibility():
    joint = components(MIXED, PAIRS)
    share = scipy.special.softmax(joint, axis=1)
    near(losses.responsibilities(jnp.asarray(MIXED), jnp.asarray(PAIRS), M), share, 100)
    slope = jax.jit(jax.grad(lambda o: jnp.sum(losses.mixture(M).value(o, jnp.asarray(PAIRS)))))(jnp.asarray(MIXED))
    weights = scipy.special.softmax(MIXED[:, :M].astype(np.float64), axis=1)
    near(slope[:, :M], weights - share, 100)
    means, beta = MIXED[:, M : 3 * M].reshape(6, M, 2), positive(MIXED[:, 3 * M :]).reshape(6, M, 2)
    by_mean = -share[..., None] * beta * (PAIRS[:, None] - means)
    near(slope[:, M : 3 * M], by_mean.reshape(6, -1), 100)


@pytest.mark.source("GB-6.2.2.4-MDN")
def test_one_component_is_a_gaussian():
    output = drawn((6, 4), 3)
    one = np.concatenate([drawn((6, 1), 4), output], axis=1)
    near(value_of(losses.mixture(1), one, PAIRS), value_of(losses.gaussian(), output, PAIRS), 100)


@pytest.mark.source("GB-3.3-PDF")
@pytest.mark.parametrize(
    "loss", [losses.gaussian(), losses.gaussian("variance"), losses.gaussian("deviation"), losses.mixture(2)]
)
def test_densities_integrate_to_one(loss):
    grid = np.linspace(-40, 40, 8001).astype(DTYPE)
    one = drawn((1, 6 if loss.name == "mixture" else 2), 2, 1.0)
    density = np.exp(-np.asarray(value_of(loss, np.repeat(one, 8001, axis=0), grid), np.float64))
    assert abs(np.trapezoid(density, grid.astype(np.float64)) - 1) < 1e-4


# ── what is refused ─────────────────────────────────────────────────────────────────────────────────────────────

MADE = [
    (lambda: losses.huber(0.0), r"got huber\(delta=0\.0\); expected a finite δ > 0"),
    (lambda: losses.quantile(), r"got quantile\(\); expected increasing levels"),
    (lambda: losses.quantile(0.9, 0.1), r"got quantile\(0\.9, 0\.1\)"),
    (lambda: losses.quantile(0.0, 0.5), r"levels between 0 and 1"),
    (lambda: losses.gaussian("std"), r'got gaussian\(scale=\'std\'\); expected "precision", "variance" or'),
    (lambda: losses.mixture(0), r"got mixture\(components=0\)"),
    (lambda: losses.raw_of(0.0), r"got scale 0\.0; expected a finite number above"),
]


@pytest.mark.parametrize(("make", "sentence"), MADE)
def test_options_out_of_range_are_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


CHECKED = [
    (losses.poisson, (3,), np.array([0, 1, -2]), r"poisson: got target -2 at example 2; expected counts ≥ 0"),
    (losses.absolute_error, (3, 2), np.zeros(3), r"absolute_error: got targets of shape \(3,\)"),
    (losses.huber(), (3, 2), np.zeros(3), r"huber: got targets of shape \(3,\)"),
    (losses.quantile(0.1, 0.9), (3, 3), np.zeros(3), r"got outputs of shape \(3, 3\) for the levels \(0\.1, 0\.9\)"),
    (losses.quantile(0.1, 0.9), (3, 2), np.zeros((3, 2)), r"quantile, per level: got targets of shape \(3, 2\)"),
    (losses.gaussian(), (3, 3), np.zeros(3), r"gaussian: got outputs of shape \(3, 3\); expected \(batch, 2k\)"),
    (losses.gaussian(), (3, 4), np.zeros(3), r"gaussian, means: got targets of shape \(3,\)"),
    (losses.multivariate_gaussian, (3, 6), np.zeros((3, 3)), r"got outputs of shape \(3, 6\); .* 2, 5, 9, 14"),
    (losses.multivariate_gaussian, (3, 5), np.zeros((3, 3)), r"means: got targets of shape \(3, 3\)"),
    (losses.mixture(3), (3, 10), np.zeros(3), r"got outputs of shape \(3, 10\) for 3 components; .* 9 for one"),
    (losses.mixture(3), (3, 9), np.zeros((3, 2)), r"mixture, means: got targets of shape \(3, 2\)"),
]


@pytest.mark.parametrize(("loss", "shape", "target", "sentence"), CHECKED)
def test_targets_that_do_not_fit_are_refused_before_and_inside_a_trace(loss, shape, target, sentence):
    with pytest.raises(ValueError, match=sentence):
        loss.check(jax.ShapeDtypeStruct(shape, jnp.float32), target)
    if loss is not losses.poisson:
        for part in (loss.value, loss.gradient):
            with pytest.raises(ValueError, match=sentence):
                jax.eval_shape(part, jnp.zeros(shape), jnp.asarray(target, jnp.result_type(float)))
