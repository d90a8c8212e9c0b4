"""Recurrent layers against torch, unrolled NumPy loops and automatic differentiation; padding has no influence."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st
from vjp_proof import BOUND, agree, both_roads, check_backward, drawn

import jaxnet as jn
from jaxnet import losses
from jaxnet.layers import dense, serial
from jaxnet.layers.layer import spec_of
from jaxnet.layers.recurrent import bidirectional, gru, lstm, rnn
from jaxnet.layers.sequences import Sequence, pad, time_distributed
from jaxnet.layers.teacher import output_rnn

pytestmark = pytest.mark.numerical
KEY = jax.random.key(4)
KINDS = {"rnn": rnn, "relu": partial(rnn, activation="relu"), "lstm": lstm, "gru": gru}
LENGTHS = (4, 1, 3)
X = drawn(3, 4, 2)
TORCHS = 1e-10 if jax.config.jax_enable_x64 else 64 * BOUND


def near(got, want, bound=8 * BOUND):
    np.testing.assert_allclose(np.asarray(got), np.asarray(want), rtol=bound, atol=bound, strict=True)


def sequence(lengths=LENGTHS, values=X):
    return Sequence(values, jnp.asarray(lengths, jnp.int32))


@cache
def made(kind, last=False, reverse=False, both=False):
    """One layer object per kind, so that what's compiled for it is used again."""
    make = partial(KINDS[kind], 3, last=last)
    return bidirectional(make) if both else make(reverse=reverse)


@cache
def started(layer, spec=(4, 2)):
    params, state = jax.eval_shape(lambda: layer.init(KEY, spec))
    numbers = iter(range(100))
    return jax.tree.map(lambda a: drawn(*a.shape, seed=next(numbers)) / 2, params), state


# ── by hand is by autodiff ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.float64
@pytest.mark.source("GB-10.2.2-BPTT", "GB-10.0-variable-length")
@examples(4)
@given(
    st.sampled_from(["rnn", "lstm", "gru"]),
    st.booleans(),
    st.booleans(),
    st.lists(st.integers(0, 4), min_size=3, max_size=3),
    st.integers(0, 99),
)
def test_backpropagation_through_time_is_the_vjp(kind, last, reverse, lengths, seed):
    layer = made(kind, last=last, reverse=reverse)
    params, state = started(layer)
    check_backward(layer, params, state, sequence(lengths, drawn(3, 4, 2, seed=seed)), seed=seed)


@pytest.mark.parametrize("time", [1, 5])
@pytest.mark.parametrize("kind", ["relu", "gru"])
def test_plain_arrays_of_any_length_too(kind, time):
    """The parameters are the same for every length (GB-10.1-shared-f)."""
    layer = made(kind)
    params, state = started(layer)
    check_backward(layer, params, state, drawn(2, time, 2))


@pytest.mark.float64
def test_a_deep_bidirectional_network_on_sequences():
    net = serial(bidirectional(partial(lstm, 3)), time_distributed(dense(2)), gru(3, last=True), dense(2))
    x = sequence()
    shapes, state = jax.eval_shape(lambda: net.init(KEY, spec_of(x)))
    assert sorted(shapes["bidirectional_0"]) == ["lstm_0", "lstm_1"]
    params = jax.tree.map(lambda a: drawn(*a.shape, seed=a.size), shapes)
    check_backward(net, params, state, x)


# ── torch ───────────────────────────────────────────────────────────────────────────────────────────────────────


def transplanted(torch, kind, layers_params, both):
    """torch's module with these parameters (one part per direction)."""
    Module = {"rnn": torch.nn.RNN, "relu": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind]
    options = {"nonlinearity": "relu"} if kind == "relu" else {}
    module = Module(2, 3, batch_first=True, bidirectional=both, dtype=torch.float64, **options)
    with torch.no_grad():
        for suffix, part in zip(("", "_reverse"), layers_params, strict=False):
            for ours, theirs in (("input", "ih"), ("hidden", "hh")):
                w, b = (np.array(part[ours][leaf], np.float64) for leaf in ("w", "b"))
                getattr(module, f"weight_{theirs}_l0{suffix}").copy_(torch.from_numpy(w.T.copy()))
                getattr(module, f"bias_{theirs}_l0{suffix}").copy_(torch.from_numpy(b))
    return module


