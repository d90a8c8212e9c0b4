"""Rules against the sources' algorithms written out in NumPy, against optax and torch; the misprints fail.

Gradients are those of a noisy quadratic in six coordinates: one never has a gradient, one has none until step 50, one
none after it. The transcriptions name their variables as the sources do.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnet import optimizers, schedules

pytestmark = [pytest.mark.numerical, pytest.mark.float64]
FLOAT = jnp.result_type(float)
RTOL = 1e-12 if jax.config.jax_enable_x64 else 2e-4
STEPS = 200

_rng = np.random.default_rng(0)
CURVATURE = np.array([1.0, 0.3, 2.0, 1.0, 5.0, 0.1])
NOISE = 0.3 * _rng.normal(size=(STEPS, 6))
SEEN = np.ones((STEPS, 6))
SEEN[:, 3] = 0
SEEN[:50, 4] = 0
SEEN[50:, 5] = 0
START = _rng.normal(size=6) + 2


def gradient(theta, k):
    """∇E of step k = 0, 1, …"""
    return SEEN[k] * (CURVATURE * theta + NOISE[k])


def ours(optimizer, read=lambda state, params: params, steps=STEPS):
    """The path of an optax transformation, (steps, 6); `read` is what's compared."""
    noise, seen, curvature = (jnp.asarray(a, FLOAT) for a in (NOISE[:steps], SEEN[:steps], CURVATURE))

    def step(carry, now):
        theta, state = carry
        g = now[1] * (curvature * theta + now[0])
        updates, state = optimizer.update(g, state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), read(state, theta)

    theta = jnp.asarray(START, FLOAT)
    with jax.numpy_dtype_promotion("standard"):
        return np.asarray(jax.jit(lambda t: jax.lax.scan(step, (t, optimizer.init(t)), (noise, seen)))(theta)[1])


def same(path, expected, rtol=RTOL):
    assert np.isfinite(expected).all()
    np.testing.assert_allclose(path, expected, rtol=rtol, atol=rtol)


def differs(path, expected):
    """By more than any rounding."""
    gap = np.abs(path - expected[: len(path)])
    assert not np.isfinite(gap).all() or gap.max() > 5e-3


def written(algorithm):
    """The path of a transcription: a generator that yields θ after each step."""
    with np.errstate(all="ignore"):
        return np.stack(list(algorithm(START.copy())))


# ------------------------------------------------------------------------------------------------ momentum


def goodfellow_8_2(theta, eps=lambda k: 0.05, alpha=0.9):
    v = np.zeros(6)
    for k in range(STEPS):
        v = alpha * v - eps(k) * gradient(theta, k)
        theta = theta + v
        yield theta


def goodfellow_8_3(theta, eps=lambda k: 0.05, alpha=0.9):
    v = np.zeros(6)
    for k in range(STEPS):
        interim = theta + alpha * v
        v = alpha * v - eps(k) * gradient(interim, k)
        theta = theta + v
        yield theta


def notes_form_m(theta, eta=0.05, gamma=0.9):
    m = np.zeros(6)
    for k in range(STEPS):
        m = gamma * m + (1 - gamma) * gradient(theta, k)
        theta = theta - eta / (1 - gamma) * m
        yield theta


@pytest.mark.source("GB-8.3.2-momentum", "B-Alg7.3")
def test_momentum():
    same(ours(optimizers.momentum(0.05)), written(goodfellow_8_2))
    same(ours(optax.sgd(0.05, momentum=0.9)), written(goodfellow_8_2))
    same(ours(optimizers.momentum(0.05, 0.0)), ours(optax.sgd(0.05)))


@pytest.mark.source("B-Alg7.3")
def test_the_two_forms_of_momentum_are_equal():
    same(written(notes_form_m), written(goodfellow_8_2))
    same(ours(optimizers.averaged_momentum(0.5)), written(notes_form_m))
    same(ours(optimizers.averaged_momentum(0.5, 0.9)), ours(optimizers.momentum(0.05, 0.9)))
    differs(ours(optimizers.averaged_momentum(0.05)), written(goodfellow_8_2))


