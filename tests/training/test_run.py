"""`run`: to the bit what `fit` is, however it's cut, left and gone on with; what is refused; what a full disk does."""

import contextlib
import errno
import os
import shutil
import signal
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from training_runs import DATA, EPOCHS, KEY, everything

import jaxnet as jn
from jaxnet import losses
from jaxnet.checkpoint import CheckpointError, Checkpoints, series
from jaxnet.optimizers import adagrad, averaged_momentum, lookahead, max_norm, nesterov, polyak_average
from jaxnet.testing.guards import compiles, no_transfers
from jaxnet.training import differences, host

PROGRAM = everything()
LONG = pytest.mark.long


@pytest.fixture(scope="module")
def undisturbed():
    return jn.fit(KEY, PROGRAM, DATA, epochs=EPOCHS)


@pytest.fixture
def one_by_one(monkeypatch):
    """Segments of one epoch, so that a signal ends the run after the very epoch."""
    monkeypatch.setattr(host, "SEGMENT", 0.0)


def run(program=PROGRAM, key=KEY, data=DATA, **options):
    return jn.run(key, program, data, **{"epochs": EPOCHS} | options)


def stopping(at, number=signal.SIGTERM):
    """A report that sends the signal after the epoch `at`."""

    def report(epoch, row):
        if epoch == at:
            signal.raise_signal(number)

    return report


def stopped(at, number=signal.SIGTERM, **options):
    with pytest.raises(SystemExit if number == signal.SIGTERM else KeyboardInterrupt) as caught:
        run(report=stopping(at, number), **options)
    return caught.value


@contextlib.contextmanager
def python_handlers():
    """The handlers that Python starts with; gives them. A test run may have been started with SIGINT ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    try:
        yield usual
        assert {number: signal.getsignal(number) for number in usual} == usual
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.mark.numerical
@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_any_cut_into_segments_is_fit(undisturbed, monkeypatch, seconds):
    monkeypatch.setattr(host, "SEGMENT", seconds)
    seen, other = [], []
    with no_transfers():
        fitted = run(report=[lambda epoch, row: seen.append((epoch, row)), lambda epoch, row: other.append(len(seen))])
    chex.assert_trees_all_equal(fitted, undisturbed)
    ran = int(undisturbed.epochs_run)
    assert [epoch for epoch, _ in seen] == list(range(1, ran + 1)) == other
    for name, values in undisturbed.history.items():
        np.testing.assert_array_equal(np.array([row[name] for _, row in seen], values.dtype), values[:ran])


@pytest.mark.numerical
@pytest.mark.parametrize(
    "hidden, rows, batch_size, validated",
    [
        ([32], 1437, 32, True),
        pytest.param([64, 32], 1437, 32, True, marks=LONG),
        pytest.param([100, 50], 700, 128, False, marks=LONG),
    ],
)
def test_a_network_whose_parameters_xla_lays_out_as_it_likes(hidden, rows, batch_size, validated):
    """Where the parameters weren't a result of the compiled `fit`, its last bits weren't those of a segment."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(rows, 64)).astype(jnp.result_type(float)), rng.integers(0, 10, rows).astype(np.int32)
    data = jn.Data((x, y), (x[:300], y[:300]) if validated else None)
    program = jn.program(jn.mlp([*hidden, 10]), losses.softmax_cross_entropy, optax.sgd(1e-2), batch_size=batch_size)
    chex.assert_trees_all_equal(run(program, data=data, epochs=2), jn.fit(KEY, program, data, epochs=2))


@pytest.mark.numerical
def test_left_and_gone_on_with_is_undisturbed(undisturbed, tmp_path, one_by_one):
    seen = []
    for at in (1, 2, 7):
        stopped(at, store=tmp_path)
        assert Checkpoints(tmp_path).numbers()[-1] == at
    with compiles(at_most=2):  # `finish`, and one to put the history on the device
        fitted = run(store=tmp_path, report=lambda epoch, row: seen.append(epoch))
    chex.assert_trees_all_equal(fitted, undisturbed)
    assert seen == list(range(8, int(undisturbed.epochs_run) + 1))
    advanced = []
    again = run(store=tmp_path, report=lambda epoch, row: advanced.append(epoch))
    chex.assert_trees_all_equal(again, undisturbed)
    assert not advanced
    assert len(Checkpoints(tmp_path).numbers()) == 3