@pytest.mark.float64
@pytest.mark.source("GB-10.2-forward", "GB-10.0-variable-length", "GB-10.2.2-BPTT")
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize(("kind", "both"), [("rnn", True), ("relu", False), ("lstm", True), ("gru", True)])
def test_values_and_all_gradients_are_torchs(kind, both, padded):
    torch = pytest.importorskip("torch")
    layer = made(kind, both=both)
    params, state = started(layer)
    x = sequence() if padded else X
    dy = np.array(drawn(3, 4, 6 if both else 3, seed=100), np.float64)
    [dx], grads = check_backward(layer, params, state, x)
    y, _ = layer.apply(params, state, x)
    kinds = [params[name] for name in sorted(params)] if both else [params]
    module = transplanted(torch, kind, kinds, both)
    inputs = torch.from_numpy(np.array(X, np.float64)).requires_grad_()
    given = inputs
    if padded:
        given = torch.nn.utils.rnn.pack_padded_sequence(inputs, list(LENGTHS), batch_first=True, enforce_sorted=False)
    out, _ = module(given)
    if padded:
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
    out.backward(torch.from_numpy(dy))

    def close(ours, theirs):
        np.testing.assert_allclose(np.asarray(ours, np.float64), theirs.detach().numpy(), rtol=TORCHS, atol=TORCHS)

    close(y.values if padded else y, out)
    close(dx, inputs.grad)
    for suffix, part in zip(
        ("", "_reverse"), [grads[name] for name in sorted(grads)] if both else [grads], strict=False
    ):
        for ours, theirs in (("input", "ih"), ("hidden", "hh")):
            close(part[ours]["w"], getattr(module, f"weight_{theirs}_l0{suffix}").grad.T)
            close(part[ours]["b"], getattr(module, f"bias_{theirs}_l0{suffix}").grad)


# ── unrolled ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-10.1-unfold", "GB-10.1-driven", "GB-10.1-shared-f", "GB-10.2-forward")
@pytest.mark.parametrize("reverse", [False, True])
def test_the_simple_recurrence_is_its_unrolled_loop_with_the_gradient_summed_over_time(reverse):
    layer = made("rnn", reverse=reverse)
    params, state = started(layer)
    x, dy = np.asarray(X, np.float64), np.asarray(drawn(3, 4, 3, seed=100), np.float64)
    wx, bx, wh, bh = (np.asarray(params[a][b], np.float64) for a in ("input", "hidden") for b in ("w", "b"))
    order = list(range(4))[:: -1 if reverse else 1]
    h, before, said = np.zeros((3, 3)), {}, np.zeros((3, 4, 3))
    for t in order:
        before[t] = h
        h = said[:, t] = np.tanh(x[:, t] @ wx + bx + h @ wh + bh)
    near(layer.apply(params, state, X)[0], said.astype(X.dtype))
    near(made("rnn", last=True, reverse=reverse).apply(params, state, X)[0], h.astype(X.dtype))
    dh, dx, dwx, dwh, db = np.zeros((3, 3)), np.zeros_like(x), np.zeros_like(wx), np.zeros_like(wh), np.zeros(3)
    for t in reversed(order):
        da = (dy[:, t] + dh) * (1 - said[:, t] ** 2)
        dwx, dwh, db = dwx + x[:, t].T @ da, dwh + before[t].T @ da, db + da.sum(0)
        dx[:, t], dh = da @ wx.T, da @ wh.T
    [got_dx], grads = check_backward(layer, params, state, X)
    want = {"input": {"w": dwx, "b": db}, "hidden": {"w": dwh, "b": db}}
    agree((got_dx, grads), jax.tree.map(lambda a: a.astype(X.dtype), (dx, want)), 8 * BOUND)


def test_the_whole_sequence_ends_with_the_last_output():
    for kind in ("lstm", "gru"):
        params, state = started(made(kind))
        whole, _ = made(kind).apply(params, state, sequence())
        last, _ = made(kind, last=True).apply(params, state, sequence())
        near(last, np.stack([np.asarray(whole.values)[i, n - 1] for i, n in enumerate(LENGTHS)]))
        np.testing.assert_array_equal(whole.lengths, LENGTHS)


# ── padding ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-10.0-variable-length")
@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_padding_never_influences_values_or_gradients(kind):
    """NaN in the padding changes no bit; each sequence is what it is alone, without padding."""
    layer = made(kind, both=True)
    params, state = started(layer)
    padding = ~np.asarray(sequence().mask())
    dirty = np.where(padding[..., None], np.nan, np.asarray(X)).astype(X.dtype)
    got, want = (check_backward(layer, params, state, sequence(values=jnp.asarray(v))) for v in (dirty, X))
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert not np.asarray(got[0][0])[padding].any()
    y, _ = layer.apply(params, state, sequence(values=jnp.asarray(dirty)))
    assert not np.asarray(y.values)[padding].any()
    dy = jnp.asarray(np.where(padding[..., None], np.nan, drawn(3, 4, 6, seed=100)).astype(X.dtype))
    for road in both_roads(
        layer, params, state, sequence(), [dy], None, False
    ):  # gradients that come there don't count
        assert all(np.isfinite(a).all() for a in jax.tree.leaves(road))
    jax.tree.map(
        np.testing.assert_array_equal, both_roads(layer, params, state, sequence(), [dy], None, False)[0], want
    )
    alone = X[1:2, :1]
    near(y.values[1:2, :1], layer.apply(params, state, alone)[0])


