"""The comparator's numbers against brute force, and the tolerance's against sums."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.testing import compare_gradients, compare_trees, tolerance


def test_every_number_of_a_row():
    expected = np.array([[1.0, -8.0], [0.5, 0.0]], np.float32)
    tested = expected + np.array([[0, 2.0**-10], [2.0**-12, 2.0**-20]], np.float32)
    (row,) = compare_trees({"w": jnp.asarray(tested)}, {"w": jnp.asarray(expected)}).leaves
    assert (row.path, row.shape, row.at, row.verdict) == ("w", (2, 2), (0, 1), "WRONG")
    assert (row.tested, row.expected) == (-8 + 2.0**-10, -8)
    assert row.absolute == 2.0**-10
    assert row.scale == 8
    assert row.error == 2.0**-13
    assert row.relative == np.inf  # 2^-20 where 0 was expected
    assert row.ulp == max(
        float(abs(t - e) / np.spacing(max(abs(t), abs(e))))
        for t, e in zip(tested.flat, expected.flat, strict=True)
        if t != e
    )
    assert row.bound == tolerance("float32")


def test_the_scale_of_a_small_leaf_is_that_of_its_tree():
    def compared(error):
        return compare_trees(
            {"a": jnp.array([1.0]), "b": jnp.array([1e-9 + error])}, {"a": jnp.array([1.0]), "b": jnp.array([1e-9])}
        )

    assert compared(1e-9)
    assert not compared(1e-7)
    assert compared(1e-9).leaves[1].scale == pytest.approx(1e-3)


def test_rounding_widens_the_scale_by_what_it_moves():
    expected = {"w": jnp.array([1e-3])}
    tested = {"w": jnp.array([1e-3 + 1e-6])}
    assert not compare_trees(tested, expected)
    moved = {"w": jnp.array([1e-3 + 1e-7])}  # ten units of 10⁻³ ε and more: the digits weren't there
    assert compare_trees(tested, expected, near=[expected, moved])


def test_trees_shapes_and_dtypes():
    one = {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match="got the tree"):
        compare_trees({"v": jnp.ones(2)}, one)
    with pytest.raises(ValueError, match=r"w: got shape \(3,\); expected \(2,\)"):
        compare_trees({"w": jnp.ones(3)}, one)
    low = compare_trees({"w": jnp.ones(2, jnp.bfloat16) * 1.01}, one)
    assert low.leaves[0].bound == tolerance("bfloat16")  # of the coarser side
    assert low
    integers = {"n": jnp.array([1, 2])}
    assert compare_trees(integers, integers)
    assert not compare_trees({"n": jnp.array([1, 3])}, integers)
    empty = {"w": jnp.ones((0, 3)), "none": None}
    assert compare_trees(empty, empty).verdict == "ok"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_wrong(bad):
    report = compare_trees({"w": jnp.array([1.0, bad])}, {"w": jnp.array([1.0, 2.0])})
    assert not report
    assert report.leaves[0].at == (1,)
    assert not compare_trees({"w": jnp.array([bad])}, {"w": jnp.array([bad])})


def test_the_table_says_which_side_is_which():
    report = compare_trees(
        {"a": {"w": jnp.array([1.0, 3.0])}, "b": jnp.ones(1)}, {"a": {"w": jnp.array([1.0, 2.0])}, "b": jnp.ones(1)}
    )
    head, first, second = str(report).splitlines()
    assert head.split()[-5:] == ["relative", "ulp", "at", "tested", "expected"]
    assert first.split()[0] == "a.w"
    assert first.split()[-3:] == ["3", "2", "WRONG"]
    assert second.split()[-1] == "ok"
    assert "a.w at [1]: 3, expected 2" in report.summary


def test_gradient_functions_with_long_sums():
    """fan_in comes from the batch and the weights: √(1024/256) = 2."""

    def gradient(params, state, batch, *, key=None, train=False):
        return (jnp.sum(batch[0] @ params["w"]), state), {"w": batch[0].sum(0)[:, None]}

    report = compare_gradients(gradient, gradient, {"w": jnp.ones((1024, 1))}, {}, (jnp.ones((3, 1024)),))
    assert [leaf.bound / tolerance("float32") for leaf in report.leaves] == [2, 2]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_tolerance_covers_sums_of_its_length(dtype):
    """The rounding of a running sum of n terms, relative to the sum of their sizes, stays a tenth of it."""
    rng = np.random.default_rng(0)
    for n in (16, 256, 4096):
        terms = rng.normal(size=(50, n)).astype(dtype)
        running = terms.cumsum(axis=1, dtype=dtype)[:, -1].astype(float)
        exact = terms.astype(float).sum(axis=1)
        error = np.abs(running - exact).max() / np.abs(terms.astype(float)).sum(axis=1).max()
        assert error < tolerance(dtype, n) / 2


def test_tolerance_refuses():
    with pytest.raises(TypeError, match="got dtype int32; expected a floating one"):
        tolerance("int32")
    with pytest.raises(ValueError, match="got fan_in=0"):
        tolerance("float32", 0)
    assert tolerance("float64") == 1e-12
    assert tolerance("bfloat16") == 2.0**-4
