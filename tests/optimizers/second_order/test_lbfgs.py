"""L-BFGS: its direction is the two-loop recursion's in NumPy; memoryless it's the book's, with all pairs it's BFGS."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize as scipy_minimize

import jaxnet as jn
from jaxnet import outcomes
from jaxnet.optimizers.second_order import minimize
from jaxnet.optimizers.second_order.lbfgs import Pairs, directed, lbfgs, stored
from jaxnet.optimizers.second_order.line_search import exact
from jaxnet.optimizers.second_order.method import of_function
from jaxnet.optimizers.second_order.quasi_newton import bfgs, updated

pytestmark = [pytest.mark.numerical, pytest.mark.float64]
M = 4
LIKE = {"b": jnp.zeros(2), "w": jnp.zeros((2, 3))}


def two_loops(g, pairs, scaling):
    """Nocedal & Wright alg. 7.4; pairs (s, y) from the oldest to the newest."""
    q, alphas = g.copy(), []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q = q - alphas[-1] * y
    r = q * (pairs[-1][0] @ pairs[-1][1] / (pairs[-1][1] @ pairs[-1][1]) if scaling and pairs else 1.0)
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r = r + (alpha - y @ r / (s @ y)) * s
    return -r


def tree(v):
    return {"b": jnp.asarray(v[:2]), "w": jnp.asarray(v[2:].reshape(2, 3))}


def flat(t):
    return np.concatenate([np.asarray(t["b"]), np.asarray(t["w"]).ravel()])


@jax.jit
def added(pairs, s, y, g):
    """A pair stored, and the directions at g with and without scaling."""
    both = jax.tree.map(lambda rows, *new: stored(rows, new, pairs.number, jnp.ones((), bool)), pairs.both, s, y)
    pairs = Pairs(both, pairs.products, pairs.number + 1)
    scaled, products = directed(pairs, g)
    return Pairs(both, products, pairs.number), scaled, directed(pairs, g, scaling=False)[0]


@pytest.mark.source("GB-8.6.3-LBFGS-multi")
@examples(10)
@given(seed=st.integers(0, 10**6), number=st.integers(1, 11))
def test_the_direction_is_the_two_loop_recursions(seed, number):
    """With fewer pairs than slots, and after the ring has come round more than twice."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(8, 8))
    hessian = root @ root.T + np.eye(8)
    pairs = Pairs(
        jax.tree.map(lambda p: jnp.zeros((2 * M, *p.shape)), LIKE), jnp.zeros((2 * M, M)), jnp.zeros((), jnp.int32)
    )
    kept = []
    for _ in range(number):
        s = rng.normal(size=8)
        y = hessian @ s + 0.1 * s * rng.random()
        kept.append((s, y))
        g = rng.normal(size=8)
        pairs, scaled, plain = added(pairs, tree(s), tree(y), tree(g))
        for got, scaling in ((scaled, True), (plain, False)):
            expected = two_loops(g, kept[-M:], scaling)
            np.testing.assert_allclose(flat(got), expected, rtol=0, atol=1e-12 * max(1, np.abs(expected).max()) * 10)


@pytest.mark.source("GB-8.6.3-LBFGS-memoryless")
def test_one_pair_without_scaling_is_the_books_direction_with_its_coefficients_swapped():
    rng = np.random.default_rng(3)
    s, g = rng.normal(size=(2, 8))
    y = s + 0.2 * rng.normal(size=8)
    one = Pairs(
        jax.tree.map(lambda a, b: jnp.stack([a, b]), tree(s), tree(y)), jnp.zeros((2, 1)), jnp.asarray(1, jnp.int32)
    )
    got = flat(jax.jit(lambda g: directed(one, g, scaling=False)[0])(tree(g)))
    sy = s @ y
    a = -(1 + y @ y / sy) * (s @ g) / sy + y @ g / sy  # Goodfellow eq. 8.38, printed as y's
    b = s @ g / sy  # eq. 8.39, printed as s's
    np.testing.assert_allclose(got, -g + a * s + b * y, rtol=1e-12)
    dense = np.asarray(updated(jnp.eye(8), jnp.asarray(s), jnp.asarray(y)))
    np.testing.assert_allclose(got, -dense @ g, rtol=1e-12, atol=1e-13)


