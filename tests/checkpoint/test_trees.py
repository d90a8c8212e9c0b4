"""Any pytree of arrays comes back in its own structure, to the bit; what doesn't fit is listed at once."""

import dataclasses
import subprocess
import sys
import textwrap
import tracemalloc
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st

from jaxnet import checkpoint
from jaxnet.checkpoint.format import DTYPES


class Pair(NamedTuple):
    first: Any
    second: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Record:
    w: Any
    step: Any


@jax.tree_util.register_pytree_node_class
class Plain:
    """Registered without names for its children."""

    def __init__(self, *children):
        self.children = children

    def tree_flatten(self):
        return self.children, None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def array(dtype, shape, seed):
    """Any bits, so NaNs with payloads, infinities, -0.0 and subnormals too."""
    kinds = {"bool": np.bool_}
    if dtype in kinds:
        return np.random.default_rng(seed).integers(0, 2, shape).astype(bool)
    raw = np.random.default_rng(seed).integers(0, 256, (*shape, DTYPES[dtype].itemsize), np.uint8)
    return np.ascontiguousarray(raw).view(DTYPES[dtype]).reshape(shape)


arrays = st.builds(
    array,
    st.sampled_from(sorted(DTYPES)),
    st.sampled_from([(), (1,), (0,), (3, 2), (2, 0, 1), (5,)]),
    st.integers(0, 99),
)
keys = st.builds(
    lambda impl, seed, many: jax.random.split(jax.random.key(seed, impl=impl), many) if many else jax.random.key(seed),
    st.sampled_from(["threefry2x32", "rbg"]), st.integers(0, 9), st.sampled_from([0, 2]),
)  # fmt: skip
numbers = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats()
names = st.sampled_from(["w", "", "a/b", "~", "~1", "0", "größe", "a\n"])


def grown(trees):
    return (
        st.dictionaries(names, trees, max_size=3)
        | st.dictionaries(st.integers(0, 12), trees, max_size=3)
        | st.lists(trees, max_size=3)
        | st.lists(trees, max_size=2).map(tuple)
        | st.builds(Pair, trees, trees)
        | st.builds(Record, trees, trees)
        | st.builds(Plain, trees)
    )


def bits(leaf):
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return "key", str(jax.random.key_impl(leaf)), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    return type(leaf) if isinstance(leaf, (bool, int, float)) else None, np.asarray(leaf).dtype, np.shape(leaf), (
        np.asarray(leaf).tobytes()
    )  # fmt: skip


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    assert list(map(bits, jax.tree.leaves(a))) == list(map(bits, jax.tree.leaves(b)))


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@examples(60)
@given(
    tree=st.recursive(st.none() | arrays | keys | numbers, grown, max_leaves=8).filter(lambda tree: tree is not None)
)
def test_every_tree_comes_back(tmp_path_factory, tree):
    path, tree = tmp_path_factory.mktemp("trees") / "a.safetensors", jax.tree.map(lambda leaf: leaf, tree)
    checkpoint.save(path, tree)
    assert_same(checkpoint.load(path, like=tree)[0], tree)
    shapes = jax.tree.map(
        lambda leaf: leaf if isinstance(leaf, (bool, int, float)) else jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
        tree,
    )
    assert_same(checkpoint.load(path, like=shapes)[0], tree)
    first = path.read_bytes()
    checkpoint.save(path, checkpoint.load(path, like=tree)[0])
    assert path.read_bytes() == first


