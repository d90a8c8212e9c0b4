"""Training: one step, one run as a value (`Program`), and the two ways to drive it, `fit` and `run`."""

from jaxnet.training.diagnosis import first_nonfinite
from jaxnet.training.evaluation import evaluate, predict
from jaxnet.training.full_batch import program_full_batch
from jaxnet.training.host import run
from jaxnet.training.loop import fit
from jaxnet.training.nonfinite import reduce, skip
from jaxnet.training.program import Fitted, Program, program
from jaxnet.training.refit import merged, retrained, until
from jaxnet.training.step import TrainState, train_state, train_step
from jaxnet.training.whole import whole

__all__ = [
    "Fitted",
    "Program",
    "TrainState",
    "evaluate",
    "first_nonfinite",
    "fit",
    "merged",
    "predict",
    "program",
    "program_full_batch",
    "reduce",
    "retrained",
    "run",
    "skip",
    "train_state",
    "train_step",
    "until",
    "whole",
]
