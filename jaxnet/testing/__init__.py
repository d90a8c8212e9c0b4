"""Tools that prove gradients, for jaxnet's own tests and for anybody's layers, losses and optimizers.

Do two gradients agree?        compare_gradients, compare_trees; `tolerance` says how closely
Is it the derivative?          gradcheck, against finite differences and complex steps
Does it keep its contract?     check_layer, check_loss, check_optimizer: whole batteries, one report
Does the test see mistakes?    mutants: ten planted defects of back-propagation, alone or together
Does the program behave?       compiles, no_transfers, no_leaks, no_key_reuse: blocks that raise where it doesn't
On what should it be tried?    networks, parameters, batches, cases, pytrees: Hypothesis strategies

Every report is true when nothing is wrong, and prints as a table. Hypothesis is needed by the strategies alone, and
imported when the first of them is.
"""

import importlib
from typing import TYPE_CHECKING

from jaxnet.testing.gradcheck import gradcheck
from jaxnet.testing.gradients import Comparison, LeafComparison, compare_gradients, compare_trees
from jaxnet.testing.guards import compiles, no_key_reuse, no_leaks, no_transfers
from jaxnet.testing.layerchecks import check_layer
from jaxnet.testing.losschecks import check_loss
from jaxnet.testing.mutants import mutants
from jaxnet.testing.optimizerchecks import check_optimizer
from jaxnet.testing.reports import Check, Report
from jaxnet.testing.tolerances import tolerance

if TYPE_CHECKING:
    from jaxnet.testing.strategies import Case, batches, cases, networks, parameters, pytrees

__all__ = [
    "Case",
    "Check",
    "Comparison",
    "LeafComparison",
    "Report",
    "batches",
    "cases",
    "check_layer",
    "check_loss",
    "check_optimizer",
    "compare_gradients",
    "compare_trees",
    "compiles",
    "gradcheck",
    "mutants",
    "networks",
    "no_key_reuse",
    "no_leaks",
    "no_transfers",
    "parameters",
    "pytrees",
    "tolerance",
]


def __getattr__(name: str):
    if name in ("Case", "batches", "cases", "networks", "parameters", "pytrees"):
        return getattr(importlib.import_module("jaxnet.testing.strategies"), name)
    raise AttributeError(f"module 'jaxnet.testing' has no attribute {name!r}")
