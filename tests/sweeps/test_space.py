"""Spaces: their algebra against brute force, draws against statistics, the key as an identity."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jaxnet.sweeps.space import (
    RESERVED,
    Space,
    as_space,
    configuration_from,
    grid,
    integers,
    key_of,
    lin_space,
    log_space,
    log_uniform,
    random_draws,
    sobol_draws,
    split_static,
    static,
    uniform,
    when,
    zipped,
)

names = st.sampled_from(["lr", "decay", "dropout", "width", "depth", "β2", "_x"])
finite = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | finite | st.text(max_size=5)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)
configurations = st.dictionaries(names, values, max_size=4)
# Axes of every traced type, none of whose values come twice.
traced_axes = (
    st.lists(st.integers(-3, 3), min_size=1, max_size=3, unique=True)
    | st.lists(st.sampled_from([0.5, 1.5, -2.25]), min_size=1, max_size=3, unique=True)
    | st.lists(st.booleans(), min_size=1, max_size=2, unique=True)
)
static_axes = st.lists(st.sampled_from(["relu", None, (1, 2), 7]), min_size=1, max_size=3, unique=True).map(static)
dicts_of_axes = st.dictionaries(names, traced_axes | static_axes, max_size=3)


def typed(value):
    """The value with the types that == doesn't see (1 == 1.0 == True, also inside tuples)."""
    if isinstance(value, tuple):
        return ("tuple", *map(typed, value))
    return type(value).__name__, (0.0 if value == 0 else value)  # -0.0 is 0.0


def same(left, right):
    return [{n: typed(v) for n, v in c.items()} for c in left] == [{n: typed(v) for n, v in c.items()} for c in right]


# The key of a configuration.


@settings(max_examples=200)
@given(configurations, st.randoms())
def test_a_key_reads_back_and_does_not_depend_on_the_order_of_names(configuration, random):
    items = list(configuration.items())
    random.shuffle(items)
    assert key_of(dict(items)) == key_of(configuration)
    assert same([configuration_from(key_of(configuration))], [configuration])
    assert list(json.loads(key_of(configuration))) == sorted(configuration)


close = st.sampled_from([0, 0.0, False, 1, 1.0, True, "1", None, (), (1,), (1.0,), (True,), ((1,),), 0.1, 0.1 + 2**-56])


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from("ab"), close), st.dictionaries(st.sampled_from("ab"), close))
def test_keys_are_equal_exactly_if_the_configurations_are(left, right):
    assert (key_of(left) == key_of(right)) == same([left], [right])


def test_the_text_of_a_key():
    assert (
        key_of({"z": (1, (2.0, None)), "lr": 0.1, "on": True, "act": "é", "n": np.int64(3), "zero": -0.0})
        == '{"act": "\\u00e9", "lr": 0.1, "n": 3, "on": true, "z": [1, [2.0, null]], "zero": 0.0}'
    )
    for text in ("[1]", "1", "{", '{"a": NaN}', '{"a": 1e400}'):
        with pytest.raises(ValueError):
            configuration_from(text)
    for value in ({"b": 1}, {1, 2}, 1j, object(), np.datetime64("2020-01-01"), uniform(0, 1), [1, {}]):
        with pytest.raises(TypeError, match="a: got a value of type"):
            key_of({"a": value})


# Numbers between two ends.

ends = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).filter(lambda pair: pair[1] - pair[0] > 1e-3)


@given(ends, st.integers(2, 40))
def test_lin_space_is_numpys_with_exact_ends(pair, n):
    points = lin_space(*pair, n)
    assert len(points) == n
    assert (points[0], points[-1]) == pair
    np.testing.assert_allclose(points, np.linspace(*pair, n), rtol=1e-12, atol=1e-9)


@given(st.floats(-30, 30), st.floats(0.1, 30), st.integers(2, 40))
def test_log_space_has_equal_ratios_and_exact_ends(exponent, decades, n):
    low, high = 10.0**exponent, 10.0 ** (exponent + decades)
    points = log_space(low, high, n)
    assert len(points) == n
    assert (points[0], points[-1]) == (low, high)
    np.testing.assert_allclose(np.diff(np.log(points)), math.log(high / low) / (n - 1), rtol=1e-9)


