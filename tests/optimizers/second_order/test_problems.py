"""Methods on the problems of Moré, Garbow & Hillstrom: solved, or an honest outcome. Judged by NumPy alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from experiment_files import experiment

from jaxnet.optimizers.second_order import least_squares

pytestmark = pytest.mark.numerical
FUNCTIONS, CLASSIC = experiment("classic_functions"), experiment("classic_problems")
PROBLEMS = {problem.name: problem for problem in CLASSIC.PROBLEMS}
X64 = jax.config.jax_enable_x64
TOLERANCE = FUNCTIONS.TOLERANCE if X64 else 1e-4
MANY = (
    "Rosenbrock",
    "Freudenstein–Roth",
    "Brown badly scaled",
    "Beale",
    "Helical valley",
    "Bard",
    "Meyer",
    "Box 3-D",
    "Wood",
    "Kowalik–Osborne",
    "Osborne 1",
    "Powell singular",
)
FEW = ("Rosenbrock", "Helical valley", "Meyer", "Kowalik–Osborne")


def together(problems):
    """One function (x, k) -> the residuals of problem k, so that a method is compiled once for all.

    The problems are filled up with residuals that are 0, and variables that start at their minimum 0.
    """
    sizes = [len(p.start) for p in problems]
    rows = max(len(p.residuals(np.array(p.start), np)) for p in problems) + max(sizes)

    def filled(problem):
        n = len(problem.start)

        def residuals(x):
            r = jnp.concatenate([jnp.asarray(problem.residuals(x[:n], jnp)), x[n:]])
            return jnp.concatenate([r, jnp.zeros(rows - len(r), x.dtype)])

        return residuals

    branches = [filled(p) for p in problems]
    starts = [jnp.array([*p.start, *[0.0] * (max(sizes) - len(p.start))], jnp.result_type(float)) for p in problems]
    return lambda x, k: jax.lax.switch(k, branches, x), starts


def ends(method, names, steps=1000):
    """{problem: End} of one method."""
    problems = [PROBLEMS[name] for name in names]
    residuals, starts = together(problems)
    found = {}
    for k, (problem, start) in enumerate(zip(problems, starts, strict=True)):
        minimum = least_squares(
            residuals,
            start,
            method=FUNCTIONS.METHODS[method],
            args=(jnp.asarray(k),),
            steps=steps,
            gradient_tolerance=TOLERANCE,
        )
        found[problem.name] = FUNCTIONS.judge(problem, minimum.params[: len(problem.start)], minimum)
    return found


@pytest.mark.float64
@pytest.mark.parametrize("name", PROBLEMS)
def test_the_table_is_the_published_one(name):
    """scipy ends at the published value, with the complex step's Jacobian; where there's a minimizer, it is one."""
    problem = PROBLEMS[name]
    with np.errstate(all="ignore"):
        found = scipy.optimize.least_squares(
            lambda x: problem.residuals(x, np),
            problem.start,
            lambda x: CLASSIC.jacobian_by_numpy(problem, x),
            ftol=1e-15,
            xtol=1e-15,
            gtol=1e-15,
            max_nfev=2000,
        )
    assert any(abs(2 * found.cost - m) <= 1e-5 * m + 1e-12 for m in (problem.minimum, *problem.others)), found.cost
    assert CLASSIC.minimum_at(problem, found.cost) != "no"
    assert CLASSIC.minimum_at(problem, CLASSIC.value_by_numpy(problem, problem.start)) == "no"
    if problem.minimizer is not None:
        assert CLASSIC.minimum_at(problem, CLASSIC.value_by_numpy(problem, problem.minimizer)) == "best"


@pytest.mark.float64
def test_numpy_and_jax_see_the_same_problems():
    """Residuals at the starts, in one compiled function."""
    found = jax.jit(lambda starts: [p.residuals(x, jnp) for x, p in zip(starts, PROBLEMS.values(), strict=True)])(
        [jnp.array(p.start) for p in PROBLEMS.values()]
    )
    for residuals, problem in zip(found, PROBLEMS.values(), strict=True):
        np.testing.assert_allclose(residuals, problem.residuals(np.array(problem.start), np), rtol=1e-12, atol=1e-11)


@pytest.mark.float64
def test_levenberg_marquardt_solves_them():
    found = ends("LM", MANY)
    assert {name: wrong for name, end in found.items() if (wrong := FUNCTIONS.complaint("LM", end))} == {}
    assert [name for name, end in found.items() if end.minimum == "no"] == []
    assert [name for name, end in found.items() if end.outcome != "converged"] == ["Freudenstein–Roth", "Meyer"]


@pytest.mark.float64
@pytest.mark.parametrize("name", [n for n in FUNCTIONS.METHODS if n != "LM"])
def test_the_other_methods_are_honest(name):
    """Solved but by descent, which runs out of steps, and on Meyer's function, where the last digits are rounding."""
    found = ends(name, FEW)
    assert {problem: wrong for problem, end in found.items() if (wrong := FUNCTIONS.complaint(name, end))} == {}
    converged = {problem for problem, end in found.items() if end.outcome == "converged" and end.minimum == "best"}
    assert converged == (set() if name == "descent" else set(FEW) - {"Meyer"})