@pytest.mark.source("GB-8.3.2-momentum")
def test_a_falling_rate_is_within_the_velocity_which_optax_has_outside():
    rate = schedules.power(0.05, -0.5)
    expected = written(lambda theta: goodfellow_8_2(theta, eps=lambda k: 0.05 / (1 + k) ** 0.5))
    same(ours(optimizers.momentum(rate)), expected)
    differs(ours(optax.sgd(rate, momentum=0.9)), expected)


@pytest.mark.source("GB-8.3.3-nesterov", "B-7.34")
def test_nesterov_is_the_look_ahead_gradient_after_a_change_of_variable():
    optimizer = optimizers.nesterov(0.05)
    same(ours(optimizer, optimizers.nesterov_parameters), written(goodfellow_8_3))
    differs(ours(optimizer), written(goodfellow_8_3))  # φ isn't θ
    differs(ours(optimizers.momentum(0.05)), written(goodfellow_8_3))
    same(ours(optimizer), ours(optax.sgd(0.05, momentum=0.9, nesterov=True)))
    same(ours(optimizers.nesterov(0.05, 0.0)), ours(optax.sgd(0.05)))
    rate = schedules.power(0.05, -0.5)
    expected = written(lambda theta: goodfellow_8_3(theta, eps=lambda k: 0.05 / (1 + k) ** 0.5))
    same(ours(optax.chain(optimizers.nesterov(rate)), optimizers.nesterov_parameters), expected)


@pytest.mark.source("GB-8.3.1-SGD")
def test_descent_is_optaxs_with_a_schedule_for_its_rate():
    """Algorithm 8.1 requires ε_k and prints ε."""

    def descent(theta, eps):
        for k in range(STEPS):
            theta = theta - eps(k) * gradient(theta, k)
            yield theta

    falling = written(lambda theta: descent(theta, lambda k: 0.3 / (1 + k)))
    same(ours(optax.sgd(schedules.robbins_monro(0.3))), falling)
    differs(written(lambda theta: descent(theta, lambda k: 0.3)), falling)


# ------------------------------------------------------------------------------------------------ rates by coordinate


def accumulated(theta, eps, step, rho=None):
    """AdaGrad's sum (ρ None) or RMSProp's average, and a step of (r, g) that differs in where δ is."""
    r = np.zeros(6)
    for k in range(STEPS):
        g = gradient(theta, k)
        r = r + g * g if rho is None else rho * r + (1 - rho) * g * g
        theta = theta - eps * step(r, g)
        yield theta


def outside(delta):
    return lambda r, g: g / (np.sqrt(r) + delta)


def inside(delta):
    return lambda r, g: g / np.sqrt(r + delta)


def nowhere(r, g):
    return g / np.sqrt(r)


# δ is large here, so that its place shows in every step.
PLACES = {  # the sources' five rules: rule, transcription with δ where it's printed, and where it isn't
    "AdaGrad": (lambda d: optimizers.adagrad(0.5, d), outside, inside, None),
    "RMSProp, Goodfellow": (lambda d: optimizers.rmsprop(0.02, epsilon=d), inside, outside, 0.9),
    "RMSProp, Bishop": (lambda d: optimizers.rmsprop(0.02, epsilon=d, placement="outside"), outside, inside, 0.9),
    "Adadelta, so called by the MIT notes": (lambda d: optimizers.rmsprop(0.02, epsilon=d), inside, outside, 0.9),
}


@pytest.mark.source("GB-8.5.1-AdaGrad", "GB-8.5.2-RMSProp", "B-7.39-40", "B-7.41-42", "M-7.2.3")
@pytest.mark.parametrize("source", PLACES)
def test_delta_is_where_the_source_has_it(source):
    rule, place, wrong, rho = PLACES[source]
    eps = 0.5 if rho is None else 0.02
    for delta in (1e-1, 1e-7):
        same(ours(rule(delta)), written(lambda theta, d=delta: accumulated(theta, eps, place(d), rho)))
    differs(ours(rule(0.1)), written(lambda theta: accumulated(theta, eps, wrong(0.1), rho)))
    assert np.isnan(written(lambda theta: accumulated(theta, eps, nowhere, rho))[-1, 3])