def test_spaced_numbers_are_round_where_they_can_be():
    assert lin_space(0, 1, 11) == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # numpy: 0.30000000000000004
    assert lin_space(0.2, 0.8, 4) == (0.2, 0.4, 0.6, 0.8)  # from the ends' binary values: 0.6000000000000001
    assert log_space(1e-4, 1, 5) == (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    assert lin_space(2, 3, 1) == (2.0,)
    assert log_space(2, 3, 1) == (2.0,)
    assert all(type(point) is float for point in (*lin_space(0, 4, 3), *log_space(1, 4, 3)))


# Grids.


def brute_grid(axes):
    lists = [given.values if hasattr(given, "values") else given for given in axes.values()]
    return [dict(zip(axes, row, strict=True)) for row in itertools.product(*lists)]


@given(dicts_of_axes)
def test_a_grid_is_the_cartesian_product(axes):
    space = grid(axes)
    assert same(space, brute_grid(axes))
    assert space.names == tuple(axes)
    assert space.static == {name for name, given in axes.items() if not isinstance(given, list)}
    assert len({key_of(c) for c in space}) == len(space)


@pytest.mark.parametrize(
    "given, expected",
    [
        (0.1, [0.1]),
        (True, [True]),
        ([1, 0.5], [1.0, 0.5]),
        ([1, 2], [1, 2]),
        (range(3), [0, 1, 2]),
        (np.arange(2), [0, 1]),
        (np.array([1.5, -0.0]), [1.5, 0.0]),
        (np.array([True, False]), [True, False]),
        ((np.float32(0.5), np.int8(2)), [0.5, 2.0]),
        (np.float64(0.25), [0.25]),
        (static(8), [8]),
        (static("relu"), ["relu"]),
        (static(None), [None]),
        (static([[32, 16], (8,)]), [(32, 16), (8,)]),
        (static(np.array([3, 4])), [3, 4]),
        (static([1, 2.5, "x"]), [1.0, 2.5, "x"]),
        (static([2**40]), [2**40]),
        (static([(1,), (1.0,), (True,)]), [(1,), (1.0,), (True,)]),
    ],
    ids=repr,
)
def test_values_become_plain_ones_of_one_type(given, expected):
    assert same(grid({"a": given}), [{"a": value} for value in expected])
    assert not str(grid({"a": given})[0]).count("-0.0")


def test_jax_arrays_are_values_too():
    import jax.numpy as jnp

    assert same(grid({"a": jnp.array([1, 2]), "b": jnp.float32(0.5)}), [{"a": 1, "b": 0.5}, {"a": 2, "b": 0.5}])


INT32 = "expected integers of 32 bits"
MARK = r"jn.static\(\[...\]\)"


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: grid({"a": []}), ValueError, "a: got no values; expected at least one"),
        (lambda: grid({"a": static([])}), ValueError, "static: got no values"),
        (lambda: grid({"a": [0.1, 0.1]}), ValueError, "a: got 0.1 twice"),
        (lambda: grid({"a": [1, 1.0]}), ValueError, "a: got 1.0 twice"),
        (lambda: grid({"a": [0.0, -0.0]}), ValueError, "a: got 0.0 twice"),
        (lambda: grid({"a": static([(1,), [1]])}), ValueError, "twice"),
        (lambda: random_draws({"a": [1, 1]}, 2), ValueError, "a: got 1 twice"),
        (lambda: grid({"a": [True, 1]}), TypeError, "a: got booleans mixed with numbers"),
        (lambda: grid({"a": static([False, 0.5])}), TypeError, "booleans mixed"),
        (lambda: grid({"a": math.nan}), ValueError, "a: got nan; expected finite"),
        (lambda: grid({"a": [math.inf]}), ValueError, "a: got inf"),
        (lambda: grid({"a": static([(1, math.nan)])}), ValueError, "static: got nan"),
        (lambda: grid({"a": [2**31]}), ValueError, INT32),
        (lambda: grid({"a": -(2**31) - 1}), ValueError, INT32),
        (lambda: grid({"a": [2**60, 0.5]}), ValueError, "which a float holds"),
        (lambda: grid({"a": "relu"}), TypeError, f"a: got 'relu'; .* {MARK}"),
        (lambda: grid({"a": [0.1, None]}), TypeError, f"a: got None; .* {MARK}"),
        (lambda: grid({"a": [(1, 2)]}), TypeError, rf"a: got \(1, 2\); .* {MARK}"),
        (lambda: grid({"a": np.eye(2)}), ValueError, r"a: got an array of shape \(2, 2\)"),
        (lambda: grid({"a": {1, 2}}), TypeError, "a: got a value of type set"),
        (lambda: grid({"a": (x for x in [1])}), TypeError, "type generator"),
        (lambda: grid({"a": [static(1), 2]}), TypeError, "type Static"),
        (lambda: grid({"a": uniform(0, 1)}), TypeError, r"a: got uniform\(0.0, 1.0\) in grid.*random_draws"),
        (lambda: grid({"a": 1, "b": when(lambda c: True, integers(0, 1))}), TypeError, "in grid"),
        (lambda: grid([1]), TypeError, "grid: got axes of type list; expected a dict"),
        (lambda: grid({1: [1]}), TypeError, "got the name 1"),
        (lambda: grid({"learning rate": [1]}), ValueError, "got the name 'learning rate'"),
        (lambda: zipped({"a": [1, 2], "b": [1, 2, 3]}), ValueError, "zipped: got 2 of a, 3 of b"),
        (lambda: zipped({}), ValueError, "zipped: got no axis"),
        (lambda: zipped({"a": [1, 1], "b": [2, 2]}), ValueError, "twice, at 0 and 1"),
        (lambda: zipped({"a": [1], "b": when(bool, [2])}), TypeError, r"b: got a when in zipped"),
        (lambda: zipped({"a": uniform(0, 1)}), TypeError, "in zipped"),
        (lambda: lin_space(0, 1, 0), ValueError, "lin_space: got n=0; expected at least 1"),
        (lambda: lin_space(0, 1, 2.0), TypeError, "lin_space: got n=2.0"),
        (lambda: lin_space(1, 1, 2), ValueError, "lin_space: got low=1, high=1; expected low < high"),
        (lambda: lin_space("a", 1, 2), TypeError, "lin_space: got low='a'"),
        (lambda: log_space(0, 1, 2), ValueError, "log_space: got low=0; expected a number above 0"),
        (lambda: log_space(1, math.inf, 2), ValueError, "log_space: high: got inf"),
        (lambda: uniform(False, 1), TypeError, "uniform: got low=False"),
        (lambda: log_uniform(-1, 1), ValueError, "log_uniform: got low=-1"),
        (lambda: integers(0.0, 3), TypeError, "integers: got low=0.0"),
        (lambda: integers(0, 2**31), ValueError, INT32),
        (lambda: integers(3, 2), ValueError, "integers: got low=3, high=2"),
        (lambda: static(integers(1, 2)), TypeError, r"static: got integers\(1, 2\).*range"),
        (lambda: static(when(bool, 1)), TypeError, "static: got When"),
        (lambda: when(True, [1]), TypeError, "when: got the condition True"),
        (lambda: when(bool, when(bool, 1)), TypeError, "join the two with `and`"),
        (lambda: random_draws({"a": uniform(0, 1)}, 0), ValueError, "random_draws: got draws=0; expected at least 1"),
        (lambda: sobol_draws({"a": uniform(0, 1)}, 1, seed=-1), ValueError, "sobol_draws: got seed=-1"),
        (lambda: as_space(3), TypeError, "got a space of type int"),
        (lambda: as_space([{"a": 1}, 2]), TypeError, "got a space of type list"),
        (lambda: as_space([]), ValueError, "got no configurations"),
        (lambda: as_space([{"a": 1}, {"a": 1}]), ValueError, "twice, at 0 and 1"),
        (lambda: as_space([{"a": 1}, {"a": static(2)}]), ValueError, "a: got static values in some"),
        (lambda: as_space([{"a": static([1, 2])}]), ValueError, "expected one value"),
        (lambda: as_space([{"a": "x"}]), TypeError, MARK),
        (lambda: as_space([{"a": True}, {"a": 1}]), TypeError, "booleans mixed"),
        (lambda: grid({"a": 1}) * grid({"a": 2}), ValueError, "got the names a on both sides"),
        (lambda: grid({"a": 1}) * {"b": 2}, TypeError, r"got a dict after \*"),
        (lambda: grid({"a": 1}) + grid({"a": static(2)}), ValueError, "a: got static values on one side"),
        (lambda: grid({"a": 1}) + grid({"a": True}), TypeError, "booleans mixed"),
        (lambda: grid({"a": 1}).where(lambda c: False), ValueError, "where: got a predicate that is false of all 1"),
        (lambda: grid({"a": 1}).where(lambda c: c["b"]), ValueError, "where: got a condition that reads 'b'"),
        (lambda: grid({"a": when(lambda c: c["b"], 1), "b": 1}), ValueError, "a: got a condition that reads 'b'"),
    ],
)
def test_what_is_refused_and_how(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("name", RESERVED)
def test_columns_of_the_table_are_no_names(name):
    for make in (grid, zipped, lambda axes: random_draws(axes, 1), lambda axes: as_space([{name: 1}])):
        with pytest.raises(ValueError, match=f"got the name '{name}', a column"):
            make({name: [1]})


def test_an_error_inside_a_condition_stays_its_own():
    with pytest.raises(KeyError, match="rate"):
        grid({"rate": 1}).where(lambda c: {}["rate"])  # a name that the configuration has: not its lack
    with pytest.raises(ZeroDivisionError):
        grid({"a": 0, "b": when(lambda c: 1 / c["a"], [1])})


# Conditions, zips, the algebra.


def test_a_conditional_axis_exists_where_its_condition_holds():
    space = grid(
        {
            "rule": static(["adam", "sgd"]),
            "lr": [0.1, 1.0],
            "momentum": when(lambda c: c["rule"] == "sgd" and c["lr"] < 1, [0.0, 0.9]),
            "nesterov": when(lambda c: c.get("momentum", 0) > 0, static([False, True])),
        }
    )
    expected = []
    for rule, lr in itertools.product(["adam", "sgd"], [0.1, 1.0]):
        if rule == "sgd" and lr < 1:
            expected.append({"rule": rule, "lr": lr, "momentum": 0.0})
            expected += [{"rule": rule, "lr": lr, "momentum": 0.9, "nesterov": on} for on in (False, True)]
        else:
            expected.append({"rule": rule, "lr": lr})
    assert same(space, expected)
    assert space.names == ("rule", "lr", "momentum", "nesterov")
    assert space.static == {"rule", "nesterov"}
    assert space.where(lambda c: c["rule"] == "adam").static == {"rule"}


def test_a_condition_cannot_change_the_configuration():
    assert same(grid({"a": [1, 2], "b": when(lambda c: c.pop("a"), 1)}), [{"a": 1, "b": 1}, {"a": 2, "b": 1}])


@given(st.lists(st.tuples(st.integers(-5, 5), st.sampled_from([0.5, 1.5])), min_size=1, max_size=6, unique=True))
def test_zipped_axes_walk_together(rows):
    space = zipped({"a": static([a for a, _ in rows]), "b": np.array([b for _, b in rows])})
    assert same(space, [{"a": a, "b": b} for a, b in rows])
    assert space.static == {"a"}


@given(dicts_of_axes, dicts_of_axes)
def test_a_product_of_grids_is_the_grid_of_both(left, right):
    right = {name: given for name, given in right.items() if name not in left}
    product, both = grid(left) * grid(right), grid(left | right)
    assert same(product, both)
    assert (product.static, product.names) == (both.static, both.names)


@given(*[st.lists(st.fixed_dictionaries({}, optional={"a": st.integers(0, 2), "b": st.integers(0, 1)}))] * 2)
def test_a_union_keeps_each_configuration_where_it_first_comes(left, right):
    left, right = ([c for i, c in enumerate(part) if c not in part[:i]] or [{"c": 1}] for part in (left, right))
    union = as_space(left) + as_space(right)
    assert same(union, left + [c for c in right if c not in left])


def test_a_union_has_one_type_for_each_name():
    union = grid({"lr": [1, 2], "width": static([8])}) + grid({"lr": [2.0, 0.5], "width": static(["auto", 8])})
    lrs = [(1.0, 8), (2.0, 8), (2.0, "auto"), (0.5, "auto"), (0.5, 8)]  # 2 with 8 came twice
    assert same(union, [{"lr": lr, "width": width} for lr, width in lrs])
    other = grid({"lr": 3}) + grid({"depth": static([2]), "act": static(["relu"])})
    assert other.names == ("lr", "depth", "act")
    assert other.static == {"depth", "act"}


@given(dicts_of_axes)
def test_where_is_filter(axes):
    space = grid(axes)
    chosen = [c for c in space if len(key_of(c)) % 2]
    if chosen:
        assert same(space.where(lambda c: len(key_of(c)) % 2), chosen)
    else:
        with pytest.raises(ValueError, match="where"):
            space.where(lambda c: len(key_of(c)) % 2)


def test_a_space_is_a_sequence_that_does_not_change():
    space = grid({"a": [1, 2, 3], "width": static([4, 8])})
    space[0]["a"] = 9
    next(iter(space))["a"] = 9
    given = {"a": 1}
    other = as_space([given])
    given["a"] = 2
    assert same([space[0], other[0]], [{"a": 1, "width": 4}, {"a": 1}])
    assert same([space[-1]], [{"a": 3, "width": 8}])
    assert same(space[1:3], list(space)[1:3])
    assert space[1:3].static == {"width"}
    assert repr(space) == "Space(6 configurations: a, static width)"
    assert repr(grid({})) == "Space(1 configuration: no hyperparameters)"
    with pytest.raises(IndexError):
        space[6]
    with pytest.raises(AttributeError):
        space.static = frozenset()


def test_as_space_takes_a_space_a_grid_or_a_list():
    space = grid({"a": [1, 2]})
    assert as_space(space) is space
    assert same(as_space({"a": [1, 2]}), space)
    explicit = as_space([{"a": 1, "act": static("relu")}, {"b": 0.5}, {"a": 2.5, "act": static((1, (2,))[1:])}, {}])
    assert same(explicit, [{"a": 1.0, "act": "relu"}, {"b": 0.5}, {"a": 2.5, "act": (2,)}, {}])
    assert explicit.static == {"act"}
    assert explicit.names == ("a", "act", "b")
    assert isinstance(explicit, Space)


@given(dicts_of_axes, dicts_of_axes)
def test_buckets_are_the_classes_of_equal_static_values_and_names(left, right):
    try:
        space = grid(left) + grid(right)
    except (TypeError, ValueError):  # a name that is static, or boolean, in one part only
        space = grid(left)
    buckets = split_static(space)
    assert sorted(itertools.chain.from_iterable(indices for _, _, indices in buckets)) == list(range(len(space)))
    assert [indices[0] for _, _, indices in buckets] == sorted(indices[0] for _, _, indices in buckets)
    bucket_of = {}
    for number, (shaping, traced, indices) in enumerate(buckets):
        assert list(indices) == sorted(indices)
        for i in indices:
            bucket_of[i] = number
            assert same([{n: space[i][n] for n in shaping}], [shaping])
            assert {*shaping, *traced} == set(space[i])
            assert space.static.issuperset(shaping)
            assert space.static.isdisjoint(traced)
    for i, j in itertools.combinations(range(len(space)), 2):
        alike = set(space[i]) == set(space[j]) and all(
            typed(space[i][n]) == typed(space[j][n]) for n in space.static if n in space[i]
        )
        assert (bucket_of[i] == bucket_of[j]) == alike


# Draws.

RANGES = {
    "u": uniform(-1, 3),
    "lr": log_uniform(1e-5, 1e-1),
    "k": integers(-2, 2**31 - 1),
    "decay": [0, 1e-4, 1e-2],
    "act": static(["relu", "tanh"]),
    "momentum": when(lambda c: c["act"] == "relu", uniform(0, 1)),
}
DRAWS = {"random": random_draws, "sobol": sobol_draws}


@pytest.mark.parametrize("make", DRAWS.values(), ids=DRAWS)
@given(few=st.integers(1, 40), more=st.integers(0, 40), seed=st.integers(0, 2**40))
def test_more_draws_leave_the_first_ones_as_they_are(make, few, more, seed):
    space = make(RANGES, few + more, seed)
    assert len(space) == few + more
    assert same(make(RANGES, few, seed), space[:few])
    assert space.static == {"act"}


@given(seed=st.integers(0, 2**70), order=st.permutations(list(RANGES)[:5]))
def test_an_axis_draws_whatever_its_company(seed, order):
    space = random_draws(RANGES, 20, seed)
    shuffled = random_draws({name: RANGES[name] for name in order}, 20, seed)
    for name in order:
        assert [typed(c[name]) for c in space] == [typed(c[name]) for c in shuffled]
        assert {typed(c[name]) for c in random_draws({name: RANGES[name]}, 20, seed)} == {typed(c[name]) for c in space}
    always = random_draws(RANGES | {"momentum": uniform(0, 1)}, 20, seed)
    for one, with_all in zip(space, always, strict=True):
        assert ("momentum" in one) == (one["act"] == "relu")
        assert one.get("momentum", with_all["momentum"]) == with_all["momentum"]


def test_other_seeds_and_other_names_draw_otherwise():
    def drawn(name, seed):
        return [c[name] for c in random_draws({name: uniform(0, 1)}, 500, seed)]

    streams = [drawn(name, seed) for name in ("a", "b", "aa") for seed in (0, 1, 10)]
    assert np.abs(np.corrcoef(streams) - np.eye(9)).max() < 0.2  # 4.5 standard deviations


def test_the_stream_is_pinned():
    space = random_draws({"u": uniform(0, 1), "k": integers(1, 6), "c": [10, 20, 30]}, 6)
    assert [c["u"] for c in space] == [
        0.18726673455833498,
        0.7237369903644224,
        0.6675644968380752,
        0.6521811736744721,
        0.02080071660707883,
        0.7865355513199089,
    ]
    assert [c["k"] for c in space] == [1, 2, 1, 2, 5, 4]
    assert [c["c"] for c in space] == [10, 20, 10, 30, 20, 20]


@pytest.mark.parametrize("make", DRAWS.values(), ids=DRAWS)
def test_draws_have_the_distributions_they_claim(make):
    axes = {"u": uniform(-1, 3), "v": log_uniform(1e-5, 1e-1), "k": integers(1, 6), "c": [0.1, 0.2, 0.3, 0.4]}
    space = make(axes, 4096)
    columns = {name: np.array([c[name] for c in space]) for name in axes}
    assert stats.kstest(columns["u"], stats.uniform(-1, 4).cdf).pvalue > 1e-3
    assert stats.kstest(columns["v"], stats.loguniform(1e-5, 1e-1).cdf).pvalue > 1e-3
    for name, kinds in (("k", range(1, 7)), ("c", axes["c"])):
        counts = [int((columns[name] == kind).sum()) for kind in kinds]
        assert sum(counts) == 4096
        assert stats.chisquare(counts).pvalue > 1e-3
    ranks = stats.spearmanr(np.stack(list(columns.values()), 1)).statistic
    assert np.abs(ranks - np.eye(4)).max() < 0.07  # 4.5 standard deviations


def test_integers_are_inclusive_and_stay_inside():
    assert {c["k"] for c in random_draws({"k": integers(5, 6)}, 50)} == {5, 6}
    wide = integers(-(2**31), 2**31 - 1)
    assert (wide.at(0.0), wide.at(1 - 2**-53)) == (-(2**31), 2**31 - 1)
    for n in range(2, 200):
        assert integers(0, n - 1).at(1 - 2**-53) == n - 1


@given(ends, st.floats(0, 1, exclude_max=True))
def test_floats_stay_inside_their_range(pair, u):
    low, high = pair
    assert low <= uniform(low, high).at(u) <= high
    low, high = math.exp(low / 1e5), math.exp(high / 1e5)
    assert low <= log_uniform(low, high).at(u) <= high


def test_draws_that_coincide_are_kept_once():
    for make in DRAWS.values():
        space = make({"c": [1, 2]}, 30)
        assert sorted(c["c"] for c in space) == [1, 2]
    assert len(random_draws({}, 3)) == len(sobol_draws({}, 3)) == 1


@given(exponent=st.integers(0, 8), seed=st.integers(0, 2**32))
def test_sobol_draws_put_one_point_in_each_part(exponent, seed):
    n = 2**exponent
    space = sobol_draws({name: uniform(0, 1) for name in "abc"}, n, seed)
    for name in "abc":
        assert sorted(int(c[name] * n) for c in space) == list(range(n))


def test_sobol_draws_fill_the_space_more_evenly_than_random_ones():
    discrepancies = []
    for make in (sobol_draws, random_draws):
        space = make({name: uniform(0, 1) for name in "abc"}, 100)
        discrepancies.append(stats.qmc.discrepancy([list(c.values()) for c in space]))
    assert discrepancies[0] < 0.2 * discrepancies[1]
    assert not same(sobol_draws({"a": uniform(0, 1)}, 4, 0), sobol_draws({"a": uniform(0, 1)}, 4, 1))
