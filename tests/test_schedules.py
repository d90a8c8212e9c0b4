"""Schedules: the sources' values, optax's and torch's schedules, traced arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnet import schedules as s

pytestmark = pytest.mark.numerical
FLOAT = jnp.result_type(float)
RTOL = 1e-12 if jax.config.jax_enable_x64 else 1e-5
STEPS = np.arange(0, 45)


def values(schedule, steps=STEPS):
    return np.asarray(jax.vmap(schedule)(jnp.asarray(steps, jnp.int32)))


@pytest.mark.source("B-7.36-38", "GB-8.3.1-linear-decay")
def test_the_sources_values():
    """At 0, K/2, K and 2K."""
    k = np.array([0, 10, 20, 40])
    np.testing.assert_allclose(values(s.linear(0.5, 0.005, 20), k), [0.5, 0.2525, 0.005, 0.005], rtol=RTOL)
    np.testing.assert_allclose(values(s.power(0.5, -2.0, 10), k), 0.5 * (1 + k / 10) ** -2.0, rtol=RTOL)
    np.testing.assert_allclose(values(s.exponential(0.5, 0.1, 20), k), 0.5 * 0.1 ** (k / 20), rtol=RTOL)
    np.testing.assert_allclose(values(s.constant(0.5), k), 0.5, rtol=RTOL)


@pytest.mark.source("GB-8.3.1-robbins-monro")
@pytest.mark.parametrize("exponent", [0.6, 1.0])
def test_robbins_and_monros_conditions(exponent):
    """From one power of ten to the next, the sums of η don't shrink, so they diverge; those of η² do."""
    rate = values(s.robbins_monro(1.0, exponent), np.arange(10**5)).astype(np.float64)
    np.testing.assert_allclose(rate[:3], np.arange(1.0, 4) ** -exponent, rtol=RTOL)
    parts = [(rate[a : 10 * a].sum(), (rate[a : 10 * a] ** 2).sum()) for a in (10**2, 10**3, 10**4)]
    (a, x), (b, y), (c, z) = parts
    assert a <= b * 1.01 <= c * 1.03
    assert x > 1.3 * y > 1.6 * z


OPTAX = {
    "constant": (s.constant(0.3), optax.constant_schedule(0.3)),
    "linear": (s.linear(0.5, 0.1, 30), optax.linear_schedule(0.5, 0.1, 30)),
    "exponential": (s.exponential(0.5, 0.7, 8), optax.exponential_decay(0.5, 8, 0.7)),
    "step": (s.step(0.5, 0.7, 8), optax.exponential_decay(0.5, 8, 0.7, staircase=True)),
    "step, by boundaries": (s.step(0.5, 0.1, 20), optax.piecewise_constant_schedule(0.5, {20: 0.1, 40: 0.1})),
    "cosine": (s.cosine(0.5, 30), optax.cosine_decay_schedule(0.5, 30)),
    "cosine to a floor": (s.cosine(0.5, 30, 0.05), optax.cosine_decay_schedule(0.5, 30, alpha=0.1)),
    "warm-up": (
        s.warmup(s.cosine(0.5, 30, 0.05), 10, 0.01),
        optax.warmup_cosine_decay_schedule(0.01, 0.5, 10, 40, 0.05),
    ),
    "no warm-up": (s.warmup(s.cosine(0.5, 30), 0), optax.cosine_decay_schedule(0.5, 30)),
    "one-cycle": (s.one_cycle(0.5, 40), optax.cosine_onecycle_schedule(40, 0.5)),
    "joined": (
        s.joined([s.constant(1.0), s.linear(0.5, 0.1, 10), s.constant(0.2)], [5, 25]),
        optax.join_schedules(
            [optax.constant_schedule(1.0), optax.linear_schedule(0.5, 0.1, 10), optax.constant_schedule(0.2)], [5, 25]
        ),
    ),
}


@pytest.mark.parametrize("name", OPTAX)
def test_optax_has_the_same(name):
    ours, theirs = OPTAX[name]
    with jax.numpy_dtype_promotion("standard"):
        expected = np.asarray([theirs(k) for k in STEPS])
    np.testing.assert_allclose(values(ours), expected, rtol=RTOL, atol=RTOL)


TRACED = {
    "constant": (s.constant, (0.3,)),
    "linear": (s.linear, (0.5, 0.1, 30.0)),
    "power": (s.power, (0.5, -1.5, 7.0)),
    "exponential": (s.exponential, (0.5, 0.7, 8.0)),
    "step": (s.step, (0.5, 0.7, 8.0)),
    "cosine": (s.cosine, (0.5, 30.0, 0.1)),
    "warmup": (lambda a, n: s.warmup(s.constant(a), n), (0.5, 10.0)),
    "one_cycle": (s.one_cycle, (0.5, 40.0, 0.25, 20.0, 100.0)),
    "robbins_monro": (s.robbins_monro, (0.5, 0.75)),
    "joined": (lambda a, n: s.joined([s.constant(a), s.linear(a, 0.1, n)], [n]), (0.5, 10.0)),
}


@pytest.mark.parametrize("name", TRACED)
def test_every_argument_may_be_traced_and_swept(name):
    """A population whose members have numbers of their own; no promotion, no weak type."""
    make, arguments = TRACED[name]
    members = jnp.asarray([arguments, [a * 0.9 for a in arguments]], FLOAT)

    def of(numbers, k):
        return make(*numbers)(k)

    with jax.numpy_dtype_promotion("strict"):
        swept = jax.jit(jax.vmap(jax.vmap(of, (None, 0)), (0, None)))(members, jnp.asarray(STEPS, jnp.int32))
    assert swept.dtype == FLOAT
    assert not swept.weak_type
    for row, numbers in zip(swept, members, strict=True):
        alone = [make(*(float(a) for a in numbers))(int(k)) for k in STEPS[::11]]
        np.testing.assert_allclose(row[::11], alone, rtol=100 * RTOL, atol=RTOL)
    integers = make(*arguments)(np.int64(3))
    assert integers.shape == ()
    assert integers.dtype == FLOAT


def test_all_are_here():
    assert set(TRACED) | {"Schedule"} == set(s.__all__)


BAD = {
    "no steps": (lambda: s.linear(1.0, 0.1, 0), "linear: got steps=0; expected a number > 0"),
    "a negative factor": (lambda: s.exponential(1.0, -0.5), "factor=-0.5"),
    "never": (lambda: s.step(1.0, 0.5, 0), "every=0"),
    "no cosine": (lambda: s.cosine(1.0, float("nan")), "steps=nan"),
    "no scale": (lambda: s.power(1.0, -1.0, 0.0), "scale=0.0"),
    "negative warm-up": (lambda: s.warmup(s.constant(1.0), -1), "steps=-1"),
    "all rise": (lambda: s.one_cycle(1.0, 10, rise=1.0), r"rise=1.0; expected a part of the steps, in \(0, 1\)"),
    "noise stays": (lambda: s.robbins_monro(1.0, 0.5), "exponent=0.5; expected ½ < p ≤ 1"),
    "boundaries": (lambda: s.joined([s.constant(1.0)], [3]), "1 schedules and 1 boundaries"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_sense_is_refused(case):
    function, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        function()