@pytest.mark.source("GB-8.5.2-RMSProp", "B-7.41-42")
def test_rmsprop_is_optaxs_and_adagrad_is_not():
    same(ours(optimizers.rmsprop(0.02, 0.8, 1e-6)), ours(optax.rmsprop(0.02, 0.8, 1e-6)))
    theirs = optax.rmsprop(0.02, 0.8, 1e-6, eps_in_sqrt=False)
    same(ours(optimizers.rmsprop(0.02, 0.8, 1e-6, "outside")), ours(theirs))
    differs(ours(optimizers.adagrad(0.5)), ours(optax.adagrad(0.5)))


def goodfellow_8_6(theta, eps=0.02, alpha=0.5, rho=0.9, delta=1e-6):
    r, v = np.zeros(6), np.zeros(6)
    for k in range(STEPS):
        g = gradient(theta + alpha * v, k)
        r = rho * r + (1 - rho) * g * g
        v = alpha * v - eps / np.sqrt(delta + r) * g
        theta = theta + v
        yield theta


@pytest.mark.source("GB-8.5.2-RMSProp-Nesterov")
def test_rmsprop_with_nesterov_needs_the_delta_that_its_algorithm_lacks():
    path = ours(optimizers.rmsprop_nesterov(0.02, 0.5), optimizers.nesterov_parameters)
    same(path, written(goodfellow_8_6))
    printed = written(lambda theta: goodfellow_8_6(theta, delta=0.0))
    assert np.isnan(printed[:, 3]).all()  # the coordinate without a gradient
    assert np.isnan(printed[:, 4]).all()  # for good, though gradients come later
    same(ours(optimizers.rmsprop_nesterov(0.02, 0.0)), ours(optimizers.rmsprop(0.02)))


def graves(theta, eps=0.02, rho=0.9, delta=1e-4):
    m, r = np.zeros(6), np.zeros(6)
    for k in range(STEPS):
        g = gradient(theta, k)
        m = rho * m + (1 - rho) * g
        r = rho * r + (1 - rho) * g * g
        theta = theta - eps * g / np.sqrt(r - m * m + delta)
        yield theta


def test_centered_rmsprop_is_optaxs_without_its_nan():
    rule = optimizers.centered_rmsprop(0.02, 0.9, 1e-4)
    same(ours(rule), written(graves))
    same(ours(rule), ours(optax.rmsprop(0.02, 0.9, 1e-4, centered=True)))
    g = jnp.full(64, 1e4, jnp.float32) * jnp.linspace(1, 2, 64, dtype=jnp.float32)

    def last(optimizer):
        with jax.numpy_dtype_promotion("standard"):
            state = optimizer.init(g)
            update = jax.jit(optimizer.update)
            return [(update_state := update(g, state), state := update_state[1])[0][0] for _ in range(300)]

    assert all(np.isfinite(u).all() for u in last(optimizers.centered_rmsprop(0.02)))
    assert any(np.isnan(u).any() for u in last(optax.rmsprop(0.02, centered=True)))


def zeiler(theta, rho=0.95, epsilon=1e-4):
    """Algorithm 1 of Zeiler 2012."""
    eg2, ex2 = np.zeros(6), np.zeros(6)
    for k in range(STEPS):
        g = gradient(theta, k)
        eg2 = rho * eg2 + (1 - rho) * g * g
        dx = -np.sqrt(ex2 + epsilon) / np.sqrt(eg2 + epsilon) * g
        ex2 = rho * ex2 + (1 - rho) * dx * dx
        theta = theta + dx
        yield theta


@pytest.mark.source("M-7.2.3", "H-more", "GB-8.5.4-AdaDelta")
def test_adadelta_is_zeilers_and_what_the_notes_call_so_is_rmsprop():
    path = ours(optimizers.adadelta(0.95, 1e-4))
    same(path, written(zeiler))
    same(path, ours(optax.adadelta(1.0, 0.95, 1e-4)))
    differs(path, written(lambda theta: accumulated(theta, 1.0, inside(1e-4), 0.95)))
    uphill, _ = optax.adadelta().update(jnp.ones(()), optax.adadelta().init(jnp.ones(())), jnp.ones(()))
    assert float(uphill) > 0  # optax's without a rate has the sign of the gradient


