"""Newton, conjugate gradients and BFGS on quadratics, beside steepest descent, which zig-zags.

    .venv/bin/python experiments/newton_and_conjugate_gradients.py

draws docs/pictures/newton_and_conjugate_gradients.svg. Claims, on the quadratics of `quadratics.py` (Hagan's linear
example and P3.3, Goodfellow's figure 4.6), each from descent's worst start, all searches exact:
1. Steepest descent: successive gradients are orthogonal, and each step multiplies the value by ((κ − 1)/(κ + 1))², κ
   the condition number: 4/9, 9/25 and 4/9 (Goodfellow §8.6.2, figure 8.6).
2. Newton is at the minimum after 1 step (Hagan eq. 3.28), conjugate gradients and BFGS after 2, on one path; BFGS's
   matrix is then H⁻¹.
On ten random quadratics of 30 variables, κ = 1000:
3. To 1/1000 of the first gradient Newton takes 1 step, conjugate gradients and BFGS at most 40 (without rounding it's
   0 after 30), and steepest descent isn't there after 200.

Result (float64): cosines of successive gradients are below 2e-15, the values' factors right to 1e-6; the ends are
within 1e-14 of the minimum and of H⁻¹; conjugate gradients take 19 to 23 steps to 1/1000, BFGS 18 to 20. In float32
conjugate gradients take 24 to 34. Ten CPU seconds, nearly all of them compiling (2 cores, jax 0.10.2).
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from quadratics import SOURCES

from jaxnet.optimizers import bfgs, conjugate_gradient, gradient_descent, newton
from jaxnet.optimizers.second_order import Method
from jaxnet.optimizers.second_order.line_search import exact
from jaxnet.optimizers.second_order.method import of_function

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "newton_and_conjugate_gradients.svg"
STEPS, LONG = 12, 200
NEAR = 1e-3  # of the first gradient
COLOURS = {"steepest descent": "#888888", "conjugate gradients": "#1f6fb4", "BFGS": "#d9600a", "Newton": "#2a9d57"}


def methods() -> dict[str, Method]:
    return {
        "steepest descent": gradient_descent(exact()),
        "conjugate gradients": conjugate_gradient(search=exact()),
        "BFGS": bfgs(scaling=False, search=exact()),
        "Newton": newton(damping=0.0),
    }


def worst_start(hessian: np.ndarray, minimum: np.ndarray, distance: float) -> np.ndarray:
    """Where steepest descent is slowest: minimum + κ v_min + v_max, at this distance."""
    curvatures, vectors = np.linalg.eigh(hessian)
    away = vectors @ [curvatures[1] / curvatures[0], 1.0]
    return minimum + distance * away / np.linalg.norm(away)


class Walk(NamedTuple):
    """A method's way on a quadratic; the first axis is the step, from 0."""

    thetas: np.ndarray  # (steps + 1, n)
    values: np.ndarray  # (steps + 1,) above the minimum
    gradients: np.ndarray  # (steps + 1, n)
    memory: Any  # the method's own arrays, likewise


def walk(method: Method, hessian, minimum, start, steps: int = STEPS) -> Walk:
    """The method's steps on ½ (θ − minimum)ᵀ H (θ − minimum), as one program."""

    def value(theta):
        away = theta - minimum
        return jnp.vdot(away, jnp.matmul(hessian, away, precision="highest"), precision="highest") / 2

    def step(state, _):
        new = method.step(problem, state)
        return new, new

    problem = of_function(value)
    first = method.init(problem, start)
    _, states = jax.lax.scan(step, first, None, length=steps)
    states = jax.tree.map(lambda one, more: jnp.concatenate([one[None], more]), first, states)
    return Walk(states.params, states.value, states.gradient, states.memory)


def walks(steps: int = STEPS) -> dict[str, dict[str, Walk]]:
    """{quadratic: {method: Walk}} from the worst starts, each method compiled once for all quadratics."""
    floats = jnp.result_type(float)
    starts = [worst_start(q.hessian, q.minimum, float(np.linalg.norm(q.start - q.minimum))) for q in SOURCES.values()]
    stacked = [jnp.asarray(np.stack(a), floats) for a in (*list(zip(*SOURCES.values(), strict=True))[:2], starts)]
    found: dict[str, dict[str, Walk]] = {name: {} for name in SOURCES}
    for name, method in methods().items():
        of_all = jax.jit(jax.vmap(partial(walk, method, steps=steps)))(*stacked)
        for k, quadratic in enumerate(SOURCES):
            found[quadratic][name] = jax.tree.map(lambda a, k=k: np.asarray(a[k]), of_all)
    return found


