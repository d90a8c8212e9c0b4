"""`jaxnet train`: one real run, judged once on examples that had no part in it."""

import math
import re
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jaxnet as jn
from jaxnet.cli.examples import IMAGES, Examples, learned
from jaxnet.cli.folder import new_folder, write_run
from jaxnet.cli.info import device, versions
from jaxnet.cli.interrupts import deferred
from jaxnet.cli.judge import MOST_SHOWN, confusion_table, finite, network, outputs, score, sentence
from jaxnet.cli.options import BATCH_SIZE, Train
from jaxnet.data.encoding import Encoding
from jaxnet.data.standardize import apply_statistics, column_statistics
from jaxnet.data.tables import refilled
from jaxnet.training.program import program
from jaxnet.training.progress import in_words, losses_first, shown

TEST, VALID, RUN = range(3)  # what the seed's key is folded with


class Parts(NamedTuple):
    """The three parts of a set as the network sees them, and how the numbers of the file became these."""

    train: tuple[np.ndarray, ...]
    valid: tuple[np.ndarray, ...]
    test: tuple[np.ndarray, ...]  # its targets in their own unit
    standardization: dict[str, list] | None  # of x
    target: dict[str, float] | None  # of a regression
    encoding: Encoding | None  # of a CSV file


def train(options: Train) -> None:
    """Load, split, standardize, train, test, and write the run's folder; prints what it does.

    Raises:
        FileNotFoundError, TypeError, ValueError: data or options that don't fit, before training.
        OSError: the folder can't be made or written.
    """
    hidden = hidden_units(options.hidden)
    check(options)
    examples = learned(options)
    classes = examples.classes
    parts = split(options, examples)
    spec = {
        "inputs": examples.x.shape[1],
        "units": [*hidden, 1 if classes is None else len(classes)],
        "activation": options.activation,
        "dropout": options.dropout,
    }
    net = network(spec)
    batch_size = min(BATCH_SIZE, len(parts.train[0])) if options.batch_size == BATCH_SIZE else options.batch_size
    run = program(
        net,
        jn.losses.squared_error if classes is None else jn.losses.softmax_cross_entropy,
        optax.adamw(options.lr, weight_decay=options.weight_decay),
        batch_size=batch_size,
        patience=options.patience or None,
    )
    name = re.split(r"[/\\]", options.data)[-1].rsplit(".", 1)[0]
    with deferred(), new_folder(options.out, f"{name}-{options.seed}") as folder:
        introduce(name, examples, parts, spec, batch_size)
        with shown(options.epochs, name, sys.stdout) as report:
            key = jax.random.fold_in(jax.random.key(options.seed), RUN)
            fitted = jn.run(key, run, jn.Data(parts.train, parts.valid), epochs=options.epochs, report=report)
        output = outputs(net, fitted, parts.test[0])
        record = {
            "settings": vars(options) | {"ignore": list(options.ignore), "out": str(folder)},
            "examples": {part: len(getattr(parts, part)[0]) for part in ("train", "valid", "test")},
            "batch_size": batch_size,
            "encoding": parts.encoding.to_json() if parts.encoding else None,
            "classes": list(classes) if classes else None,
            "standardization": parts.standardization,
            "target": parts.target,
            "network": spec,
            "outcome": jn.outcomes.describe(fitted.outcome, fitted.epochs_run),
            "epochs_run": int(fitted.epochs_run),
            "best_epoch": int(fitted.best_epoch),
            "best": {metric: finite(value) for metric, value in losses_first(fitted.metrics).items()},
            "test": score(output, *parts.test[1:], classes=classes, target=parts.target),
            "versions": versions(),
            "device": device(),
        }
        history = {k: np.asarray(v)[: record["epochs_run"]] for k, v in losses_first(fitted.history).items()}
        write_run(folder, record, {"params": fitted.params, "state": fitted.state}, history)
    conclude(record, weighted=examples.weight is not None)


def hidden_units(text: str) -> list[int]:
    """The units of the hidden layers.

    >>> hidden_units("256,128"), hidden_units("")
    ([256, 128], [])
    """
    words = text.split(",") if text.strip() else []
    if not all(word.strip().isascii() and word.strip().isdigit() and int(word) for word in words):
        raise ValueError(f"--hidden: got {text!r}; expected units such as 256,128, or '' for a linear model")
    return [int(word) for word in words]


