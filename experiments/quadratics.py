"""Quadratics: gradient descent up to and past the edge of stability, momentum, Nesterov's rule and Adam.

    .venv/bin/python experiments/quadratics.py        (draws docs/pictures/quadratics.svg)

Claims, on F(θ) = ½ (θ − θ*)ᵀ H (θ − θ*):
1. T steps of gradient descent multiply the component along the eigenvector of λ by (1 − ηλ)ᵀ, to 1e-5, on the sources'
   three quadratics and at every rate; η = 1/λ_max solves the steepest direction in one step (Bishop eq. 7.24-7.30).
2. At 2 % below η = 2/λ_max the distance to the minimum shrinks, at 2 % above it grows.
3. With λ_max/λ_min = 100, momentum comes within 1/1000 of the first distance in at least 6 times fewer steps than
   gradient descent, Nesterov's rule in at least 3 times fewer, each with the best constants for this H (Polyak 1964;
   Nesterov 2004, §2.2).
The quadratics are Hagan's linear example (eq. 3.15-3.24) and problem P3.3, and Goodfellow's canyon (fig. 4.6).

Result: components are within 7e-7 of the powers; after 50 steps the distances are 3 to 8 % of the first below the edge
and 1.7 to 4.3 times the first above it; descent takes 346 steps, momentum 52, Nesterov's rule 86 (and Adam, at a tenth
of the first distance, 165). Three seconds (2 cores, jax 0.10.2).
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnet.optimizers import adam, momentum, nesterov

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "quadratics.svg"
SHARES = (0.1, 0.5, 0.9, 0.98, 1.0, 1.02)  # rates as shares of 2/λ_max
STEPS, LONG = 50, 1500
NEAR = 1e-3  # of the first distance
COLOURS = ("#1f6fb4", "#2a9d57", "#8e5bb5", "#c9a227", "#888888", "#d9600a")
TRAILS = (0.1, 0.5, 0.9, 1.02)  # drawn step by step


class Quadratic(NamedTuple):
    """½ (θ − minimum)ᵀ H (θ − minimum)."""

    hessian: np.ndarray  # (2, 2) symmetric, positive definite
    minimum: np.ndarray  # (2,)
    start: np.ndarray  # (2,)

    @property
    def curvatures(self) -> np.ndarray:
        """λ_min, λ_max."""
        return np.linalg.eigvalsh(self.hessian)

    def along(self, theta: np.ndarray) -> np.ndarray:
        """θ − minimum in the eigenvectors' coordinates: (…, 2) -> (…, 2), λ_min's first."""
        return (theta - self.minimum) @ np.linalg.eigh(self.hessian)[1]


SOURCES = {
    "Hagan, linear example": Quadratic(np.array([[12.0, -8], [-8, 12]]), np.array([-1.0, -1]), np.array([0.5, -0.8])),
    "Hagan, P3.3": Quadratic(np.array([[34.0, -12], [-12, 16]]), np.array([0.4, 0.3]), np.array([1.0, 1])),
    "Goodfellow, figure 4.6": Quadratic(np.array([[3.0, 2], [2, 3]]), np.zeros(2), np.array([2.0, -1])),
}
_TURN = np.array([[0.8, -0.6], [0.6, 0.8]])
NARROW = Quadratic(_TURN @ np.diag([1.0, 100]) @ _TURN.T, np.zeros(2), np.array([1.0, 1.4]))


def path(optimizer: optax.GradientTransformation, q: Quadratic, steps: int) -> jax.Array:
    """The parameters at step 0 … `steps`, (steps + 1, 2)."""
    hessian, minimum, start = (jnp.asarray(a, jnp.result_type(float)) for a in q)

    def value(theta):
        return (theta - minimum) @ hessian @ (theta - minimum) / 2

    def step(carry, _):
        theta, state = carry
        updates, state = optimizer.update(jax.grad(value)(theta), state, theta)
        theta = optax.apply_updates(theta, updates)
        return (theta, state), theta

    _, thetas = jax.lax.scan(step, (start, optimizer.init(start)), None, length=steps)
    return jnp.concatenate([start[None], thetas])


def descents(q: Quadratic, shares: tuple[float, ...] = SHARES, steps: int = STEPS) -> np.ndarray:
    """Gradient descent at all rates, as one program: (rates, steps + 1, 2)."""
    rates = 2 * jnp.array(shares) / q.curvatures[1]
    return np.asarray(jax.jit(jax.vmap(lambda rate: path(optax.sgd(rate), q, steps)))(rates))


def power_error(q: Quadratic, thetas: np.ndarray, shares: tuple[float, ...] = SHARES) -> float:
    """The largest |component − (1 − ηλ)ᵗ first component| over rates, steps and eigenvectors.

    In units of the first distance, and for what grows in units of max(1, |1 − ηλ|ᵗ) of it.
    """
    components = q.along(thetas)
    factors = 1 - 2 * np.array(shares)[:, None, None] / q.curvatures[1] * q.curvatures
    powers = factors ** np.arange(thetas.shape[1])[:, None]
    unit = np.linalg.norm(q.start - q.minimum) * np.maximum(1, np.abs(powers))
    return float(np.max(np.abs(components - powers * q.along(q.start)) / unit))


def distances(q: Quadratic, thetas: np.ndarray) -> np.ndarray:
    """‖θ − minimum‖ over that of the start; (…, steps + 1)."""
    return np.linalg.norm(thetas - q.minimum, axis=-1) / np.linalg.norm(q.start - q.minimum)


def rules(q: Quadratic) -> dict[str, optax.GradientTransformation]:
    """Each rule with its best constants for this H; Adam has none, its rate is a tenth of the first distance."""
    low, high = q.curvatures
    root = (high / low) ** 0.5
    return {
        "gradient descent": optax.sgd(2 / (low + high)),
        "momentum": momentum(4 / (low**0.5 + high**0.5) ** 2, ((root - 1) / (root + 1)) ** 2),
        "Nesterov": nesterov(1 / high, (root - 1) / (root + 1)),
        "Adam": adam(0.1 * float(np.linalg.norm(q.start - q.minimum))),
    }


def steps_to(distance: np.ndarray, near: float = NEAR) -> int:
    """The first step after which the distance stays below `near`; the number of steps when it never does.

    A path of `nesterov` is that of the point ahead, which has the same limit.
    """
    far = np.flatnonzero(~(distance < near))
    return int(far[-1]) + 1 if len(far) else 0


def claim(errors: dict[str, float], ends: dict[str, np.ndarray], steps: dict[str, int]) -> None:
    """The three claims; `ends` are the distances at the end, a rate each, in the order of SHARES.

    Raises:
        SystemExit: one doesn't hold.
    """
    for name, error in errors.items():
        if not error < 1e-5:
            raise SystemExit(f"claim 1 failed: {name}: a component is {error:.1e} from (1 − ηλ)ᵗ")
        below, above = ends[name][SHARES.index(0.98)], ends[name][SHARES.index(1.02)]
        if not below < 1 < above:
            raise SystemExit(f"claim 2 failed: {name}: distances {below:.2f} below 2/λ_max and {above:.2f} above")
    for name, times in (("momentum", 6), ("Nesterov", 3)):
        if not steps["gradient descent"] >= times * steps[name]:
            raise SystemExit(f"claim 3 failed: {name} takes {steps[name]} steps, descent {steps['gradient descent']}")


def draw(path: Path, descended: dict[str, np.ndarray], ruled: dict[str, np.ndarray]) -> None:
    """Above: descent at every rate on the sources' quadratics. Below: the rules in the narrow canyon."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.patches import Ellipse

    style: Any = {
        "svg.hashsalt": path.stem,
        "font.size": 9,
        "lines.linewidth": 1,
        "xtick.labelsize": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }

    def landscape(panel, q, reach):
        curvatures, vectors = np.linalg.eigh(q.hessian)
        turn = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
        for value in curvatures[1] * reach**2 * 4.0 ** np.arange(-4, 1):
            width, height = 2 * np.sqrt(2 * value / curvatures)
            panel.add_patch(
                Ellipse(q.minimum, width, height, angle=turn, fill=False, edgecolor="#cccccc", linewidth=0.7)
            )
        panel.plot(*q.minimum, "+", color="black")
        low, high = q.minimum - reach, q.minimum + reach
        panel.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
        panel.locator_params(nbins=4)

    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9, 6.2), layout="constrained")
        above, below = figure.subplots(2, 3)
        for panel, (name, thetas) in zip(above, descended.items(), strict=True):
            q = SOURCES[name]
            landscape(panel, q, 1.3 * float(np.abs(q.start - q.minimum).max()))
            for share, theta, colour in zip(SHARES, thetas, COLOURS, strict=True):
                if share in TRAILS:
                    panel.plot(*theta[:9].T, ".-", color=colour, markersize=3, label=f"{share:g} · 2/λ_max")
            panel.set_title(f"{name}: λ = {q.curvatures[0]:g}, {q.curvatures[1]:g}", fontsize=9)
        above[0].legend(frameon=False, fontsize=7)
        landscape(below[0], NARROW, 1.5 * float(np.abs(NARROW.start).max()))
        for (name, theta), colour in zip(ruled.items(), COLOURS, strict=False):
            below[0].plot(*theta[:41].T, color=colour, linewidth=0.9)
            time = np.arange(0, 401, 8)
            below[1].semilogy(time, np.maximum(distances(NARROW, theta)[time], 1e-6), color=colour, label=name)
        below[0].set_title("λ = 1, 100: the first 40 steps", fontsize=9)
        below[1].axhline(NEAR, color="#888888", linewidth=0.8, linestyle=":")
        below[1].legend(frameon=False, fontsize=7)
        below[1].set(xlabel="step", ylabel="distance / first distance", ylim=(1e-6, 3))
        name = "Hagan, P3.3"
        q, time = SOURCES[name], np.arange(STEPS + 1)
        for share, theta, colour in zip(SHARES, descended[name], COLOURS, strict=True):
            component, power = q.along(theta)[:, 1], np.abs(1 - 2 * share) ** time[: len(theta)]
            below[2].semilogy(time[: len(theta) : 5], np.abs(component[::5]), ".", color=colour, markersize=4)
            line = np.abs(q.along(q.start)[1]) * power
            below[2].semilogy(time[: len(theta)], line, color=colour, linewidth=0.8, label=f"{share:g}")
        below[2].set(xlabel="step", ylim=(1e-2, 10))
        below[2].legend(frameon=False, fontsize=7, ncols=3, title="η · λ_max/2", title_fontsize=7)
        below[2].set_title("P3.3, along the eigenvector of λ_max:\nmeasured (dots), |1 − ηλ|ᵗ (lines)", fontsize=9)
        for panel in below[1:]:
            panel.minorticks_off()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description="Gradient descent and its kin on quadratics.")
    parser.add_argument("--out", type=Path, default=PICTURE, help="where the picture goes")
    out = parser.parse_args().out

    descended = {name: descents(q) for name, q in SOURCES.items()}
    errors = {name: power_error(q, descended[name]) for name, q in SOURCES.items()}
    ends = {name: distances(q, descended[name])[:, -1] for name, q in SOURCES.items()}
    print(f"distance after {STEPS} steps / first distance, at η · λ_max/2 =")
    print(f"{'':<24}" + "".join(f"{share:>9g}" for share in SHARES) + "   from (1 − ηλ)ᵗ")
    for name, end in ends.items():
        print(f"{name:<24}" + "".join(f"{value:>9.2g}" for value in end) + f"   {errors[name]:.1e}")

    ruled = {name: np.asarray(jax.jit(lambda r=rule: path(r, NARROW, LONG))()) for name, rule in rules(NARROW).items()}
    steps = {name: steps_to(distances(NARROW, thetas)) for name, thetas in ruled.items()}
    print(f"λ = 1, 100: steps to {NEAR:g} of the first distance: " + ", ".join(f"{n} {s}" for n, s in steps.items()))
    draw(out, descended, ruled)
    claim(errors, ends, steps)


if __name__ == "__main__":
    main()