class Numbers(NamedTuple):
    """What is claimed of one quadratic."""

    cosine: float  # the largest |cos| between successive gradients of steepest descent, six steps
    contraction: np.ndarray  # (6,) of its value, over ((κ − 1)/(κ + 1))²
    distances: dict[str, float]  # of conjugate gradients and BFGS after 2 steps, Newton after 1, over the first
    apart: float  # BFGS from conjugate gradients after 1 step, over the first distance
    inverse: float  # BFGS's matrix after 2 steps from H⁻¹, over its largest entry


def numbers(name: str, walked: dict[str, Walk]) -> Numbers:
    q, descent = SOURCES[name], walked["steepest descent"]
    first = np.linalg.norm(descent.thetas[0] - q.minimum)
    unit = descent.gradients[:7] / np.linalg.norm(descent.gradients[:7], axis=1, keepdims=True)
    low, high = q.curvatures
    after = {"conjugate gradients": 2, "BFGS": 2, "Newton": 1}
    inverse = np.linalg.inv(q.hessian)
    return Numbers(
        float(np.max(np.abs(np.sum(unit[1:] * unit[:-1], axis=1)))),
        descent.values[1:7] / descent.values[:6] / ((high - low) / (high + low)) ** 2,
        {name: float(np.linalg.norm(walked[name].thetas[k] - q.minimum) / first) for name, k in after.items()},
        float(np.linalg.norm(walked["BFGS"].thetas[1] - walked["conjugate gradients"].thetas[1]) / first),
        float(np.max(np.abs(walked["BFGS"].memory.inverse[2] - inverse)) / np.max(np.abs(inverse))),
    )


def many_variables(
    count: int = 10, size: int = 30, condition: float = 1000.0, steps: int = LONG
) -> dict[str, np.ndarray]:
    """{method: (count, steps + 1)}: the gradient's norm over the first one, on random quadratics."""
    rng = np.random.default_rng(0)
    turns = np.linalg.qr(rng.normal(size=(count, size, size)))[0]
    hessians = np.einsum("kij,j,klj->kil", turns, np.geomspace(1, condition, size), turns)
    drawn = [jnp.asarray(a, jnp.result_type(float)) for a in (hessians, rng.normal(size=(count, size)))]

    def norms(method, hessian, start):
        return jnp.linalg.norm(walk(method, hessian, jnp.zeros_like(start), start, steps).gradients, axis=-1)

    found = {n: np.asarray(jax.jit(jax.vmap(partial(norms, m)))(*drawn)) for n, m in methods().items()}
    return {name: g / g[:, :1] for name, g in found.items()}


def steps_to(norms: np.ndarray, near: float = NEAR) -> np.ndarray:
    """The first step at which the gradient is near 0; the number of steps and one more where it never is."""
    there = norms <= near
    return np.where(there.any(axis=-1), there.argmax(axis=-1), norms.shape[-1])


def claim(found: dict[str, Numbers], steps: dict[str, np.ndarray]) -> None:
    """The three claims, to the root of the precision; `steps` are those to NEAR on the quadratics of many variables.

    Raises:
        SystemExit: one doesn't hold.
    """
    near = float(jnp.finfo(jnp.result_type(float)).eps) ** 0.5
    for name, n in found.items():
        if not (n.cosine < near and np.all(np.abs(n.contraction - 1) < near)):
            raise SystemExit(f"claim 1 failed: {name}: cosine {n.cosine:.1e}, contractions {n.contraction}")
        if not max(*n.distances.values(), n.apart, n.inverse) < near:
            raise SystemExit(f"claim 2 failed: {name}: {n.distances}, apart {n.apart:.1e}, M {n.inverse:.1e}")
    for name, most in (("conjugate gradients", 40), ("BFGS", 40), ("Newton", 1)):
        if not np.all(steps[name] <= most):
            raise SystemExit(f"claim 3 failed: {name} takes up to {steps[name].max()} steps, not {most}")
    if not np.all(steps["steepest descent"] > LONG):
        raise SystemExit(f"claim 3 failed: steepest descent takes {steps['steepest descent'].min()} steps")


