"""What usually goes wrong without a word is refused before anything compiles, or converted: one line per case.

`REFUSED` and `CONVERTED` are also the tables of docs/silent-failures.md: `python tests/test_silent_failures.py` with
the repository on the path writes that page, and a test compares.
"""

# ruff: noqa: E501   a case is a line
import contextlib
import functools
import pathlib
import tempfile
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnet as jn
from jaxnet import losses, optimizers, schedules
from jaxnet.data import arrays
from jaxnet.testing import guards

PAGE = pathlib.Path(__file__).parent.parent / "docs" / "silent-failures.md"
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 4)).astype("float32"), np.arange(12) % 3
ONES = np.ones(12, "float32")
NET, LINE, LOSS = jn.mlp([3]), jn.mlp([1]), losses.softmax_cross_entropy
DATA = jn.Data((X, Y))


def program(net=NET, loss=LOSS, optimizer=None, **options):
    return jn.program(net, loss, optimizer or optax.sgd(0.1), **{"batch_size": 4} | options)


CLASSES, VALUES, BITS = program(), program(LINE, losses.squared_error), program(LINE, losses.sigmoid_cross_entropy)
OPTAX = program(loss=optax.softmax_cross_entropy_with_integer_labels)


@functools.cache
def fitted():
    return jn.fit(KEY, CLASSES, DATA, epochs=2)


def build(hp):
    return program(optimizer=optimizers.momentum(hp["lr"]))


def sweep(**change):
    return jn.sweep(**{"build": build, "space": {"lr": [0.1]}, "data": DATA, "epochs": 1, "quiet": True} | change)


def entry(array, value, at=5):
    array = np.array(array, np.result_type(array, type(value)))
    array.flat[at] = value
    return array


def masked(array):
    return np.ma.masked_array(array, mask=np.arange(array.size).reshape(array.shape) == 5)


def frame():
    return pytest.importorskip("pandas").DataFrame(X, columns=list("abcd"))


def sparse():
    return pytest.importorskip("scipy.sparse").csr_matrix(X)


def examples(x=X, y=Y, *weight):
    """Every way in which a set comes in."""

    def ways():
        one = tuple(part() if callable(part) else part for part in (x, y, *weight))
        yield lambda: jn.fit(KEY, CLASSES, jn.Data(one), epochs=1)
        yield lambda: jn.run(KEY, CLASSES, jn.Data(one), epochs=1)
        yield lambda: jn.fit(KEY, CLASSES, jn.Data((X, Y), one), epochs=1)
        yield lambda: sweep(data=jn.Data(one))
        yield lambda: jn.evaluate(NET, fitted(), one, LOSS)

    return ways


def inputs(x):
    """As `examples`, and `predict`."""

    def ways():
        yield from examples(x)()
        yield lambda: jn.predict(NET, fitted(), x() if callable(x) else x)

    return ways


def once(call):
    return lambda: iter([call])


def trained(by, x=X, y=Y, valid=None, epochs=1, **rows):
    return once(lambda: jn.fit(KEY, by, jn.Data((x, y), valid, **rows), epochs=epochs))


def csv(text):
    def call():
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "set.csv")
            path.write_text(text)
            jn.data.load(path, target="y")

    return once(call)


class Refused(NamedTuple):
    given: str
    ways: object
    says: str  # a part of the error


class Converted(NamedTuple):
    given: str
    becomes: str
    proof: object  # () -> (got, wanted), equal to the bit


def same_run(x=X, y=Y, *weight, valid=None, rows=None):
    """The run on these examples, and the reference."""

    def proof():
        one = tuple(part() if callable(part) else part for part in (x, y, *weight))
        return jn.fit(KEY, CLASSES, jn.Data(one, valid, rows=rows), epochs=2), fitted()

    return proof