@pytest.mark.skipif(X64, reason="float32's; in float64 the others do")
@pytest.mark.parametrize("name", ["LM", "L-BFGS"])
def test_so_they_are_in_float32(name):
    """On Meyer's function the gradient can't be made small, and they say so."""
    found = ends(name, FEW)
    assert {p: wrong for p, end in found.items() if (wrong := FUNCTIONS.complaint(name, end, TOLERANCE))} == {}
    assert found["Meyer"].outcome != "converged"
    assert all(found[p].outcome == "converged" and found[p].minimum == "best" for p in FEW[:2])


@pytest.mark.float64
def test_a_stall_is_none_where_a_fresh_trial_helps():
    """Conjugate gradients on Powell's badly scaled function: a restarted search begins far from the last step's α."""
    end = ends("CG", ("Powell badly scaled",))["Powell badly scaled"]
    assert FUNCTIONS.complaint("CG", end) is None


@pytest.mark.float64
def test_complaints():
    good = FUNCTIONS.End("converged", 3, "best", 1e-9, 1.0, -0.5)
    assert FUNCTIONS.complaint("LM", good) is None
    for worse, words in (
        ({"gradient": 1e-7}, "converged with a gradient of 1.0e-07"),
        ({"gradient": np.nan}, "converged with a gradient"),
        ({"outcome": "stalled", "fall": 1e3}, "stalled, and the value falls by 1.0e[+]03"),
        ({"rise": 0.1}, "converged above the start"),
        ({"rise": np.nan}, "converged above the start by nan"),
    ):
        with pytest.raises(SystemExit, match=f"claim 1 failed: LM on it: {words}"):
            FUNCTIONS.claim({"it": {"LM": good._replace(**worse)}})
    with pytest.raises(SystemExit, match="claim 2 failed: LM on it"):
        FUNCTIONS.claim({"it": {"LM": good._replace(minimum="no")}})
    FUNCTIONS.claim({"it": {"LM": good, "CG": good._replace(outcome="step limit", minimum="no", fall=1e9)}})
    cells = [good, good._replace(minimum="local"), good._replace(minimum="no")]
    assert [FUNCTIONS.cell(end) for end in cells] == ["3", r"3\*", "3?"]
    stalled = [end._replace(outcome="stalled") for end in cells]
    assert [FUNCTIONS.cell(end) for end in stalled] == ["stalled, 3", r"stalled, 3\*", "(stalled, 3)"]
    assert "| it | 3 | (stalled, 3) |" in FUNCTIONS.page({"it": {"LM": good, "CG": stalled[2]}})


@pytest.mark.long
@pytest.mark.float64
@pytest.mark.skipif(not X64, reason="float64's table")
@pytest.mark.parametrize("name", FUNCTIONS.METHODS)
def test_all_of_them(name):
    """Each compiled by itself, as the page has them."""
    found = {p: FUNCTIONS.solve(problem, FUNCTIONS.METHODS[name]) for p, problem in PROBLEMS.items()}
    assert {p: wrong for p, end in found.items() if (wrong := FUNCTIONS.complaint(name, end))} == {}
    if name == "LM":
        assert all(end.minimum != "no" for end in found.values())