def draw(path: Path, walked: dict[str, dict[str, Walk]], norms: dict[str, np.ndarray]) -> None:
    """Above: the ways on the sources' quadratics. Below: values on one of them, gradients in 30 variables."""
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

    def landscape(panel, q, start):
        curvatures, vectors = np.linalg.eigh(q.hessian)
        turn = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
        away = start - q.minimum
        for value in away @ q.hessian @ away / 2 * 4.0 ** np.arange(-4, 1):
            width, height = 2 * np.sqrt(2 * value / curvatures)
            ring = Ellipse(q.minimum, width, height, angle=turn, fill=False, edgecolor="#cccccc", linewidth=0.7)
            panel.add_patch(ring)
        reach = 1.3 * np.linalg.norm(away)
        low, high = q.minimum - reach, q.minimum + reach
        panel.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
        panel.locator_params(nbins=4)

    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9, 6.2), layout="constrained")
        grid = figure.add_gridspec(2, 6)
        lines = {"steepest descent": ".-", "conjugate gradients": "o-", "BFGS": "x--", "Newton": "s:"}
        for k, (name, ways) in enumerate(walked.items()):
            panel, q = figure.add_subplot(grid[0, 2 * k : 2 * k + 2]), SOURCES[name]
            landscape(panel, q, ways["Newton"].thetas[0])
            for method, way in ways.items():
                most = {"steepest descent": 9, "Newton": 2}.get(method, 3)
                panel.plot(*way.thetas[:most].T, lines[method], color=COLOURS[method], markersize=3, label=method)
            panel.plot(*q.minimum, "+", color="black", markersize=9)
            panel.set_title(f"{name}: κ = {q.curvatures[1] / q.curvatures[0]:g}", fontsize=9)
            if k == 0:
                panel.legend(frameon=False, fontsize=7)
        name = "Goodfellow, figure 4.6"
        left, right = figure.add_subplot(grid[1, :3]), figure.add_subplot(grid[1, 3:])
        for method, way in walked[name].items():
            share = np.maximum(way.values / way.values[0], 1e-12)  # below it rounding takes over
            left.semilogy(share, lines[method], color=COLOURS[method], markersize=3)
        left.semilogy((4 / 9) ** np.arange(STEPS + 1), color="black", linewidth=0.6)
        left.set(xlabel="step", ylabel="value / first value")
        left.set_title(f"{name}: 4/9 a step (line) or 1 and 2 steps", fontsize=9)
        for method, share in norms.items():
            middle = np.maximum(np.median(share, axis=0)[:61], 1e-6)
            right.semilogy(middle, color=COLOURS[method])
        right.set(xlabel="step", ylabel="gradient / first gradient", ylim=(1e-6, 2))
        right.set_title("30 variables, κ = 1000: median of 10", fontsize=9)
        for panel in (left, right):
            panel.minorticks_off()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description="Newton, conjugate gradients and BFGS on quadratics.")
    parser.add_argument("--out", type=Path, default=PICTURE, help="where the picture goes")
    out = parser.parse_args().out
    jax.config.update("jax_enable_x64", True)

    walked = walks()
    found = {name: numbers(name, ways) for name, ways in walked.items()}
    print("in units of the first distance, value or of H⁻¹; each descent's value over its rate")
    for name, n in found.items():
        ends = ", ".join(f"{method} {distance:.0e}" for method, distance in n.distances.items())
        rates = f"{n.contraction.min():.6f} … {n.contraction.max():.6f}"
        print(f"{name:<24}cosine {n.cosine:.0e}, rates {rates}, from the minimum {ends}, M {n.inverse:.0e}")
    norms = many_variables()
    steps = {name: steps_to(share) for name, share in norms.items()}
    print("30 variables: steps to 1/1000: " + ", ".join(f"{n} {s.min()} … {s.max()}" for n, s in steps.items()))
    draw(out, walked, norms)
    claim(found, steps)


if __name__ == "__main__":
    main()