DATES = "day,y\n" + "".join(f"2020-01-{day:02d},{day % 2}\n" for day in range(1, 13))
REFUSED = {
    "Labels and targets": [
        Refused("a label of 3 where there are 3 classes", examples(y=entry(Y, 3)), "got label 3 at example 5; expected 0…2"),
        Refused("a label of −1", examples(y=entry(Y, -1)), "got label -1 at example 5; expected 0…2"),
        Refused("labels of another library's loss below 0", trained(OPTAX, y=entry(Y, -1)), "got label -1 at example 5; expected 0…2"),
        Refused("the same, too large", trained(OPTAX, y=entry(Y, 99)), "got label 99 at example 5; expected 0…2"),
        Refused("labels as floats", examples(y=Y.astype("float32")), "got labels of dtype float32; expected integers"),
        Refused("labels as booleans", examples(y=Y > 0), "got labels of dtype bool; expected integers"),
        Refused("labels of shape (n, 1)", trained(CLASSES, y=Y[:, None]), "got targets of shape (12, 1) for logits of shape (12, 3)"),
        Refused("a label of 2⁴⁰", examples(y=entry(Y, 2**40)), "expected 32-bit ones, which jax would narrow silently"),
        Refused("labels as text", examples(y=np.array(list("abc") * 4)), "got an array of dtype <U1; expected numbers: encode"),
        Refused("labels of an object array", examples(y=Y.astype(object)), "got an array of dtype object; expected numbers: encode"),
        Refused("binary labels −1 and 1", trained(BITS, y=np.where(Y > 0, 1, -1)), "got target -1 at example 0; expected 0, 1"),
        Refused("binary labels 0, 1, 2", trained(BITS), "got target 2 at example 2; expected 0, 1"),
        Refused("targets (n, 1, 1) for outputs (n, 1)", trained(VALUES, y=X[:, :1, None]), "got targets of shape (12, 1, 1) for outputs of shape (12, 1)"),
        Refused("targets (n, 2) for outputs (n, 1)", trained(VALUES, y=X[:, :2]), "got targets of shape (12, 2) for outputs of shape (12, 1)"),
        Refused("a loss of one's own that makes (n, n) of (n, 1) − (n,)", trained(program(LINE, lambda z, y: (z - y) ** 2), y=X[:, 0]), "got a result of shape (4, 4); expected one number per example"),
        Refused("a loss that takes the mean itself", trained(program(LINE, lambda z, y: jnp.mean((z[:, 0] - y) ** 2)), y=X[:, 0]), "got a result of shape (); expected one number per example"),
        Refused("NaN among the targets", trained(VALUES, y=entry(X[:, 0], np.nan)), "train y: got nan at [5]"),
        Refused("a target too large for float32", trained(VALUES, y=entry(X[:, 0].astype(float), 1e300)), "got 1e+300 as the largest magnitude; expected at most 3.40282e+38"),
        Refused("one class for the softmax: a network of one output", trained(program(LINE), y=0 * Y), "expected (batch, classes) with at least 2 classes"),
    ],
    "Inputs": [
        Refused("NaN", inputs(entry(X, np.nan)), "got nan at [1, 1], 1 such values in all; expected finite numbers"),
        Refused("infinity", inputs(entry(X, np.inf)), "got inf at [1, 1]"),
        Refused("NaN in an array of jax's", inputs(jnp.asarray(entry(X, np.nan))), "got nan at [1, 1]"),
        Refused("float64 beyond float32", inputs(entry(X.astype(float), 1e300)), "got 1e+300 as the largest magnitude; expected at most 3.40282e+38"),
        Refused("uint8 images", inputs(np.full((12, 4), 200, "uint8")), "got inputs of dtype uint8; expected floats: convert them, x.astype('float32'), and divide pixels of 0…255 by 255"),
        Refused("integers, truth values", inputs(X.astype(int)), "got inputs of dtype int32; expected floats: convert them"),
        Refused("an id of 2⁴⁰", trained(program(jn.serial(jn.embedding(5, 2), jn.flatten(), jn.dense(3))), x=np.full((12, 2), 2**40)), "expected 32-bit ones, which jax would narrow silently"),
        Refused("a sparse matrix", inputs(sparse), "got a sparse matrix; expected a dense array: x.toarray()"),
        Refused("a table of pandas, polars or pyarrow", inputs(frame), "got a table with columns a, b, c, d; expected an array, whose columns are in an order that you chose"),
        Refused("masked entries", inputs(masked(X)), "got 1 masked entries of 48, the first at [1, 1]; expected none: fill them"),
        Refused("nested lists", inputs(X.tolist()), "alone; expected an array with a first axis of examples, (n, …), such as np.asarray(x) of nested lists"),
        Refused("an object array", inputs(X.astype(object)), "got an array of dtype object; expected numbers: encode"),
        Refused("text", inputs(X.astype(str)), "got an array of dtype <U32; expected numbers: encode"),
        Refused("dates", inputs(np.zeros((12, 4), "M8[D]")), "got an array of dtype datetime64[D]; expected numbers: count from a day"),
        Refused("time spans", inputs(np.zeros((12, 4), "m8[s]")), "got an array of dtype timedelta64[s]; expected numbers: count in a unit"),
        Refused("complex numbers", inputs(X + 0j), "expected real numbers: give real and imaginary parts as columns"),
        Refused("no examples", examples(X[:0], Y[:0]), "got an empty set; expected at least one example"),
        Refused("examples without a number", examples(X[:, :0]), "got examples of shape (0,), without any number"),
        Refused("x and y of different lengths", examples(y=Y[:11]), "got different numbers of examples: x 12, y 11"),
        Refused("a batch with an axis too many", trained(CLASSES, X[:, :, None]), "got targets of shape (12,) for logits of shape (12, 4, 3)"),
        Refused("a CSV column of dates", csv(DATES), "a date like the whole column; expected numbers, such as days"),
    ],
    "Weights, rows, the validation set": [
        Refused("a negative weight", examples(X, Y, entry(ONES, -1.0)), "got weight -1.0 at example 5; expected weights ≥ 0"),
        Refused("weights that are all 0", examples(X, Y, 0 * ONES), "got weights that are all 0; expected at least one above 0"),
        Refused("weights so small that a processor takes them for 0", examples(X, Y, np.full(12, 1e-45, "float32")), "got weights that are all 0"),
        Refused("weights whose sum overflows", examples(X, Y, 3e38 * ONES), "got weights whose sum is 3.6e+39"),
        Refused("NaN among the weights", examples(X, Y, entry(ONES, np.nan)), "weight: got nan at [5]"),
        Refused("masked weights", examples(X, Y, masked(ONES)), "weight: got 1 masked entries of 12"),
        Refused("weights of the wrong length", examples(X, Y, ONES[:11]), "got different numbers of examples: x 12, y 12, weight 11"),
        Refused("weights of shape (n, 1)", examples(X, Y, ONES[:, None]), "got weights of shape (12, 1); expected one per example"),
        Refused("rows beyond the end", trained(CLASSES, rows=[0, 1, 2, 12]), "rows: got indices 0…12; expected 0…11"),
        Refused("rows below 0", trained(CLASSES, valid_rows=[-1]), "valid_rows: got indices -1…-1; expected 0…11"),
        Refused("rows of 2³²", trained(CLASSES, rows=np.array([0, 1, 2, 2**32])), "rows: got indices 0…4294967296; expected 0…11"),
        Refused("no rows", trained(CLASSES, rows=[]), "rows: got no rows; expected at least one"),
        Refused("rows as a mask", trained(CLASSES, rows=Y > 0), "rows: got a mask of booleans; expected indices: np.flatnonzero(mask)"),
        Refused("rows as floats", trained(CLASSES, rows=np.arange(4.0)), "rows: got float64 of shape (4,); expected integer indices"),
        Refused("a validation set of another width", trained(CLASSES, valid=(X[:, :3], Y)), "valid x: got examples of shape (3,); expected (4,) as in the training set"),
        Refused("patience without a validation set", trained(program(patience=2)), "got patience=2 without a validation set"),
        Refused("a batch larger than the set", trained(CLASSES, X[:3], Y[:3]), "got batch_size=4 for 3 training examples"),
    ],
    "Numbers and keys": [
        *[Refused(f"epochs={e!r}", trained(CLASSES, epochs=e), f"got epochs={e!r}; expected") for e in (0, -1, 1.0, True, float("nan"), "1")],
        *[Refused(f"batch_size={b!r}", once(functools.partial(program, batch_size=b)), f"got batch_size={b!r}; expected") for b in (0, -4, 4.0, True)],
        *[Refused(f"patience={p!r}", once(functools.partial(program, patience=p)), f"got patience={p!r}; expected") for p in (0, -1, 2.5, True)],
        *[Refused(f"learning_rate={r!r}", once(functools.partial(optimizers.adam, r)), f"got learning_rate={r!r}; expected") for r in (-0.1, float("nan"), float("inf"), True, "0.1", None, 1j)],
        Refused("a rate of −1 as a scalar of NumPy's", once(lambda: optimizers.momentum(np.float32(-1))), "got learning_rate=-1.0; expected a number ≥ 0"),
        Refused("a rate of NaN as a scalar of jax's", once(lambda: optimizers.momentum(jax.device_put(np.float32("nan")))), "got learning_rate=nan; expected a number ≥ 0"),
        Refused("several rates", once(lambda: optimizers.momentum(np.array([0.1, 0.2]))), "expected one real number"),
        Refused("a decay of 1", once(lambda: optimizers.adam(0.1, b1=np.float32(1))), "got b1=1.0; expected 0 ≤ b1 < 1"),
        Refused("a schedule from a negative rate", once(lambda: schedules.cosine(-1.0, 10)), "cosine: got start=-1.0; expected a rate ≥ 0"),
        Refused("a schedule over no steps", once(lambda: schedules.linear(1.0, 0.1, 0)), "linear: got steps=0; expected a number > 0"),
        Refused("a key as two integers, of jax.random.PRNGKey", once(lambda: jn.fit(jax.random.PRNGKey(0), CLASSES, DATA, epochs=1)), "got key an array of uint32 with shape (2,); expected a typed key"),
        Refused("a number for a key", once(lambda: jn.data.split((X, Y), 0.5, key=0)), "got key int 0; expected a typed key"),
        Refused("several keys", once(lambda: jn.fit(jax.random.split(KEY), CLASSES, DATA, epochs=1)), "got (2,) keys; expected one"),
    ],
    "Splitting, scaling, loading, studies": [
        Refused("a split of masked labels", once(lambda: jn.data.split((X, masked(Y)), 0.5, key=KEY)), "data y: got 1 masked entries of 12"),
        Refused("a split of a sparse matrix", once(lambda: jn.data.split((sparse(), Y), 0.5, key=KEY)), "data x: got a sparse matrix"),
        Refused("a split of a table", once(lambda: jn.data.split((frame(), Y), 0.5, key=KEY)), "data x: got a table with columns a, b, c, d"),
        Refused("a share of everything", once(lambda: jn.data.split((X, Y), 1.0, key=KEY)), "share: got 1.0, expected a float in (0, 1)"),
        Refused("a split of one example", once(lambda: jn.data.split((X[:1], Y[:1]), 0.5, key=KEY)), "got 1 examples, expected at least 2"),
        Refused("folds by masked groups", once(lambda: jn.data.k_fold((X, Y), 2, key=KEY, groups=masked(Y))), "groups: got 1 masked entries of 12"),
        Refused("standardizing tables, whose columns may be in another order", once(lambda: jn.data.standardize((frame(), Y))), "x: got a table with columns a, b, c, d"),
        Refused("standardizing masked entries", once(lambda: jn.data.standardize((masked(X), Y))), "x: got 1 masked entries of 48"),
        Refused("standardizing NaN", once(lambda: jn.data.standardize((entry(X, np.nan), Y))), "got 1 values that are NaN or infinite, the first at (1, 1)"),
        Refused("a CSV file with a missing value", csv("a,y\nnan,0\n1,1\n"), "got missing values, 1 in column 'a' (first in line 2)"),
        Refused("a CSV file with a number beyond float32", csv("a,y\n1e300,0\n1,1\n"), "got 1e+300 as the largest magnitude, expected at most 3.40282e+38"),
        Refused("a swept rate below 0", once(lambda: sweep(space={"lr": [0.1, -0.1]})), "got learning_rate=-0.1; expected a number ≥ 0"),
        Refused("a swept rate of NaN", once(lambda: sweep(space={"lr": [float("nan")]})), "lr: got nan; expected finite numbers"),
        Refused("a swept rate beyond float32", once(lambda: sweep(space={"lr": [1e300]})), "lr: got 1e+300; expected at most 3.40282e+38"),
        Refused("a swept integer of 2⁴⁰", once(lambda: sweep(space={"lr": [2**40]})), "expected integers of 32 bits"),
        Refused("booleans for rates", once(lambda: sweep(space={"lr": [True]})), "got learning_rate=True; expected one real number"),
        Refused("one seed twice", once(lambda: sweep(seeds=[1, 1])), "got seeds [1, 1]; expected each once"),
        Refused("seeds below 0, as floats, as booleans", once(lambda: sweep(seeds=[-1])), "got the seed -1; expected"),
        Refused("2⁴⁰ in the data of a function of one's own", once(lambda: sweep(build=jn.whole(lambda key, hp, data: {}), data={"n": np.array([2**40])}, epochs=None)), "data['n']: got integers"),
    ],
}  # fmt: skip


