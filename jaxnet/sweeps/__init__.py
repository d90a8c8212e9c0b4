"""Studies: many runs as one program per bucket, one table, nothing lost."""

from jaxnet.sweeps.halving import halving, hyperband
from jaxnet.sweeps.population import population_based_training
from jaxnet.sweeps.progress import Progress
from jaxnet.sweeps.rates import learning_rate_finder
from jaxnet.sweeps.space import (
    Space,
    grid,
    integers,
    lin_space,
    log_space,
    log_uniform,
    random_draws,
    sobol_draws,
    static,
    uniform,
    when,
    zipped,
)
from jaxnet.sweeps.study import Study
from jaxnet.sweeps.sweep import sweep

__all__ = [
    "Progress",
    "Space",
    "Study",
    "grid",
    "halving",
    "hyperband",
    "integers",
    "learning_rate_finder",
    "lin_space",
    "log_space",
    "log_uniform",
    "population_based_training",
    "random_draws",
    "sobol_draws",
    "static",
    "sweep",
    "uniform",
    "when",
    "zipped",
]
