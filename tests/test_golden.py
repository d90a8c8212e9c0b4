"""Worked examples of the sources, to the last printed digit; closed forms; runs of SGD transcribed in NumPy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
from jax.flatten_util import ravel_pytree
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from vjp_proof import agree

import jaxnet as jn
from jaxnet import activations, initializers, losses
from jaxnet.layers import dense, relu, serial, sigmoid

pytestmark = pytest.mark.numerical

X64 = jax.config.jax_enable_x64
TOLERANCE = 1e-12 if X64 else 64 * float(np.finfo(np.float32).eps)
KEY = jax.random.key(0)
LINEAR = serial(dense(1))
WEIGHT_ONLY = serial(dense(1, bias=False))


def near(got, want, scale=1.0):
    """The same shape, and equal to rounding, for numbers of order `scale`."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE * scale, strict=True)


def drawn(*shape, seed=0, scale=1.0):
    """Float64 numbers that float32 holds exactly, so that oracles in float64 see the same inputs."""
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32).astype(np.float64)


def arrays(tree):
    """Put on the device in the default float, integers as int32; nothing compiles for it."""
    floats = jnp.result_type(float)
    return jax.tree.map(lambda a: jax.device_put(np.asarray(a, floats if a.dtype.kind == "f" else np.int32)), tree)


def descent(gradient, optimizer, params, batches):
    """The parameters after each step of `optimizer`, over batches stacked along a first axis; the losses."""
    step = jn.train_step(gradient, optimizer)

    def body(now, batch):
        now, row = step(now, batch)
        return now, (now.params, row["loss"])

    start = jn.train_state(params, {}, optimizer, KEY)
    return jax.lax.scan(body, start, batches)[1]


@partial(jax.jit, static_argnums=(0, 4))
def traced_full_batch(gradient, rate, params, batch, steps):
    batches = jax.tree.map(lambda a: jnp.broadcast_to(a, (steps, *a.shape)), batch)
    return descent(gradient, optax.sgd(rate), params, batches)


def full_batch(*arguments):
    """`descent` of plain SGD with one batch, all the time; NumPy arrays. (gradient, rate, params, batch, steps)"""
    return jax.tree.map(np.asarray, traced_full_batch(*arguments))


def run(gradient, optimizer, params, batches):
    """`descent`, compiled; NumPy arrays."""
    return jax.tree.map(np.asarray, jax.jit(partial(descent, gradient, optimizer))(params, batches))


# ── Goodfellow 6.1: the exclusive or ────────────────────────────────────────────────────────────────────────────

XOR_X, XOR_Y = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]]), np.array([[0.0], [1], [1], [0]])
XOR = {
    "dense_0": {"w": np.array([[1.0, 1], [1, 1]]), "b": np.array([0.0, -1])},
    "dense_1": {"w": np.array([[1.0], [-2]]), "b": np.array([0.0])},
}


@pytest.mark.newer
@pytest.mark.source("GB-6.1-XOR", "GB-6.1-NET")
def test_xor_with_every_intermediate_exactly():
    params, (x, y) = arrays(XOR), arrays((XOR_X, XOR_Y))
    hidden = dense(2).apply(params["dense_0"], {}, x)[0]
    assert (hidden - params["dense_0"]["b"]).tolist() == [[0, 0], [1, 1], [1, 1], [2, 2]]
    assert hidden.tolist() == [[0, -1], [1, 0], [1, 0], [2, 1]]
    assert relu().apply({}, {}, hidden)[0].tolist() == [[0, 0], [1, 0], [1, 0], [2, 1]]
    net = jn.mlp([2, 1])
    assert net.apply(params, {}, x)[0].tolist() == [[0], [1], [1], [0]]
    for make in (jn.backprop, jn.loss_and_grad):
        (loss, _), grads = jax.jit(make(net, losses.squared_error))(params, {}, (x, y))
        assert float(loss) == 0
        assert all(np.all(np.asarray(g) == 0) for g in jax.tree.leaves(grads))


@pytest.mark.source("GB-6.1-XOR")
@pytest.mark.parametrize("order", [[0, 1], [1, 0]], ids=str)
@pytest.mark.parametrize("alpha", [[1.0, 1.0], [4.0, 0.5]], ids=str)
def test_equivalent_solutions_of_xor_are_exact_too(order, alpha):
    alpha = np.array(alpha)
    twin = {
        "dense_0": {"w": (XOR["dense_0"]["w"] * alpha)[:, order], "b": (XOR["dense_0"]["b"] * alpha)[order]},
        "dense_1": {"w": (XOR["dense_1"]["w"] / alpha[:, None])[order], "b": XOR["dense_1"]["b"]},
    }
    assert jn.mlp([2, 1]).apply(arrays(twin), {}, jnp.asarray(XOR_X))[0].tolist() == XOR_Y.tolist()


@pytest.mark.source("GB-6.1-LINFAIL", "GB-6.1-LOSS", "GB-6.1-COLLAPSE")
@pytest.mark.parametrize("units", [[1], [2, 1]], ids=["one layer", "a linear hidden layer"])
def test_linear_models_answer_xor_with_one_half(units):
    """J = ¼ Σ (f − y)² is twice our loss; its least value is ¼, at w = 0 and b = ½."""
    best = np.linalg.lstsq(np.c_[XOR_X, np.ones(4)], XOR_Y, rcond=None)[0]
    np.testing.assert_allclose(best[:, 0], [0, 0, 0.5], atol=1e-15)
    net, batch = jn.mlp(units, activation="identity"), arrays((XOR_X, XOR_Y))
    gradient = jn.backprop(net, losses.squared_error)
    params, _ = net.init(KEY, (2,))
    params = jax.tree.map(lambda a: jnp.asarray(drawn(*a.shape, seed=a.size, scale=0.5), a.dtype), params)
    steps, loss = full_batch(gradient, 0.4, params, batch, 1000)
    np.testing.assert_allclose(2 * loss[-1], 0.25, rtol=0, atol=1e-6)
    assert np.all(2 * np.asarray(loss) > 0.25 - 1e-6)
    end = jax.tree.map(lambda a: a[-1], steps)
    np.testing.assert_allclose(net.apply(end, {}, batch[0])[0], np.full((4, 1), 0.5), atol=1e-3)
    if units == [1]:
        exact = arrays({"dense_0": {"w": np.zeros((2, 1)), "b": np.array([0.5])}})
        (loss, _), grads = gradient(exact, {}, batch)
        assert 2 * float(loss) == 0.25
        assert all(np.all(np.asarray(g) == 0) for g in jax.tree.leaves(grads))
        np.testing.assert_allclose(np.r_[end["dense_0"]["w"][:, 0], end["dense_0"]["b"]], [0, 0, 0.5], atol=1e-6)