# ------------------------------------------------------------------------------------------------ Adam and its kin


def moments(theta, step, b1=0.9, b2=0.999, sign=1.0, decay=0.0):
    """m and v, and a step of (m, v, g, t)."""
    m, v = np.zeros(6), np.zeros(6)
    for k in range(STEPS):
        g = sign * gradient(theta, k)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        theta = theta - step(m, v, g, k + 1) - decay * theta
        yield theta


def goodfellow_8_7(eta, eps, b1=0.9, b2=0.999):
    return lambda m, v, g, t: eta * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)


def notes_adam(eta, eps, b1=0.9, b2=0.999):
    return lambda m, v, g, t: eta / np.sqrt(v / (1 - b2**t) + eps) * (m / (1 - b1**t))


def hagan_3_35(eta, eps, b1=0.9, b2=0.999):
    return lambda m, v, g, t: eta * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps)


def hagan_3_34_as_printed(eta, eps, b1=0.9, b2=0.999):
    return lambda m, v, g, t: eta * (1 - b1**t) / np.sqrt(1 - b2**t) * m / (np.sqrt(v) + eps)


ADAMS = {"outside": goodfellow_8_7, "inside": notes_adam, "folded": hagan_3_35}


@pytest.mark.source("GB-8.5.3-Adam", "B-Alg7.4")
@pytest.mark.parametrize("placement", ADAMS)
def test_adam_has_epsilon_where_each_source_has_it(placement):
    for eps in (0.1, 1e-8):  # a large one shows its place in every step
        rule = optimizers.adam(0.05, epsilon=eps, placement=placement)
        same(ours(rule), written(lambda theta, e=eps: moments(theta, ADAMS[placement](0.05, e))))
    large = ours(optimizers.adam(0.05, epsilon=0.1, placement=placement))
    for other in ADAMS.keys() - {placement}:
        differs(large, written(lambda theta, o=other: moments(theta, ADAMS[o](0.05, 0.1))))


@pytest.mark.source("B-Alg7.4")
def test_adam_is_optaxs_inside_and_outside_the_root():
    same(ours(optimizers.adam(0.05, 0.8, 0.99, 0.1)), ours(optax.adam(0.05, 0.8, 0.99, 0.1)))
    theirs = optax.adam(0.05, 0.8, 0.99, 0.0, eps_root=0.1)
    same(ours(optimizers.adam(0.05, 0.8, 0.99, 0.1, "inside")), ours(theirs))


@pytest.mark.source("B-Alg7.4")
def test_adams_misprints_fail_where_the_corrected_forms_pass():
    """Hagan announces 3.35 as 3.31-3.33 made cheaper, so with ε → 0 both must agree. They do, right side up."""
    tiny = 1e-30
    exact = written(lambda theta: moments(theta, goodfellow_8_7(0.05, tiny)))
    np.testing.assert_allclose(
        written(lambda theta: moments(theta, hagan_3_35(0.05, tiny))), exact, rtol=1e-9, atol=1e-9
    )
    upside_down = written(lambda theta: moments(theta, hagan_3_34_as_printed(0.05, tiny)))
    differs(upside_down, exact)
    differs(ours(optimizers.adam(0.05, placement="folded")), upside_down)
    first = np.abs(upside_down[0] - START)[0] / np.abs(exact[0] - START)[0]
    np.testing.assert_allclose(first, 0.1**2 / 0.001, rtol=1e-6)  # ten times too long
    # Bishop's algorithm 7.4 has g = −∇E and a minus in the step too: it climbs.
    climbing = written(lambda theta: moments(theta, goodfellow_8_7(0.05, 1e-8), sign=-1.0))
    assert np.abs(climbing[-1, 0]) > np.abs(START[0]) > np.abs(ours(optimizers.adam(0.05))[-1, 0])


