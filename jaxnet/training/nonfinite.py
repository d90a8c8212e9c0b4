"""What a run does about an update that isn't finite.

    program(…, nonfinite="stop")     takes it; the run has diverged at the epoch's end
    program(…, nonfinite="skip")     drops it: parameters, layer state and optimizer state stay as they were
    program(…, nonfinite="reduce")   drops it, and makes the following updates smaller

An update isn't finite when the loss, the gradient, or a number of the new layer state, optimizer state or parameters
that was finite before is inf or NaN. So one bad batch doesn't poison Adam's moments. A batch whose weights sum to 0
makes no update and is never judged. `skip` and `reduce` have settings:
`program(…, nonfinite=skip(limit=3))`. What they count is carried, as arrays, in `TrainState.faults`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from jaxnet.data.checks import positive_integer

# What wasn't finite first, in the order of a step; the code of each is its position.
CAUSES = ("", "loss", "layer state", "gradient", "optimizer state", "parameters")


@dataclass(frozen=True)
class Policy:
    """Made by `skip` and `reduce`."""

    limit: int  # updates dropped in a row, at most
    factor: float | None = None  # of the following updates; None leaves them
    recovery: int = 1  # updates after which one reduction is undone


def skip(limit: int = 10) -> Policy:
    """Drop an update that isn't finite; with more than `limit` of them in a row the run has diverged.

    Raises:
        ValueError, TypeError: `limit` isn't a positive integer.

    >>> skip(limit=3)
    Policy(limit=3, factor=None, recovery=1)
    """
    return Policy(positive_integer("limit", limit))


def reduce(factor: float = 0.5, recovery: int = 100, limit: int = 10) -> Policy:
    """Drop an update that isn't finite and make the following ones smaller; they grow back, slowly.

    θ ← θ + s u, at first s = 1. A dropped update sets s ← f s, one that is taken s ← min(1, s f^(−1/r)) after it,
    so that r good updates undo one reduction. It is what dynamic loss scaling does to the loss (Micikevicius et al.
    2018), done to the step, since the numbers here overflow where steps are too large.

    Args:
        factor: f in (0, 1).
        recovery: r, in updates.
        limit: as for `skip`.

    Raises:
        ValueError, TypeError: for other numbers.

    >>> reduce(factor=0.25).limit
    10
    """
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < 1:
        raise ValueError(f"reduce: got factor={factor!r}; expected a number above 0 and below 1, such as 0.5")
    return Policy(positive_integer("limit", limit), float(factor), positive_integer("recovery", recovery))


def policy_of(nonfinite: "str | Policy") -> Policy | None:
    """The policy of a name; None for "stop".

    Raises:
        ValueError, TypeError: for anything else.

    >>> policy_of("skip") == skip(), policy_of("stop")
    (True, None)
    """
    if isinstance(nonfinite, Policy):
        return nonfinite
    named = {"stop": None, "skip": skip(), "reduce": reduce()}
    if not isinstance(nonfinite, str):
        raise TypeError(
            f'got nonfinite={nonfinite!r}; expected "stop", "skip", "reduce", jn.training.skip(…) or '
            "jn.training.reduce(…)"
        )
    if nonfinite not in named:
        raise ValueError(f'got nonfinite={nonfinite!r}; expected "stop", "skip" or "reduce"')
    return named[nonfinite]


class Faults(NamedTuple):
    """What a policy counts, and the first update that wasn't finite."""

    skipped: Array  # () int32, updates dropped since the run's start
    in_a_row: Array  # () int32, of them since the last that was taken
    longest: Array  # () int32, the most in a row so far
    first: Array  # () int32, `TrainState.step` before the first; -1 when there was none
    cause: Array  # () int32, of the first: index into CAUSES
    scale: Any  # () s, of the next update; () where the policy leaves updates alone


def no_faults(policy: Policy | None) -> Any:
    """The counts before the first step; () without a policy.

    >>> int(no_faults(skip()).first), no_faults(None)
    (-1, ())
    """
    if policy is None:
        return ()
    zero = jnp.zeros((), jnp.int32)
    scale = () if policy.factor is None else jnp.ones((), jnp.result_type(float))
    return Faults(zero, zero, zero, zero - 1, zero, scale)


def counted(policy: Policy, faults: Faults, cause: Array, step: Array) -> Faults:
    """The counts after an update: taken where `cause` is 0, else dropped; `step` is `TrainState.step` before it.

    >>> now = counted(reduce(), no_faults(reduce()), jnp.int32(3), jnp.int32(7))
    >>> int(now.skipped), int(now.first), CAUSES[int(now.cause)], float(now.scale)
    (1, 7, 'gradient', 0.5)
    """
    bad = cause > 0
    in_a_row = jnp.where(bad, faults.in_a_row + 1, 0)
    new = bad & (faults.first < 0)
    scale = faults.scale
    if policy.factor is not None:
        grown = scale * policy.factor ** (-1 / policy.recovery)
        scale = jnp.where(bad, scale * policy.factor, jnp.minimum(grown, jnp.ones_like(grown)))
    return Faults(
        faults.skipped + bad.astype(jnp.int32),
        in_a_row,
        jnp.maximum(faults.longest, in_a_row),
        jnp.where(new, step, faults.first),
        jnp.where(new, cause, faults.cause),
        scale,
    )


def sound(policy: Policy | None, train_loss: Array, faults: Any) -> Array:
    """Whether a run may go on after an epoch with this training loss, a scalar bool.

    With a policy NaN is the mean loss of no update at all, and says nothing; too many dropped in a row end the run.

    >>> bool(sound(None, jnp.array(jnp.nan), ())), bool(sound(skip(1), jnp.array(jnp.nan), no_faults(skip(1))))
    (False, True)
    """
    if policy is None:
        return jnp.isfinite(train_loss)
    return ~jnp.isinf(train_loss) & (faults.longest <= policy.limit)


def cause_of(loss: Array, grads: Any, before: Any, after: Any) -> Array:
    """What isn't finite first in the update from one `TrainState` to the next, an index into CAUSES; 0 for nothing."""
    fine = (
        jnp.isfinite(loss),
        still_finite(before.state, after.state),
        all_finite(grads),
        still_finite(before.opt_state, after.opt_state),
        still_finite(before.params, after.params),
    )
    cause = jnp.zeros((), jnp.int32)
    for code in range(len(fine), 0, -1):
        cause = jnp.where(fine[code - 1], cause, code)
    return cause


def all_finite(tree: Any) -> Array:
    """Whether every number in the tree is finite, a scalar bool.

    >>> bool(all_finite({"w": jnp.array([1.0, jnp.nan])}))
    False
    """
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(a)) for a in jax.tree.leaves(tree)] or [jnp.ones((), bool)]))


def still_finite(before: Any, after: Any) -> Array:
    """Whether every number that was finite is so still, a scalar bool: inf may be a state's way to say "none yet".

    >>> best = {"best": jnp.array(jnp.inf), "key": jax.random.key(0)}
    >>> bool(still_finite(best, best)), bool(still_finite({"best": jnp.zeros(())}, {"best": jnp.array(jnp.nan)}))
    (True, False)
    """
    pairs = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    fine = [jnp.all(jnp.isfinite(b) | ~jnp.isfinite(a)) for a, b in pairs if jnp.issubdtype(a.dtype, jnp.inexact)]
    return jnp.all(jnp.stack(fine or [jnp.ones((), bool)]))