def test_epochs_may_be_raised_and_not_lowered(undisturbed, tmp_path):
    run(epochs=5, store=tmp_path)
    with pytest.raises(ValueError, match="got epochs=4 for a run that has come to 5 there; expected at least as many"):
        run(epochs=4, store=tmp_path)
    chex.assert_trees_all_equal(run(store=tmp_path), undisturbed)


@pytest.mark.numerical
def test_a_damaged_newest_is_passed_over(undisturbed, tmp_path, one_by_one):
    stopped(6, store=tmp_path, every=1)
    newest = max(tmp_path.glob("*.safetensors"))
    content = bytearray(newest.read_bytes())
    content[-40] ^= 1
    newest.write_bytes(content)
    with pytest.warns(UserWarning, match="checkpoint-00000006.*checksum.*checkpoint-00000005.safetensors is taken"):
        fitted = run(store=tmp_path, every=1)
    chex.assert_trees_all_equal(fitted, undisturbed)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="no intact checkpoint; 3 damaged"):
        run(store=tmp_path)


def changed(optimizer=None, net=None, loss=losses.softmax_cross_entropy, **options):
    """A plain program, and what differs from it."""
    options = {"batch_size": 16, "patience": 8} | options
    return jn.program(net or jn.mlp([8, 3]), loss, optimizer or optax.sgd(0.1), **options)


def doubled(output, target):
    return 2 * losses.softmax_cross_entropy(output, target)


def moved(by):
    return jn.Data((DATA.train[0] + np.asarray(by, DATA.train[0].dtype), DATA.train[1]), DATA.valid)


ONES = {"dense_0": {"w": jnp.ones((4, 8)), "b": jnp.ones(8)}, "dense_1": {"w": jnp.ones((8, 3)), "b": jnp.ones(3)}}
CHANGES = {
    "rate": (
        {"program": changed(optax.sgd(0.2))},
        r"program: a constant: -0\.1 in the store, -0\.2 now\. Expected the same .* accept_change=\['program'\]",
    ),
    "a rate as an array": (
        {"program": changed(optax.sgd(jnp.float32(0.2)))},
        r"program: constants?: -0\.1 in the store, -0\.2 now",
    ),
    "momentum": (
        {"program": changed(optax.sgd(0.1, momentum=0.9))},
        r"opt_state.*trace\['dense_0'\]\['w'\]: None in the store, float\d\d\(4, 8\) now",
    ),
    "units": (
        {"program": changed(net=jn.mlp([9, 3]))},
        r"params\['dense_0'\]\['w'\]: float\d\d\(4, 8\) in the store, float\d\d\(4, 9\) now",
    ),
    "activation": (
        {"program": changed(net=jn.mlp([8, 3], activation="tanh"))},
        r"net: serial\(.*relu.* in the store, serial\(.*tanh.* now",
    ),
    "loss": ({"program": changed(loss=doubled, metrics={})}, "program: loss: softmax_cross_entropy in .*, doubled now"),
    "batch size": ({"program": changed(batch_size=8)}, "program: batch_size: 16 in the store, 8 now"),
    "patience": ({"program": changed(patience=9)}, "program: patience: 8 in the store, 9 now; a constant: 8 .* 9 now"),
    "initializer": (
        {"program": changed(net=jn.mlp([8, 3], weight_init=jn.initializers.zeros()))},
        "program: (net|initial parameters): .* in the store, .* now",
    ),
    "key": ({"key": jax.random.key(8)}, "start: key: 0 7 in the store, 0 8 now"),
    "data": ({"data": moved(np.eye(41, 4))}, r"data: \.train\[0\]: \w{12}… in the store, \w{12}… now"),
    "no validation": (
        {"data": jn.Data(DATA.train), "program": changed(patience=None)},
        r"data: \.valid\[0\]: .* in the store, none now; \.valid\[1\]: .*program: patience: 8 in the store, None now",
    ),
    "parameters": ({"params": ONES}, r"start: params\['dense_0'\]\['b'\]: none in the store, .* now"),
    "everything": (
        {"program": changed(optax.sgd(0.2), batch_size=8), "key": jax.random.key(8), "data": moved(1)},
        r"start: key: .*data: \.train\[0\].*program: batch_size: 16 in .*-0\.1 in the store, -0\.2 now.*"
        r"accept_change=\['data', 'program', 'start'\]",
    ),
}