def test_pad_fills_up_to_the_longest():
    ragged = [np.arange(6.0).reshape(3, 2), np.ones((1, 2)), np.zeros((0, 2))]
    batch = pad(ragged)
    assert batch.values.shape == (3, 3, 2)
    assert batch.lengths.tolist() == [3, 1, 0]
    for row, n, array in zip(batch.values, batch.lengths, ragged, strict=True):
        np.testing.assert_array_equal(row[:n], array)
        assert not row[n:].any()
    assert pad(ragged, time=5).values.shape == (3, 5, 2)
    for wrong, time, sentence in (
        ([], None, "expected"),
        ([np.ones((2, 2)), np.ones((2, 3))], None, r"got arrays of shapes \[\(2, 2\), \(2, 3\)\]"),
        ([np.ones((3, 2))], 2, "got a sequence of 3 steps; expected at most time=2"),
    ):
        with pytest.raises(ValueError, match=sentence):
            pad(wrong, time)


def test_a_network_of_sequences_trains():
    """The sign of the first step, to be remembered over the steps that follow."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 5, 128)
    rows = [rng.normal(size=(n, 1)).astype("float32") for n in lengths]
    data = jn.Data((pad(rows, 4), np.array([int(row[0, 0] > 0) for row in rows])))
    net = serial(gru(8, last=True), dense(2))
    program = jn.program(net, losses.softmax_cross_entropy, optax.adam(0.03), batch_size=32)
    fitted = jn.fit(KEY, program, data, epochs=25)
    assert float(fitted.history["train_loss"][-1]) < 0.25 < float(fitted.history["train_loss"][0])


# ── output recurrence ───────────────────────────────────────────────────────────────────────────────────────────

TARGETS = drawn(3, 4, 2, seed=7)


@cache
def talker(teacher, feedback="identity"):
    return output_rnn(3, 2, teacher=teacher, feedback=feedback)


def free_running(params, x, fed, feedback=lambda o: o):
    """NumPy: the outputs when step t is fed fed[t] (None: what was said before)."""
    w = {a: {b: np.asarray(leaf, np.float64) for b, leaf in part.items()} for a, part in params.items()}
    said, outputs = np.zeros((len(x), 2)), []
    for t in range(x.shape[1]):
        p = said if fed is None or t == 0 else fed[:, t - 1]
        h = np.tanh(x[:, t] @ w["input"]["w"] + w["input"]["b"] + p @ w["feedback"]["w"])
        outputs.append(h @ w["output"]["w"] + w["output"]["b"])
        said = feedback(outputs[-1])
    return np.stack(outputs, axis=1).astype(X.dtype)


@pytest.mark.source("GB-10.2-patterns", "GB-10.2.1-teacher-forcing", "GB-10.2.1-exposure-gap")
def test_output_recurrence_is_fed_targets_or_its_own_words():
    params, _ = started(talker(1.0))
    x, y = np.asarray(X, np.float64), np.asarray(TARGETS, np.float64)
    forced, free = free_running(params, x, y), free_running(params, x, None)
    assert np.abs(forced - free).max() > 0.1
    near(talker(1.0).apply(params, {}, (X, TARGETS), train=True)[0], forced)
    near(talker(0.0).apply(params, {}, (X, TARGETS), train=True)[0], free)
    for inputs in ((X, TARGETS), X):
        near(talker(1.0).apply(params, {}, inputs)[0], free)  # in inference the targets aren't looked at

    def softmax(o):
        return np.exp(o) / np.exp(o).sum(-1, keepdims=True)

    near(talker(1.0, "softmax").apply(params, {}, X)[0], free_running(params, x, None, softmax))
    # with forcing each step stands alone: all steps at once
    shifted = np.concatenate([np.zeros_like(y[:, :1]), y[:, :-1]], axis=1)
    w = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    h = np.tanh(x @ w["input"]["w"] + w["input"]["b"] + shifted @ w["feedback"]["w"])
    near(forced, (h @ w["output"]["w"] + w["output"]["b"]).astype(X.dtype))


@pytest.mark.source("GB-10.2.1-teacher-forcing", "GB-10.2.1-exposure-gap")
@pytest.mark.parametrize(
    ("teacher", "feedback", "padded", "train"),
    [
        (1.0, "identity", True, True),
        (0.5, "softmax", True, True),
        (0.5, "identity", False, True),
        (1.0, "softmax", True, False),
    ],
)
def test_the_backward_rule_of_output_recurrence_is_the_vjp(teacher, feedback, padded, train):
    layer = talker(teacher, feedback)
    params, _ = started(layer)
    dx, _ = check_backward(layer, params, {}, (sequence() if padded else X, TARGETS), key=KEY, train=train)
    if padded:
        assert not np.asarray(dx[0])[~np.asarray(sequence().mask())].any()


def test_scheduled_sampling_mixes_by_example_and_step():
    params, _ = started(talker(0.5))
    n = 400
    x, y = (jnp.broadcast_to(a[:1], (n, 4, 2)) for a in (X, TARGETS))
    swept = jax.jit(lambda p: output_rnn(3, 2, teacher=p).apply(params, {}, (x, y), key=KEY, train=True)[0])
    outputs = np.asarray(swept(0.5))
    assert (outputs[:, 0] == outputs[0, 0]).all()  # nothing to feed at the first step
    second, counts = np.unique(outputs[:, 1].round(4), axis=0, return_counts=True)
    assert len(second) == 2  # forced or free
    assert abs(counts[0] / n - 0.5) < 5 * 0.5 / n**0.5
    assert 2 < len(np.unique(outputs[:, 2].round(4), axis=0)) <= 4
    near(swept(1.0)[0], talker(1.0).apply(params, {}, (X[:1], TARGETS[:1]), train=True)[0][0])
    with pytest.raises(ValueError, match="output_rnn in training got key=None"):
        talker(0.5).apply(params, {}, (X, TARGETS), train=True)


# ── types and refusals ──────────────────────────────────────────────────────────────────────────────────────────


@partial(jax.jit, static_argnums=0)
def value_and_rule(layer, params, x):
    y, _ = layer.apply(params, {}, x)
    return y, layer.backward(params, {}, x, jax.tree.map(jnp.ones_like, y))


@pytest.mark.parametrize("kind", ["rnn", "lstm", "gru"])
def test_bfloat16_and_zeros_and_large_inputs(kind):
    layer = made(kind)
    params, _ = started(layer)
    low = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (params, X))
    outputs = jax.eval_shape(partial(value_and_rule, layer), *low)
    assert {a.dtype.name for a in jax.tree.leaves(outputs)} == {"bfloat16"}
    assert layer.init(KEY, jax.ShapeDtypeStruct((4, 2), jnp.bfloat16))[0]["hidden"]["b"].dtype == jnp.bfloat16
    for x in (0 * X, 1e4 * X, -1e4 * X):
        assert all(np.isfinite(a).all() for a in jax.tree.leaves(value_and_rule(layer, params, x)))


def test_the_initial_parameters_are_uniform_within_torchs_bounds():
    params, state = jax.jit(lambda: lstm(16).init(KEY, (7, 5)))()
    assert state == {}
    assert jax.tree.map(jnp.shape, params) == {
        "input": {"w": (5, 64), "b": (64,)},
        "hidden": {"w": (16, 64), "b": (64,)},
    }
    draws = np.concatenate([np.ravel(a) for a in jax.tree.leaves(params)])
    assert 0.95 / 4 < np.abs(draws).max() <= 1 / 4
    assert len(np.unique(draws)) > 0.99 * draws.size  # no draw is used twice


@pytest.mark.parametrize(
    ("make", "error", "sentence"),
    [
        (lambda: lstm(0), ValueError, r"got lstm\(units=0\); expected a positive integer"),
        (
            lambda: gru(3).init(KEY, (5,)),
            ValueError,
            r"gru\(3\): got an example of spec .*; expected \(time, features\)",
        ),
        (
            lambda: made("rnn").apply(started(made("rnn"))[0], {}, jnp.ones((3, 2))),
            ValueError,
            r"got inputs of shape \(3, 2\)",
        ),
        (
            lambda: made("gru").apply(started(made("gru"))[0], {}, jnp.ones((3, 4, 5))),
            ValueError,
            r"expected \(batch, time, 2\)",
        ),
        (
            lambda: made("rnn").apply(started(made("rnn"))[0], {}, jnp.ones((3, 4, 2), int)),
            TypeError,
            "expected floats",
        ),
        (
            lambda: made("rnn").apply(started(made("rnn"))[0], {}, sequence((1, 2))),
            ValueError,
            r"got lengths of shape \(2,\)",
        ),
        (lambda: bidirectional(lambda reverse: None), TypeError, "bidirectional: got None at position 0"),
        (
            lambda: output_rnn(3, 2, teacher=1.5),
            ValueError,
            r"expected the probability to feed the target, in \[0, 1\]",
        ),
        (lambda: output_rnn(3, 0), ValueError, r"got output_rnn\(outputs=0\)"),
        (
            lambda: talker(1.0).apply(started(talker(1.0))[0], {}, (X, TARGETS[:, :2])),
            ValueError,
            "got targets of shape",
        ),
        (lambda: time_distributed(dense(2)).init(KEY, (5,)), ValueError, "got an example of shape"),
    ],
)
def test_what_does_not_fit_is_refused(make, error, sentence):
    with pytest.raises(error, match=sentence):
        make()
