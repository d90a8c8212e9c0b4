"""Training: one step, one run as a value (`Program`), and the two ways to drive it, `fit` and `run`."""

from jaxnet.training.evaluation import evaluate, predict
from jaxnet.training.host import run
from jaxnet.training.loop import fit
from jaxnet.training.program import Fitted, Program, program
from jaxnet.training.refit import merged, retrained, until
from jaxnet.training.step import TrainState, train_state, train_step
from jaxnet.training.whole import whole

__all__ = [
    "Fitted",
    "Program",
    "TrainState",
    "evaluate",
    "fit",
    "merged",
    "predict",
    "program",
    "retrained",
    "run",
    "train_state",
    "train_step",
    "until",
    "whole",
]