@pytest.mark.source("B-Alg7.4")
def test_adamw_nadam_and_lion_are_optaxs():
    step = goodfellow_8_7(0.05, 1e-8)
    same(ours(optax.adamw(0.05, weight_decay=0.1)), written(lambda t: moments(t, step, decay=0.005)), 10 * RTOL)

    def dozat(m, v, g, t):
        m_hat = 0.9 * m / (1 - 0.9 ** (t + 1)) + 0.1 * g / (1 - 0.9**t)
        return 0.05 * m_hat / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)

    same(ours(optax.nadam(0.05)), written(lambda theta: moments(theta, dozat)), 10 * RTOL)

    def chen(theta):
        m = np.zeros(6)
        for k in range(STEPS):
            g = gradient(theta, k)
            theta = theta - 0.01 * (np.sign(0.9 * m + 0.1 * g) + 0.1 * theta)
            m = 0.99 * m + 0.01 * g
            yield theta

    same(ours(optax.lion(0.01, weight_decay=0.1)), written(chen))


@pytest.mark.source("H-more")
def test_adamax_is_the_papers_and_optaxs_but_for_its_epsilon():
    def kingma_ba_2(theta, stays=True):
        m, u = np.zeros(6), np.zeros(6)
        for k in range(STEPS):
            g = gradient(theta, k)
            m = 0.9 * m + 0.1 * g
            u = np.maximum(0.999 * u, np.abs(g))
            move = 0.05 / (1 - 0.9 ** (k + 1)) * m / u
            theta = theta - (np.where(u > 0, move, 0) if stays else move)
            yield theta

    path = ours(optimizers.adamax(0.05))
    same(path, written(kingma_ba_2))
    assert np.isnan(written(lambda theta: kingma_ba_2(theta, stays=False))[-1, 3])  # as printed: 0/0
    np.testing.assert_allclose(path, ours(optax.adamax(0.05)), rtol=1e-4, atol=1e-5)


def test_amsgrad_is_reddis_and_optaxs_without_corrections():
    def reddi(theta):
        m, v, largest = np.zeros(6), np.zeros(6), np.zeros(6)
        for k in range(STEPS):
            g = gradient(theta, k)
            m = 0.9 * m + 0.1 * g
            v = 0.99 * v + 0.01 * g * g
            largest = np.maximum(largest, v)
            theta = theta - 0.05 / np.sqrt(k + 1) * m / (np.sqrt(largest) + 1e-8)
            yield theta

    rate = schedules.power(0.05, -0.5)
    same(ours(optimizers.amsgrad(rate, b2=0.99)), written(reddi))
    theirs = optax.amsgrad(rate, b2=0.99, bias_correction_mu=False, bias_correction_nu=False)
    same(ours(optimizers.amsgrad(rate, b2=0.99)), ours(theirs))


# ------------------------------------------------------------------------------------------------ torch

TORCH = {  # name: torch's, ours, what's compared
    "SGD": (lambda o, p: o.SGD(p, 0.05), optax.sgd(0.05)),
    "SGD, momentum": (lambda o, p: o.SGD(p, 0.05, momentum=0.9), optimizers.momentum(0.05)),
    "SGD, Nesterov": (lambda o, p: o.SGD(p, 0.05, momentum=0.9, nesterov=True), optimizers.nesterov(0.05)),
    "Adagrad": (lambda o, p: o.Adagrad(p, 0.5, eps=1e-7), optimizers.adagrad(0.5)),
    "RMSprop": (
        lambda o, p: o.RMSprop(p, 0.02, alpha=0.9, eps=1e-8),
        optimizers.rmsprop(0.02, epsilon=1e-8, placement="outside"),
    ),
    "Adadelta": (lambda o, p: o.Adadelta(p, 1.0, rho=0.95, eps=1e-4), optimizers.adadelta(0.95, 1e-4)),
    "Adam": (lambda o, p: o.Adam(p, 0.05), optimizers.adam(0.05)),
    "AdamW": (lambda o, p: o.AdamW(p, 0.05, weight_decay=0.1), optax.adamw(0.05, weight_decay=0.1)),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch_takes_the_same_path(name):
    torch = pytest.importorskip("torch")
    make, optimizer = TORCH[name]
    theta = torch.tensor(START, dtype=torch.float64, requires_grad=True)
    rule, path = make(torch.optim, [theta]), []
    for k in range(STEPS):
        theta.grad = torch.tensor(gradient(theta.detach().numpy(), k))
        rule.step()
        path.append(theta.detach().numpy().copy())
    same(ours(optimizer), np.stack(path), 10 * RTOL)
