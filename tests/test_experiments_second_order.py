"""The experiments on second-order methods, at a tiny size: they run, draw, and their claims can fail."""

import numpy as np
import pytest
from experiment_files import drawn_twice_alike, experiment

pytestmark = pytest.mark.long


def test_loss_against_time(tmp_path):
    """A few epochs on few examples, of Levenberg–Marquardt and Adam; the numbers of the claim by hand."""
    module = experiment("loss_against_time")
    task = module.tasks(regression=100, classification=100, scale=0.05)["classification"]
    found = module.measure(task, ("Levenberg–Marquardt", "Adam"), restarts=2)
    for name, course in found.items():
        assert course.loss.shape == (2, task.epochs[name])
        assert np.all(course.loss[:, -1] < course.loss[:, 0])
        assert course.seconds > 0
    assert np.all(np.diff(found["Levenberg–Marquardt"].loss) <= 0)

    np.testing.assert_array_equal(module.held(np.array([[3.0, 2.0, np.nan], [3.0, 4.0, 1.0]])), [[3, 2, 2], [3, 4, 1]])
    slow = module.Course(np.array([[1.0, 1e-2, 1e-5], [1.0, 1e-2, 1e-5], [1.0, 9.0, 9.0]]), 2.0)
    assert (slow.after(3.9), slow.after(4.0), slow.reaches(1e-2), slow.reaches(1e-6)) == (1.0, 1e-2, 4.0, np.inf)
    fast = module.Course(np.full((1, 3), 1e-6), 1.0)
    level = module.Course(np.full((1, 9), 1.0), 1.0)
    names = (*module.METHODS, "Adam")
    good, quick = dict.fromkeys(names[1:], level) | {names[0]: fast}, dict.fromkeys(names, fast) | {"Adam": slow}
    module.claim(good, quick)
    drawn_twice_alike(tmp_path, lambda path: module.draw(path, {"regression": good, "classification": quick}))
    for name in names[1:]:
        with pytest.raises(SystemExit, match=f"{name} has a loss"):
            module.claim(good | {name: fast}, quick)
    for name in names[1:-1]:
        with pytest.raises(SystemExit, match=f"{name} needs inf s"):
            module.claim(good, quick | {name: level})
    with pytest.raises(SystemExit, match="K-FAC needs 2"):
        module.claim(good, quick | {"Adam": fast._replace(seconds=1.5), "K-FAC": fast._replace(seconds=2.0)})


@pytest.mark.source("GB-8.6.2-steepest-zigzag", "GB-4.3.1-CANYON", "H-3.28", "GB-8.6.2-CG", "GB-8.6.3-BFGS")
def test_newton_and_conjugate_gradients(tmp_path):
    """The sources' quadratics at full size, fewer random ones; descent's and CG's first steps against NumPy."""
    module = experiment("newton_and_conjugate_gradients")
    walked = module.walks()
    found = {name: module.numbers(name, ways) for name, ways in walked.items()}
    rates = {"Hagan, linear example": 4 / 9, "Hagan, P3.3": 9 / 25, "Goodfellow, figure 4.6": 4 / 9}
    for name, ways in walked.items():
        q, way = module.SOURCES[name], ways["steepest descent"]
        np.testing.assert_allclose(way.values[:5] / way.values[0], rates[name] ** np.arange(5), rtol=1e-4)
        gradient = q.hessian @ (way.thetas[0] - q.minimum)
        once = way.thetas[0] - gradient @ gradient / (gradient @ q.hessian @ gradient) * gradient
        for method in ("steepest descent", "conjugate gradients", "BFGS"):
            np.testing.assert_allclose(ways[method].thetas[1], once, rtol=1e-5, atol=1e-5)
        steps = np.diff(ways["conjugate gradients"].thetas[:3], axis=0)
        assert abs(steps[0] @ q.hessian @ steps[1]) < 1e-5 * (steps[0] @ q.hessian @ steps[0])
    norms = module.many_variables(count=2)
    steps = {name: module.steps_to(share) for name, share in norms.items()}
    assert module.steps_to(np.array([[1, 1e-4, 1], [1, 1, 1]])).tolist() == [1, 3]
    module.claim(found, steps)
    drawn_twice_alike(tmp_path, lambda path: module.draw(path, walked, norms))

    name = "Hagan, P3.3"
    good = found[name]
    for worse, sentence in (
        ((found | {name: good._replace(cosine=0.1)}, steps), "claim 1 failed: Hagan, P3.3"),
        ((found | {name: good._replace(contraction=np.full(6, 1.01))}, steps), "claim 1 failed"),
        ((found | {name: good._replace(distances=good.distances | {"Newton": 0.1})}, steps), "claim 2 failed"),
        ((found | {name: good._replace(inverse=0.1)}, steps), "claim 2 failed"),
        ((found, steps | {"BFGS": np.array([20, 41])}), "claim 3 failed: BFGS"),
        ((found, steps | {"steepest descent": np.array([100, 201])}), "claim 3 failed: steepest descent"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            module.claim(*worse)
