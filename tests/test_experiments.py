"""The experiments on image and signal networks, at a tiny size: they run, and they learn what a smaller model can't."""

import numpy as np
import pytest
from experiment_files import experiment

import jaxnet as jn

pytestmark = pytest.mark.long


def test_lenet_learns_in_two_epochs(monkeypatch):
    """On 5,000 images it's far above chance (10 %); the whole main() runs, the split and the test set included."""
    load = jn.data.load
    try:
        load("fashion_mnist", part="test")
    except FileNotFoundError:
        pytest.skip("dataset-fashion-mnist isn't installed")

    def few(*args, **kwargs):
        x, y = load(*args, **kwargs)
        rows = np.random.default_rng(0).permutation(len(y))[:10_000]  # 5,000 of them are left for training
        return x[rows], y[rows]

    monkeypatch.setattr(jn.data, "load", few)
    assert experiment("lenet").main(epochs=2) > 0.65


def test_a_convolution_reads_mnist_1d_and_a_line_cannot():
    """At a tenth of the epochs and two seeds, the published order is there already: linear far below convolutional."""
    pytest.importorskip("mnist1d")
    module = experiment("mnist_1d")
    data, test = module.load()
    linear, convolutional = (
        module.accuracies(name, data, test, seeds=2, share=0.1) for name in ("linear", "convolutional")
    )
    assert linear.shape == convolutional.shape == (2,)
    assert linear.max() < 0.40
    assert convolutional.min() > 0.60
