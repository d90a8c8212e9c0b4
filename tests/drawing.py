"""How many examples Hypothesis draws, and the cases of `jaxnet.testing` as dense networks without a state."""

import os
from functools import partial

from hypothesis import settings

import jaxnet as jn
from jaxnet.layers import Layer
from jaxnet.testing import Case
from jaxnet.testing import cases as any_cases

dense_cases = partial(any_cases, kinds=("dense", "dropout"))


def examples(count: int):
    """Hypothesis settings: so many drawn examples, twenty times as many under scripts/test-long."""
    return settings(max_examples=count * (20 if os.environ.get("JAXNET_HYPOTHESIS") == "hunt" else 1))


def parts(case: Case) -> tuple[Layer, ...]:
    """The layers of the case's network, in order."""
    return tuple(part for _, part in case.net.settings)


def roads(case: Case):
    """The two gradient functions of a case: by the hand-written rules, by automatic differentiation."""
    return jn.backprop(case.net, case.loss), jn.loss_and_grad(case.net, case.loss)
