"""The experiments on regularization, at a tiny size: they run, draw, and their claims can fail."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from experiment_files import drawn_twice_alike, experiment

import jaxnet as jn

pytestmark = pytest.mark.long


def test_regularizers(tmp_path):
    """Three of six, two seeds, ten epochs; no regularization is the same run whatever would regularize."""
    module = experiment("regularizers")
    names = ("weight decay", "max-norm", "label smoothing")
    errors = {name: module.measure(name, seeds=2, epochs=10) for name in names}
    for name in names:
        assert all(part.shape == (8, 2) and np.all((part >= 0) & (part <= 1)) for part in errors[name].values())
        np.testing.assert_allclose(errors[name]["test"][0], errors["weight decay"]["test"][0], atol=0.02)
        assert errors[name]["test"][0].mean() < 0.5
        assert len(np.unique(errors[name]["test"].mean(axis=1))) > 4  # the strength is what differs
    assert errors["label smoothing"]["train"][0].mean() < 0.3
    drawn_twice_alike(tmp_path, lambda path: module.draw(path, errors))

    rng = np.random.default_rng(0)
    better = {part: 0.3 - 0.01 * np.arange(8)[:, None] + 0.001 * rng.normal(size=(8, 5)) for part in ("valid", "test")}
    worse = {part: 0.6 - values for part, values in better.items()}
    assert module.judged(better)[0] == 7
    assert module.judged(worse)[0] == 0
    module.claim({str(i): module.judged(errors) for i, errors in enumerate([better] * 4 + [worse] * 2)})
    with pytest.raises(SystemExit, match="fewer than four"):
        module.claim({str(i): module.judged(errors) for i, errors in enumerate([better] * 3 + [worse] * 3)})


def test_early_stopping(tmp_path):
    """Two draws and 100 epochs; the shrink factors at full size, since they take a second."""
    module = experiment("early_stopping")
    stopped, decayed = module.shrink_factors(module.CURVATURES, module.RATE, module.STEPS)
    module.claim_shrinking(stopped, decayed, module.CURVATURES, module.RATE, module.STEPS)
    for wrong in ((stopped * 1.001, decayed), (stopped, stopped)):
        with pytest.raises(SystemExit, match="claim 1 failed"):
            module.claim_shrinking(*wrong, module.CURVATURES, module.RATE, module.STEPS)

    decays = np.geomspace(0.1, 10, 4).astype(np.float32)
    along_epochs, along_decays, rate = module.test_errors(2, 100, decays)
    assert along_epochs.shape == (2, 100)
    assert along_decays.shape == (2, 4)
    assert np.all(along_epochs.min(axis=1) < 0.9 * along_epochs[:, 0])
    # Decay through training is ridge regression on the same draw.
    data = module.diabetes(jax.random.fold_in(jax.random.key(1), 1))
    (x, y), (test_x, test_y) = data.train, data.valid
    for decay, error in zip(decays, along_decays[1], strict=True):
        w = np.linalg.solve(x.T @ x / len(x) + decay * np.eye(x.shape[1]), x.T @ y / len(x))
        np.testing.assert_allclose(error, np.mean((test_x @ w - test_y) ** 2), rtol=1e-3)
    drawn_twice_alike(
        tmp_path, lambda path: module.draw(path, (stopped, decayed), along_epochs, along_decays, decays, rate)
    )

    rate = 0.05  # curves made up: 1/(10 · 0.05) = 2
    valley = np.abs(np.log(np.arange(1, 101) / 10))[None] + 1
    decays = np.array([0.1, 2.0, 8.0])
    good = np.array([[3.0, 1.0, 1.5]])
    module.claim_gain(valley, good, decays, rate)
    slight, elsewhere = np.array([[1.2, 1.0, 1.5]]), good[:, [0, 2, 1]]
    for curve, sentence in ((good * 1.1, "differ"), (slight, "gains"), (elsewhere, "best α")):
        with pytest.raises(SystemExit, match=sentence):
            module.claim_gain(valley, curve, decays, rate)


def test_adversarial(tmp_path):
    """2,000 images, three epochs: attacks hurt the plain network more, ascent at least as much as one step."""
    try:
        jn.data.load("fashion_mnist", part="test")
    except FileNotFoundError:
        pytest.skip("dataset-fashion-mnist isn't installed")
    module = experiment("adversarial")
    train, test, epsilons = module.images("train", 2000), module.images("test", 300), (0.0, 0.1)
    networks = tuple(module.trained(train, 3, on_attacks=on_attacks) for on_attacks in (False, True))
    before, after = (
        {name: np.asarray(v) for name, v in module.accuracies(params, test, jnp.array(epsilons)).items()}
        for params in networks
    )
    sign, ascent = "fast gradient sign", "gradient ascent"
    for found in (before, after):
        assert found[sign][0] == found[ascent][0] > 0.5
        assert found[ascent][1] <= found[sign][1] + 0.02
    assert before[sign][1] + 0.1 < after[sign][1]
    drawn_twice_alike(tmp_path, lambda path: module.draw(path, before, after, epsilons, networks, test))

    plain = {sign: np.array([0.9, 0.1]), ascent: np.array([0.9, 0.05])}
    robust = {sign: np.array([0.86, 0.65]), ascent: np.array([0.86, 0.6])}
    module.claim(plain, robust, epsilons)
    for first, second, sentence in (
        (robust, robust, "plain network keeps"),
        (plain, plain, "keeps less than"),
        ({sign: np.array([0.95, 0.1]), ascent: plain[ascent]}, robust, "costs more"),
    ):
        with pytest.raises(SystemExit, match=sentence):
            module.claim(first, second, epsilons)
