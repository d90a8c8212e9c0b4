"""What can be asked on the command line: one record per subcommand, its fields the options. Doesn't import jax."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

Column = Annotated[str | None, tyro.conf.arg(metavar="COLUMN")]
Folder = Annotated[Path | None, tyro.conf.arg(metavar="DIR")]
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
Mode = Literal["min", "max"] | None
BATCH_SIZE = 32

DESCRIPTION = (
    "Train networks of MLP size, and whole studies of them, as pure JAX functions. `jaxnet --version` prints the "
    "version; JAXNET_TRACEBACK=1 shows the traceback behind an error."
)


@dataclass(frozen=True)
class Demo:
    """Prove the gradients, train on digits, compare learning rates, and write one HTML page of it."""

    out: Path = Path("jaxnet-demo.html")
    """The page to write."""
    seed: int = 0
    """Decides every random number."""


@dataclass(frozen=True)
class Train:
    """Train a network on a table, an array file or a known data set, and judge it once on held-out examples."""

    data: str
    """A CSV file, an NPZ file with arrays x and y, or one of digits, breast_cancer, wine, iris, diabetes,
    fashion_mnist."""
    target: Column = None
    """The column to predict; CSV only, where it's required."""
    task: Literal["classification", "regression"] | None = None
    """What the target is; found out from its values unless given."""
    ignore: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN ...")] = ()
    """Columns that are no features, such as identifiers; CSV only."""
    missing: Literal["refuse", "drop", "mean"] = "refuse"
    """What to do about missing values: refuse the file, drop those rows, or put the column's mean (numbers) or the
    category "missing" (text); CSV only."""
    hidden: str = "256,128"
    """Units of the hidden layers, separated by commas; '' is a linear model."""
    activation: str = "relu"
    """Of the hidden units: identity, relu, sigmoid, softmax, softplus or tanh."""
    dropout: float = 0.0
    """The probability to drop a hidden unit in training."""
    epochs: int = 100
    """The most passes over the training examples."""
    batch_size: int = BATCH_SIZE
    """Examples per step, at most; the default is lowered for smaller training sets."""
    lr: float = 1e-3
    """The learning rate of AdamW."""
    weight_decay: float = 0.0
    """The weight decay of AdamW."""
    patience: int = 10
    """Stop after this many epochs without a lower validation loss; 0 never stops early."""
    test_share: float = 0.2
    """The share of the examples held out for the test at the end; fashion_mnist brings its own test set."""
    valid_share: float = 0.2
    """The share of the rest held out to choose the best epoch."""
    seed: int = 0
    """Decides the split, the initial weights, the order of the examples and the dropout."""
    out: Folder = None
    """The folder to write, without a run in it; runs/NAME-SEED, or the next free number, unless given."""


@dataclass(frozen=True)
class Predict:
    """Predict by the network of a run and write a CSV file: one row per example, in their order.

    Classes: the predicted one and a probability for each. Regression: the prediction in the target's unit. If the
    data have the target, the accuracy or the root mean squared error is printed too."""

    run: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """The folder that `jaxnet train` wrote."""
    data: str
    """A CSV file with the columns of the training file, an NPZ file with an array x, or the name of a data set."""
    ignore: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN ...")] = ()
    """Columns that training didn't see and prediction needn't; CSV only."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("predictions.csv")
    """The file to write, replaced if it's there; - for standard output."""


@dataclass(frozen=True)
class Sweep:
    """Run a study: every configuration of a space with every seed, in a few compiled programs.

    Whatever has finished is kept in the study's folder: interrupt it, kill it, run the same command and it goes on.
    The file is described in docs/studies.md."""

    study: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY.toml")]
    """The file that says what to run."""
    out: Folder = None
    """The study's folder; runs/NAME unless given."""
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the plan and the study with all defaults filled in; compile nothing, write nothing."""
    devices: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """How many devices work, each on members of its own; all cores or accelerators unless the file says otherwise."""
    seeds: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """How many seeds, instead of what the file says; more can be added to a study that is there."""
    share: Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="I N")] = None
    """Run share I of N (the first is 0) of the members; other processes, with the same folder, run the others."""
    accept_change: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SECTION ...")] = ()
    """Go on with a study although these changed: settings, data, folds, environment, program or space."""


@dataclass(frozen=True)
class Report:
    """Write a study's results as one HTML page, and as a table if wished; a study under way has a report too."""

    study: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """The study's folder."""
    out: File = None
    """The page to write; DIR/report.html unless given."""
    csv: File = None
    """Write one row per member to this file too; .csv or .parquet."""
    name: Annotated[str | None, tyro.conf.arg(metavar="METRIC")] = None
    """What to judge by, such as valid_accuracy; what the study ranked by unless given."""
    mode: Mode = None
    """Whether low or high values are good; needed only where the name doesn't tell."""


@dataclass(frozen=True)
class Compare:
    """Compare the best configurations of two studies on the seeds that they have in common."""

    studies: Annotated[tuple[Path, Path], tyro.conf.Positional, tyro.conf.arg(metavar="DIR DIR")]
    """The folders of study a and study b."""
    name: Annotated[str | None, tyro.conf.arg(metavar="METRIC")] = None
    """What to judge by, such as valid_accuracy; what the first study ranked by unless given."""
    mode: Mode = None
    """Whether low or high values are good; needed only where the name doesn't tell."""
    level: float = 0.95
    """Of the confidence intervals and tests."""


@dataclass(frozen=True)
class Check:
    """Prove a layer, a loss or an optimizer of your own: run every check of jaxnet.testing and print a report.

    For a layer: gradient by hand against autodiff and finite differences, types, state, keys, members side by side.
    Exit code 0: nothing is wrong; 1: something is; 2: it couldn't be run. JAX_ENABLE_X64=1 checks in float64, where
    differences say most. docs/layers.md shows how to write a layer."""

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODULE:NAME")]
    """A module's dotted name or file, and what is in it: a Layer, a Loss, an optax optimizer, or a function that makes
    one without arguments."""
    shape: Annotated[str | None, tyro.conf.arg(metavar="SHAPE")] = None
    """Of one example of a layer's inputs, such as 28,28,1; of a loss's outputs, 3 unless given."""
    dtype: Annotated[str | None, tyro.conf.arg(metavar="DTYPE")] = None
    """Of a layer's inputs, such as int32; JAX's default float unless given."""
    bound: float | None = None
    """The share of a gradient's scale that errors may have; by the dtype unless given."""
    seed: int = 0
    """Decides everything drawn."""


@dataclass(frozen=True)
class Inspect:
    """Say what is in a checkpoint, and whether every checksum holds; of a folder, what each checkpoint in it is.

    Exit code 0: all are intact; 1: something is damaged; 2: there's none. docs/checkpoints.md describes the format."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """A .safetensors file that jaxnet wrote, or a folder of them."""


@dataclass(frozen=True)
class Info:
    """Print versions, devices, settings and the data sets found."""


Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Sweep, tyro.conf.subcommand("sweep")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Inspect, tyro.conf.subcommand("inspect")]
    | Annotated[Info, tyro.conf.subcommand("info")]
)


def parsed(words: list[str]) -> Demo | Train | Predict | Sweep | Report | Compare | Check | Inspect | Info:
    """The record that a command line asks for; SystemExit after help (code 0) or a word that isn't understood (2).

    >>> parsed(["train", "--data", "iris", "--hidden", ""]).hidden
    ''
    """
    return tyro.cli(Command, prog="jaxnet", args=words, description=DESCRIPTION)