@pytest.mark.numerical
def test_a_state_of_training(tmp_path):
    params = {"dense_0": {"w": jnp.ones((3, 2)), "b": jnp.zeros(2, jnp.bfloat16)}, "dense_1": {}}
    optimizer = optax.chain(optax.clip(1.0), optax.adam(optax.linear_schedule(0.1, 0.0, 9)))
    state = {"params": params, "opt_state": optimizer.init(params), "key": jax.random.key(3), "best": (None, [])}
    checkpoint.save(tmp_path / "a", state, {"lr": 0.1})
    assert_same(checkpoint.load(tmp_path / "a", like=state)[0], state)
    tree, settings = checkpoint.load(tmp_path / "a")
    assert settings == {"lr": 0.1}
    assert tree["params"]["dense_1"] == {}
    assert tree["best"] == {"0": None, "1": []}
    assert tree["params"]["dense_0"]["b"].dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(tree["opt_state"]["1"]["0"]["mu"]["dense_0"]["w"], np.zeros((3, 2)))
    assert tree["key"].tolist() == [0, 3]
    assert isinstance(checkpoint.load(tmp_path / "a", like=state)[0]["opt_state"][1][0], optax.ScaleByAdamState)


def test_one_array_is_a_tree(tmp_path):
    checkpoint.save(tmp_path / "a", np.arange(3))
    assert checkpoint.load(tmp_path / "a", like=np.zeros(3, int))[0].tolist() == [0, 1, 2]
    assert checkpoint.load(tmp_path / "a")[0][""].tolist() == [0, 1, 2]


def test_all_that_does_not_fit_is_listed(tmp_path):
    key = jax.random.key(0)
    checkpoint.save(tmp_path / "a", {"w": np.zeros((2, 3)), "b": np.zeros(2), "n": 1, "k": key, "old": [np.zeros(1)]})
    like = {"w": np.zeros((3, 2)), "b": np.zeros(2, np.float32), "n": 1.0, "k": np.zeros(2, np.uint32), "new": 3}
    with pytest.raises(checkpoint.CheckpointError) as caught:
        checkpoint.load(tmp_path / "a", like=like)
    said = str(caught.value)
    for words in (
        f"{tmp_path / 'a'}: ", "w: got float64[2,3], expected float64[3,2]", "b: got float64[2], expected float32[2]",
        "n: got int64[], expected float64[]", "k: got key<fry>[], expected uint32[2]", "Missing: new",
        "Too many: old/0",
    ):  # fmt: skip
        assert words in said
    other = {"k": jax.random.key(0, impl="rbg")}
    checkpoint.save(tmp_path / "b", {"k": key})
    with pytest.raises(checkpoint.CheckpointError, match=r"k: got key<fry>\[\], expected key<rbg>\[\]"):
        checkpoint.load(tmp_path / "b", like=other)
    with pytest.raises(TypeError, match=r"like: k: got a str"):
        checkpoint.load(tmp_path / "b", like={"k": "text"})


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory otherwise")
def test_memory_holds_the_tree_once(tmp_path):
    """Saving 200 MB of JAX's arrays takes less than 40 MB beside them; loading them, less than 40 MB beside them."""
    script = """
        import re, sys
        import jax, numpy as np
        from jaxnet import checkpoint
        def peak():
            return int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1]) / 1000
        like = {f"dense_{i}": jax.ShapeDtypeStruct((6_250_000,), "float32") for i in range(8)}
        if sys.argv[2] == "save":
            tree = {name: jax.device_put(np.ones(6_250_000, "float32")) for name in like}
            checkpoint.save(sys.argv[1] + "0", {"w": np.ones(9)})
            before = peak()
            checkpoint.save(sys.argv[1], tree)
        else:
            jax.random.key(0)
            before = peak()
            tree, _ = checkpoint.load(sys.argv[1], like=like)
            assert float(tree["dense_7"][-1]) == 1
        print(peak() - before)
        """
    for what, at_most in (("save", 40), ("load", 240)):
        run = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "a"), what]
        assert float(subprocess.run(run, capture_output=True, text=True, check=True).stdout) < at_most


def test_of_what_must_be_copied_one_tensor_is_held(tmp_path):
    """Of 8 transposed matrices of 8 MB each, one copy at a time."""
    tree = [np.ones((1000, 1000)).T for _ in range(8)]
    tracemalloc.start()
    checkpoint.save(tmp_path / "a", tree)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 8e6 < peak < 10e6
    assert (tmp_path / "a").stat().st_size > 64e6
