"""Bad input is refused before any compile: what came, what was expected, what to do."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnet as jn
from jaxnet import losses
from jaxnet.data import arrays, checks

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(12, 4)).astype("float32")
LABELS = np.arange(12) % 3
NET = jn.mlp([3])


def program(loss=losses.softmax_cross_entropy, net=NET, **options):
    return jn.program(net, loss, optax.sgd(0.1), **({"batch_size": 4} | options))


def with_entry(array, value, at=5):
    array = np.array(array, dtype=np.result_type(array, type(value)))
    array.flat[at] = value
    return array


REFUSED = {
    "labels beyond the classes": ((X, with_entry(LABELS, 3)), "got label 3 at example 5; expected 0…2"),
    "labels below 0": ((X, with_entry(LABELS, -1)), "got label -1 at example 5; expected 0…2"),
    "labels that aren't integers": ((X, LABELS.astype("float32")), "got labels of dtype float32; expected integers"),
    "labels in a column": ((X, LABELS[:, None]), r"got targets of shape \(12, 1\) for logits of shape \(12, 3\)"),
    "soft labels that don't sum to 1": ((X, np.full((12, 3), 0.5, "float32")), "sums to 1.5"),
    "text": ((X, np.array(["a", "b", "c"] * 4)), "y: got an array of dtype <U1; expected numbers"),
    "objects": ((X.astype(object), LABELS), "x: got an array of dtype object; expected numbers"),
    "nan in x": ((with_entry(X, np.nan), LABELS), r"x: got nan at \[1, 1\], 1 such values"),
    "infinity in x": ((with_entry(X, np.inf), LABELS), r"x: got inf at \[1, 1\]"),
    "nan in weights": (
        (X, LABELS, with_entry(np.ones(12, "float32"), np.float32(np.nan))),
        r"weight: got nan at \[5\]",
    ),
    "a negative weight": (
        (X, LABELS, with_entry(np.ones(12, "float32"), np.float32(-1))),
        "got weight -1.0 at example 5",
    ),
    "weights of zero": ((X, LABELS, np.zeros(12, "float32")), "weights that are all 0"),
    "weights in a column": ((X, LABELS, np.ones((12, 1), "float32")), r"got weights of shape \(12, 1\)"),
    "different lengths": ((X, LABELS[:11]), "got different numbers of examples: x 12, y 11"),
    "no examples": ((X[:0], LABELS[:0]), "got an empty set"),
    "no axes": ((np.float32(1), np.int32(1)), "x: got an array without axes"),
    "one part": ((X,), r"expected \(x, y\) or \(x, y, weight\)"),
    "an array for a set": (X, r"expected \(x, y\) or \(x, y, weight\)"),
    "integer inputs": ((np.ones((12, 4), int), LABELS), "got inputs of dtype int.*expected floats: convert"),
    "huge integers": ((X, with_entry(LABELS, 2**40)), r"got (label|integers)"),
    "fewer examples than a batch": ((X[:3], LABELS[:3]), "got batch_size=4 for 3 training examples"),
}


@pytest.mark.source("GB-2.1-SHAPES")
@pytest.mark.parametrize("case", REFUSED)
def test_bad_data_is_refused_before_any_compile(case):
    train, message = REFUSED[case]
    prog = program()
    for drive in (jn.fit, jn.run):
        with pytest.raises((ValueError, TypeError), match=message):
            drive(KEY, prog, jn.Data(train), epochs=1)
    assert prog.compiled == {}


@pytest.mark.parametrize("case", [name for name in REFUSED if "fewer" not in name])
def test_bad_validation_and_test_data_are_refused_too(case):
    examples, message = REFUSED[case]
    good = (X, LABELS)
    with pytest.raises((ValueError, TypeError)):
        jn.fit(KEY, program(), jn.Data(good, examples), epochs=1)
    fitted = jn.fit(KEY, program(), jn.Data(good), epochs=1)
    with pytest.raises((ValueError, TypeError), match=message):
        jn.evaluate(NET, fitted, examples, losses.softmax_cross_entropy)


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("epochs", 0, "got epochs=0; expected at least 1"),
        ("epochs", -3, "got epochs=-3; expected at least 1"),
        ("epochs", 2.5, "got epochs=2.5; expected a positive integer"),
        ("epochs", True, "got epochs=True; expected a positive integer"),
        ("batch_size", 0, "got batch_size=0; expected at least 1"),
        ("batch_size", -1, "got batch_size=-1"),
        ("batch_size", 13, "got batch_size=13 for 12 training examples"),
        ("patience", 0, "got patience=0; expected at least 1"),
        ("patience", "5", "got patience='5'; expected a positive integer"),
        ("eval_batch_size", 0, "got eval_batch_size=0"),
    ],
)
def test_bad_numbers_are_refused(name, value, message):
    epochs, options = (value, {}) if name == "epochs" else (1, {name: value})
    with pytest.raises((ValueError, TypeError), match=message):
        jn.fit(KEY, program(**options), jn.Data((X, LABELS), (X, LABELS)), epochs=epochs)


@pytest.mark.parametrize(
    "key, message",
    [
        (0, r"got key int 0; expected a typed key: make one with jax.random.key\(0\)"),
        (np.zeros(2, np.uint32), "got key an array of uint32"),
        (jax.random.split(KEY, 3), r"got \(3,\) keys; expected one"),
        (jax.random.key(0, impl="rbg"), "got a key of the generator rbg; expected threefry2x32"),
    ],
)
def test_bad_keys_are_refused(key, message):
    with pytest.raises((ValueError, TypeError), match=message):
        jn.fit(key, program(), jn.Data((X, LABELS)), epochs=1)


def test_bad_arguments_are_refused():
    data = jn.Data((X, LABELS))
    with pytest.raises(ValueError, match="patience=3 without a validation set"):
        jn.fit(KEY, program(patience=3), data, epochs=1)
    with pytest.raises(TypeError, match=r"expected jn.Data"):
        jn.fit(KEY, program(), (X, LABELS), epochs=1)
    with pytest.raises(TypeError, match="expected a Program"):
        jn.fit(KEY, NET, data, epochs=1)
    with pytest.raises(TypeError, match=r"optax.adam\(1e-3\), not optax.adam"):
        jn.program(NET, losses.softmax_cross_entropy, optax.adam, batch_size=4)
    with pytest.raises(TypeError, match="expected a Layer"):
        jn.program([3], losses.softmax_cross_entropy, optax.sgd(0.1), batch_size=4)
    with pytest.raises(ValueError, match=r"valid x: got examples of shape \(3,\); expected \(4,\)"):
        jn.fit(KEY, program(), jn.Data((X, LABELS), (X[:, :3], LABELS)), epochs=1)
    with pytest.raises(ValueError, match="at least 2 classes"):
        jn.fit(KEY, program(net=jn.mlp([1])), jn.Data((X, 0 * LABELS)), epochs=1)
    with pytest.raises(ValueError, match=r"got targets of shape \(12,\) for outputs of shape \(12, 3\)"):
        jn.fit(KEY, program(losses.squared_error), jn.Data((X, LABELS)), epochs=1)
    with pytest.raises(ValueError, match=r"got target 2 at example 2; expected 0, 1"):
        jn.fit(KEY, program(losses.sigmoid_cross_entropy, net=jn.mlp([1])), jn.Data((X, LABELS)), epochs=1)


def test_bad_parameters_are_refused():
    data, prog = jn.Data((X, LABELS)), program()
    params = jn.fit(KEY, prog, data, epochs=1).params
    wrong = {
        "got no .*'b'": {"dense_0": {"w": params["dense_0"]["w"]}},
        "which the network doesn't have": params | {"extra": jnp.zeros(1)},
        r"params\['dense_0'\]\['b'\]: got float32\(4,\); expected float32\(3,\)": {
            "dense_0": params["dense_0"] | {"b": jnp.zeros(4, "float32")}
        },
        "got nan": {"dense_0": params["dense_0"] | {"b": jnp.full(3, jnp.nan, "float32")}},
    }
    if jax.config.jax_enable_x64:
        return
    for message, bad in wrong.items():
        with pytest.raises(ValueError, match=message):
            jn.fit(KEY, prog, data, epochs=1, params=bad)


def test_bad_rows_are_refused():
    for rows, message in {
        (0, 12): r"rows: got indices 0…12; expected 0…11",
        (-1, 2): r"rows: got indices -1…2",
        (): "got no rows",
        (0.5, 1.0): "expected integer indices",
        (True, False): "got a mask of booleans; expected indices",
    }.items():
        array = np.array(rows, dtype=int) if rows == () else np.array(rows)
        with pytest.raises((ValueError, TypeError), match=message):
            jn.fit(KEY, program(batch_size=1), jn.Data((X, LABELS), rows=array), epochs=1)


def test_labels_out_of_range_inside_a_trace_end_as_diverged():
    fitted = jax.jit(lambda y: jn.fit(KEY, program(), jn.Data((jnp.asarray(X), y)), epochs=3))(with_entry(LABELS, 7))
    assert int(fitted.outcome) == jn.outcomes.DIVERGED
    assert int(fitted.epochs_run) == 1
    assert np.isnan(fitted.history["train_loss"][0])


def test_float64_data_are_narrowed_with_one_warning_that_names_the_switch(monkeypatch):
    if jax.config.jax_enable_x64:
        assert checks.prepared_array("x", X.astype("float64")).dtype == jnp.float64
        return
    monkeypatch.setattr(arrays, "_narrowed", False)
    with pytest.warns(UserWarning, match="JAX_ENABLE_X64=1") as seen:
        for _ in range(2):
            jn.fit(KEY, program(), jn.Data((X.astype("float64"), LABELS)), epochs=1)
    assert len(seen) == 1


@pytest.mark.parametrize("n", [1, 2])
def test_one_example_and_one_batch(n):
    fitted = jn.fit(KEY, program(batch_size=1), jn.Data((X[:n], LABELS[:n]), (X[:1], LABELS[:1])), epochs=2)
    assert int(fitted.epochs_run) == 2
    assert np.isfinite(fitted.history["valid_loss"]).all()


@pytest.mark.parametrize("rate", [0.0, 1e-30, 1e30])
def test_tiny_and_huge_learning_rates(rate):
    prog = jn.program(NET, losses.squared_error, optax.sgd(rate), batch_size=4)
    start = jax.jit(prog.start)(KEY, jn.Data((X, np.eye(3, dtype="float32")[LABELS])))
    fitted = jn.fit(KEY, prog, jn.Data((X, np.eye(3, dtype="float32")[LABELS])), epochs=2)
    if rate < 1:
        assert jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, rtol=1e-6), fitted.params, start.params))
    else:
        assert int(fitted.outcome) == jn.outcomes.DIVERGED
        jax.tree.map(np.testing.assert_array_equal, fitted.params, start.params)