# ── Hagan 3: quadratic error surfaces of one linear unit ────────────────────────────────────────────────────────

# name: rows p, targets t; F = c + dᵀx + ½ xᵀA x, eigenvalues and eigenvectors of A, the minimum
QUADRATICS = {
    "eq. 3.15": {
        "u": [[-1, 2], [2, -1], [0, -1], [-1, 0]], "t": [-1, -1, 1, 1],
        "A": [[12, -8], [-8, 12]], "d": [4, 4], "c": 4,
        "eigenvalues": [4, 20], "eigenvectors": [[1, 1], [1, -1]], "minimum": [-1, -1],
    },
    "P3.3": {
        "u": [[-4, 2], [1, 2]], "t": [-1, 1],
        "A": [[34, -12], [-12, 16]], "d": [-10, 0], "c": 2,
        "eigenvalues": [10, 40], "eigenvectors": [[1, 2], [-2, 1]], "minimum": [0.4, 0.3],
    },
}  # fmt: skip
ERROR = jax.jit(jn.backprop(WEIGHT_ONLY, losses.squared_error), static_argnames="train")


def quadratic(name):
    """The batch, F and its gradient by x = w as a vector. F sums (t − a)² without ½ or mean: 2 m times our loss."""
    example = {k: np.array(v, float) for k, v in QUADRATICS[name].items()}
    batch = arrays((example["u"], example["t"][:, None]))
    count = 2 * len(batch[0])

    def f(x):
        return count * ERROR({"dense_0": {"w": x[:, None]}}, {}, batch)[0][0]

    def slope(x):
        return count * ERROR({"dense_0": {"w": x[:, None]}}, {}, batch)[1]["dense_0"]["w"][:, 0]

    return example, batch, f, slope


@pytest.mark.newer
@pytest.mark.source("H-quad", "H-P3.3", "GB-4.5-LS")
@pytest.mark.parametrize("name", QUADRATICS)
def test_hagans_matrices_eigenvalues_and_minima(name):
    example, _, f, slope = quadratic(name)
    a, d, point = example["A"], example["d"], np.array([0.25, -1.75])
    everything = jax.jit(lambda x: (f(x), slope(x), jax.grad(f)(x), jax.hessian(f)(x), jax.jacfwd(slope)(x)))
    for x in (np.zeros(2), example["minimum"], point):
        value, by_hand, by_autodiff, hessian, jacobian = everything(jnp.asarray(x))
        near(value, example["c"] + d @ x + x @ a @ x / 2, 10)
        near(by_hand, a @ x + d, 40)
        near(by_autodiff, a @ x + d, 40)
        near(hessian, a)
        near(jacobian, a)
    np.testing.assert_allclose(np.linalg.eigvalsh(hessian), example["eigenvalues"], rtol=1e-5)
    for eigenvalue, vector in zip(example["eigenvalues"], example["eigenvectors"], strict=True):
        near(np.asarray(hessian, np.float64) @ vector, eigenvalue * vector)
    near(a @ example["minimum"] + d, np.zeros(2), 40)
    near(everything(jnp.asarray(point))[1], 2 * example["u"].T @ (example["u"] @ point - example["t"]), 40)


@pytest.mark.source("GB-6.5.10-STOPV")
def test_the_vector_of_a_hessian_product_is_held_constant():
    """∇ (gᵀv) at v = g is H g; differentiating through v as well would double it."""
    example, _, _, slope = quadratic("eq. 3.15")
    x = jnp.array([0.3, -1.7])
    want = example["A"] @ (example["A"] @ np.array([0.3, -1.7]) + example["d"])
    near(jax.grad(lambda x: slope(x) @ jax.lax.stop_gradient(slope(x)))(x), want, 400)
    near(jax.grad(lambda x: slope(x) @ slope(x))(x), 2 * want, 400)


@pytest.mark.source("H-quad")
def test_hagans_iteration_is_full_batch_sgd():
    """Eq. 3.24 with the rate 0.01 on F; its last term is printed with the wrong sign."""
    _, batch, _, _ = quadratic("eq. 3.15")
    x = np.array([1.0, -0.5])
    steps, _ = full_batch(ERROR, 0.01 * 8, arrays({"dense_0": {"w": x[:, None]}}), batch, 60)
    for got in np.asarray(steps["dense_0"]["w"])[..., 0]:
        x = np.array([[0.88, 0.08], [0.08, 0.88]]) @ x - [0.04, 0.04]
        near(got, x)


@pytest.mark.source("H-3.25")
def test_hagans_stochastic_iteration():
    """x ← x + 2 α e_k p_k, one example at a time; all four are met at (−1, −1), where the noisy path ends."""
    example, batch, _, _ = quadratic("eq. 3.15")
    order = np.random.default_rng(0).integers(0, 4, 600)
    batches = jax.tree.map(lambda a: a[order][:, None], batch)
    start = {"dense_0": {"w": jnp.array([[1.0], [1.5]])}}
    steps, _ = run(ERROR, optax.sgd(2 * 0.02), start, batches)
    x = np.array([1.0, 1.5])
    for k, got in zip(order, np.asarray(steps["dense_0"]["w"])[..., 0], strict=True):
        x = x + 2 * 0.02 * (example["t"][k] - example["u"][k] @ x) * example["u"][k]
        near(got, x)
    assert np.abs(x + 1).max() < 1e-2


@pytest.mark.source("H-P3.3", "B-7.24-7.30", "GB-4.3-GD")
@pytest.mark.parametrize(("rate", "factor"), [(0.049, 0.96), (0.05, 1.0), (0.051, 1.04)])
def test_the_largest_stable_rate_of_hagans_quadratic(rate, factor):
    """2 / λ_max = 0.05: from (1, 1) the error along (−2, 1) shrinks below, oscillates at and grows above it."""
    example, batch, _, _ = quadratic("P3.3")
    start = arrays({"dense_0": {"w": np.array([[1.0], [1.0]])}})
    steps, _ = full_batch(ERROR, rate * 4, start, batch, 60)
    error = np.asarray(steps["dense_0"]["w"], np.float64)[..., 0] - example["minimum"]
    units = example["eigenvectors"] / np.sqrt(5)
    k = np.arange(1, 61)[:, None]
    along = (np.array([1.0, 1.0]) - example["minimum"]) @ units.T * (1 - rate * example["eigenvalues"]) ** k
    near(error @ units.T, along, 60)  # αᵢ ← (1 − η λᵢ) αᵢ
    steep = error @ units[1]
    assert np.all(steep[1:] * steep[:-1] < 0)  # to and fro across the valley
    np.testing.assert_allclose(np.abs(steep[1:] / steep[:-1]), factor, rtol=1e-3)


