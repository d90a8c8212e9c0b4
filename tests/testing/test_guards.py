"""Each guard has an offender that it names and innocents that it lets through; our own training is one."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnet as jn
from jaxnet.testing import guards

NET = jn.serial(jn.dense(4), jn.tanh(), jn.dropout(0.2), jn.dense(2))


@jax.jit
def fitted(key, rate, data):
    """A run whose learning rate is an input of the compiled program."""
    program = jn.program(NET, jn.losses.softmax_cross_entropy, optax.adam(rate), batch_size=8, patience=2)
    return jn.fit(key, program, data, epochs=3)


@pytest.fixture(scope="module")
def arguments():
    """On the device: a key, two rates, data."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)).astype(jnp.result_type(float)), rng.integers(0, 2, 40).astype(np.int32)
    data = jn.Data((x[:30], y[:30]), (x[30:], y[30:]))
    return jax.device_put((jax.random.key(0), [jnp.asarray(rate) for rate in (0.1, 0.01)], data))


def test_a_second_run_with_another_rate_compiles_and_moves_nothing(arguments):
    key, rates, data = arguments
    with guards.compiles(at_most=1) as names:
        first = fitted(key, rates[0], data)
    assert len(names) == 1
    assert "fitted" in names[0]
    with guards.compiles(at_most=0), guards.no_transfers():
        second = fitted(key, rates[1], data)
    assert not np.array_equal(first.history["train_loss"], second.history["train_loss"])


def test_a_run_leaks_nothing_and_uses_no_key_twice(arguments):
    key, rates, data = arguments
    plain = fitted(key, rates[0], data).params
    for guard in (guards.no_leaks, guards.no_key_reuse):
        with guard():
            watched = jax.jit(fitted.__wrapped__)(jax.random.clone(key), rates[0], data).params
        jax.tree.map(np.testing.assert_array_equal, watched, plain)


def test_the_host_loop_uses_no_key_twice_either(arguments):
    _, _, data = arguments
    program = jn.program(NET, jn.losses.softmax_cross_entropy, optax.sgd(0.1), batch_size=8)
    with guards.no_key_reuse():
        jn.run(jax.random.key(3), program, data, epochs=2)


def test_compilations_beyond_the_bound_are_named():
    x = jnp.arange(4.0)

    def thrice(x):
        return 3 * x

    def make_anew(times):
        for _ in range(times):
            jax.jit(lambda x: thrice(x))(x)

    expected = r"compiles\(at_most=2\): got 3 compilations, of jit\(<lambda>\) 3 times; expected at most 2: keep shapes"
    with pytest.raises(AssertionError, match=expected), guards.compiles(at_most=2):
        make_anew(3)
    with guards.compiles(at_most=2):
        make_anew(2)


def test_a_shape_a_dtype_and_a_weak_type_are_a_compilation_each():
    double = jax.jit(lambda x: 2 * x)
    inputs = [np.ones(2, np.float32), np.ones(3, np.float32), np.ones(2, np.int32), 1.0]
    with guards.compiles(at_most=4) as names:
        for x in inputs * 2:
            double(x)
    assert len(names) == 4


def test_compilations_of_other_threads_count():
    x = jnp.arange(4.0)
    with guards.compiles(at_most=1) as names:
        thread = threading.Thread(target=jax.jit(lambda x: 5 * x), args=(x,))
        thread.start()
        thread.join()
    assert len(names) == 1
    jax.jit(lambda x: 7 * x)(x)
    assert len(names) == 1  # the block is over


def test_the_error_of_the_block_is_the_one_that_gets_out():
    for guard in (guards.compiles(0), guards.no_transfers(), guards.no_leaks(), guards.no_key_reuse()):
        with pytest.raises(ZeroDivisionError), guard:
            jax.jit(lambda x: x + 11)(jax.device_put(np.ones(2)))
            raise ZeroDivisionError


@pytest.mark.parametrize("bound", [-1, 1.0, True, None])
def test_a_bound_is_a_whole_number(bound):
    with pytest.raises(ValueError, match=r"compiles: got at_most=.*; expected a whole number"), guards.compiles(bound):
        pass


@pytest.mark.parametrize(
    "offend",
    [lambda x: x + np.ones(4, np.float32), lambda x: x + 1.5, lambda x: jnp.zeros(3), lambda x: x[0]],
    ids=["an array", "a number", "a constant", "an index"],
)
def test_what_goes_to_the_device_silently_is_seen(offend):
    x = jnp.arange(4, dtype=jnp.float32)
    expected = r"got a host-to-device transfer of .*; expected none: jax.device_put"
    with pytest.raises(AssertionError, match=expected), guards.no_transfers():
        offend(x)


def test_what_is_moved_openly_passes_and_a_cpu_shows_no_reading():
    double, x = jax.jit(lambda x: 2 * x), jnp.arange(4.0)
    with guards.no_transfers():
        y = double(jax.device_put(np.ones(4, x.dtype)))
        assert jax.device_get(y).tolist() == [2.0] * 4
        if jax.default_backend() == "cpu":
            assert np.asarray(y).sum() == 8


kept: list = []


def keep(x):
    kept.append(2 * x)
    return x


@pytest.mark.parametrize(
    "offend",
    [
        pytest.param(jax.jit(keep), id="jit"),
        pytest.param(jax.vmap(keep), id="vmap", marks=pytest.mark.long),
        pytest.param(lambda x: jax.lax.scan(lambda c, a: (keep(c), a), x[0], x), id="scan", marks=pytest.mark.long),
    ],
)
def test_what_outlives_its_trace_is_seen(offend):
    x = jnp.arange(4.0)
    expected = r"no_leaks: got a value, \w+Tracer\(.*\), that outlives the trace.*; expected none: return what"
    with pytest.raises(AssertionError, match=expected), guards.no_leaks():
        offend(x)
    kept.clear()


@jax.jit
def twice(key):
    return jax.random.normal(key) + jax.random.uniform(key)


@jax.jit
def once(key):
    a, b = jax.random.split(key)
    return jax.random.normal(a) + jax.random.uniform(b)


@pytest.mark.parametrize("how", ["under jit", "one by one", "in a scan"])
def test_a_key_used_twice_is_seen(how):
    key = jax.random.key(7)
    expected = r"got a random key used twice \(.*\); expected each once: take a new one"
    with pytest.raises(AssertionError, match=expected), guards.no_key_reuse():
        if how == "under jit":
            twice(key)
        elif how == "one by one":
            once(key)
            once(key)
        else:
            jax.lax.scan(lambda c, _: (c + jax.random.normal(key), None), 0.0, None, 3)


def test_keys_used_once_pass_and_plain_integers_are_not_followed():
    with guards.no_key_reuse():
        once(jax.random.key(8))
        twice(jax.random.PRNGKey(8))
