"""The learning-rate finder: a study of learning rates, each really trained for a few epochs, all side by side."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnet.sweeps.lanes import Build
from jaxnet.sweeps.space import grid, log_space
from jaxnet.sweeps.study import Study
from jaxnet.sweeps.sweep import sweep


class FoundRates(NamedTuple):
    """What the rates did."""

    suggestion: float  # the rate of the lowest loss
    edge: float  # the lowest rate above it that does no better than the lowest rate of all, inf if there is none
    rates: np.ndarray  # (members,) ascending
    losses: np.ndarray  # (members,) after the last epoch, the mean over seeds; inf where a run diverged
    study: Study


def learning_rate_finder(
    build: Build,
    *,
    data: Any,
    fixed: Mapping[str, Any] | None = None,
    low: float = 1e-6,
    high: float = 1e2,
    members: int = 64,
    epochs: int = 1,
    seeds: Any = 1,
    devices: Sequence[jax.Device] | None = None,
    quiet: bool = True,
) -> FoundRates:
    """Train `members` rates between `low` and `high`, equal ratios apart, for `epochs` epochs, and compare them.

    `build` takes its learning rate from hp["lr"]; `fixed` gives the other hyperparameters, one value each. Losses
    are the validation loss after the last epoch, the training loss where there is no validation set. The suggestion is
    the rate of the lowest loss, each loss being the median of itself and its two neighbours, so that one lucky run
    doesn't decide. Unlike a ramp (Smith 2017, "Cyclical learning rates for training neural networks") no rate inherits
    what another one did.

    Raises:
        TypeError, ValueError: as `sweep`; fewer than 3 members. ValueError: every rate diverged.

    >>> import jaxnet as jn, optax
    >>> x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
    >>> def build(hp):
    ...     return jn.program(jn.mlp([1]), jn.losses.squared_error, optax.sgd(hp["lr"]), batch_size=8)
    >>> found = learning_rate_finder(build, data=jn.Data((x, 3 * x)), members=9, high=1e4)
    >>> 0.1 <= found.suggestion < found.edge
    True
    """
    if isinstance(members, int) and members < 3:
        raise ValueError(f"learning_rate_finder: got members={members}; expected at least 3")
    space = grid({"lr": list(log_space(low, high, members)), **(fixed or {})})
    if len(space) != members:
        raise ValueError(f"learning_rate_finder: got several values in fixed={fixed}; expected one of each")
    study = sweep(build, space, data=data, epochs=epochs, seeds=seeds, devices=devices, keep=None, quiet=quiet)
    name = "valid_loss" if "history/valid_loss" in study.values else "train_loss"
    last = study.history(name).values[:, -1].reshape(-1, members)  # NaN where the run ended before
    losses = np.where(np.isfinite(last).all(axis=0), last.mean(axis=0), np.inf)
    padded = np.concatenate([losses[:1], losses, losses[-1:]])
    smooth = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    if not np.isfinite(smooth).any():
        raise ValueError(
            f"every learning rate from {low:g} to {high:g} diverged; expected some that train: lower `low`"
        )
    rates, best = np.array([c["lr"] for c in space.configurations], float), int(np.argmin(smooth))
    useless = [i for i in range(best + 1, members) if not smooth[i] < smooth[0]]
    return FoundRates(float(rates[best]), float(rates[useless[0]]) if useless else np.inf, rates, losses, study)