@pytest.mark.source("GB-4.3-EPSCONST", "GB-4.3-GD")
@pytest.mark.parametrize(("rate", "steep"), [(0.38, -0.90), (0.41, -1.05)])
def test_descent_on_a_quadratic_of_condition_five(rate, steep):
    """½ xᵀH x with H = [[3, 2], [2, 3]], eigenvalues 5 along (1, 1) and 1: stable below 2/5."""
    u = np.sqrt(2) * np.linalg.cholesky(np.array([[3.0, 2.0], [2.0, 3.0]])).T
    start = arrays({"dense_0": {"w": np.array([[1.0], [0.5]])}})
    steps, loss = full_batch(ERROR, rate, start, arrays((u, np.zeros((2, 1)))), 60)
    x = np.asarray(steps["dense_0"]["w"], np.float64)[..., 0]
    h = np.eye(2) - rate * np.array([[3.0, 2.0], [2.0, 3.0]])
    near(x, [np.linalg.matrix_power(h, k) @ [1.0, 0.5] for k in range(1, 61)], 10)
    near(x @ [1, 1], 1.5 * np.array([steep]) ** np.arange(1, 61), 20)
    assert (float(loss[-1]) > float(loss[0])) == (rate > 0.4)


@pytest.mark.source("H-E3.1")
def test_hagans_exercise_by_one_step_of_descent_and_one_of_newton():
    x, t = np.array([[-1.0], [0], [1]]), np.array([[-1.5], [0.5], [2.5]])
    gradient, batch = jn.backprop(LINEAR, losses.squared_error), arrays((x, t))
    flat, unravel = ravel_pytree({"dense_0": {"w": jnp.zeros((1, 1)), "b": jnp.zeros(1)}})  # (b, w)

    def f(v):
        return 6 * gradient(unravel(v), {}, batch)[0][0]

    def slope(v):
        return 6 * ravel_pytree(gradient(unravel(v), {}, batch)[1])[0]

    near(f(flat), 8.75)
    near(slope(flat), [-3.0, -8.0])
    steps, _ = full_batch(gradient, 0.1 * 6, unravel(flat), batch, 1)
    after = ravel_pytree(jax.tree.map(lambda a: a[0], steps))[0]
    near(after, [0.3, 0.8])
    near(f(after), 3.0, 10)  # the error goes down
    hessian = jax.jit(jax.hessian(f))(flat)
    near(hessian, [[6.0, 0.0], [0.0, 4.0]])
    newton = flat - jnp.linalg.solve(hessian, slope(flat))
    near(newton, [0.5, 2.0])
    near(f(newton), 0.0, 10)
    near(slope(newton), [0.0, 0.0], 10)


@pytest.mark.source("H-bp")
def test_hagans_sensitivities_of_a_1_2_1_network():
    """Hagan, Neural Network Design, ch. 11: F = (t − a)² at p = 1, so twice our loss; printed to three digits."""
    params = {
        "dense_0": {"w": np.array([[-0.27, -0.41]]), "b": np.array([-0.48, -0.13])},
        "dense_1": {"w": np.array([[0.09], [-0.17]]), "b": np.array([0.48])},
    }
    p, t = np.array([[1.0]]), np.array([[1 + np.sin(np.pi / 4)]])
    params, p, t = arrays((params, p, t))
    first, last = params["dense_0"], params["dense_1"]
    n1 = dense(2).apply(first, {}, p)[0]
    a1 = sigmoid().apply({}, {}, n1)[0]
    a2 = dense(1).apply(last, {}, a1)[0]
    printed = partial(np.testing.assert_allclose, rtol=0, atol=6e-4)
    printed(a1, [[0.321, 0.368]])
    printed(a2, [[0.446]])
    printed(t - a2, [[1.261]])
    s2 = 2 * losses.squared_error.gradient(a2, t)
    printed(s2, [[-2.522]])
    da1, of_last = dense(1).backward(last, {}, a1, s2)
    s1, _ = sigmoid().backward({}, {}, n1, da1)
    printed(s1, [[-0.0495, 0.0997]])
    _, of_first = dense(2).backward(first, {}, p, s1)
    (_, _), grads = jn.backprop(serial(dense(2), sigmoid(), dense(1)), losses.squared_error)(params, {}, (p, t))
    jax.tree.map(lambda a, b: near(2 * a, b), grads, {"dense_0": of_first, "dense_1": of_last})
    after = jax.tree.map(lambda w, g: w - 0.1 * 2 * g, params, grads)
    printed(after["dense_1"]["w"], [[0.171], [-0.0772]])
    printed(after["dense_1"]["b"], [0.732])
    printed(after["dense_0"]["w"], [[-0.265, -0.420]])
    printed(after["dense_0"]["b"], [-0.475, -0.140])


# ── a network at its own edge of stability ──────────────────────────────────────────────────────────────────────


@pytest.mark.source("B-7.24-7.30")
def test_a_trained_net_diverges_just_above_two_over_its_largest_eigenvalue():
    """At an exact minimum, the targets being the net's own outputs; a push along the steepest eigenvector."""
    net, x = jn.mlp([3, 1], activation="tanh"), arrays(drawn(20, 2))
    params = jax.tree.map(lambda a: jnp.asarray(drawn(*a.shape, seed=a.size), x.dtype), net.init(KEY, (2,))[0])
    gradient, batch = jn.backprop(net, losses.squared_error), (x, net.apply(params, {}, x)[0])
    flat, unravel = ravel_pytree(params)
    hessian = jax.jit(jax.hessian(lambda v: gradient(unravel(v), {}, batch)[0][0]))(flat)
    eigenvalues, vectors = np.linalg.eigh(np.asarray(hessian, np.float64))
    start = unravel(flat + jnp.asarray(1e-3 * vectors[:, -1], flat.dtype))
    for share, leaves in ((0.95, False), (1.05, True)):
        steps, _ = full_batch(gradient, share * 2 / eigenvalues[-1], start, batch, 20)
        end = ravel_pytree(jax.tree.map(lambda a: a[-1], steps))[0]
        moved = np.linalg.norm(np.asarray(end - flat, np.float64)) / 1e-3
        np.testing.assert_allclose(moved, (2 * share - 1) ** 20, rtol=0.3)
        assert (moved > 2) == leaves


