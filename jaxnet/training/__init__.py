"""Training: one step, one run as a value (`Program`), and the two ways to drive it, `fit` and `run`."""

from jaxnet.training.evaluation import evaluate, predict
from jaxnet.training.host import run
from jaxnet.training.loop import fit
from jaxnet.training.program import Fitted, Program, program
from jaxnet.training.step import TrainState, train_state, train_step
from jaxnet.training.whole import whole

__all__ = [
    "Fitted",
    "Program",
    "TrainState",
    "evaluate",
    "fit",
    "predict",
    "program",
    "run",
    "train_state",
    "train_step",
    "whole",
]
