"""heads: both roads through every head, predictions, wrong pairings, and whole fits that find known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

import jaxnet as jn
from jaxnet import heads, losses
from jaxnet.testing import compare_gradients

X64 = jax.config.jax_enable_x64
RNG = np.random.default_rng(0)
N = 7
LABELS = RNG.integers(0, 3, N)
REAL = RNG.normal(size=(N, 2)).astype(np.float32)
TASKS = {"size": heads.regression(2), "kind": heads.multiclass(3), "sick": heads.binary()}
HEADS = {
    "regression": (heads.regression(2), REAL),
    "regression, huber": (heads.regression(2, loss=losses.huber()), REAL),
    "binary": (heads.binary(), LABELS > 0),
    "binary, many": (heads.binary(2), (REAL > 0).astype(np.int32)),
    "margin": (heads.margin(), np.where(LABELS > 0, 1, -1)),
    "margin, squared": (heads.margin(loss=losses.squared_hinge), np.where(LABELS > 0, 1, -1)),
    "multiclass": (heads.multiclass(3), LABELS),
    "multiclass, smoothed": (heads.multiclass(3, loss=losses.cross_entropy(smoothing=0.1)), LABELS),
    "poisson": (heads.poisson(), LABELS),
    "gaussian": (heads.gaussian(2), REAL),
    "gaussian, variance": (heads.gaussian(2, scale="variance"), REAL),
    "gaussian, shared": (heads.gaussian(2, shared=True), REAL),
    "multivariate": (heads.multivariate_gaussian(2), REAL),
    "mixture": (heads.mixture(3, 2), REAL),
    "quantile": (heads.quantile(0.05, 0.95), REAL[:, 0]),
    "multitask": (
        heads.multitask(TASKS, {"kind": 0.5}),
        np.concatenate([REAL, LABELS[:, None], LABELS[:, None] > 0], axis=1).astype(np.float32),
    ),
}
every = pytest.mark.parametrize("case", HEADS)
TRUNK = jn.serial(jn.dense(4), jn.tanh())


def batch_for(target):
    x = jnp.asarray(np.random.default_rng(1).normal(size=(N, 3)), jnp.result_type(float))
    target = np.asarray(target)
    kind = jnp.result_type(float) if target.dtype.kind == "f" else jnp.int32
    return x, jnp.asarray(target, kind)


# ── every head ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-6.2.2.4-OMEGA", "GB-6.2.1.1-NLL", "M-6")
@every
def test_every_head_ends_a_network_and_takes_its_targets(case):
    head, target = HEADS[case]
    net, batch = head.on(TRUNK), batch_for(target)

    def shapes(key, x):
        params, state = net.init(key, (3,))
        output, _ = net.apply(params, state, x)
        return output, head.loss(output, batch[1])

    output, value = jax.eval_shape(shapes, jax.random.key(0), batch[0])
    assert (output.shape, value.shape) == ((N, head.outputs), (N,))
    assert (1 if target.ndim == 1 else target.shape[1]) == head.targets
    head.loss.check(jax.ShapeDtypeStruct(output.shape, output.dtype), np.asarray(batch[1]))


@pytest.mark.numerical
@pytest.mark.newer
@pytest.mark.source("GB-6.2.2.4-OMEGA", "GB-7.7-multitask")
@pytest.mark.parametrize(
    "case", ["gaussian, shared", "multitask", "mixture"]
)  # the layers; losses have their own proof
def test_backprop_through_heads(case):
    head, target = HEADS[case]
    net, batch = head.on(TRUNK), batch_for(target)
    params, state = net.init(jax.random.key(0), (3,))
    params = jax.tree.map(lambda a: a + 0.1 * jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape), params)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        roads = [jax.jit(make(net, head.loss), static_argnames="train") for make in (jn.backprop, jn.loss_and_grad)]
        report = compare_gradients(*roads, params, state, batch)
    assert report, report


@pytest.mark.parametrize("case", ["gaussian, shared"])
def test_program_and_evaluate_take_a_head_for_the_loss(case):
    """The same as the network with the head's layer and the head's loss; its own metrics are reported."""
    head, target = HEADS[case]
    x, y = (np.asarray(a) for a in batch_for(target))
    data = jn.Data((x, y), (x, y))
    fitted = jn.fit(jax.random.key(0), jn.program(TRUNK, head, optax.sgd(0.01), batch_size=N), data, epochs=1)
    plain = jn.program(head.on(TRUNK), head.loss, optax.sgd(0.01), batch_size=N, metrics=head.metrics)
    same = jn.fit(jax.random.key(0), plain, data, epochs=1)
    for a, b in zip(jax.tree.leaves(fitted), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)
    got = jn.evaluate(TRUNK, fitted, (x, y), head)
    assert got.keys() == {"loss", *head.metrics}
    want = np.mean(np.asarray(head.loss(jn.predict(head.on(TRUNK), fitted, x), jnp.asarray(y)), np.float64))
    np.testing.assert_allclose(got["loss"], want, rtol=1e-5)
    for name in head.metrics:
        np.testing.assert_allclose(got[name], fitted.metrics[f"valid_{name}"], rtol=1e-4, atol=1e-5)
    assert jn.evaluate(TRUNK, fitted, (x, y), head, metrics={}).keys() == {"loss"}


# ── predictions ─────────────────────────────────────────────────────────────────────────────────────────────────

Z = RNG.normal(0, 2, (N, 3)).astype(np.float32)


def test_probabilities_and_labels():
    z = jnp.asarray(Z)
    p = heads.multiclass(3).probabilities(z)
    np.testing.assert_allclose(p, scipy.special.softmax(Z, axis=1), rtol=1e-5)
    assert heads.multiclass(3).labels(z).tolist() == Z.argmax(axis=1).tolist()
    np.testing.assert_allclose(heads.binary(3).probabilities(z), scipy.special.expit(Z), rtol=1e-5)
    assert heads.binary(3).labels(z).tolist() == (Z > 0).astype(int).tolist()
    assert heads.binary().labels(z[:, :1]).tolist() == (Z[:, 0] > 0).astype(int).tolist()
    assert heads.margin().labels(z[:, :1]).tolist() == np.where(Z[:, 0] > 0, 1, -1).tolist()
    np.testing.assert_allclose(heads.poisson(3).mean(z), np.exp(Z), rtol=1e-5)


def positive(a):
    return 1e-6 + np.logaddexp(0, np.asarray(a, np.float64))


def test_intervals_of_gaussians_are_scipys():
    level = 0.9
    output = np.concatenate([Z[:, :2], Z[:, 1:]], axis=1)
    for scale, power in (("precision", -0.5), ("variance", 0.5), ("deviation", 1.0)):
        head = heads.gaussian(2, scale=scale)
        want = scipy.stats.norm.interval(level, Z[:, :2], positive(Z[:, 1:]) ** power)
        np.testing.assert_allclose(head.interval(jnp.asarray(output), level), want, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(head.mean(jnp.asarray(output)), Z[:, :2])
    full = np.concatenate([Z, Z[:, :2]], axis=1)
    factor = np.zeros((N, 2, 2))
    factor[:, 0, 0], factor[:, 1, 0], factor[:, 1, 1] = positive(Z[:, 2]), Z[:, 0], positive(Z[:, 1])
    covariance = np.linalg.inv(factor @ factor.transpose(0, 2, 1))
    head = heads.multivariate_gaussian(2)
    np.testing.assert_allclose(head.predict["covariance"](jnp.asarray(full)), covariance, rtol=2e-3, atol=1e-4)
    deviation = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    want = scipy.stats.norm.interval(level, Z[:, :2], deviation)
    np.testing.assert_allclose(head.interval(jnp.asarray(full), level), want, rtol=2e-3, atol=1e-3)


def test_the_mean_of_a_mixture():
    output = RNG.normal(size=(N, 6)).astype(np.float32)
    want = (scipy.special.softmax(output[:, :2], axis=1) * output[:, 2:4]).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(heads.mixture(2).mean(jnp.asarray(output)), want, rtol=1e-4, atol=1e-6)


@pytest.mark.source("GB-8.4-precision-init", "GB-6.2.2.4-POS")
@pytest.mark.parametrize("case", ["gaussian", "gaussian, variance", "gaussian, shared", "multivariate"])
def test_scales_start_at_one(case):
    """At the start, with no input, the likelihood is that of a unit Gaussian around 0."""
    head, _ = HEADS[case]
    params, state = head.layer.init(jax.random.key(0), (4,))
    output, _ = head.layer.apply(params, state, jnp.zeros((N, 4)))
    want = -scipy.stats.norm.logpdf(REAL).sum(axis=1)
    np.testing.assert_allclose(head.loss(output, jnp.asarray(REAL)), want, rtol=1e-5)


# ── wrong pairings ──────────────────────────────────────────────────────────────────────────────────────────────

LOSSES = [
    (lambda: heads.regression(loss=losses.hinge), r"regression\(1\): got <loss hinge>; expected squared_error, abs"),
    (lambda: heads.binary(loss=losses.hinge), r"binary\(1\): got <loss hinge>; .* since this head gives bits"),
    (lambda: heads.binary(loss=losses.squared_error), r"got <loss squared_error>"),
    (lambda: heads.margin(loss=losses.sigmoid_cross_entropy), r"expected hinge or squared_hinge on ±1"),
    (lambda: heads.multiclass(3, loss=losses.sigmoid_cross_entropy), r"expected softmax_cross_entropy or"),
    (lambda: heads.multiclass(1), r"got multiclass\(1\); expected an integer of at least 2"),
    (lambda: heads.regression(0), r"got regression\(0\)"),
    (lambda: heads.mixture(2, 0), r"got mixture\(0\)"),
    (lambda: heads.quantile(0.9, 0.1), r"got quantile\(0\.9, 0\.1\)"),
    (lambda: heads.multitask({}), r"got no heads"),
    (lambda: heads.multitask(TASKS, {"other": 1.0}), r"got weights \{'other': 1\.0\}"),
    (lambda: heads.multitask(TASKS, {"kind": -1.0}), r"expected numbers ≥ 0 for size, kind, sick"),
]


@pytest.mark.source("M-6")
@pytest.mark.parametrize(("make", "sentence"), LOSSES)
def test_a_loss_of_another_kind_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


X = np.zeros((4, 3), np.float32)
TARGETS = [
    (heads.regression(), [0, 1, 2, 1], TypeError, r"regression\(1\): got targets of dtype int32; .* heads\.multiclass"),
    (heads.gaussian(), [0, 1, 2, 1], TypeError, r"gaussian\(1\): got targets of dtype int32"),
    (heads.quantile(0.1, 0.9), [0, 1, 2, 1], TypeError, r"expected real numbers"),
    (heads.margin(), [0, 1, 1, 0], ValueError, r"hinge: got target 0 at example 0; expected −1 or \+1: map 0/1"),
    (heads.binary(), [-1, 1, 1, -1], ValueError, r"got target -1 at example 0; .*belong to the hinge loss"),
    (heads.multiclass(2), [0, 1, 2, 1], ValueError, r"got label 2 at example 2"),
    (heads.multiclass(3), [0.0, 1.0, 2.0, 1.0], TypeError, r"got labels of dtype float32"),
    (heads.poisson(), [0, -1, 2, 1], ValueError, r"poisson: got target -1 at example 1"),
    (heads.multivariate_gaussian(2), [0.0] * 4, ValueError, r"means: got targets of shape \(4,\)"),
    (heads.multitask(TASKS), [[0.0, 0, 0]] * 4, ValueError, r"got targets of shape \(4, 3\) .* expected \(batch, 4\)"),
    (heads.multitask(TASKS), [[0.0, 0, 0.5, 0]] * 4, ValueError, r"multitask, kind: got label 0\.5 at example 0"),
    (heads.multitask(TASKS), [[0.0, 0, 3, 0]] * 4, ValueError, r"multitask, kind: .*got label 3 at example 0"),
    (heads.multitask(TASKS), [[0.0, 0, 2, -1]] * 4, ValueError, r"multitask, sick: .*got target -1\.0"),
]


@pytest.mark.source("M-6")
@pytest.mark.parametrize(("head", "target", "error", "sentence"), TARGETS)
def test_fit_refuses_targets_of_another_head_before_compiling(head, target, error, sentence):
    y = np.asarray(target)
    data = jn.Data((X, y.astype(np.float32 if y.dtype.kind == "f" else np.int32)))
    with pytest.raises(error, match=sentence):
        jn.fit(jax.random.key(0), jn.program(TRUNK, head, optax.sgd(0.1), batch_size=2), data, epochs=1)


def test_predictions_that_a_head_does_not_have_are_refused():
    with pytest.raises(TypeError, match=r"regression\(1\): got a request for interval; expected one of mean"):
        heads.regression().interval(jnp.zeros((2, 1)))
    with pytest.raises(ValueError, match=r"got level=1\.0; expected a probability between"):
        heads.gaussian().interval(jnp.zeros((2, 2)), 1.0)
    with pytest.raises(ValueError, match=r"got level=0\.95; expected 0\.9 centred .* 0\.025 and 0\.975"):
        heads.quantile(0.05, 0.95).interval(jnp.zeros((2, 2)))
    with pytest.raises(TypeError, match=r"multitask: got <loss hinge> as 'a'; expected a Head"):
        heads.multitask({"a": losses.hinge})


# ── several tasks ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.long
@pytest.mark.source("GB-7.7-multitask")
def test_a_task_moves_the_trunk_and_its_own_layer_only():
    head = heads.multitask(TASKS, {"size": 1.0, "kind": 0.0, "sick": 0.0})
    batch, net = batch_for(HEADS["multitask"][1]), head.on(TRUNK)
    params, state = net.init(jax.random.key(0), (3,))
    (value, _), grads = jn.backprop(net, head.loss)(params, state, batch)
    size = {name: np.abs(a["w"]).max() > 0 for name, a in grads["beside_0"].items()}
    assert size == {"size": True, "kind": False, "sick": False}
    assert np.abs(grads["serial_0"]["dense_0"]["w"]).max() > 0
    output = net.apply(params, state, batch[0])[0]
    parts = head.tasks(output)
    both = heads.multitask(TASKS).loss(output, batch[1])
    y = batch[1]
    want = (
        losses.squared_error(parts["size"], y[:, :2])
        + losses.softmax_cross_entropy(parts["kind"], y[:, 2].astype(jnp.int32))
        + losses.sigmoid_cross_entropy(parts["sick"], y[:, 3:])
    )
    np.testing.assert_allclose(both, want, rtol=1e-6)
    np.testing.assert_allclose(value, jnp.mean(losses.squared_error(parts["size"], y[:, :2])), rtol=1e-6)


def test_a_label_that_is_no_whole_number_spoils_its_example_in_a_trace():
    head = heads.multitask(TASKS)
    y = np.array([[0.0, 0, 1, 0], [0, 0, 0.5, 0], [0, 0, 3, 0]], np.float32)
    value = jax.jit(head.loss.value)(jnp.zeros((3, head.outputs)), jnp.asarray(y))
    assert np.isnan(value).tolist() == [False, True, True]


# ── fits with known answers ─────────────────────────────────────────────────────────────────────────────────────


def fitted(head, x, y, *, trunk=None, epochs=40, rate=0.05, batch_size=100):
    """(outputs at x, the fit) after Adam with a falling rate on clipped gradients."""
    trunk = trunk or jn.identity()
    falling = optax.cosine_decay_schedule(rate, epochs * len(x) // batch_size)
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(falling))
    result = jn.fit(
        jax.random.key(0), jn.program(trunk, head, optimizer, batch_size=batch_size), jn.Data((x, y)), epochs=epochs
    )
    return jn.predict(head.on(trunk), result, x), result


@pytest.mark.long
@pytest.mark.source("GB-6.2.1.2-MEDIAN", "GB-6.2.1.2-MEAN")
def test_squared_error_learns_the_mean_and_absolute_error_the_median():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (8000, 1)).astype(np.float32)
    y = 2 * x + rng.exponential(size=(8000, 1)).astype(np.float32)
    for loss, above in ((losses.squared_error, 1.0), (losses.absolute_error, np.log(2))):
        output, _ = fitted(heads.regression(loss=loss), x, y, epochs=20)
        assert np.abs(output - (2 * x + above)).max() < 0.05


@pytest.mark.long
@pytest.mark.source("GB-6.2.2.4-HOMO")
@pytest.mark.parametrize(("scale", "power"), [("precision", -1), ("variance", 1), ("deviation", 2)])
def test_a_shared_scale_ends_at_the_mean_squared_residual(scale, power):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(400, 2)).astype(np.float32)
    y = x @ np.array([[1.0], [-0.5]], np.float32) + 0.6 * rng.normal(size=(400, 1)).astype(np.float32)
    output, _ = fitted(heads.gaussian(scale=scale, shared=True), x, y, epochs=200, batch_size=400)
    mean, s = losses.mean_and_scale(output)
    assert np.ptp(s) == 0
    assert float(s[0, 0]) ** power == pytest.approx(float(np.mean(np.square(y - mean))), rel=0.01)


@pytest.mark.long
@pytest.mark.source("GB-6.2.2.4-HETERO")
def test_a_spread_that_depends_on_x_is_recovered():
    rng = np.random.default_rng(2)
    x = rng.uniform(-2, 2, (4000, 1)).astype(np.float32)
    sigma = 0.05 + 0.2 * np.abs(x)
    y = np.sin(x) + sigma * rng.normal(size=x.shape).astype(np.float32)
    head = heads.gaussian(scale="variance")  # the precision reaches 400 near x = 0, a long way for a softplus
    output, _ = fitted(head, x, y, trunk=jn.serial(jn.dense(32), jn.tanh()), epochs=60, rate=0.01, batch_size=50)
    mean, variance = losses.mean_and_scale(output)
    inner = (np.abs(x) > 0.3) & (np.abs(x) < 1.9)
    assert np.abs(np.asarray(variance) ** 0.5 / sigma - 1)[inner].max() < 0.15
    lower, upper = head.interval(output, 0.9)
    assert abs(np.mean((lower < y) & (y < upper)) - 0.9) < 0.02
    constant = 0.5 * np.log(2 * np.pi * np.e * np.mean(np.square(y - mean)))  # the best shared variance
    gap = 0.5 * np.log(np.mean(sigma**2)) - np.mean(np.log(sigma))  # what knowing σ(x) is worth
    gained = constant - float(np.mean(np.asarray(head.loss(output, jnp.asarray(y)))))
    assert gained == pytest.approx(gap, abs=0.05)


@pytest.mark.long
@pytest.mark.source("GB-6.2.2.4-MDN")
def test_a_mixture_follows_branches_that_a_gaussian_averages():
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, (1000, 1)).astype(np.float32)
    branch = rng.choice([-1.0, 1.0], x.shape)
    y = (branch * (1 + 0.5 * x) + 0.25 * rng.normal(size=x.shape)).astype(np.float32)
    head = heads.mixture(2)
    output, _ = fitted(head, x, y, epochs=100)
    _, means, _ = losses.mixture_parameters(output, 2)
    means = np.sort(np.asarray(means)[..., 0], axis=1)
    assert np.abs(means - np.array([[-1.0, 1.0]]) * (1 + 0.5 * x)).max() < 0.06
    best = np.log(2) + 0.5 * np.log(2 * np.pi * np.e * 0.0625)  # the entropy of the data given x
    assert float(jnp.mean(head.loss(output, jnp.asarray(y)))) == pytest.approx(best, abs=0.06)
    assert best < scipy.stats.norm.logpdf(y, 0, np.sqrt(1 + 0.25 * x**2 + 0.0625)).mean() * -1 - 0.5  # one Gaussian
    assert np.abs(head.mean(output)).max() < 0.25