@pytest.mark.source("B-ex7.4-7.5")
@pytest.mark.parametrize("loss", [losses.squared_error, losses.sigmoid_cross_entropy], ids=repr)
def test_regressions_of_one_input_have_positive_definite_hessians(loss):
    y = jnp.asarray(np.arange(8) % 2, jnp.result_type(float))[:, None]

    def objective(v, x):
        return jn.backprop(LINEAR, loss)({"dense_0": {"w": v[:1, None], "b": v[1:]}}, {}, (x, y))[0][0]

    hessians = jax.jit(jax.vmap(jax.hessian(objective)))(*arrays((drawn(50, 2), drawn(50, 8, 1, seed=1))))
    assert np.trace(hessians, axis1=1, axis2=2).min() > 0
    assert np.linalg.det(np.asarray(hessians, np.float64)).min() > 0


@pytest.mark.source("B-7.1")
def test_the_local_quadratic_model_errs_by_the_cube_of_the_distance():
    """E(ŵ + δ) = E + δᵀb + ½ δᵀHδ + O(‖δ‖³); W (W + 3) / 2 numbers."""
    net, batch = jn.mlp([2, 1], activation="tanh"), arrays((drawn(20, 2), drawn(20, 1, seed=1)))
    params = jax.tree.map(lambda a: jnp.asarray(drawn(*a.shape, seed=a.size)), net.init(KEY, (2,))[0])
    gradient = jn.backprop(net, losses.squared_error)
    flat, unravel = ravel_pytree(params)
    error = jax.jit(lambda v: gradient(unravel(v), {}, batch)[0][0])
    b = np.asarray(ravel_pytree(gradient(params, {}, batch)[1])[0], np.float64)
    h = np.asarray(jax.jit(jax.hessian(error))(flat), np.float64)
    count = flat.size
    assert b.size + np.tril(h).size // 2 + count // 2 + count % 2 >= count * (count + 3) // 2 == 9 * 12 // 2
    delta = drawn(count, seed=3)
    scales = 2.0 ** -np.arange(0, 4) / 4
    off = [
        abs(
            float(error(flat + jnp.asarray(s * delta, flat.dtype)))
            - float(error(flat))
            - s * delta @ b
            - s**2 * delta @ h @ delta / 2
        )
        for s in scales
    ]
    slope = np.polyfit(np.log(scales), np.log(off), 1)[0]
    assert 2.7 < slope < 3.3


# ── closed forms of linear models ───────────────────────────────────────────────────────────────────────────────

DESIGN = drawn(30, 3, seed=5) * np.array([2.0, 1.0, 0.25])
RESPONSE = DESIGN @ np.array([1.0, -2.0, 3.0]) + 0.5 * drawn(30, seed=6)


@pytest.mark.source("GB-5.1.4-NORMAL", "GB-5.1.4-LIN", "GB-4.5-LS", "GB-5.5.1-LINML")
def test_linear_regression_meets_the_normal_equations():
    best = np.linalg.solve(DESIGN.T @ DESIGN, DESIGN.T @ RESPONSE)
    batch, w = arrays((DESIGN, RESPONSE[:, None])), drawn(3, 1, seed=7)
    for make in (jn.backprop, jn.loss_and_grad):
        (_, _), grads = jax.jit(make(WEIGHT_ONLY, losses.squared_error))(arrays({"dense_0": {"w": w}}), {}, batch)
        near(grads["dense_0"]["w"], DESIGN.T @ (DESIGN @ w - RESPONSE[:, None]) / 30, 10)
    (_, _), grads = ERROR(arrays({"dense_0": {"w": best[:, None]}}), {}, batch)
    assert np.abs(grads["dense_0"]["w"]).max() < (1e-10 if X64 else 1e-5)  # for any σ: the likelihood's optimum, too
    steps, _ = full_batch(ERROR, 0.4, arrays({"dense_0": {"w": w}}), batch, 1000)
    np.testing.assert_allclose(steps["dense_0"]["w"][-1][:, 0], best, atol=1e-4)


@pytest.mark.source(
    "GB-7.1.1-ridge", "GB-5.2.2-WD", "GB-7.1-penalized-objective", "GB-7.1.1-L2-eigen", "GB-5.6-BLRRIDGE"
)
def test_ridge_regression_by_descent_is_the_closed_form():
    """mean ½ SE + ½ α ‖w‖²: w = (XᵀX + m α I)⁻¹ Xᵀy, a Bayesian's posterior mean with the prior I / (m α)."""
    alphas = np.array([0.0, 0.01, 0.1, 1.0, 10.0])
    batch, start = arrays((DESIGN, RESPONSE[:, None])), arrays({"dense_0": {"w": np.zeros((3, 1))}})

    def run(alpha):
        gradient = jn.penalized(ERROR, l2=alpha)
        steps, _ = traced_full_batch(gradient, 1.8 / (5.0 + alpha), start, batch, 3000)
        end = jax.tree.map(lambda a: a[-1], steps)
        return end["dense_0"]["w"][:, 0], ERROR(end, {}, batch)[0][0]

    ends, errors = jax.jit(jax.vmap(run))(jnp.asarray(alphas, jnp.result_type(float)))
    h, best = DESIGN.T @ DESIGN / 30, np.linalg.lstsq(DESIGN, RESPONSE, rcond=None)[0]
    assert np.linalg.eigvalsh(h)[-1] < 5
    for alpha, end in zip(alphas, np.asarray(ends, np.float64), strict=True):
        posterior = np.linalg.solve(DESIGN.T @ DESIGN + 30 * alpha * np.eye(3), DESIGN.T @ RESPONSE)
        np.testing.assert_allclose(end, posterior, atol=1e-10 if X64 else 1e-4)
        values, vectors = np.linalg.eigh(h)
        shrunk = vectors @ (values / (values + alpha) * (vectors.T @ best))  # (H + αI)⁻¹ H w*
        np.testing.assert_allclose(posterior, shrunk, atol=1e-10)
    norms = np.linalg.norm(ends, axis=1)
    assert np.all(np.diff(norms) < 0)
    assert np.all(np.diff(errors) > 0)
    near(ends[0], best, 100 if X64 else 10)
    shares = np.asarray(ends)[3] / best
    assert shares[2] < shares[0]  # the direction of low variance shrinks more