def aligned(array):
    """A copy that starts at a multiple of 64 bytes, whose memory jax shares where it can."""
    raw = np.empty(array.nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def read_only():
    x = X.copy()
    x.setflags(write=False)
    return x


def memory_mapped():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "x.npy")
        np.save(path, X)
        return np.load(path, mmap_mode="r")


def as_float32():
    with quiet():
        return jn.fit(KEY, CLASSES, jn.Data((X.astype(float), Y)), epochs=2), fitted()


@contextlib.contextmanager
def quiet():
    """Without the warning about float64, or as if it had been given."""
    before, arrays._narrowed = arrays._narrowed, True
    yield
    arrays._narrowed = before


def rounded_constant():
    column = np.array([0.1 * 3, 0.3, 0.1 + 0.2, 0.3])[:, None]
    (got,) = jn.data.standardize((column, np.zeros(4)))
    return np.abs(got[0]) < 1e-15, np.ones((4, 1), bool)


def nothing_moves():
    by = program(optimizer=optimizers.momentum(0.0))
    start = jax.jit(by.start)(KEY, jn.Data((jnp.asarray(X), jnp.asarray(Y))))
    return jn.fit(KEY, by, DATA, epochs=1).params, start.params


def finite(by, x, y, valid=None):
    return lambda: (np.isfinite(jn.fit(KEY, by, jn.Data((x, y), valid), epochs=2).history["train_loss"]), [True] * 2)


