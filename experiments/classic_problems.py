"""The test problems of Moré, Garbow & Hillstrom 1981 ("Testing unconstrained optimization software", TOMS 7, 17–41).

Each is a sum of squares F(x) = Σ r_i(x)², with its standard start and the published values of its minima. Residuals
are written once, for NumPy and for JAX: `residuals(x, xp)` with xp the module. All are analytic, so that
`gradient_by_numpy` differentiates them by the complex step, without a line of JAX.

`jaxnet.least_squares` minimizes F/2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class ClassicProblem(NamedTuple):
    name: str
    residuals: Callable[[Any, Any], Any]  # (x (n,), numpy or jax.numpy) -> (m,)
    start: tuple[float, ...]
    minimum: float  # of F, the lowest known
    others: tuple[float, ...] = ()  # of F, at other local minima or approached at infinity
    minimizer: tuple[float, ...] | None = None  # where it's published in closed form or to enough digits


def value_by_numpy(problem: ClassicProblem, x) -> float:
    """F/2."""
    return float(np.sum(np.square(problem.residuals(np.asarray(x, np.float64), np)))) / 2


def jacobian_by_numpy(problem: ClassicProblem, x) -> np.ndarray:
    """(m, n) by the complex step Im r(x + ih)/h, which has no cancellation: h = 1e-30 is exact to rounding."""
    x = np.asarray(x, np.float64)
    return np.stack([problem.residuals(x + 1e-30j * e, np).imag / 1e-30 for e in np.eye(len(x))], axis=1)


def gradient_by_numpy(problem: ClassicProblem, x, precision: float = 2.3e-16) -> tuple[np.ndarray, np.ndarray]:
    """(the gradient of F/2, a bound of its rounding errors where it's computed in this precision), each (n,).

    A residual's error is ε (1 + |r| + Σ_j |∂r/∂x_j x_j|), its size and what a relative change of each x_j makes.
    """
    r, jacobian = problem.residuals(np.asarray(x, np.float64), np), jacobian_by_numpy(problem, x)
    errors = precision * (1 + np.abs(r) + np.abs(jacobian) @ np.abs(x))
    return jacobian.T @ r, np.abs(jacobian).T @ errors


def fall_by_numpy(problem: ClassicProblem, x, precision: float = 2.3e-16) -> float:
    """How far F/2 falls on 400 steps of 1e-20 … 100 times the gradient, against it, in units of its rounding error."""
    x = np.asarray(x, np.float64)
    r, jacobian = problem.residuals(x, np), jacobian_by_numpy(problem, x)
    rounding = precision * np.abs(r) @ (1 + np.abs(r) + np.abs(jacobian) @ np.abs(x))
    gradient = jacobian.T @ r
    with np.errstate(all="ignore"):
        values = [value_by_numpy(problem, x - step * gradient) for step in 10.0 ** np.linspace(-20, 2, 400)]
    return float((r @ r / 2 - np.nanmin(values)) / rounding) if rounding else 0.0


def minimum_at(problem: ClassicProblem, value: float) -> str:
    """Whether F/2 = `value` is that of a known minimum, to 4 digits: "best", "local" (to 2 digits) or "no"."""
    start = value_by_numpy(problem, problem.start)
    if 2 * value <= problem.minimum * (1 + 1e-4) + min(1e-10 * start, 1e-7):
        return "best"
    return "local" if any(abs(2 * value - other) <= 1e-2 * other for other in problem.others) else "no"


# ── the residuals, in the order of the paper ────────────────────────────────────────────────────────────────────


def rosenbrock(x, xp):  # of any even number of variables
    odd, even = x[0::2], x[1::2]
    return xp.concatenate([10 * (even - odd**2), 1 - odd])


def freudenstein_roth(x, xp):
    a, b = x
    return xp.stack([-13 + a + ((5 - b) * b - 2) * b, -29 + a + ((b + 1) * b - 14) * b])


def powell_badly_scaled(x, xp):
    return xp.stack([1e4 * x[0] * x[1] - 1, xp.exp(-x[0]) + xp.exp(-x[1]) - 1.0001])


def brown_badly_scaled(x, xp):
    return xp.stack([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2])


def beale(x, xp):
    return np.array([1.5, 2.25, 2.625]) - x[0] * (1 - x[1] ** np.arange(1, 4))


def jennrich_sampson(x, xp):
    i = np.arange(1.0, 11)
    return 2 + 2 * i - (xp.exp(i * x[0]) + xp.exp(i * x[1]))


def helical_valley(x, xp):
    turn = xp.arctan(x[1] / x[0]) / (2 * np.pi) + xp.where(xp.real(x[0]) < 0, 0.5, 0.0)
    return xp.stack([10 * (x[2] - 10 * turn), 10 * (xp.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]])


def bard(x, xp):
    y = [0.14, 0.18, 0.22, 0.25, 0.29, 0.32, 0.35, 0.39, 0.37, 0.58, 0.73, 0.96, 1.34, 2.10, 4.39]
    u = np.arange(1.0, 16)
    v = 16 - u
    return np.array(y) - (x[0] + u / (v * x[1] + np.minimum(u, v) * x[2]))


def gaussian(x, xp):
    half = [0.0009, 0.0044, 0.0175, 0.0540, 0.1295, 0.2420, 0.3521]
    t = (8 - np.arange(1, 16)) / 2
    return x[0] * xp.exp(-x[1] * (t - x[2]) ** 2 / 2) - np.array([*half, 0.3989, *half[::-1]])


def meyer(x, xp):
    y = [34780, 28610, 23650, 19630, 16370, 13720, 11540, 9744, 8261, 7030, 6005, 5147, 4427, 3820, 3307, 2872]
    t = 45.0 + 5 * np.arange(1, 17)
    return x[0] * xp.exp(x[1] / (t + x[2])) - np.array(y, float)


def gulf(x, xp):
    """With |y − x₂| in the exponent, not the paper's misprint |y m i x₂|; 99 residuals."""
    t = np.arange(1, 100) / 100
    y = 25 + (-50 * np.log(t)) ** (2 / 3)
    return xp.exp(-(((y - x[1]) ** 2) ** (x[2] / 2)) / x[0]) - t


def box(x, xp):
    t = np.arange(1, 11) / 10
    return xp.exp(-t * x[0]) - xp.exp(-t * x[1]) - x[2] * (np.exp(-t) - np.exp(-10 * t))


def powell_singular(x, xp):  # of any multiple of four variables
    a, b, c, d = (x[i::4] for i in range(4))
    return xp.concatenate([a + 10 * b, 5**0.5 * (c - d), (b - 2 * c) ** 2, 10**0.5 * (a - d) ** 2])


def wood(x, xp):
    a, b, c, d = x
    rows = [10 * (b - a**2), 1 - a, 90**0.5 * (d - c**2), 1 - c, 10**0.5 * (b + d - 2), (b - d) / 10**0.5]
    return xp.stack(rows)


def kowalik_osborne(x, xp):
    y = [0.1957, 0.1947, 0.1735, 0.1600, 0.0844, 0.0627, 0.0456, 0.0342, 0.0323, 0.0235, 0.0246]
    u = np.array([4, 2, 1, 0.5, 0.25, 0.167, 0.125, 0.1, 0.0833, 0.0714, 0.0625])
    return np.array(y) - x[0] * (u**2 + u * x[1]) / (u**2 + u * x[2] + x[3])


def brown_dennis(x, xp):
    t = np.arange(1, 21) / 5
    return (x[0] + t * x[1] - np.exp(t)) ** 2 + (x[2] + np.sin(t) * x[3] - np.cos(t)) ** 2


def osborne_1(x, xp):
    y = [
        0.844, 0.908, 0.932, 0.936, 0.925, 0.908, 0.881, 0.850, 0.818, 0.784, 0.751, 0.718, 0.685, 0.658, 0.628, 0.603,
        0.580, 0.558, 0.538, 0.522, 0.506, 0.490, 0.478, 0.467, 0.457, 0.448, 0.438, 0.431, 0.424, 0.420, 0.414, 0.411,
        0.406,
    ]  # fmt: skip
    t = 10.0 * np.arange(33)
    return np.array(y) - (x[0] + x[1] * xp.exp(-t * x[3]) + x[2] * xp.exp(-t * x[4]))


def biggs_exp6(x, xp):
    t = np.arange(1, 14) / 10
    y = np.exp(-t) - 5 * np.exp(-10 * t) + 3 * np.exp(-4 * t)
    return x[2] * xp.exp(-t * x[0]) - x[3] * xp.exp(-t * x[1]) + x[5] * xp.exp(-t * x[4]) - y


def osborne_2(x, xp):
    y = [
        1.366, 1.191, 1.112, 1.013, 0.991, 0.885, 0.831, 0.847, 0.786, 0.725, 0.746, 0.679, 0.608, 0.655, 0.616, 0.606,
        0.602, 0.626, 0.651, 0.724, 0.649, 0.649, 0.694, 0.644, 0.624, 0.661, 0.612, 0.558, 0.533, 0.495, 0.500, 0.423,
        0.395, 0.375, 0.372, 0.391, 0.396, 0.405, 0.428, 0.429, 0.523, 0.562, 0.607, 0.653, 0.672, 0.708, 0.633, 0.668,
        0.645, 0.632, 0.591, 0.559, 0.597, 0.625, 0.739, 0.710, 0.729, 0.720, 0.636, 0.581, 0.428, 0.292, 0.162, 0.098,
        0.054,
    ]  # fmt: skip
    t = np.arange(65) / 10
    bumps = sum(x[k] * xp.exp(-((t - x[k + 7]) ** 2) * x[k + 4]) for k in (1, 2, 3))
    return np.array(y) - (x[0] * xp.exp(-t * x[4]) + bumps)


def watson(x, xp):
    j = np.arange(len(x))
    t = np.arange(1, 30)[:, None] / 29
    slope = xp.sum(j[1:] * x[1:] * t ** (j[1:] - 1), axis=1)
    return xp.concatenate([slope - xp.sum(x * t**j, axis=1) ** 2 - 1, xp.stack([x[0], x[1] - x[0] ** 2 - 1])])


def penalty_1(x, xp):
    return xp.concatenate([1e-5**0.5 * (x - 1), xp.stack([xp.sum(x**2) - 0.25])])


def penalty_2(x, xp):
    n = len(x)
    i = np.arange(2, n + 1)
    y = np.exp(i / 10) + np.exp((i - 1) / 10)
    rows = [
        xp.stack([x[0] - 0.2]),
        1e-5**0.5 * (xp.exp(x[1:] / 10) + xp.exp(x[:-1] / 10) - y),
        1e-5**0.5 * (xp.exp(x[1:] / 10) - np.exp(-0.1)),
        xp.stack([xp.sum((n - np.arange(n)) * x**2) - 1]),
    ]
    return xp.concatenate(rows)


def variably_dimensioned(x, xp):
    total = xp.sum(np.arange(1, len(x) + 1) * (x - 1))
    return xp.concatenate([x - 1, xp.stack([total, total**2])])


def trigonometric(x, xp):
    return len(x) - xp.sum(xp.cos(x)) + np.arange(1, len(x) + 1) * (1 - xp.cos(x)) - xp.sin(x)


def brown_almost_linear(x, xp):
    return xp.concatenate([x[:-1] + xp.sum(x) - (len(x) + 1), xp.stack([xp.prod(x) - 1])])


def boundary_value(x, xp):
    h = 1 / (len(x) + 1)
    t = h * np.arange(1, len(x) + 1)
    around = xp.concatenate([0 * x[:1], x, 0 * x[:1]])
    return 2 * x - around[:-2] - around[2:] + h**2 * (x + t + 1) ** 3 / 2


def integral_equation(x, xp):
    h = 1 / (len(x) + 1)
    t = h * np.arange(1, len(x) + 1)
    kernel = np.minimum(t[:, None], t) * (1 - np.maximum(t[:, None], t))
    return x + h / 2 * xp.sum(kernel * (x + t + 1) ** 3, axis=1)


def broyden_tridiagonal(x, xp):
    around = xp.concatenate([0 * x[:1], x, 0 * x[:1]])
    return (3 - 2 * x) * x - around[:-2] - 2 * around[2:] + 1


def broyden_banded(x, xp):
    i = np.arange(len(x))
    near = (i[:, None] - i <= 5) & (i - i[:, None] <= 1) & (i[:, None] != i)
    return x * (2 + 5 * x**2) + 1 - xp.sum(near * (x * (1 + x)), axis=1)


def linear_full_rank(x, xp):  # 20 residuals
    share = -2 / 20 * xp.sum(x) - 1
    return xp.concatenate([x + share, 0 * x[0] * np.ones(20 - len(x)) + share])


def linear_rank_1(x, xp):  # 20 residuals
    return np.arange(1, 21) * xp.sum(np.arange(1, len(x) + 1) * x) - 1


def chebyquad(x, xp):
    z = 2 * x - 1
    before, now, rows = z * 0 + 1, z, []
    for i in range(1, len(x) + 1):
        rows.append(xp.sum(now) / len(x) + (1 / (i**2 - 1) if i % 2 == 0 else 0.0))
        before, now = now, 2 * z * now - before
    return xp.stack(rows)


N = np.arange(1, 11)
PROBLEMS = (
    ClassicProblem("Rosenbrock", rosenbrock, (-1.2, 1.0), 0.0, minimizer=(1.0, 1.0)),
    ClassicProblem("Freudenstein–Roth", freudenstein_roth, (0.5, -2.0), 0.0, (48.9842,), (5.0, 4.0)),
    ClassicProblem("Powell badly scaled", powell_badly_scaled, (0.0, 1.0), 0.0, (), (1.09815933e-5, 9.10614674)),
    ClassicProblem("Brown badly scaled", brown_badly_scaled, (1.0, 1.0), 0.0, (), (1e6, 2e-6)),
    ClassicProblem("Beale", beale, (1.0, 1.0), 0.0, (), (3.0, 0.5)),
    ClassicProblem("Jennrich–Sampson", jennrich_sampson, (0.3, 0.4), 124.362, (), (0.257825, 0.257825)),
    ClassicProblem("Helical valley", helical_valley, (-1.0, 0.0, 0.0), 0.0, (), (1.0, 0.0, 0.0)),
    ClassicProblem("Bard", bard, (1.0, 1.0, 1.0), 8.21487e-3, (17.4286,)),
    ClassicProblem("Gaussian", gaussian, (0.4, 1.0, 0.0), 1.12793e-8),
    ClassicProblem("Meyer", meyer, (0.02, 4000.0, 250.0), 87.9458),
    ClassicProblem("Gulf research", gulf, (5.0, 2.5, 0.15), 0.0, (), (50.0, 25.0, 1.5)),
    ClassicProblem("Box 3-D", box, (0.0, 10.0, 20.0), 0.0, (), (1.0, 10.0, 1.0)),
    ClassicProblem("Powell singular", powell_singular, (3.0, -1.0, 0.0, 1.0), 0.0, (), (0.0,) * 4),
    ClassicProblem("Wood", wood, (-3.0, -1.0, -3.0, -1.0), 0.0, (), (1.0,) * 4),
    ClassicProblem("Kowalik–Osborne", kowalik_osborne, (0.25, 0.39, 0.415, 0.39), 3.07505e-4, (1.02734e-3,)),
    ClassicProblem("Brown–Dennis", brown_dennis, (25.0, 5.0, -5.0, -1.0), 85822.2),
    ClassicProblem("Osborne 1", osborne_1, (0.5, 1.5, -1.0, 0.01, 0.02), 5.46489e-5),
    ClassicProblem("Biggs EXP6", biggs_exp6, (1.0, 2.0, 1.0, 1.0, 1.0, 1.0), 0.0, (5.65565e-3,), (1, 10, 1, 5, 4, 3)),
    ClassicProblem("Osborne 2", osborne_2, (1.3, 0.65, 0.65, 0.7, 0.6, 3, 5, 7, 2, 4.5, 5.5), 4.01377e-2),
    ClassicProblem("Watson, 6", watson, (0.0,) * 6, 2.28767e-3),
    ClassicProblem("Watson, 9", watson, (0.0,) * 9, 1.39976e-6),
    ClassicProblem("Rosenbrock, 10", rosenbrock, (-1.2, 1.0) * 5, 0.0, (), (1.0,) * 10),
    ClassicProblem("Powell singular, 12", powell_singular, (3.0, -1.0, 0.0, 1.0) * 3, 0.0, (), (0.0,) * 12),
    ClassicProblem("Penalty I, 10", penalty_1, tuple(map(float, N)), 7.08765e-5),
    ClassicProblem("Penalty II, 10", penalty_2, (0.5,) * 10, 2.93660e-4),
    ClassicProblem("Variably dimensioned, 10", variably_dimensioned, tuple(1 - N / 10), 0.0, (), (1.0,) * 10),
    ClassicProblem("Trigonometric, 10", trigonometric, (0.1,) * 10, 0.0, (2.79506e-5,)),
    ClassicProblem("Brown almost linear, 10", brown_almost_linear, (0.5,) * 10, 0.0, (1.0,), (1.0,) * 10),
    ClassicProblem("Boundary value, 10", boundary_value, tuple(N / 11 * (N / 11 - 1)), 0.0),
    ClassicProblem("Integral equation, 10", integral_equation, tuple(N / 11 * (N / 11 - 1)), 0.0),
    ClassicProblem("Broyden tridiagonal, 10", broyden_tridiagonal, (-1.0,) * 10, 0.0),
    ClassicProblem("Broyden banded, 10", broyden_banded, (-1.0,) * 10, 0.0),
    ClassicProblem("Linear, full rank, 10", linear_full_rank, (1.0,) * 10, 10.0, (), (-1.0,) * 10),
    ClassicProblem("Linear, rank 1, 10", linear_rank_1, (1.0,) * 10, 380 / 82),
    ClassicProblem("Chebyquad, 8", chebyquad, tuple(np.arange(1, 9) / 9), 3.51687e-3),
)