@pytest.mark.source("GB-7.1-weights-only")
def test_a_free_bias_meets_a_large_offset_and_a_penalized_one_does_not():
    """All targets 10 and no other input: b = 10 costs nothing; as a weight on a feature of ones 10 / (1 + α)."""
    batch = arrays((np.ones((6, 1)), np.full((6, 1), 10.0)))
    free = arrays({"dense_0": {"w": np.zeros((1, 1)), "b": np.array([10.0])}})
    (loss, _), grads = jn.penalized(jn.backprop(LINEAR, losses.squared_error), l2=1.0)(free, {}, batch)
    assert float(loss) == 0
    assert all(np.all(np.asarray(g) == 0) for g in jax.tree.leaves(grads))
    steps, _ = full_batch(jn.penalized(ERROR, l2=1.0), 0.4, arrays({"dense_0": {"w": np.zeros((1, 1))}}), batch, 50)
    near(steps["dense_0"]["w"][-1], [[5.0]], 10)


@pytest.mark.source("GB-7.3-singular")
def test_a_penalty_makes_singular_problems_solvable():
    """Two examples of three features: XᵀX is singular, the penalized Hessian's least eigenvalue is α."""
    batch = arrays((DESIGN[:2], RESPONSE[:2, None]))

    def least_eigenvalue(alpha):
        gradient = jn.penalized(ERROR, l2=alpha)
        hessian = jax.jacfwd(lambda w: gradient({"dense_0": {"w": w[:, None]}}, {}, batch)[1]["dense_0"]["w"][:, 0])
        return np.linalg.eigvalsh(np.asarray(jax.jit(hessian)(jnp.zeros(3)), np.float64))[0]

    assert abs(least_eigenvalue(0.0)) < 1e-6
    np.testing.assert_allclose(least_eigenvalue(0.1), 0.1, atol=1e-6)


@pytest.mark.source("GB-5.7.1-LOGREG")
def test_logistic_regression_is_scikit_learns():
    """Zero hidden layers; with a penalty convex, so that two starts meet. C = 1 / (m α)."""
    y = (RESPONSE > 0.3).astype(float)
    net, alpha = LINEAR, 0.05
    gradient, batch = jn.penalized(jn.backprop(net, losses.sigmoid_cross_entropy), l2=alpha), arrays((DESIGN, y))
    ends = []
    for seed in (1, 2):
        start = {"dense_0": {"w": drawn(3, 1, seed=seed), "b": drawn(1, seed=seed)}}
        steps, _ = full_batch(gradient, 1.0, arrays(start), batch, 2000)
        ends.append(jax.tree.map(lambda a: np.asarray(a[-1], np.float64), steps["dense_0"]))
    np.testing.assert_allclose(ends[0]["w"], ends[1]["w"], atol=1e-8 if X64 else 1e-4)
    other = LogisticRegression(C=1 / (30 * alpha), tol=1e-10, max_iter=1000).fit(DESIGN, y)
    np.testing.assert_allclose(ends[0]["w"][:, 0], other.coef_[0], atol=1e-5 if X64 else 1e-4)
    np.testing.assert_allclose(ends[0]["b"], other.intercept_, atol=1e-5 if X64 else 1e-4)
    (_, _), grads = jn.backprop(net, losses.sigmoid_cross_entropy)(arrays(start), {}, batch)
    z = DESIGN @ start["dense_0"]["w"][:, 0] + start["dense_0"]["b"]
    near(grads["dense_0"]["w"][:, 0], DESIGN.T @ (scipy.special.expit(z) - y) / 30)


@pytest.mark.source("GB-4.5-ALG41")
def test_least_squares_by_descent_until_the_gradient_is_small():
    """½ ‖Ax − b‖² with A = [[2, 0], [0, 1], [1, 1]], b = (2, 3, 1): to (2/3, 5/3) at rate 0.1, not at 0.38."""
    batch = arrays((np.array([[2.0, 0], [0, 1], [1, 1]]), np.array([[2.0], [3], [1]])))
    start = arrays({"dense_0": {"w": np.zeros((2, 1))}})
    steps, _ = full_batch(ERROR, 0.1 * 3, start, batch, 150)
    path = np.concatenate([np.zeros((1, 2)), np.asarray(steps["dense_0"]["w"], np.float64)[..., 0]])
    norms = [
        np.linalg.norm(3 * ERROR(arrays({"dense_0": {"w": w[:, None]}}), {}, batch)[1]["dense_0"]["w"])
        for w in path[:110]
    ]
    if X64:
        assert int(np.argmax(np.array(norms) <= 1e-8)) == 104
    np.testing.assert_allclose(path[-1], [2 / 3, 5 / 3], atol=1e-11 if X64 else 1e-6)
    _, loss = full_batch(ERROR, 0.38 * 3, start, batch, 150)
    assert float(loss[-1]) > float(loss[0])


@pytest.mark.source("GB-7.8-es-trajectory")
def test_descent_from_zero_follows_the_closed_form():
    """Qᵀw after τ steps = (I − (I − ε Λ)^τ) Qᵀw*."""
    h, best = DESIGN.T @ DESIGN / 30, np.linalg.lstsq(DESIGN, RESPONSE, rcond=None)[0]
    values, q = np.linalg.eigh(h)
    batch, start = arrays((DESIGN, RESPONSE[:, None])), arrays({"dense_0": {"w": np.zeros((3, 1))}})
    for rate in (0.1, 1.9 / values[-1], 2.1 / values[-1]):
        steps, _ = full_batch(ERROR, rate, start, batch, 1000)
        path = np.asarray(steps["dense_0"]["w"], np.float64)[:40, :, 0]
        tau = np.arange(1, 41)[:, None]
        want = (1 - (1 - rate * values) ** tau) * (q.T @ best)
        near(path @ q, want, 100)
        off = np.linalg.norm(path[[0, -1]] - best, axis=1)
        assert (off[1] > off[0]) == (rate * values[-1] > 2)


@pytest.mark.source("GB-5.5-MLE", "GB-3.9.2-MULTI")
@pytest.mark.parametrize(
    ("loss", "targets", "want"),
    [
        (losses.squared_error, drawn(40, 1, seed=8), drawn(40, 1, seed=8).mean(axis=0)),
        (losses.sigmoid_cross_entropy, (np.arange(40) < 12) * 1.0, [scipy.special.logit(0.3)]),
        (losses.softmax_cross_entropy, np.repeat([0, 1, 2], [20, 12, 8]), np.log([0.5, 0.3, 0.2])),
    ],
    ids=["Gaussian", "Bernoulli", "categorical"],
)
def test_a_bias_alone_learns_the_maximum_likelihood_estimate(loss, targets, want):
    """The mean; the log-odds of the share; the logarithms of the frequencies, up to a shift."""
    outputs = len(want)
    gradient = jn.backprop(serial(dense(outputs)), loss)
    start = {"dense_0": {"w": jnp.zeros((1, outputs)), "b": jnp.zeros(outputs)}}
    steps, _ = full_batch(gradient, 1.5, start, arrays((np.zeros((40, 1)), targets)), 400)
    b = np.asarray(steps["dense_0"]["b"][-1], np.float64)
    near(b - (b.mean() if outputs > 1 else 0), np.asarray(want) - (np.mean(want) if outputs > 1 else 0), 10)