PLAIN = changed()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    store = tmp_path_factory.mktemp("plain")
    run(PLAIN, epochs=2, store=store)
    return store


@pytest.mark.parametrize("change, message", CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_refused(plain, change, message):
    before = {path: path.read_bytes() for path in plain.iterdir()}
    with pytest.raises(ValueError, match=message):
        run(**{"program": PLAIN, "epochs": 2, "store": plain} | change)
    assert {path: path.read_bytes() for path in plain.iterdir()} == before


def test_another_environment_is_refused_unless_accepted(plain, monkeypatch):
    monkeypatch.setattr(jax, "__version__", "0.0.1")
    with pytest.raises(ValueError, match=r"environment: jax: .* in the store, 0\.0\.1 now") as caught:
        run(PLAIN, epochs=2, store=plain)
    assert "accept_change=['environment']" in str(caught.value)
    with pytest.raises(ValueError, match="environment"):
        run(PLAIN, epochs=2, store=plain, accept_change=["data", "program"])
    run(PLAIN, epochs=2, store=plain, accept_change=["environment"])


def test_an_accepted_change_of_the_rate_goes_on_from_there(plain, tmp_path):
    store, slower = shutil.copytree(plain, tmp_path / "copy"), changed(optax.sgd(0.01))
    fitted = run(slower, epochs=4, store=store, accept_change=True)
    before = run(PLAIN, epochs=2, store=plain)
    for name, values in before.history.items():
        np.testing.assert_array_equal(fitted.history[name][:2], values)
    _, _, settings = Checkpoints(store).newest()
    assert settings["accepted"] == [{"program": ["a constant: -0.1 in the store, -0.01 now"]}]
    with pytest.raises(ValueError, match=r"a constant: -0\.01 in the store, -0\.1 now"):
        run(PLAIN, epochs=4, store=store)
    with pytest.raises(ValueError, match=r"other names, shapes or dtypes .* an accepted change can't alter them"):
        run(changed(net=jn.mlp([9, 3])), epochs=4, store=store, accept_change=True)


def test_operations_are_named_where_nothing_else_is():
    def about(function):
        text = jax.jit(function).lower(jax.ShapeDtypeStruct((3,), "float32")).as_text()
        return differences.description({}, {}, text)

    assert differences.in_words(about(jnp.tanh), about(jnp.tanh)) == []
    said = differences.in_words(about(jnp.tanh), about(jnp.sin))
    assert said == ["operations tanh: 1 in the store, 0 now", "operations sine: 0 in the store, 1 now"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_segment(number, tmp_path, one_by_one):
    with python_handlers():
        error = stopped(3, number, store=tmp_path)
    assert Checkpoints(tmp_path).numbers() == [0, 3]
    if number == signal.SIGTERM:
        assert error.code == 143
    else:
        assert str(error) == f"stopped after epoch 3; {tmp_path} has epoch 3: the same call goes on from there"


def test_handlers_are_back_on_every_way_out(tmp_path, one_by_one):
    def failing(epoch, row):
        raise RuntimeError("the tracker is down")

    with python_handlers():
        run(epochs=2)
    with python_handlers(), pytest.raises(RuntimeError, match="the tracker is down"):
        run(report=failing)
    with python_handlers(), pytest.raises(ValueError, match="batch_size"):
        run(changed(batch_size=1000))
    called = []
    with python_handlers():
        own = signal.signal(signal.SIGTERM, lambda number, frame: called.append(number))
        stopped(2)
        assert called == [signal.SIGTERM]
        signal.signal(signal.SIGTERM, own)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        assert int(run(epochs=4, report=stopping(2, signal.SIGINT)).epochs_run) == 4  # nohup
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_ctrl_c_leaves_at_once(tmp_path, one_by_one, first, undisturbed):
    reached = []

    def report(epoch, row):
        if epoch == 3:
            signal.raise_signal(first)
            signal.raise_signal(signal.SIGTERM)  # this one is no reason to hurry
            signal.raise_signal(signal.SIGINT)
            reached.append(epoch)

    with python_handlers(), pytest.raises(KeyboardInterrupt, match="left at once"):
        run(store=tmp_path, every=1, report=report)
    assert not reached
    assert Checkpoints(tmp_path).numbers() == [0, 1, 2]
    chex.assert_trees_all_equal(run(store=tmp_path, every=1), undisturbed)


def test_a_second_ctrl_c_while_jax_is_at_work_waits_for_it(monkeypatch, tmp_path):
    """Raised within a trace it would break jax; it's raised where the trace has ended."""
    reached = []
    true = host.segment

    def interrupted(*arguments):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        reached.append("the end of the trace")
        return true(*arguments)

    monkeypatch.setattr(host, "segment", interrupted)
    with python_handlers(), pytest.raises(KeyboardInterrupt):
        run(changed(), epochs=2, report=lambda epoch, row: pytest.fail("it has trained"))
    assert reached


def test_in_another_thread_signals_are_left_alone(undisturbed):
    found = []
    with python_handlers():
        thread = threading.Thread(target=lambda: found.append(run()))
        thread.start()
        thread.join()
    chex.assert_trees_all_equal(found[0], undisturbed)


def test_a_disk_that_fills_up_and_has_room_again(undisturbed, tmp_path, monkeypatch, one_by_one):
    true, full = series.files.save, {2, 3, EPOCHS}

    def save(path, *arguments, **options):
        if int(path.name[11:19]) in full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        true(path, *arguments, **options)

    monkeypatch.setattr(series.files, "save", save)
    with pytest.warns(UserWarning, match="the run goes on") as caught:
        fitted = run(store=tmp_path, every=1)
    chex.assert_trees_all_equal(fitted, undisturbed)  # the result is worth more than its last checkpoint
    said = [str(warning.message) for warning in caught]
    assert [one.partition(" can't")[0] for one in said] == [f"the checkpoint of epoch {e}" for e in sorted(full)]
    assert said[0].endswith(
        "00000002.safetensors: No space left on device); the run goes on, and the store has epoch 1"
    )
    with pytest.warns(UserWarning, match="epoch 12 can't"):
        chex.assert_trees_all_equal(run(store=tmp_path, every=1), undisturbed)
    full.clear()
    chex.assert_trees_all_equal(run(store=tmp_path, every=1), undisturbed)
    assert Checkpoints(tmp_path).numbers()[-1] == EPOCHS
    full.add(0)
    with pytest.raises(OSError, match="No space left"):  # known before training
        run(store=tmp_path / "new", report=lambda epoch, row: pytest.fail("it has trained"))


def test_two_runs_with_one_store(tmp_path):
    with Checkpoints(tmp_path), pytest.raises(BlockingIOError, match="another process"):
        run(store=tmp_path)


def test_when_it_saves(tmp_path, one_by_one, monkeypatch):
    saved, true = [], series.Checkpoints.save
    monkeypatch.setattr(
        series.Checkpoints, "save", lambda self, number, *more: (saved.append(number), true(self, number, *more))
    )
    run(store=tmp_path / "every", every=5, keep=2)
    assert saved == [0, 5, 10, 12]
    assert Checkpoints(tmp_path / "every").numbers() == [10, 12]
    saved.clear()
    run(store=tmp_path / "minutes", every_minutes=1e-9)
    assert saved == list(range(13))
    saved.clear()
    run(store=tmp_path / "neither")
    assert saved == [0, 12]


def test_every_is_met_by_long_segments_too(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "SEGMENT", 1e9)
    saved, true = [], series.Checkpoints.save
    monkeypatch.setattr(
        series.Checkpoints, "save", lambda self, number, *more: (saved.append(number), true(self, number, *more))
    )
    run(store=tmp_path, every=5)
    assert saved == [0, 5, 10, 12]


def test_progress_on_standard_error(capsys, tmp_path, one_by_one):
    stopped(3, store=tmp_path / "a", progress=True)
    run(store=tmp_path / "a", progress=True)
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith("epoch  1/12  train loss ")
    assert "valid accuracy" in lines[0]
    assert [line.split()[1] for line in lines][-1] == "12/12"
    assert "4/12" in [line.split()[1] for line in lines]  # the first of the second call


BAD = {
    "every": ({"every": 2}, ValueError, "got every=2 without a store"),
    "minutes": ({"every_minutes": 2}, ValueError, "got every_minutes=2 without a store"),
    "every 0": ({"every": 0, "store": "s"}, ValueError, "got every=0; expected at least 1"),
    "every half": ({"every": 0.5, "store": "s"}, TypeError, "got every=0.5; expected a positive integer"),
    "minutes 0": ({"every_minutes": 0, "store": "s"}, ValueError, "got every_minutes=0; expected a number above 0"),
    "minutes text": ({"every_minutes": "1", "store": "s"}, TypeError, "got every_minutes='1'; expected a number of"),
    "minutes NaN": ({"every_minutes": float("nan"), "store": "s"}, ValueError, "expected a number above 0"),
    "keep": ({"keep": 0, "store": "s"}, ValueError, "got keep=0; expected at least 1"),
    "store": ({"store": 3}, TypeError, "got store=3; expected a folder"),
    "report": ({"report": "wandb"}, TypeError, "got report='w'; expected a function"),
    "reports": ({"report": [print, 3]}, TypeError, "got report=3; expected a function"),
    "accept": (
        {"store": "s", "accept_change": "data"},
        ValueError,
        "got accept_change='data'; expected True, or a list",
    ),
    "epochs": ({"epochs": 0, "store": "s"}, ValueError, "got epochs=0"),
}


@pytest.mark.parametrize("options, kind, message", BAD.values(), ids=BAD.keys())
def test_bad_arguments_are_refused_before_anything(options, kind, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with compiles(at_most=0), pytest.raises(kind, match=message):
        run(**options)
    assert os.listdir() == []


def test_a_store_of_something_else(tmp_path):
    Checkpoints(tmp_path).save(3, {"w": np.zeros(2)}, {})
    with pytest.raises(ValueError, match="got a checkpoint of something else; expected those of"):
        run(store=tmp_path)


def test_a_program_in_one_piece(tmp_path):
    def train(key, hp, data):
        return {"loss": jax.random.normal(key) * jnp.sum(data.train[0]) * hp["x"]}

    program = jn.whole(train)({"x": 2.0})
    expected = jn.fit(KEY, program, DATA, epochs=1)
    for _ in range(2):
        chex.assert_trees_all_equal(run(program, epochs=1, store=tmp_path), expected)


OPTIMIZERS = {
    "momentum": jn.optimizers.momentum(0.1),
    "averaged_momentum": averaged_momentum(0.1),
    "nesterov": nesterov(0.1),
    "adagrad": adagrad(0.1),
    "rmsprop": jn.optimizers.rmsprop(0.01),
    "centered_rmsprop": jn.optimizers.centered_rmsprop(0.01),
    "rmsprop_nesterov": jn.optimizers.rmsprop_nesterov(0.01),
    "adadelta": jn.optimizers.adadelta(),
    "adam": jn.optimizers.adam(0.01),
    "adamax": jn.optimizers.adamax(0.01),
    "amsgrad": jn.optimizers.amsgrad(0.01),
    "lookahead": optax.chain(optax.sgd(0.1), lookahead(3)),
    "polyak_average": optax.chain(optax.sgd(0.1), polyak_average()),
    "stochastic_weight_average": optax.chain(optax.sgd(0.1), jn.optimizers.stochastic_weight_average(3, 2)),
    "max_norm": optax.chain(optax.sgd(0.1), max_norm(1.0)),
    "optax.adamw": optax.adamw(0.01),
    "optax.lion": optax.lion(0.001),
    "optax.nadam": optax.nadam(0.01),
    "optax.adafactor": optax.adafactor(0.01),
    "optax.lbfgs": optax.lbfgs(),
    "optax.noisy_sgd": optax.noisy_sgd(0.1, key=jax.random.key(3)),
    "optax.clipped": optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(optax.linear_schedule(0.1, 0.0, 9))),
    "optax.multi_steps": optax.MultiSteps(optax.adam(0.01), 2).gradient_transformation(),
}  # fmt: skip


@pytest.mark.long
@pytest.mark.numerical
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_is_undisturbed_for_every_optimizer(name, tmp_path, one_by_one):
    program = everything(OPTIMIZERS[name])
    expected = jn.fit(KEY, program, DATA, epochs=4)
    for at in (1, 3):
        stopped(at, program=program, store=tmp_path, epochs=4)
    chex.assert_trees_all_equal(run(program, store=tmp_path, epochs=4), expected)