def path(method, a, start, steps):
    problem = of_function(lambda p: p @ a @ p / 2)

    def step(state, _):
        after = method.step(problem, state)
        return after, after.params

    return np.asarray(jax.jit(lambda s: jax.lax.scan(step, method.init(problem, s), length=steps)[1])(start))


@pytest.mark.source("GB-8.6.3-LBFGS-multi", "GB-8.6.3-LBFGS-memoryless")
def test_with_all_pairs_it_is_bfgs_and_memoryless_steps_are_conjugate():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(5, 5))
    a, start = jnp.asarray(root @ root.T + np.eye(5)), jnp.asarray(rng.normal(size=5))
    dense, limited = (path(method(scaling=False), a, start, 6) for method in (bfgs, lbfgs))
    np.testing.assert_allclose(limited, dense, rtol=1e-8, atol=1e-10)
    steps = np.diff(path(lbfgs(1, scaling=False, search=exact()), a, start, 5), axis=0, prepend=[start])
    products = steps @ np.asarray(a) @ steps.T
    lengths = np.sqrt(np.diag(products))
    np.testing.assert_allclose(products / np.outer(lengths, lengths), np.eye(5), atol=1e-7)


def test_a_pair_without_curvature_is_left_out():
    rows = {"b": jnp.arange(4.0)[:, None] * jnp.ones(2)}
    kept = stored(rows["b"], (jnp.full(2, 9.0), jnp.full(2, 8.0)), jnp.asarray(3), jnp.asarray(False))
    assert np.array_equal(kept, rows["b"])
    new = stored(rows["b"], (jnp.full(2, 9.0), jnp.full(2, 8.0)), jnp.asarray(3), jnp.asarray(True))
    assert new[:, 0].tolist() == [0, 9, 2, 8]


def test_where_the_direction_fails_the_pairs_are_forgotten_before_it_is_called_stalled():
    problem, method = of_function(lambda p: jnp.sum(jnp.abs(p - 3))), lbfgs(2)
    state = method.init(problem, jnp.asarray([1.0, 2.0]))
    s, y = jnp.asarray([[1.0, 0.0], [-1.0, 0.0]])  # sᵀy < 0 would never be stored
    wrong = Pairs(jnp.stack([s, 0 * s, y, 0 * y]), state.memory.products, jnp.asarray(1, jnp.int32))
    step = jax.jit(lambda s: method.step(problem, s))
    after = step(state._replace(memory=wrong))
    assert after.outcome == outcomes.RUNNING
    assert after.memory.number == 0
    assert after.evaluations == 1
    assert step(after).value < after.value


@pytest.mark.long
def test_a_network_reaches_scipys_loss_with_about_one_evaluation_a_step():
    net = jn.mlp([8, 3], activation="tanh")
    x, y = jn.data.load("iris")
    x = jnp.asarray((x - x.mean(0)) / x.std(0), float)
    params, state = net.init(jax.random.key(0), (4,))
    params = jax.tree.map(lambda p: p.astype(float), params)

    def loss(params, x, y):
        decay = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return jnp.mean(jn.losses.softmax_cross_entropy(net.apply(params, state, x)[0], y)) + 1e-3 * decay

    found = minimize(loss, params, args=(x, jnp.asarray(y)), method=lbfgs(), gradient_tolerance=1e-7)
    assert found.outcome == outcomes.CONVERGED
    assert found.evaluations < 1.3 * found.iterations + 5
    start, back = jax.flatten_util.ravel_pytree(params)
    fun = jax.jit(jax.value_and_grad(lambda v: loss(back(v), x, jnp.asarray(y))))
    theirs = scipy_minimize(
        lambda v: tuple(np.asarray(a) for a in fun(v)), np.asarray(start), jac=True, method="L-BFGS-B",
        options={"gtol": 1e-7, "ftol": 0, "maxiter": 1000},
    )  # fmt: skip
    assert found.value <= theirs.fun * 1.02
    assert found.iterations < 2 * theirs.nit
