"""How a run ended, as an int32 that lives in arrays and a sentence that people read.

A run of a first-order optimizer ends when its epochs are exhausted, it stopped early, it diverged, or it reached a
target that it was given; a study can also drop it before its end, when others are better. It is never called
converged: a loss that stopped falling is no proof of a minimum. A minimization with the whole function at hand can say
more, and says converged only where the gradient's largest entry is at most the tolerance.
"""

EPOCHS_EXHAUSTED = 0
STOPPED_EARLY = 1
DIVERGED = 2
DROPPED = 3
TARGET_REACHED = 4

RUNNING = -1  # a minimization that can go on
CONVERGED = 5
STEP_BELOW_TOLERANCE = 6
CHANGE_BELOW_TOLERANCE = 7
STALLED = 8
DAMPING_EXHAUSTED = 9
STEP_LIMIT = 10
NON_FINITE = 11

LOST = (DIVERGED, NON_FINITE)  # runs whose numbers went bad

_MINIMIZATIONS = {
    RUNNING: ("running", "running: {} iterations so far"),
    CONVERGED: ("converged", "converged at iteration {}: no entry of the gradient exceeds gradient_tolerance"),
    STEP_BELOW_TOLERANCE: (
        "small step",
        "stopped by step at iteration {}: it was at most step_tolerance of the parameters' norm, while the gradient "
        "still exceeds its tolerance",
    ),
    CHANGE_BELOW_TOLERANCE: (
        "small change",
        "stopped by value at iteration {}: it fell by at most value_tolerance of itself, while the gradient still "
        "exceeds its tolerance",
    ),
    STALLED: (
        "stalled",
        "stalled at iteration {}: no step along the direction lowers the value in this precision, while the gradient "
        "still exceeds its tolerance",
    ),
    DAMPING_EXHAUSTED: (
        "damping exhausted",
        "damping exhausted at iteration {}: the value doesn't fall even with the largest damping, while the gradient "
        "still exceeds its tolerance",
    ),
    STEP_LIMIT: ("step limit", "step limit: all {} iterations were made, and the gradient exceeds its tolerance"),
    NON_FINITE: (
        "non-finite",
        "non-finite at iteration {}: the value, its gradient or the step was NaN or infinite; the parameters are the "
        "last finite ones",
    ),
}


def describe(code, epoch) -> str:
    """The sentence of one outcome.

    Args:
        code: `fitted.outcome`, one of the codes of this module.
        epoch: `fitted.epochs_run`, the last epoch that was trained (from 1); of a minimization `iterations`.

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
            "at its end, or more updates in a row were dropped than allowed"
        )
    if code == DROPPED:
        return f"dropped after epoch {epoch}: at this point of the study others were better"
    if code == TARGET_REACHED:
        return f"reached the target at epoch {epoch}"
    if code in _MINIMIZATIONS:
        return _MINIMIZATIONS[code][1].format(epoch)
    raise ValueError(f"got outcome code {code}; expected one of jaxnet.outcomes")


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
    } | {known: text for known, (text, _) in _MINIMIZATIONS.items()}
    if int(code) not in words:
        raise ValueError(f"got outcome code {code}; expected one of jaxnet.outcomes")
    return words[int(code)]
