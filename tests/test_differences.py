"""Hand-written back-propagation against finite differences and complex steps; in float64, where they say something."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import dense_cases, examples, parts, roads
from hypothesis import assume, given
from jax.flatten_util import ravel_pytree

import jaxnet as jn

pytestmark = pytest.mark.numerical


KINKS = {
    "relu": (0,), "leaky_relu": (0,), "absolute": (0,), "elu": (0,), "selu": (0,), "softsign": (0,),
    "hard_tanh": (-1, 1), "hard_sigmoid": (-3, 3),
}  # fmt: skip


def pre_activation_signs(case, params):
    """The side of each kink that what enters a unit is on: constant where finite differences may be trusted."""
    x, signs = case.batch[0], []
    for name, part in zip(jn.layers.combinators.names(parts(case)), parts(case), strict=True):
        for kink in KINKS.get(part.name, ()):
            signs.append(jnp.sign(x - kink).ravel())
        x, _ = part.apply(params.get(name, {}), {}, x)
    return jnp.concatenate(signs) if signs else jnp.zeros(0)


@pytest.mark.source("GB-5.9-COST", "M-3a")
@examples(12)
@given(dense_cases(max_depth=3, widths=(1, 2, 3), sizes=(1, 2, 3), kinds=("dense",)))
def test_backprop_equals_five_point_differences(case):
    """(−f(2h) + 8f(h) − 8f(−h) + f(−2h)) / 12h along each coordinate, h = 1e-3, where no ReLU changes side."""
    (gradient, _), h = roads(case), 1e-3
    flat, unravel = ravel_pytree(case.params)
    steps = h * jnp.concatenate([k * jnp.eye(flat.size, dtype=flat.dtype) for k in (-2, -1, 1, 2)])
    moved = jax.vmap(unravel)(flat + steps)
    signs = jax.vmap(lambda p: pre_activation_signs(case, p))(moved)
    assume(bool((signs == signs[:1]).all()))

    def loss(params):
        return gradient(params, {}, case.batch)[0][0]

    f = np.asarray(jax.vmap(loss)(moved), np.float64).reshape(4, flat.size)
    differences = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * h)
    _, grads = gradient(case.params, {}, case.batch)
    expected = np.asarray(ravel_pytree(grads)[0])
    scale = max(np.abs(expected).max(), 1e-3)
    assert np.abs(differences - expected).max() <= 1e-8 * scale


@examples(12)
@given(
    dense_cases(
        max_depth=3, widths=(1, 2, 3), sizes=(1, 7), activations=("tanh", "sigmoid", "identity"),
        targets=("values",), kinds=("dense",),
    )
)  # fmt: skip
def test_backprop_equals_complex_step(case):
    """Im f(θ + ih) / h has no rounding error of subtraction, so it is exact where the network is analytic.

    Softplus is left to the differences above: jax's complex `logaddexp` rounds an imaginary part of 1e-20 away.
    """
    (gradient, _), h = roads(case), 1e-20
    flat, _ = ravel_pytree(case.params)
    (x, y, *weight), complex_dtype = case.batch, jnp.result_type(1j)

    def imaginary(direction):
        moved = flat.astype(complex_dtype) + 1j * h * direction
        start = 0
        leaves, tree = jax.tree.flatten(case.params)
        for i, leaf in enumerate(leaves):
            leaves[i], start = moved[start : start + leaf.size].reshape(leaf.shape), start + leaf.size
        params = jax.tree.unflatten(tree, leaves)
        output, _ = case.net.apply(params, {}, x.astype(complex_dtype))
        values = jn.losses.squared_error(output, y)
        w = weight[0] if weight else jnp.ones(x.shape[0], x.dtype)
        return jnp.sum(values.imag * w) / jnp.where(w.sum() == 0, 1, w.sum()) / h

    differences = np.asarray(jax.vmap(imaginary)(jnp.eye(flat.size, dtype=flat.dtype)))
    expected = np.asarray(ravel_pytree(gradient(case.params, {}, case.batch)[1])[0])
    scale = max(np.abs(expected).max(), 1e-3)
    assert np.abs(differences - expected).max() <= 1e-12 * scale