@pytest.mark.source("GB-6.2.2.3-NMINUS1")
def test_two_logits_and_one_reach_the_same_likelihood_on_different_paths():
    y = (RESPONSE + 2 * drawn(30, seed=13) > 0.3).astype(int)  # with so much noise not separable
    one = full_batch(
        jn.backprop(LINEAR, losses.sigmoid_cross_entropy),
        0.5, arrays({"dense_0": {"w": np.zeros((3, 1)), "b": np.zeros(1)}}), arrays((DESIGN, y.astype(float))), 2000,
    )  # fmt: skip
    two = full_batch(
        jn.backprop(serial(dense(2)), losses.softmax_cross_entropy),
        0.5, arrays({"dense_0": {"w": np.zeros((3, 2)), "b": np.zeros(2)}}), arrays((DESIGN, y)), 2000,
    )  # fmt: skip
    np.testing.assert_allclose(one[1][-1], two[1][-1], rtol=0.01)
    weights = np.asarray(two[0]["dense_0"]["w"])
    gap = np.abs(weights[:, :, 1] - weights[:, :, 0] - np.asarray(one[0]["dense_0"]["w"])[..., 0])
    assert gap[0].max() > 0.01  # two logits share each step, so the first is twice as long
    np.testing.assert_allclose(
        weights[0, :, 1] - weights[0, :, 0], 2 * np.asarray(one[0]["dense_0"]["w"])[0, :, 0], rtol=1e-5
    )


@pytest.mark.source("GB-6.2.2.2-CLIP")
def test_a_clipped_output_cannot_learn_where_a_logit_does():
    """P(y = 1) = max(0, min(1, z)) has no slope outside of [0, 1]: from z = −3 with y = 1 nothing moves."""
    clipped = activations.Activation(
        "clipped", lambda z: jnp.clip(z, 0, 1), lambda z, dy: jnp.where((z > 0) & (z < 1), dy, jnp.zeros_like(dy))
    )
    slope = jax.vmap(jax.grad(clipped.value))(jnp.array([-0.5, 0.5, 1.5]))
    assert slope.tolist() == clipped.backward(jnp.array([-0.5, 0.5, 1.5]), jnp.ones(3)).tolist() == [0, 1, 0]
    start = arrays({"dense_0": {"w": np.array([[1.0]]), "b": np.array([-4.0])}})
    batch = arrays((np.ones((4, 1)), np.ones((4, 1))))
    stuck, _ = full_batch(
        jn.backprop(serial(dense(1), jn.layers.activation(clipped)), losses.squared_error), 1.0, start, batch, 50
    )
    assert np.unique(stuck["dense_0"]["b"]).tolist() == [-4.0]
    learnt, loss = full_batch(jn.backprop(LINEAR, losses.sigmoid_cross_entropy), 1.0, start, batch, 50)
    assert float(loss[0]) > 3 > 0.05 > float(loss[-1])
    assert float(learnt["dense_0"]["b"][-1, 0]) > -1


@pytest.mark.source("GB-5.10-RECIPE")
def test_a_recipe_of_ones_own_cost_and_projection_finds_the_first_principal_component():
    """Data, cost, optimizer and model each exchanged: ‖x − (wᵀx) w‖² with ‖w‖ = 1 (Goodfellow 5.102)."""
    x = arrays(drawn(200, 3, seed=11) * [3.0, 1.0, 0.5] @ np.linalg.qr(drawn(3, 3, seed=12))[0])

    def cost(params, state, batch, *, key=None, train=False):
        def mean(p):
            return jnp.mean(jnp.sum((batch[0] - (batch[0] @ p["w"])[:, None] * p["w"][None, :]) ** 2, axis=1))

        loss, grads = jax.value_and_grad(mean)(params)
        return (loss, state), grads

    onto_the_sphere = optax.GradientTransformation(
        lambda params: (),
        lambda u, s, p: (jax.tree.map(lambda u, p: (p + u) / jnp.linalg.norm(p + u) - p, u, p), s),
    )
    first = np.linalg.svd(np.asarray(x, np.float64), full_matrices=False)[2][0]
    batches = (jnp.broadcast_to(x, (300, *x.shape)),)
    rule = optax.chain(optax.adam(0.05), onto_the_sphere)
    steps, loss = run(cost, rule, {"w": jnp.array([0.6, 0.0, 0.8])}, batches)
    w = np.asarray(steps["w"], np.float64)
    np.testing.assert_allclose(np.linalg.norm(w, axis=1), 1, atol=1e-6)
    assert abs(w[-1] @ first) > 0.999
    assert float(loss[-1]) < float(loss[0])


# ── runs of SGD, transcribed ────────────────────────────────────────────────────────────────────────────────────


def softmax(z):
    return np.exp(z - z.max(1, keepdims=True)) / np.exp(z - z.max(1, keepdims=True)).sum(1, keepdims=True)


def transcribed_step(params, x, labels, rate):
    """One SGD update of a ReLU network with softmax cross-entropy, and its mean loss, in NumPy."""
    count, h, kept = len(params), x, []
    for k in range(count):
        w, b = params[f"dense_{k}"]["w"], params[f"dense_{k}"]["b"]
        kept.append((h, a := h @ w + b))
        h = np.maximum(a, 0) if k < count - 1 else a
    q = softmax(h)
    loss = -np.log(q[np.arange(len(x)), labels]).mean()
    g, after = (q - np.eye(q.shape[1])[labels]) / len(x), {}
    for k in reversed(range(count)):
        w, b = params[f"dense_{k}"]["w"], params[f"dense_{k}"]["b"]
        after[f"dense_{k}"] = {"w": w - rate * kept[k][0].T @ g, "b": b - rate * g.sum(0)}
        g = (g @ w.T) * (kept[k - 1][1] > 0) if k else g
    return after, loss


