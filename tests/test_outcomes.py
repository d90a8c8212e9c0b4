"""outcomes: fixed codes, each with its sentence; one of them alone claims convergence."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import outcomes

SENTENCES = [
    (outcomes.EPOCHS_EXHAUSTED, 0, 20, "epochs exhausted: all 20 were run"),
    (
        outcomes.STOPPED_EARLY,
        1,
        7,
        "stopped early after epoch 7: the validation loss had not improved for as many epochs as patience allows",
    ),
    (
        outcomes.DIVERGED,
        2,
        3,
        "diverged at epoch 3: the training loss, the validation loss or a parameter was not finite at its end, or more "
        "updates in a row were dropped than allowed",
    ),
    (outcomes.DROPPED, 3, 5, "dropped after epoch 5: at this point of the study others were better"),
    (outcomes.TARGET_REACHED, 4, 9, "reached the target at epoch 9"),
    (outcomes.RUNNING, -1, 2, "running: 2 iterations so far"),
    (
        outcomes.CONVERGED,
        5,
        4,
        "converged at iteration 4: no entry of the gradient exceeds gradient_tolerance",
    ),
    (
        outcomes.STEP_BELOW_TOLERANCE,
        6,
        3,
        "stopped by step at iteration 3: it was at most step_tolerance of the parameters' norm, while the gradient "
        "still exceeds its tolerance",
    ),
    (
        outcomes.CHANGE_BELOW_TOLERANCE,
        7,
        3,
        "stopped by value at iteration 3: it fell by at most value_tolerance of itself, while the gradient still "
        "exceeds its tolerance",
    ),
    (
        outcomes.STALLED,
        8,
        3,
        "stalled at iteration 3: no step along the direction lowers the value in this precision, while the gradient "
        "still exceeds its tolerance",
    ),
    (
        outcomes.DAMPING_EXHAUSTED,
        9,
        3,
        "damping exhausted at iteration 3: the value doesn't fall even with the largest damping, while the gradient "
        "still exceeds its tolerance",
    ),
    (
        outcomes.STEP_LIMIT,
        10,
        7,
        "step limit: all 7 iterations were made, and the gradient exceeds its tolerance",
    ),
    (
        outcomes.NON_FINITE,
        11,
        3,
        "non-finite at iteration 3: the value, its gradient or the step was NaN or infinite; the parameters are the "
        "last finite ones",
    ),
]


@pytest.mark.newer
@pytest.mark.parametrize("number", [int, np.int32, jnp.int32], ids=["int", "numpy", "jax"])
@pytest.mark.parametrize(("code", "stored", "epoch", "sentence"), SENTENCES)
def test_each_code_has_its_sentence(code, stored, epoch, sentence, number):
    assert code == stored  # what older runs hold on disk
    assert outcomes.describe(number(code), number(epoch)) == sentence
    assert ("converge" in sentence) == (code == outcomes.CONVERGED)


@pytest.mark.parametrize("code", [-2, 12, 255])
def test_unknown_code_is_refused(code):
    with pytest.raises(ValueError, match=rf"got outcome code {code}; expected one of jaxnet.outcomes"):
        outcomes.describe(code, 1)
