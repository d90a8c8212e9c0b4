"""How a run ended, as an int32 that lives in arrays and a sentence that people read.

A run ends when its epochs are exhausted, it stopped early, it diverged, or it reached a target that it was given; a
study can also drop it before its end, when others are better. It is never called converged: a loss that stopped
falling is no proof of a minimum.
"""

EPOCHS_EXHAUSTED = 0
STOPPED_EARLY = 1
DIVERGED = 2
DROPPED = 3
TARGET_REACHED = 4


def describe(code, epoch) -> str:
    """The sentence of one outcome.

    Args:
        code: `fitted.outcome`, one of the codes of this module.
        epoch: `fitted.epochs_run`, the last epoch that was trained (from 1).

    Raises:
        ValueError: for a code that this module doesn't know.

    >>> describe(STOPPED_EARLY, 12)
    'stopped early after epoch 12: the validation loss had not improved for as many epochs as patience allows'
    """
    code, epoch = int(code), int(epoch)
    if code == EPOCHS_EXHAUSTED:
        return f"epochs exhausted: all {epoch} were run"
    if code == STOPPED_EARLY:
        return (
            f"stopped early after epoch {epoch}: the validation loss had not improved for as many epochs "
            "as patience allows"
        )
    if code == DIVERGED:
        return (
            f"diverged at epoch {epoch}: the training loss, the validation loss or a parameter was not finite "
            "at its end"
        )
    if code == DROPPED:
        return f"dropped after epoch {epoch}: at this point of the study others were better"
    if code == TARGET_REACHED:
        return f"reached the target at epoch {epoch}"
    raise ValueError(f"got outcome code {code}; expected 0, 1, 2, 3 or 4 (see jaxnet.outcomes)")


def word(code) -> str:
    """One outcome in two words, for tables.

    Raises:
        ValueError: for a code that this module doesn't know.

    >>> word(DIVERGED)
    'diverged'
    """
    words = {
        EPOCHS_EXHAUSTED: "epochs exhausted",
        STOPPED_EARLY: "stopped early",
        DIVERGED: "diverged",
        DROPPED: "dropped",
        TARGET_REACHED: "target reached",
    }
    if int(code) not in words:
        raise ValueError(f"got outcome code {code}; expected 0, 1, 2, 3 or 4 (see jaxnet.outcomes)")
    return words[int(code)]
