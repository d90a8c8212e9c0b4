"""A small study that the tests of `jaxnet.sweeps` share, and how two studies are compared: by member, to the bit."""

from contextlib import contextmanager

import jax
import numpy as np
import optax

import jaxnet as jn
from jaxnet import losses
from jaxnet.sweeps.study import Study

DTYPE = np.dtype("float64" if jax.config.jax_enable_x64 else "float32")
EPOCHS, WIDTH = 6, 4
RATES = [0.02, 0.3, 1.0]
SEEDS = 8  # of the study that `sweeps/child.py` runs


def labelled(n, seed):
    """n points of three noisy classes in four dimensions."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return (rng.normal(size=(n, 4)) + np.eye(3, 4)[y]).astype(DTYPE), y.astype(np.int32)


DATA = jn.Data(labelled(30, 0), labelled(20, 1))


def build(hp):
    """Whether it stops early depends on the learning rate and the seed."""
    return jn.program(jn.mlp([4, 3]), losses.softmax_cross_entropy, optax.sgd(hp["lr"]), batch_size=8, patience=2)


def swept(space=None, *, build=build, data=DATA, epochs=EPOCHS, seeds=4, width=WIDTH, keep="all", **others):
    """`jn.sweep` with this module's study unless told otherwise."""
    space = {"lr": RATES} if space is None else space
    return jn.sweep(build, space, data=data, epochs=epochs, seeds=seeds, width=width, keep=keep, quiet=True, **others)


def leaves(study: Study, i: int) -> dict[str, np.ndarray]:
    """All that is known of one member, by name."""
    return {name: values[i] for name, values in study.values.items()} | flat(study.kept.get(i, {}))


def flat(tree) -> dict[str, np.ndarray]:
    """The arrays of a tree by their paths."""
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def members(study: Study) -> dict:
    """Member -> its place, of those that have finished."""
    return {study.plan.member(i): i for i in range(len(study)) if study.finished[i]}


def assert_same_members(one: Study, other: Study, *, at_least: int) -> None:
    """Members that both have are equal in every bit: histories, metrics, parameters; there are `at_least` of them."""
    left, right = members(one), members(other)
    common = [who for who in left if who in right]
    assert len(common) >= at_least, f"{len(common)} members in common"
    for who in common:
        assert_same(leaves(one, left[who]), leaves(other, right[who]), str(who))


def assert_same(one: dict, other: dict, what: str = "") -> None:
    """Two dicts of arrays, equal in every bit."""
    assert one.keys() == other.keys(), f"{what}: {one.keys() ^ other.keys()}"
    for name in one:
        a, b = np.asarray(one[name]), np.asarray(other[name])
        assert (a.dtype, a.shape) == (b.dtype, b.shape), f"{what} {name}"
        assert np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), f"{what} {name}: {a} and {b}"


@contextmanager
def compiles():
    """Collects an item for each program that XLA compiles, or takes from its cache, meanwhile."""
    found: list[str] = []

    def listener(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
