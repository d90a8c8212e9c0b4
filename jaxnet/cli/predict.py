"""`jaxnet predict`: a run's network on new examples, to a CSV file."""

import csv
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.checkpoint import write_whole
from jaxnet.cli.examples import encoded
from jaxnet.cli.folder import read_run
from jaxnet.cli.interrupts import deferred
from jaxnet.cli.judge import in_unit, network, outputs, probabilities, score, sentence
from jaxnet.cli.options import Predict
from jaxnet.data.standardize import Statistics, apply_statistics


def predict(options: Predict) -> None:
    """Read the run and the data, predict, write; prints what it's worth if the data have the target.

    Raises:
        FileNotFoundError, TypeError, ValueError: a run or data that can't be read or don't fit each other.
        OSError: the file can't be written.
    """
    to_stdout = str(options.out) == "-"
    if os.path.exists(options.data) and options.out.exists() and os.path.samefile(options.out, options.data):
        raise ValueError(f"--out: got {options.out}, the file of the data; expected another")
    record, tree = read_run(options.run)
    x, y = encoded(options.data, options.ignore, record)
    spec, target, classes = (record[name] for name in ("network", "target", "classes"))
    if (scales := record["standardization"]) is not None:
        x = apply_statistics(x, Statistics(np.array(scales["mean"]), np.array(scales["scale"])))
    fitted = SimpleNamespace(**jax.tree.map(jnp.asarray, tree))
    x = x.astype(jax.tree.leaves(fitted.params)[0].dtype)  # the run's precision, whatever this process's is
    output = outputs(network(spec), fitted, x)
    wrong = np.flatnonzero(~np.isfinite(output).all(axis=1))
    if wrong.size:
        raise ValueError(
            f"{options.data}: example {wrong[0]} gives no finite prediction; it's far outside the training set"
        )
    if classes is None:
        header, rows = ["prediction"], [[number] for number in _digits(in_unit(output, target))]
    else:
        header = ["prediction", *(f"p_{name}" for name in classes)]
        best = (classes[label] for label in output.argmax(axis=1))
        rows = [[name, *_digits(p)] for name, p in zip(best, probabilities(output), strict=True)]
    said = f"{len(rows):,} predictions"
    if y is not None:
        said += f", {sentence(score(output, y, classes=classes, target=target))}"
        if options.data == record["settings"]["data"] != "fashion_mnist":
            said += "; the run has learned from some of these examples"
    with deferred():
        _write(options.out if not to_stdout else None, header, rows)
    print(said if to_stdout else f"{options.out}: {said}", file=sys.stderr if to_stdout else sys.stdout)


def _digits(values: np.ndarray) -> list[str]:
    return [f"{value:.9g}" for value in values]  # as many as a float32 has


def _write(out: Path | None, header: list[str], rows: list[list[str]]) -> None:
    """As UTF-8; to standard output for None."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    if out is not None:
        write_whole(out, text.getvalue().encode())
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.getvalue().encode())