@pytest.mark.newer
@pytest.mark.source("GB-6.5.4-ALG63", "GB-6.5.4-ALG64", "GB-8.1.3-terminology", "GB-4.3-GD", "GB-6.5-DEF")
@pytest.mark.parametrize("size", [1, 4, 24], ids=["one by one", "minibatches", "full batch"])
def test_an_epoch_of_sgd_is_its_transcription(size):
    """Two hidden ReLU layers and softmax cross-entropy, on batches in the order given."""
    rng = np.random.default_rng(20)
    x, labels, order = drawn(24, 5, seed=21), rng.integers(0, 3, 24), rng.permutation(24).reshape(-1, size)
    shapes = {"dense_0": (5, 6), "dense_1": (6, 4), "dense_2": (4, 3)}
    params = {
        name: {"w": drawn(*s, seed=30 + s[1], scale=0.7), "b": drawn(s[1], seed=40 + s[1], scale=0.2)}
        for name, s in shapes.items()
    }
    gradient = jn.backprop(jn.mlp([6, 4, 3]), losses.softmax_cross_entropy)
    batches = arrays((x[order], labels[order]))
    steps, rows = run(gradient, optax.sgd(0.25), arrays(params), batches)
    for t, at in enumerate(order):
        params, loss = transcribed_step(params, x[at], labels[at], 0.25)
        near(rows[t], loss)
        jax.tree.map(lambda a, b: near(a[t], b), steps, params)


@pytest.mark.source("M-5", "GB-8.1.3-terminology")
def test_the_course_notes_sgd_neural_net_step_by_step():
    """W ~ N(0, 1/m), W₀ ~ N(0, 1); each step one example at random; step size η(t) = ½ (1 + t/20)^−½."""
    net = serial(*[
        part
        for units in (6, 3)
        for part in (dense(units, weight_init=initializers.gaussian(), bias_init=initializers.normal(1.0)), relu())
    ][:-1])  # fmt: skip
    params, _ = net.init(KEY, (5,))
    many, _ = dense(300, weight_init=initializers.gaussian(), bias_init=initializers.normal(1.0)).init(KEY, (200,))
    assert abs(float(jnp.var(many["w"])) * 200 - 1) < 0.05
    assert abs(float(jnp.var(many["b"])) - 1) < 0.3

    def eta(t):
        return 0.5 * (1 + jnp.asarray(t, jnp.result_type(float)) / 20) ** -0.5

    x, labels = drawn(24, 5, seed=21), np.random.default_rng(20).integers(0, 3, 24)
    order = np.random.default_rng(22).integers(0, 24, 60)
    batches = arrays((x[order][:, None], labels[order][:, None]))
    gradient = jn.backprop(net, losses.softmax_cross_entropy)
    steps, rows = run(gradient, optax.sgd(eta), params, batches)
    transcribed = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    for t, k in enumerate(order):
        transcribed, loss = transcribed_step(transcribed, x[[k]], labels[[k]], 0.5 * (1 + t / 20) ** -0.5)
        near(rows[t], loss, 10)
        jax.tree.map(lambda a, b: near(a[t], b, 10), steps, transcribed)


@pytest.mark.source("GB-6.5.7-GRADS", "GB-6.5.7-MLPTRAIN", "GB-6.2.1-COMPOSE")
def test_goodfellows_worked_mlp_with_every_intermediate():
    """H = max(0, X W₁), U₂ = H W₂, J = J_MLE + λ (‖W₁‖² + ‖W₂‖²): twice our ½ α, so α = 2λ. Then it trains."""
    lam, rate, x, labels = 0.01, 0.5, drawn(12, 4, seed=1), np.arange(12) % 3
    w1, w2 = drawn(4, 5, seed=2), drawn(5, 3, seed=3)
    hidden, out = dense(5, bias=False), dense(3, bias=False)
    net = serial(hidden, relu(), out)
    gradient = jn.penalized(jn.backprop(net, losses.softmax_cross_entropy), l2=2 * lam)
    x_, labels_, w1_, w2_ = arrays((x, labels, w1, w2))

    u1, h = x @ w1, np.maximum(x @ w1, 0)
    g = (softmax(h @ w2) - np.eye(3)[labels]) / 12
    dh = g @ w2.T
    g_prime = np.where(u1 > 0, dh, 0)
    u1_ = hidden.apply({"w": w1_}, {}, x_)[0]
    h_ = relu().apply({}, {}, u1_)[0]
    g_ = losses.softmax_cross_entropy.gradient(out.apply({"w": w2_}, {}, h_)[0], labels_) / 12
    dh_, dw2_ = out.backward({"w": w2_}, {}, h_, g_)
    g_prime_, _ = relu().backward({}, {}, u1_, dh_)
    _, dw1_ = hidden.backward({"w": w1_}, {}, x_, g_prime_)
    for got, want in (
        (u1_, u1),
        (h_, h),
        (g_, g),
        (dh_, dh),
        (g_prime_, g_prime),
        (dw2_["w"], h.T @ g),
        (dw1_["w"], x.T @ g_prime),
    ):
        near(got, want)

    def tapped(taps):  # what autodiff says of the intermediates: each gets a zero added
        u1 = x_ @ w1_ + taps[0]
        h = jax.nn.relu(u1) + taps[1]
        return jnp.mean(losses.softmax_cross_entropy(h @ w2_ + taps[2], labels_))

    zeros = [jnp.zeros((12, 5)), jnp.zeros((12, 5)), jnp.zeros((12, 3))]
    for got, want in zip(jax.jit(jax.grad(tapped))(zeros), (g_prime, dh, g), strict=True):
        near(got, want)

    params = {"dense_0": {"w": w1_}, "dense_1": {"w": w2_}}
    steps, loss = full_batch(gradient, rate, params, (x_, labels_), 100)
    near(steps["dense_0"]["w"][0], w1 - rate * (x.T @ g_prime + 2 * lam * w1))
    near(steps["dense_1"]["w"][0], w2 - rate * (h.T @ g + 2 * lam * w2))
    near(loss[0], -np.log(softmax(h @ w2)[np.arange(12), labels]).mean() + lam * ((w1**2).sum() + (w2**2).sum()), 10)
    assert float(loss[-1]) < float(loss[0]) / 2


# ── scikit-learn's networks ─────────────────────────────────────────────────────────────────────────────────────


