"""Studies: many runs as one program per bucket, one table, nothing lost."""

from jaxnet.sweeps.comparison import Comparison, compare, seeds_needed
from jaxnet.sweeps.ensembles import average_predictions, average_probabilities, calibration, disagreement
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
from jaxnet.sweeps.statistics import bands, interval, rank_stability
from jaxnet.sweeps.study import Study
from jaxnet.sweeps.sweep import sweep

__all__ = [
    "Comparison",
    "Progress",
    "Space",
    "Study",
    "average_predictions",
    "average_probabilities",
    "bands",
    "calibration",
    "compare",
    "disagreement",
    "grid",
    "halving",
    "hyperband",
    "integers",
    "interval",
    "learning_rate_finder",
    "lin_space",
    "log_space",
    "log_uniform",
    "population_based_training",
    "random_draws",
    "rank_stability",
    "seeds_needed",
    "sobol_draws",
    "static",
    "sweep",
    "uniform",
    "when",
    "zipped",
]
