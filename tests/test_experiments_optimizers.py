"""The experiments on optimizers, at a tiny size: they run, draw, and their claims can fail."""

import numpy as np
import pytest
from experiment_files import drawn_twice_alike, experiment

from jaxnet.sweeps.statistics import interval

pytestmark = pytest.mark.long


@pytest.mark.source("H-quad", "H-P3.3", "GB-4.3.1-CANYON", "GB-4.3-EPSCONST", "B-7.24-7.30")
def test_quadratics(tmp_path):
    """At full size, which takes a second; paths against powers of matrices by NumPy."""
    module = experiment("quadratics")
    curvatures = {"Hagan, linear example": (4, 20), "Hagan, P3.3": (10, 40), "Goodfellow, figure 4.6": (1, 5)}
    descended = {name: module.descents(q) for name, q in module.SOURCES.items()}
    errors, ends = {}, {}
    for name, q in module.SOURCES.items():
        np.testing.assert_allclose(q.curvatures, curvatures[name])
        for share, thetas in zip(module.SHARES, descended[name], strict=True):
            once = np.eye(2) - 2 * share / curvatures[name][1] * q.hessian
            end = q.minimum + np.linalg.matrix_power(once, module.STEPS) @ (q.start - q.minimum)
            np.testing.assert_allclose(thetas[-1], end, atol=2e-5)
        errors[name] = module.power_error(q, descended[name])
        ends[name] = module.distances(q, descended[name])[:, -1]
        assert module.power_error(q, descended[name] + 1e-3) > 1e-5
    # Hagan's own numbers: A = 2 UᵀU and d = −2 Uᵀt of the linear example; A and d of P3.3.
    u, t = np.array([[-1, 2], [2, -1], [0, -1], [-1, 0]]), np.array([-1, -1, 1, 1])
    for name, (a, d) in {
        "Hagan, linear example": (2 * u.T @ u, -2 * u.T @ t),
        "Hagan, P3.3": (np.array([[34, -12], [-12, 16]]), np.array([-10, 0])),
    }.items():
        np.testing.assert_array_equal(module.SOURCES[name].hessian, a)
        np.testing.assert_allclose(a @ module.SOURCES[name].minimum, -d, atol=1e-12)

    q = module.NARROW
    ruled = {name: np.asarray(module.path(rule, q, module.LONG)) for name, rule in module.rules(q).items()}
    steps = {name: module.steps_to(module.distances(q, thetas)) for name, thetas in ruled.items()}
    theory = np.log(module.NEAR) / np.log(99 / 101)  # both components shrink alike at 2/(λ_min + λ_max)
    assert steps["gradient descent"] == np.ceil(theory)
    assert module.steps_to(np.array([1, 1e-4, 1e-2, 1e-4])) == 3
    assert module.steps_to(np.array([1, np.nan])) == 2
    module.claim(errors, ends, steps)
    drawn_twice_alike(tmp_path, lambda path: module.draw(path, descended, ruled))

    name = "Hagan, P3.3"
    for worse, sentence in (
        ((errors | {name: 2e-5}, ends, steps), "claim 1 failed"),
        ((errors, ends | {name: np.full(len(module.SHARES), 0.5)}, steps), "claim 2 failed"),
        ((errors, ends, steps | {"momentum": 60}), "claim 3 failed: momentum"),
        ((errors, ends, steps | {"Nesterov": 120}), "claim 3 failed: Nesterov"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            module.claim(*worse)


def test_optimizers_on_digits(tmp_path):
    """Two rules, two seeds, five epochs."""
    module = experiment("optimizers_on_digits")
    measured = module.measure(("gradient descent", "Adam"), seeds=2, epochs=5, rounds=1)
    for m in measured.values():
        assert m.train_loss.shape == (5, 2, 5)
        assert m.valid_loss.shape == m.accuracy.shape == (5, 2)
        assert m.valid_loss[m.chosen].mean() == m.valid_loss.mean(axis=1).min() < 0.3
        assert m.accuracy[m.chosen].min() > 0.85
        assert np.all(m.train_loss[m.chosen, :, -1] < 0.3 * m.train_loss[m.chosen, :, 0])
        assert m.seconds > 0
    drawn_twice_alike(tmp_path, lambda path: module.draw(path, measured))

    adam = measured["Adam"]
    diverged = adam.train_loss.copy()
    diverged[adam.chosen, 1, -1] = np.nan
    assert adam._replace(train_loss=diverged).chosen != adam.chosen
    low, high = interval([0.01, 0.012, 0.011]), interval([0.01, 0.12, 0.011])
    module.claim({"Adam": low, "gradient descent": high})
    for found in (high, interval([0.01, 0.012, np.nan])):
        with pytest.raises(SystemExit, match="the claim failed: Lion"):
            module.claim({"Adam": low, "Lion": found})