def diverged(x, y):
    by = program(jn.serial(jn.embedding(5, 2), jn.flatten(), jn.dense(3)), batch_size=12)
    return lambda: (jn.fit(KEY, by, jn.Data((x, y)), epochs=2).outcome, np.int32(jn.outcomes.DIVERGED))


def column_targets():
    return tuple(jn.fit(KEY, VALUES, jn.Data((X, y)), epochs=1) for y in (X[:, 0], X[:, :1]))


def truth():
    return tuple(jn.fit(KEY, BITS, jn.Data((X, y)), epochs=1) for y in (Y > 0, (Y > 0).astype("float32")))


def weights_of(one, other):
    return lambda: tuple(jn.fit(KEY, CLASSES, jn.Data((X, Y, w)), epochs=1) for w in (one, other))


def repeated_rows():
    rows = np.array([0, 1, 2, 2])
    return tuple(jn.fit(KEY, CLASSES, d, epochs=1) for d in (jn.Data((X, Y), rows=rows), jn.Data((X[rows], Y[rows]))))


def series():
    return pytest.importorskip("pandas").Series(Y, index=np.arange(12)[::-1])


CONVERTED = [
    Converted("labels of any integer type", "the same labels", same_run(y=Y.astype("uint8"))),
    Converted("labels of uint64", "the same labels, after their range is checked", same_run(y=Y.astype("uint64"))),
    Converted("a list of labels", "an array", same_run(y=Y.tolist())),
    Converted("a pandas Series", "an array, by position: its index counts for nothing", same_run(y=series)),
    Converted("targets (n,) for outputs (n, 1)", "(n, 1); nothing is broadcast", column_targets),
    Converted("truth values as binary targets", "0 and 1", truth),
    Converted("float64 inputs", "float32, with one warning per process; float64 with JAX_ENABLE_X64=1", as_float32),
    Converted("float16 and bfloat16 inputs", "float32: parameters take the inputs' dtype", lambda: tuple(jn.fit(KEY, CLASSES, jn.Data((x, Y)), epochs=1) for x in (X.astype("float16"), X.astype("float16").astype("float32")))),
    Converted("other byte order", "native", same_run(X.astype(">f4"), Y.astype(">i8"))),
    Converted("column-major arrays", "the same rows", same_run(np.asfortranarray(X))),
    Converted("strided views", "the same rows", same_run(np.repeat(X, 2, axis=1)[:, ::2])),
    Converted("read-only arrays", "a copy", same_run(read_only)),
    Converted("memory-mapped arrays", "read into memory", same_run(memory_mapped)),
    Converted("masked arrays without a masked entry", "their values", same_run(np.ma.masked_array(X))),
    Converted("np.matrix", "an array of two axes", same_run(lambda: X.view(np.matrix))),
    Converted("weights as integers or truth values", "floats", weights_of(Y > 0, (Y > 0).astype("float32"))),
    Converted("weights None", "no weights", same_run(X, Y, None)),
    Converted("repeated rows", "count as often as they stand there", repeated_rows),
    Converted("a validation set of float16 or of uint8 labels", "as the training set; the run is the same", lambda: tuple(jn.fit(KEY, CLASSES, jn.Data((X, Y), v), epochs=1) for v in ((X.astype("float16"), Y.astype("uint8")), (X.astype("float16").astype("float32"), Y)))),
    Converted("one example", "trained on", finite(program(batch_size=1), X[:1], Y[:1])),
    Converted("one class among several outputs", "trained on", finite(CLASSES, X, 0 * Y)),
    Converted("one feature", "trained on", finite(CLASSES, X[:, :1], Y)),
    Converted("pixels 0…255 as floats", "used as they are: `jn.data.load` divides by 255, for other arrays do it", finite(CLASSES, np.abs(100 * X).round(), Y)),
    Converted("a constant column, standardized", "0, and x − mean in other sets", lambda: (jn.data.standardize((np.full((3, 1), 0.1), Y[:3]))[0][0], np.zeros((3, 1), "float32"))),
    Converted("a column that is constant but for rounding, standardized", "0 within rounding: its noise isn't scaled up", rounded_constant),
    Converted("a rate of 0", "leaves the parameters as they are", nothing_moves),
    Converted("an id out of an embedding's range, a label out of range inside a trace", "NaN, so that the run ends as diverged", diverged(np.full((12, 2), 7), Y)),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def warm():
    """What the checks themselves use, and the reference."""
    fitted()
    jax.random.split(KEY), jax.random.PRNGKey(0)
    jn.evaluate(NET, fitted(), (X, Y), LOSS)


@pytest.mark.parametrize("row", [pytest.param(row, id=row.given) for rows in REFUSED.values() for row in rows])
def test_refused_before_anything_compiles(row):
    with quiet():
        ways = list(row.ways())
        with guards.compiles(at_most=0):
            for way in ways:
                with pytest.raises((ValueError, TypeError)) as caught:
                    way()
                assert row.says in str(caught.value)
                assert "expected" in str(caught.value)


@pytest.mark.parametrize("row", CONVERTED, ids=[row.given for row in CONVERTED])
def test_converted(row):
    with quiet():
        got, wanted = row.proof()
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


def page() -> str:
    """The page: what this file checks, as tables."""
    lines = [
        "# Silent failures", "",
        "What would go wrong without a word, and what jaxnet does about it. `tests/test_silent_failures.py` checks each",
        "line and writes this page. The same holds in `jn.fit`, `jn.run`, `jn.sweep` and `jn.evaluate`, for training and",
        "validation sets, and for the inputs of `jn.predict`.", "",
        "## Refused", "",
        "By a `ValueError` or `TypeError` before anything compiles; of its text the part that says what came.",
    ]  # fmt: skip
    for title, rows in REFUSED.items():
        lines += ["", f"### {title}", "", "| given | error |", "|---|---|"]
        lines += [f"| {row.given} | `{row.says}` |" for row in rows]
    lines += [
        "", "## Converted", "",
        "To the bit the same result as with what it becomes.", "",
        "| given | becomes |", "|---|---|", *(f"| {row.given} | {row.becomes} |" for row in CONVERTED),
        "", "## Copied", "",
        "`jn.Data` copies NumPy arrays when it is made, and everything else copies when it is called, so what is done to",
        "an array afterwards changes no result, though jax itself may share its memory. jax's arrays aren't copied: give",
        "those where several `Data` share a large set. Parameters given to `fit` and `run` stay readable.", "",
        "## Not seen", "",
        "The numbers inside optax's optimizers: `optax.sgd(-0.1)` climbs. Values inside a trace, where a bad label makes",
        "its loss NaN. A table's columns in another order, once they are an array. float64 so small that float32 has 0.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def test_the_page_is_this_table():
    assert PAGE.read_text() == page(), "write it anew: python tests/test_silent_failures.py"


@pytest.mark.parametrize("when", ["after the data were made", "after the call"])
def test_nothing_changes_with_the_callers_arrays(when):
    x, y = aligned(X), aligned(Y.astype("int32"))
    rows = aligned(np.arange(12, dtype="int32"))

    def fresh():
        x[:], y[:], rows[:] = X, Y, np.arange(12)
        return jn.Data((x, y), rows=rows)

    def spoil():
        x[:], y[:], rows[:] = 9, 0, 0

    wanted = jn.fit(KEY, CLASSES, jn.Data((X, Y), rows=np.arange(12)), epochs=2)
    for train in (jn.fit, jn.run):
        data = fresh()
        if when == "after the data were made":
            spoil()
        got = train(KEY, CLASSES, data, epochs=2)
        spoil()
        jax.tree.map(np.testing.assert_array_equal, got, wanted)
    fresh()
    outputs = jn.predict(NET, wanted, x)
    spoil()
    np.testing.assert_array_equal(outputs, jn.predict(NET, wanted, X))


def test_nothing_changes_while_it_runs():
    x = aligned(X)
    rows = []

    def spoil(*_):
        x[:] = 9
        rows.append(1)

    got = jn.run(KEY, CLASSES, jn.Data((x, Y)), epochs=2, report=spoil)
    jax.tree.map(np.testing.assert_array_equal, got, fitted())
    assert rows


def test_a_study_takes_every_spelling_of_fifty_rates_in_one_program_and_a_copy_of_its_data():
    """Python's, NumPy's and jax's numbers; the data are spoilt once they are in a `Data`, and as it computes."""
    kinds = [float, np.float32, jax.device_put] * 17
    rates = [kind(np.float32(rate)) for rate, kind in zip(np.geomspace(1e-3, 1e-1, 51), kinds, strict=True)]
    x = aligned(X)
    data = jn.Data((x, Y))
    x[:] = 9
    options = {"width": 8, "devices": jax.local_devices()[:1], "report": lambda _: x.fill(7)}
    with guards.compiles(at_most=4) as names:
        study = sweep(space={"lr": rates}, data=data, **options)
    assert sum("advance" in name for name in names) == 1
    alone = jn.fit(jax.random.fold_in(KEY, 0), build({"lr": float(rates[0])}), DATA, epochs=1)
    np.testing.assert_allclose(study.columns["train_loss"][0], alone.metrics["train_loss"], rtol=1e-5)


def test_what_is_given_stays_readable_and_may_be_given_twice():
    """No array of the caller's is donated: initial parameters, data used for training and validation at once."""
    params = jax.tree.map(jnp.array, fitted().params)
    x, y = jnp.asarray(X), jnp.asarray(Y)
    for train in (jn.fit, jn.run):
        twice = [train(KEY, CLASSES, jn.Data((x, y), (x, y)), epochs=2, params=params) for _ in range(2)]
        jax.tree.map(np.testing.assert_array_equal, *twice)
    for leaf in jax.tree.leaves((params, x, y, KEY)):
        assert not leaf.is_deleted()


def test_running_and_judging_again_compile_nothing_and_leak_nothing():
    jn.run(KEY, CLASSES, DATA, epochs=2)
    with guards.compiles(at_most=0):
        jn.run(KEY, CLASSES, DATA, epochs=2)
        jn.evaluate(NET, fitted(), (X, Y), LOSS)
        jn.predict(NET, fitted(), X)
    with guards.no_leaks():
        jn.run(KEY, program(), DATA, epochs=1)


@pytest.mark.numerical
@pytest.mark.float64
def test_in_float64_nothing_is_narrowed():
    if not jax.config.jax_enable_x64:
        pytest.skip("float32")
    assert arrays.in_training_dtype("x", np.array([1e300])).dtype == np.float64
    assert arrays.in_training_dtype("y", np.array([2**40]))[0] == 2**40
    with pytest.raises(ValueError, match="as the largest magnitude"):
        arrays.in_training_dtype("x", np.array([np.longdouble("1e4000")]))


if __name__ == "__main__":
    PAGE.write_text(page())
