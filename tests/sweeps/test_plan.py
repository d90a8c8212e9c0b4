"""Plans against brute force: who is a member, which members share a program."""

import itertools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxnet as jn
from jaxnet.data.folds import Fold
from jaxnet.sweeps.plan import Cost, described, input_dtype, plan_of, resident_bytes, seeds_from, values_of
from jaxnet.sweeps.space import as_space, configuration_from, grid, static

X64 = jax.config.jax_enable_x64


def fold(n, v):
    return Fold(np.arange(n, dtype=np.int32), np.arange(v, dtype=np.int32))


@given(
    rates=st.lists(st.floats(0.001, 1), min_size=1, max_size=3, unique=True),
    widths=st.lists(st.integers(1, 9), min_size=0, max_size=3, unique=True),
    seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4, unique=True),
    sizes=st.lists(st.sampled_from([(8, 2), (7, 3)]), max_size=4),
)
def test_members_and_buckets(rates, widths, seeds, sizes):
    space = grid({"lr": rates} | ({"width": static(widths)} if widths else {}))
    plan = plan_of(space, seeds, [fold(*size) for size in sizes])
    who = [plan.member(i) for i in range(len(plan))]
    found = [(m.seed, m.fold, configuration_from(m.configuration)) for m in who]
    # seeds slowest, configurations fastest
    assert found == list(itertools.product(seeds, range(len(sizes) or 1), list(space)))
    # buckets share out the members; within one, static values and fold sizes are equal, between two they aren't
    assert sorted(np.concatenate([b.members for b in plan.buckets])) == list(range(len(plan)))
    kinds = []
    for bucket in plan.buckets:
        here = {(found[i][2].get("width"), sizes[found[i][1]] if sizes else None) for i in bucket.members}
        assert here == {(bucket.static.get("width"), bucket.sizes)}
        assert {found[i][1] for i in bucket.members} == (set(bucket.folds) or {0})
        inputs = values_of(plan, bucket, bucket.members)
        assert list(inputs) == ["lr"]
        np.testing.assert_array_equal(
            inputs["lr"], np.array([found[i][2]["lr"] for i in bucket.members], "float64" if X64 else "float32")
        )
        kinds += here
    assert len(set(kinds)) == len(kinds) == max(len(widths), 1) * max(len(set(sizes)), 1)
    assert len({bucket.name for bucket in plan.buckets}) == len(plan.buckets)


def test_configurations_that_lack_a_name_are_a_bucket_of_their_own():
    plan = plan_of(as_space([{"lr": 1}, {"lr": 2, "momentum": 0.5}, {"lr": 3}]), [5])
    assert [(tuple(b.traced), b.members.tolist()) for b in plan.buckets] == [
        (("lr",), [0, 2]),
        (("lr", "momentum"), [1]),
    ]


def test_the_name_of_a_bucket_does_not_depend_on_its_members():
    """Since programs are compared by it when a study grows."""
    small = plan_of(grid({"lr": [0.1], "width": static([8])}), [0])
    large = plan_of(grid({"lr": [1.0, 0.1], "width": static([4, 8])}), range(9))
    assert small.buckets[0].name in {b.name for b in large.buckets}


def test_inputs_have_the_dtypes_of_jax():
    assert [input_dtype(v) for v in (True, 1, 1.0)] == [np.bool_, np.int32, np.float64 if X64 else np.float32]
    plan = plan_of(grid({"flag": [True, False], "size": [3], "lr": [1, 0.5]}), [0])
    inputs = values_of(plan, plan.buckets[0], [3, 0])
    assert {n: v.tolist() for n, v in inputs.items()} == {"flag": [False, True], "size": [3, 3], "lr": [0.5, 1.0]}
    assert [v.dtype for v in inputs.values()] == [np.bool_, np.int32, np.float64 if X64 else np.float32]


def test_seeds():
    assert seeds_from(4) == (0, 1, 2, 3)
    assert seeds_from(np.int64(2)) == (0, 1)
    assert seeds_from(range(3, 9, 2)) == (3, 5, 7)
    assert seeds_from(np.array([7, 2**32 - 1])) == (7, 2**32 - 1)
    assert {type(s) for s in seeds_from(np.array([7, 3]))} == {int}


@pytest.mark.parametrize(
    "bad", [0, -1, [], [1, 1], [-1], [2**32], True, 1.5, "3", None, [0.0], [True], {1, 2}, np.zeros((2, 2), int)]
)
def test_seeds_that_are_refused(bad):
    with pytest.raises((TypeError, ValueError), match=r"got .*; expected"):
        seeds_from(bad)


def test_what_a_person_reads():
    space = grid({"lr": [0.1, 1.0, 2.0], "width": static([32, 64]), "decay": 0.5})
    plan = plan_of(space, range(1000), [fold(8, 2), fold(8, 2), fold(7, 3)])
    text = described(plan, Cost(16, 2, 8, 3_000_000, 100.0), done=1234)
    assert text.splitlines() == [
        "18,000 members: 6 configurations (lr: 3, width: 2 static, decay: 1) × 3 folds × 1,000 seeds",
        "1,234 of them are in the store already",
        "4 buckets (compiled programs), 16 side by side on each of 2 devices: 8 compiles",
        "folds of 2 sizes (training + validation: 7 + 3, 8 + 2), each a bucket of its own",
        "memory about 3 MB, time about 100 s after compiling",
    ]
    bare = plan_of(as_space([{}]), [0])
    assert described(bare, Cost(1, 1, 1, 0, None)).splitlines() == [
        "1 member: 1 configuration × 1 seed",
        "1 bucket (compiled program), 1 side by side on 1 device: 1 compile",
        "memory about 0 MB",
    ]
    assert "time about 50 min after" in described(bare, Cost(1, 1, 1, 0, 3000.0))
    assert "time about 2.5 h after" in described(bare, Cost(1, 1, 1, 0, 9000.0))


def test_bytes_of_a_tree():
    tree = {"a": np.zeros((2, 3), "float32"), "b": [jax.ShapeDtypeStruct((5,), "int8"), np.zeros((), "float64")]}
    assert resident_bytes(tree) == 24 + 5 + 8
    assert resident_bytes(jn.Data((np.zeros((3, 2), "float32"), np.zeros(3, "int32")))) == 36
