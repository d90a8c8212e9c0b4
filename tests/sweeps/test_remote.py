"""A study through executors: to the bit what it is in one process, whatever fails; nothing twice, nothing lost."""

import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import DATA, EPOCHS, RATES, WIDTH, assert_same_members, build, swept

import jaxnet as jn
from jaxnet import losses
from jaxnet.checkpoint import load
from jaxnet.sweeps import Study
from jaxnet.sweeps.prepare import prepare, works
from jaxnet.sweeps.remote import AGAIN, execute_remotely
from jaxnet.sweeps.session import Keeper
from jaxnet.sweeps.store import Store
from jaxnet.sweeps.worker import run_chunk


def hidden_build():
    """The build of `studies`, with no address that a worker could import it by."""

    def build(hp):
        net = jn.mlp([4, 3])
        return jn.program(net, losses.softmax_cross_entropy, optax.sgd(hp["lr"]), batch_size=8, patience=2)

    return build


def prepared(build=None, seeds=4):
    """What `sweep` has ready when it asks an executor: 12 members unless told otherwise."""
    return prepare(
        build or hidden_build(), {"lr": RATES}, data=DATA, epochs=EPOCHS, seeds=seeds, folds=(), study_seed=0,
        width=WIDTH, devices=None, rank_by=None, mode=None,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ready():
    return prepared()


@pytest.fixture(scope="module")
def study():
    """The study in this process, on its two devices."""
    return swept()


class Inline:
    """An executor that computes in `submit`; `fails[i]` is what happens to the i-th submission."""

    def __init__(self, fails=()):
        self.fails, self.submitted = list(fails), []

    def submit(self, function, *arguments):
        number = len(self.submitted)
        self.submitted.append(pickle.dumps((function, *arguments)))  # a task has to be picklable
        fail = self.fails[number] if number < len(self.fails) else None
        if fail == "submit":
            raise OSError("the queue is full")
        future = Future()
        if fail == "run":
            future.set_exception(ConnectionError("the worker died"))
        elif fail == "broken":
            future.set_exception(BrokenProcessPool("a process was terminated abruptly"))
        else:
            future.set_result(pickle.loads(pickle.dumps(function(*arguments))))
        return future


def through(ready, executor, chunk=None, keep="all", **others):
    """Position -> what came back of it, values and parameters; each position once."""
    found, everyone = {}, np.ones(len(ready.plan), bool)
    keeper = Keeper(keep, ready.rank_by, ready.mode)
    work = works(ready, everyone, ready.epochs)
    with closing(execute_remotely(ready, work, keeper, executor, chunk=chunk, **others)) as results:
        for one in results:
            for row, position in enumerate(one.positions if one else ()):
                assert position not in found
                found[position] = {name: values[row] for name, values in one.values.items()}, one.kept.get(position)
    return found


def as_study(ready, found):
    """What came back, as the study that it belongs to."""
    study = Study.blank(ready.plan)
    for position, (values, kept) in found.items():
        study.take([position], {n: np.asarray(v)[None] for n, v in values.items()}, {position: kept} if kept else {})
    return study


def test_a_pool_of_spawned_processes(study, tmp_path, monkeypatch):
    """They know nothing of this process, compile by themselves, and can't import the build."""
    monkeypatch.setattr(sys.modules["jaxnet.sweeps.sweep"], "execute", lambda *_: pytest.fail("computed here"))
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        swept(build=hidden_build(), executor=pool, chunk=3, store=tmp_path, seeds=2)
        remote = swept(build=hidden_build(), executor=pool, chunk=3, store=tmp_path)
    assert_same_members(remote, study, at_least=12)
    assert_same_members(Study.open(tmp_path), study, at_least=12)
    assert not list(tmp_path.glob("payload*"))


def test_a_pool_of_threads(ready, study):
    with ThreadPoolExecutor(3) as pool:
        assert_same_members(as_study(ready, through(ready, pool, chunk=2)), study, at_least=12)


@given(st.data())
@settings(max_examples=10)
def test_whatever_fails_now_and_then(ready, study, data):
    chunk = data.draw(st.integers(1, 13))
    fails = data.draw(st.lists(st.sampled_from([None, "run", "submit"]), max_size=30).filter(few_in_a_row))
    executor = Inline(fails)
    found = through(ready, executor, chunk)
    assert_same_members(as_study(ready, found), study, at_least=12)
    assert len(found) == 12
    failed = sum(fail is not None for fail in fails[: len(executor.submitted)])
    assert len(executor.submitted) == -(-12 // chunk) + failed


def few_in_a_row(fails):
    """Whether no task, whichever it is, can fail more often than it is submitted again."""
    return sum(fail is not None for fail in fails) <= AGAIN


def test_a_task_that_always_fails_ends_the_study_and_the_rest_counts(study, tmp_path):
    class Selective(Inline):
        def submit(self, function, task):
            lost = any(job.position == 5 for job in task.jobs)
            self.fails = [None] * len(self.submitted) + ["run" if lost else None]
            return super().submit(function, task)

    executor = Selective()
    with pytest.raises(
        RuntimeError, match=r"a task of 1 members, from position 5 on, failed 4 times.*worker died"
    ) as e:
        swept(executor=executor, chunk=1, store=tmp_path)
    assert isinstance(e.value.__cause__, ConnectionError)
    assert "1 members are unfinished" in str(e.value)
    counts = Counter(job.position for _, task in map(pickle.loads, executor.submitted) for job in task.jobs)
    assert counts == {position: 4 if position == 5 else 1 for position in range(12)}
    assert_same_members(Study.open(tmp_path), study, at_least=11)
    assert_same_members(swept(executor=Inline(), store=tmp_path), study, at_least=12)


def test_a_repeated_task_differs_from_the_first():
    """Dask gives equal arguments the first result again, an error too."""
    executor = Inline(["run"])
    through(prepared(seeds=1), executor)
    first, again = (pickle.loads(content)[1] for content in executor.submitted)
    assert first != again
    assert first._replace(attempt=1) == again


def test_a_broken_pool(study, tmp_path):
    with pytest.raises(RuntimeError, match=r"a worker process died.*6 members are unfinished.*with a new pool"):
        swept(executor=Inline([None, "broken", None, "broken"]), chunk=3, store=tmp_path)
    assert_same_members(Study.open(tmp_path), study, at_least=6)
    assert_same_members(swept(executor=Inline(), store=tmp_path), study, at_least=12)


@pytest.mark.parametrize("context", ["fork", None])
def test_pools_that_fork_are_refused(ready, context, monkeypatch):
    if context is None and multiprocessing.get_context().get_start_method() != "fork":
        pytest.skip("this Python doesn't fork unless asked")
    pool = ProcessPoolExecutor(1, None if context is None else multiprocessing.get_context(context))
    monkeypatch.setattr(pool, "submit", lambda *_: pytest.fail("submitted"))
    with pool, pytest.raises(ValueError, match=r"forks.*ProcessPoolExecutor\(mp_context=.*\"spawn\""):
        through(ready, pool)


def test_what_is_no_executor(ready):
    with ThreadPool(1) as pool, pytest.raises(TypeError, match=r"multiprocessing.pool.ThreadPool.*no submit.*spawn"):
        through(ready, pool)
    with pytest.raises(ValueError, match="chunk"):
        through(ready, Inline(), chunk=0)
    with pytest.raises(TypeError, match=r"can't be sent.*lock.*cloudpickle"):
        through(prepared(guarded_build()), Inline())


def test_without_cloudpickle(monkeypatch, study):
    """A build with an address still goes, any other is refused."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ready = prepared(build)
    assert_same_members(as_study(ready, through(ready, Inline())), study, at_least=12)
    with pytest.raises(TypeError, match=r"can't be sent.*hidden_build.*importable.*cloudpickle installed"):
        through(prepared(), Inline())


def guarded_build():
    lock, build = threading.Lock(), hidden_build()

    def guarded(hp):
        with lock:
            return build(hp)

    return guarded


@pytest.mark.parametrize("error, refused", [(ValueError, ValueError), (TypeError, TypeError)])
def test_what_the_program_refuses_is_not_submitted_again(error, refused):
    here = os.getpid(), threading.get_ident()

    def build(hp):
        if (os.getpid(), threading.get_ident()) != here:
            raise error("got a worker; expected home")
        return hidden_build()(hp)

    ready = prepared(build, seeds=1)
    submitted = []
    with ThreadPoolExecutor(1) as pool:

        class Counting:
            def submit(self, *arguments):
                submitted.append(arguments)
                return pool.submit(*arguments)

        with pytest.raises(refused, match="got a worker; expected home") as caught:
            through(ready, Counting())
    assert len(submitted) == 1
    assert "in build" in caught.value.__notes__[0]


def test_a_worker_of_another_precision(ready, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
        pytest.raises(ValueError, match=r"other bits. precision: 'x64=True .* on the worker, 'x64=False .* asks"),
    ):
        through(ready, pool)


def test_a_worker_of_another_program(ready):
    other = ready.lanes[0].text.replace("stablehlo", "other", 1)
    lanes = tuple(type(lane)(**{**vars(lane), "text": other}) for lane in ready.lanes)
    with pytest.raises(ValueError, match="another program from build on a worker"):
        through(ready._replace(lanes=lanes), Inline())


def test_a_payload_that_is_not_there_or_damaged(ready, tmp_path):
    executor = Inline()
    through(ready, executor)
    task = pickle.loads(executor.submitted[0])[1]._replace(identity="0" * 64)
    with pytest.raises(FileNotFoundError, match="a folder that all workers see"):
        run_chunk(task)
    Path(tmp_path, "p").write_bytes(b"other")
    with pytest.raises(OSError, match="checksum"):
        run_chunk(task._replace(payload=str(tmp_path / "p")))


def test_a_task_is_small(ready):
    """Whatever the data weigh."""
    executor = Inline()
    through(ready, executor)
    assert max(map(len, executor.submitted)) < 400 + 12 * 100
    assert not any(np.asarray(DATA.train[0]).tobytes()[:64] in task for task in executor.submitted)


@pytest.mark.parametrize("keep, chunk", [("best", 1), ("best", 5), (None, 5)])
def test_whose_parameters_come_back(ready, study, keep, chunk):
    """Each member that is the best so far or as good, in the order of arrival, as in one process."""
    found = through(ready, Inline(), chunk=chunk, keep=keep)
    loss, expected = np.inf, set()
    for position, (values, _) in found.items():
        if keep == "best" and values["metrics/valid_loss"] <= loss:
            loss = values["metrics/valid_loss"]
            expected.add(position)
    assert {position for position, (_, kept) in found.items() if kept} == expected
    assert keep is None or study.best("valid_loss").member in expected


def test_closing_cancels_what_has_not_started(ready, tmp_path):
    class Lazy:
        def __init__(self):
            self.futures = []

        def submit(self, *_):
            self.futures.append(Future())
            if len(self.futures) == 1:
                self.futures[0].set_running_or_notify_cancel()
            return self.futures[-1]

    executor = Lazy()
    work = works(ready, np.ones(12, bool), EPOCHS)
    results = execute_remotely(ready, work, Keeper(None, None, "min"), executor, chunk=3, folder=tmp_path)
    began = time.perf_counter()
    assert [next(results) for _ in range(5)] == [None] * 5
    assert 0.3 < time.perf_counter() - began < 3
    assert len(list(tmp_path.glob("payload-*.pkl"))) == 1
    results.close()
    assert [future.cancelled() for future in executor.futures] == [False, True, True, True]
    assert not list(tmp_path.iterdir())


def test_a_run_pauses_on_a_worker_and_goes_on_on_another(ready, study):
    """What an adaptive study asks for: the runs themselves come back, and are taken up again."""
    keeper = Keeper("all", ready.rank_by, ready.mode)
    lanes = {}
    for one in execute_remotely(ready, works(ready, np.ones(12, bool), 2), keeper, Inline(), chunk=5, lanes=True):
        lanes |= one.lanes if one else {}
    assert len(lanes) == 12
    rest = Study.blank(ready.plan)
    work = works(ready, np.ones(12, bool), EPOCHS, lanes)
    for one in execute_remotely(ready, work, Keeper("all", ready.rank_by, ready.mode), Inline(), chunk=7):
        if one:
            rest.take(one.positions, one.values, one.kept)
    assert_same_members(rest, study, at_least=12)


@pytest.mark.long
def test_a_process_of_a_pool_is_killed(study, tmp_path):
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        pids = []

        class Killing:
            def submit(self, function, task):
                if len(pids) == 1:  # behind the first task
                    os.kill(pids[0].result(), signal.SIGKILL)
                pids.append(pool.submit(os.getpid))
                return pool.submit(function, task)

        with pytest.raises(RuntimeError, match=r"a worker process died.*with a new pool"):
            swept(executor=Killing(), chunk=3, store=tmp_path)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert_same_members(swept(executor=pool, store=tmp_path), study, at_least=12)


@pytest.mark.long
def test_dask_one_of_whose_workers_is_killed(tmp_path):
    distributed = pytest.importorskip("distributed")
    seeds = 40
    cluster = distributed.LocalCluster(
        processes=True, n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path / "dask"
    )
    with cluster, distributed.Client(cluster) as client:
        before, killed = set(client.run(os.getpid).values()), []

        class Slow:
            def submit(self, function, *arguments):
                return client.submit(slowly, function, *arguments)

        def kill(progress):
            if progress.done and not killed:
                killed.append((progress.done, before.pop()))
                os.kill(killed[0][1], signal.SIGKILL)

        remote = swept(build=hidden_build(), executor=Slow(), chunk=2, seeds=seeds, store=tmp_path / "s", report=kill)
        client.wait_for_workers(2, timeout=60)
        after = set(client.run(os.getpid).values())
    assert 0 < killed[0][0] < 3 * seeds
    assert killed[0][1] not in after  # it was a worker, and it's gone
    assert before < after  # the other one has lived through it
    assert_same_members(remote, swept(seeds=seeds), at_least=3 * seeds)
    stored = Counter(member for batch in Store(tmp_path / "s").batches() for member in batch.members)
    assert len(stored) == 3 * seeds
    assert set(stored.values()) == {1}


def slowly(function, *arguments):
    time.sleep(0.1)
    return function(*arguments)


@pytest.mark.long
def test_submitit_one_of_whose_jobs_is_killed(study, tmp_path):
    submitit = pytest.importorskip("submitit")
    executor = submitit.AutoExecutor(folder=tmp_path / "jobs", cluster="local")
    executor.update_parameters(timeout_min=5)
    jobs = []

    class Killing:
        def submit(self, *arguments):
            jobs.append(executor.submit(*arguments))
            if len(jobs) == 1:
                os.kill(int(jobs[0].job_id), signal.SIGKILL)
            return jobs[-1]

    remote = swept(build=hidden_build(), executor=Killing(), chunk=6, store=tmp_path / "s")
    assert len(jobs) == 3
    assert jobs[0].exception() is not None
    assert_same_members(remote, study, at_least=12)


@pytest.mark.long
def test_two_processes_of_jax_distributed(study, tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    script = """
import sys, jax
store, port, i = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(i))
from studies import swept
print("finished here:", swept(store=store).finished.sum())
"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", script, str(tmp_path), str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    processes = [subprocess.Popen([*command, str(i)], env=environment, **pipes) for i in range(2)]
    said = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    stored = Counter(member for batch in Store(tmp_path).batches() for member in batch.members)
    assert len(stored) == 12
    assert set(stored.values()) == {1}
    for i in range(2):  # half of the members each
        halves = [load(path)[0]["member"]["seed"] for path in tmp_path.glob(f"parts-{i}/*")]
        assert sum(map(len, halves)) == 6
    assert_same_members(Study.open(tmp_path), study, at_least=12)