def check(options: Train) -> None:
    """What nothing further down would refuse by the option's name."""
    for name, value, fits, expected in (
        ("test-share", options.test_share, 0 < options.test_share < 1, "a number between 0 and 1"),
        ("valid-share", options.valid_share, 0 < options.valid_share < 1, "a number between 0 and 1"),
        ("lr", options.lr, 0 < options.lr < math.inf, "a positive number"),
        ("weight-decay", options.weight_decay, 0 <= options.weight_decay < math.inf, "a number of at least 0"),
        ("patience", options.patience, options.patience >= 0, "a whole number of at least 0"),
        ("seed", options.seed, 0 <= options.seed < 2**32, "a whole number from 0 to 4294967295"),
    ):
        if not fits:
            raise ValueError(f"--{name}: got {value}; expected {expected}")


def split(options: Train, examples: Examples) -> Parts:
    """Test and validation examples taken out, by the seed; everything scaled by the training examples alone."""
    if len(examples.y) < 3:
        raise ValueError(
            f"{options.data}: got {len(examples.y)} examples; expected at least 3: train, validation, test"
        )
    key, weights = jax.random.key(options.seed), [] if examples.weight is None else [examples.weight]
    rest, x, encoding = (np.arange(len(examples.y)), examples.y), examples.x, None
    if options.data != "fashion_mnist":
        rest, (test_rows, _) = jn.data.split(rest, options.test_share, key=jax.random.fold_in(key, TEST))
    (learn_rows, _), (valid_rows, _) = jn.data.split(rest, options.valid_share, key=jax.random.fold_in(key, VALID))
    if examples.table is not None:  # what fills a missing number is learned from the training examples alone
        x, _, encoding, _ = refilled(examples.table, learn_rows)

    def part(rows):
        return tuple(a[rows] for a in (x, examples.y, *weights))

    learn, valid = part(learn_rows), part(valid_rows)
    test = jn.data.load(options.data, part="test") if options.data == "fashion_mnist" else part(test_rows)
    standardization = target = None
    if options.data not in IMAGES:
        of_x = column_statistics(learn[0])
        learn, valid, test = ((apply_statistics(p[0], of_x), *p[1:]) for p in (learn, valid, test))
        standardization = {"mean": of_x.mean.tolist(), "scale": of_x.scale.tolist()}
    if examples.classes is None:
        of_y = column_statistics(learn[1])
        learn, valid = ((p[0], apply_statistics(p[1], of_y), *p[2:]) for p in (learn, valid))
        target = {"mean": float(of_y.mean), "scale": float(of_y.scale)}
    return Parts(learn, valid, test, standardization, target, encoding)


def introduce(name: str, examples: Examples, parts: Parts, spec: Mapping[str, Any], batch_size: int) -> None:
    """Say what was found, what was done to it, and what is trained."""
    kind = "regression" if examples.classes is None else f"{len(examples.classes)} classes"
    inputs = f"{spec['inputs']:,} number{'' if spec['inputs'] == 1 else 's'}"
    print(f"{name}: {len(examples.y):,} examples of {inputs}, {kind}")
    train, valid, test = (f"{len(part[0]):,}" for part in (parts.train, parts.valid, parts.test))
    scaled = "columns standardized" if parts.standardization else "pixels in [0, 1] taken as they are"
    scaled += ", target standardized" if parts.target else ""
    print(f"{train} to train, {valid} to validate, {test} to test; {scaled}")
    all_of_them = ", the whole training set" if batch_size < BATCH_SIZE and batch_size == len(parts.train[0]) else ""
    print(f"network {' - '.join(map(str, (spec['inputs'], *spec['units'])))}; batches of {batch_size}{all_of_them}")
    if unseen := sorted(set(range(len(examples.classes or ()))) - set(parts.train[1].tolist())):
        print(f"no example to learn from: {', '.join((examples.classes or ())[label] for label in unseen)}")


def conclude(record: Mapping[str, Any], *, weighted: bool) -> None:
    """Say how the run ended and what it's worth on the test set."""
    best, classes = record["best_epoch"], record["classes"]
    print(record["outcome"])
    print(f"best epoch {best}{'' if best else ', before training'}: {in_words(record['best'])}")
    print(f"test {sentence(record['test'], weighted=weighted)}")
    if classes and len(classes) <= MOST_SHOWN:
        print(confusion_table(record["test"]["confusion"], classes))
    print(f"wrote {record['settings']['out']}")