def test_scikit_learns_hand_worked_step_of_a_3_2_1_network():
    """sklearn/neural_network/tests/test_mlp.py, test_fit: logistic units, α = 0.1, rate 0.1; to three digits."""
    params = arrays({
        "dense_0": {"w": np.array([[0.1, 0.2], [0.3, 0.1], [0.5, 0.0]]), "b": np.array([0.1, 0.1])},
        "dense_1": {"w": np.array([[0.1], [0.2]]), "b": np.array([1.0])},
    })  # fmt: skip
    net, batch = serial(dense(2), sigmoid(), dense(1)), arrays((np.array([[0.6, 0.8, 0.7]]), np.array([0])))
    h = serial(dense(2), sigmoid()).apply({"dense_0": params["dense_0"]}, {}, batch[0])[0]
    near(h, [[0.679178699175393, 0.574442516811659]])
    gradient = jn.penalized(jn.backprop(net, losses.sigmoid_cross_entropy), l2=0.1)
    printed = partial(np.testing.assert_allclose, rtol=0, atol=1e-3)
    printed(activations.sigmoid(net.apply(params, {}, batch[0])[0]), [[0.765433]])
    grads = gradient(params, {}, batch)[1]
    printed(grads["dense_0"]["w"], [[0.0200, 0.04244], [0.043336, 0.03992], [0.060002, 0.02244]], atol=5e-3)
    printed(grads["dense_1"]["w"], [[0.5294], [0.45911]])
    printed(grads["dense_0"]["b"], [0.01667, 0.0374])
    printed(grads["dense_1"]["b"], [0.765])
    steps, _ = full_batch(gradient, 0.1, params, batch, 1)
    after = jax.tree.map(lambda a: a[0], steps)
    printed(after["dense_0"]["w"], [[0.098, 0.195756], [0.2956664, 0.096008], [0.4939998, -0.002244]])
    printed(after["dense_1"]["w"], [[0.04706], [0.154089]])
    printed(after["dense_0"]["b"], [0.098333, 0.09626])
    printed(after["dense_1"]["b"], [0.9235])
    printed(activations.sigmoid(net.apply(after, {}, batch[0])[0]), [[0.739]])


@pytest.mark.parametrize(
    ("estimator", "activation", "loss", "targets"),
    [
        (MLPClassifier, "tanh", losses.softmax_cross_entropy, np.arange(30) % 3),
        (MLPClassifier, "logistic", losses.sigmoid_cross_entropy, np.arange(30) % 2),
        (MLPRegressor, "relu", losses.squared_error, drawn(30, 2, seed=9)),
    ],
)
def test_scikit_learns_networks_step_by_step(estimator, activation, loss, targets):
    """Full-batch SGD from scikit-learn's own start; its α is divided by the number of examples."""
    x, alpha, rate = drawn(30, 4, seed=8), 0.3, 0.2
    settings = {"activation": activation, "alpha": alpha, "learning_rate_init": rate, "momentum": 0}
    other = estimator(hidden_layer_sizes=(6, 5), solver="sgd", batch_size=30, random_state=3, **settings)
    known = {"classes": np.unique(targets)} if estimator is MLPClassifier else {}
    other.partial_fit(x, targets, **known)

    def params():
        pairs = zip(other.coefs_, other.intercepts_, strict=True)
        return {f"dense_{k}": {"w": w.copy(), "b": b.copy()} for k, (w, b) in enumerate(pairs)}

    start = params()
    net = jn.mlp([6, 5, start["dense_2"]["b"].size], activation={"logistic": "sigmoid"}.get(activation, activation))
    gradient = jn.penalized(jn.backprop(net, loss), l2=alpha / 30)
    steps, rows = full_batch(gradient, rate, arrays(start), arrays((x, targets)), 8)
    for t in range(8):
        other.partial_fit(x, targets)
        jax.tree.map(lambda a, b: near(a[t], b), steps, params())
    if estimator is MLPClassifier:  # the regressor reports a mean over outputs
        near(rows[-1], other.loss_)  # both before the last step


HIDDEN = [(), (5,), (2,), (5, 2), (2, 5, 2)]
KINDS = {
    "softmax": (MLPClassifier, losses.softmax_cross_entropy, np.arange(30) % 3),
    "logistic": (MLPClassifier, losses.sigmoid_cross_entropy, np.arange(30) % 2),
    "values": (MLPRegressor, losses.squared_error, drawn(30, 2, seed=9)),
}


def scikit_learns_gradient(other, x, targets, weight):
    """Its private `_backprop` at its present parameters: (loss, gradients by our names)."""
    binarizer = getattr(other, "_label_binarizer", None)
    y = binarizer.transform(targets) if binarizer else targets
    parts, layers = other.n_layers_ - 1, [x] + [None] * (other.n_layers_ - 1)
    loss, by_w, by_b = other._backprop(x, y, weight, layers, [None] * parts, [None] * parts, [None] * parts)
    return loss, {f"dense_{k}": {"w": w, "b": b} for k, (w, b) in enumerate(zip(by_w, by_b, strict=True))}


@pytest.mark.skipif(not X64, reason="both libraries lose digits where a float32 sum cancels")
@pytest.mark.float64
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["identity", "logistic", "tanh", "relu"])
def test_scikit_learns_gradients(kind, activation):
    """Five shapes, both roads; plain, with the penalty α / Σ w, and with weights too. Small weights: its loss is of
    probabilities, and loses digits where they come near 0 or 1."""
    (estimator, loss, targets), x, weights = KINDS[kind], drawn(30, 5, seed=8), np.abs(drawn(30, seed=4))
    known = {"classes": np.unique(targets)} if estimator is MLPClassifier else {}
    for hidden in HIDDEN:
        other = estimator(hidden_layer_sizes=hidden, activation=activation, solver="sgd", random_state=3)
        other.partial_fit(x, targets, **known)
        other.coefs_ = [drawn(*w.shape, seed=k, scale=0.4) for k, w in enumerate(other.coefs_)]
        other.intercepts_ = [drawn(*b.shape, seed=10 + k) for k, b in enumerate(other.intercepts_)]
        pairs = enumerate(zip(other.coefs_, other.intercepts_, strict=True))
        params = arrays({f"dense_{k}": {"w": w, "b": b} for k, (w, b) in pairs})
        outputs = other.intercepts_[-1].size
        net = jn.mlp([*hidden, outputs], activation={"logistic": "sigmoid"}.get(activation, activation))
        for make in (jn.backprop, jn.loss_and_grad):
            for alpha, weight in ((0.0, None), (0.3, None), (0.3, weights)):
                other.alpha, total = alpha, 30 if weight is None else weight.sum()
                want_loss, want = scikit_learns_gradient(other, x, targets, weight)
                gradient = jn.penalized(make(net, loss), l2=alpha / total) if alpha else make(net, loss)
                batch = (x, targets) if weight is None else (x, targets, weight)
                (got_loss, _), got = gradient(params, {}, arrays(batch))
                if kind == "values":  # the regressor reports a mean over outputs, of which it takes the sum's gradient
                    penalty = alpha / 2 * sum(np.square(w).sum() for w in other.coefs_) / total
                    want_loss = outputs * (want_loss - penalty) + penalty
                agree({"loss": got_loss}, {"loss": arrays(np.asarray(want_loss))}, TOLERANCE)
                agree(got, arrays(want), TOLERANCE)
