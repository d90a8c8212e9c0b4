"""outcomes: fixed codes, each with its sentence; none of them claims convergence."""

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
        "diverged at epoch 3: the training loss, the validation loss or a parameter was not finite at its end",
    ),
    (outcomes.DROPPED, 3, 5, "dropped after epoch 5: at this point of the study others were better"),
    (outcomes.TARGET_REACHED, 4, 9, "reached the target at epoch 9"),
]


@pytest.mark.newer
@pytest.mark.parametrize("number", [int, np.int32, jnp.int32], ids=["int", "numpy", "jax"])
@pytest.mark.parametrize(("code", "stored", "epoch", "sentence"), SENTENCES)
def test_each_code_has_its_sentence(code, stored, epoch, sentence, number):
    assert code == stored  # what older runs hold on disk
    assert outcomes.describe(number(code), number(epoch)) == sentence
    assert "converge" not in sentence


@pytest.mark.parametrize("code", [-1, 5, 255])
def test_unknown_code_is_refused(code):
    with pytest.raises(ValueError, match=rf"got outcome code {code}; expected 0, 1, 2, 3 or 4"):
        outcomes.describe(code, 1)
