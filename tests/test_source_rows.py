"""What the sources ask of the parts together: graphs of scalars, chains, hyperparameters, subnetworks, solvers."""

import ast
import itertools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st
from vjp_proof import BOUND, agree, drawn

import jaxnet as jn
from jaxnet import activations, layers, losses
from jaxnet.layers.graph import branch, concatenate, select

KEY = jax.random.key(5)

# ── a graph of scalars ──────────────────────────────────────────────────────────────────────────────────────────

INPUTS = 2
FUNCTIONS = {  # name -> its value and derivative, of Python floats
    "tanh": (math.tanh, lambda a: 1 - math.tanh(a) ** 2),
    "cosine": (math.cos, lambda a: -math.sin(a)),
    "softplus": (lambda a: math.log1p(math.exp(a)), lambda a: 1 / (1 + math.exp(-a))),
    "identity": (lambda a: a, lambda a: 1.0),
}


@st.composite
def graphs(draw):
    """(function, parents) of each node u_i = f(Σ_j w_ij u_j + b_i), the inputs before them; parents may repeat."""
    nodes = []
    for i in range(INPUTS, INPUTS + draw(st.integers(1, 4), label="nodes")):
        parents = draw(st.lists(st.integers(0, i - 1), min_size=1, max_size=3), label="parents")
        nodes.append((draw(st.sampled_from(sorted(FUNCTIONS)), label="function"), tuple(parents)))
    return tuple(nodes)


def as_network(nodes):
    """Each layer takes (u_1, …, u_i) to (u_1, …, u_{i+1}); the last node is the output."""
    steps = []
    for i, (name, parents) in enumerate(nodes, INPUTS):
        node = jn.serial(branch(*map(select, parents)), concatenate(), jn.dense(1), layers.activation(name))
        steps.append(branch(*map(select, range(i)), node))
    return jn.serial(*steps, select(INPUTS + len(nodes) - 1))


def forward(nodes, weights, inputs):
    """Algorithm 6.1: all u_i in order, and each a_i."""
    u, before = list(inputs), [0.0] * len(inputs)
    for (name, parents), (w, b) in zip(nodes, weights, strict=True):
        before.append(sum((w_j * u[j] for w_j, j in zip(w, parents, strict=True)), b))
        u.append(FUNCTIONS[name][0](before[-1]))
    return u, before


def grad_table(nodes, weights, before):
    """Algorithm 6.2: ∂u_n/∂u_j for all j, from the last node to the first, each edge once."""
    table = [0.0] * (len(before) - 1) + [1.0]
    for i in reversed(range(INPUTS, len(before))):
        (name, parents), (w, _) = nodes[i - INPUTS], weights[i - INPUTS]
        for w_j, j in zip(w, parents, strict=True):
            table[j] += table[i] * FUNCTIONS[name][1](before[i]) * w_j
    return table


@pytest.mark.numerical
@pytest.mark.source("GB-6.5.3-ALG61", "GB-6.5.3-ALG62")
@examples(50)
@given(graphs(), st.integers(0, 99))
def test_a_scalar_graph_is_evaluated_and_differentiated_as_by_algorithms_6_1_and_6_2(nodes, seed):
    rng = np.random.default_rng(seed)
    weights = [(rng.uniform(-1, 1, len(parents)).tolist(), float(rng.uniform(-1, 1))) for _, parents in nodes]
    inputs, dtype = rng.uniform(-1, 1, INPUTS).tolist(), jnp.result_type(float)
    net, x = as_network(nodes), tuple(jax.device_put(np.full((1, 1), u, dtype)) for u in inputs)
    params = {
        f"branch_{i}": {"serial_0": {"dense_0": {"w": np.array(w, dtype)[:, None], "b": np.array([b], dtype)}}}
        for i, (w, b) in enumerate(weights)
    }
    params = jax.device_put(params)
    u, before = forward(nodes, weights, inputs)
    y, _ = net.apply(params, {}, x)
    np.testing.assert_allclose(y, [[u[-1]]], rtol=BOUND, atol=BOUND)

    table = grad_table(nodes, weights, before)
    dx, grads = net.backward(params, {}, x, np.ones((1, 1), dtype))
    want = {}
    for i, (name, parents) in enumerate(nodes):
        by_a = table[INPUTS + i] * FUNCTIONS[name][1](before[INPUTS + i])
        by_w = np.array([[by_a * u[j]] for j in parents], dtype)
        want[f"branch_{i}"] = {"serial_0": {"dense_0": {"w": by_w, "b": np.array([by_a], dtype)}}}
    by_inputs = tuple(np.full((1, 1), slope, dtype) for slope in table[:INPUTS])
    agree((dx, grads), (by_inputs, want))
    autodiff = jax.grad(lambda x, params: net.apply(params, {}, x)[0][0, 0], argnums=(0, 1))(x, params)
    agree((dx, grads), autodiff)


# ── a chain, and who chooses its depth and widths ───────────────────────────────────────────────────────────────


@pytest.mark.numerical
@pytest.mark.source("GB-6.4-CHAIN")
def test_a_chain_has_the_sizes_and_the_function_of_each_layer():
    """h⁽ᵏ⁾ = g⁽ᵏ⁾(W⁽ᵏ⁾ᵀ h⁽ᵏ⁻¹⁾ + b⁽ᵏ⁾), a function of its own in each layer; `mlp` is the chain with one for all."""
    sizes, functions = (4, 6, 3, 2), ("tanh", "relu", "softplus")
    net = jn.serial(
        *(part for n, g in zip(sizes[1:], functions, strict=True) for part in (jn.dense(n), layers.activation(g)))
    )
    params, state = net.init(KEY, (sizes[0],))
    shapes = [(params[f"dense_{k}"]["w"].shape, params[f"dense_{k}"]["b"].shape) for k in range(3)]
    assert shapes == [((n, m), (m,)) for n, m in itertools.pairwise(sizes)]
    params = jax.tree.map(lambda a: drawn(*a.shape, seed=a.size), params)
    x = drawn(5, sizes[0])
    h = np.asarray(x, np.float64)
    values = np.tanh, lambda a: np.maximum(a, 0), lambda a: np.logaddexp(0, a)
    for k, g in enumerate(values):
        w, b = (np.asarray(params[f"dense_{k}"][name], np.float64) for name in ("w", "b"))
        h = g(h @ w + b)
    np.testing.assert_allclose(net.apply(params, state, x)[0], h, rtol=8 * BOUND, atol=8 * BOUND)

    plain = jn.mlp(sizes[1:], activation="tanh")
    same = jn.serial(jn.dense(6), jn.tanh(), jn.dense(3), jn.tanh(), jn.dense(2))
    np.testing.assert_array_equal(plain.apply(params, {}, x)[0], same.apply(params, {}, x)[0])


def ring(n, seed):
    """Points of a square; the label is whether they are within a circle, which no line can say."""
    x = np.random.default_rng(seed).uniform(-1, 1, (n, 2)).astype(np.float32)
    return x, (np.square(x).sum(1) < 0.5).astype(np.int32)


@pytest.mark.long
@pytest.mark.source("GB-6.4-CHAIN")
def test_validation_chooses_the_depth():
    """Of a linear model and a chain with a hidden layer; the study's numbers are those of `evaluate`."""
    data, hidden = jn.Data(ring(200, 0), ring(200, 1)), [(), (16,)]

    def build(hp):
        net = jn.mlp([*hp["hidden"], 2])
        return jn.program(net, losses.softmax_cross_entropy, optax.adam(0.05), batch_size=50)

    study = jn.sweep(
        build,
        {"hidden": jn.static(hidden)},
        data=data,
        epochs=20,
        width=1,
        devices=jax.devices()[:1],
        keep="all",
        quiet=True,
    )
    best = study.best("valid_loss")
    assert tuple(best.configuration["hidden"]) == (16,)
    assert study.values["metrics/valid_accuracy"][best.member] > 0.9
    for member, units in enumerate(hidden):
        net, kept = jn.mlp([*units, 2]), study.kept[member]
        logits, _ = net.apply(kept["params"], kept["state"], data.valid[0])
        log_p = jax.nn.log_softmax(logits)[np.arange(200), data.valid[1]]
        assert study.values["metrics/valid_loss"][member] == pytest.approx(-float(log_p.mean()), rel=1e-4)


# ── hyperparameters ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-5.3-HYPER")
def test_a_hyperparameter_is_chosen_by_validation_and_would_be_zero_if_it_were_learned():
    """The decay α of a linear model, whose solution is known: (XᵀX + n α I)⁻¹ Xᵀ y. It's no parameter; the training
    loss never favours it, the validation loss does, and a study of runs to the end finds the closed form's choice."""
    rng, n, inputs = np.random.default_rng(3), 24, 10
    x, x_valid = (rng.normal(size=(m, inputs)).astype(np.float32) for m in (n, 200))
    truth = rng.normal(0, 0.3, (inputs, 1))
    y, y_valid = ((a @ truth + rng.normal(0, 1, (len(a), 1))).astype(np.float32) for a in (x, x_valid))
    rates = [0.0, 0.05, 0.2, 1.0, 5.0]
    net = jn.serial(jn.dense(1, bias=False))

    def build(hp):
        gradient = jn.penalized(jn.loss_and_grad(net, losses.squared_error), l2=hp["decay"])
        return jn.program(net, losses.squared_error, optax.sgd(0.15), batch_size=n, gradient=gradient)

    data = jn.Data((x, y), (x_valid, y_valid))
    study = jn.sweep(build, {"decay": rates}, data=data, epochs=400, width=5, keep="all", quiet=True)
    solutions = [scipy.linalg.solve(x.T @ x + n * a * np.eye(inputs), x.T @ y, assume_a="pos") for a in rates]
    trained, validated = (
        [np.mean(np.square(b - a @ w)) / 2 for w in solutions] for a, b in ((x, y), (x_valid, y_valid))
    )
    assert np.argmin(trained) == 0
    assert (np.diff(trained) > 0).all()
    assert 0 < np.argmin(validated) < len(rates) - 1
    last = study.history("valid_loss").values[:, -1]  # the best epoch of α = 0 would be early stopping instead
    np.testing.assert_allclose(last, validated, rtol=1e-3)
    assert study.configuration(int(np.argmin(last))) == {"decay": rates[int(np.argmin(validated))]}
    for kept in study.kept.values():  # the tree of parameters is the network's own
        assert jax.tree.map(jnp.shape, kept["params"]) == {"dense_0": {"w": (inputs, 1)}}


# ── the ensemble of all subnetworks ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.numerical
@pytest.mark.source("GB-7.12-geom-mean")
def test_dropout_in_inference_is_the_geometric_mean_of_all_subnetworks():
    """Of softmax regression: p̃(y) = Π_μ p(y | μ)^P(μ), renormalized; 2⁴ masks multiplied by brute force (eq. 7.54)."""
    inputs, classes, n, keep = 4, 3, 5, 0.75
    net = jn.serial(jn.dropout(1 - keep), jn.dense(classes))
    params = {"dense_0": {"w": drawn(inputs, classes, seed=1), "b": drawn(classes, seed=2)}}
    x = drawn(n, inputs)
    masks = np.array(list(itertools.product([0, 1], repeat=inputs)))
    share = np.prod(np.where(masks, keep, 1 - keep), axis=1)
    w, b = (np.asarray(params["dense_0"][name], np.float64) for name in ("w", "b"))
    p = np.exp((np.asarray(x, np.float64) * masks[:, None] / keep) @ w + b)
    p /= p.sum(-1, keepdims=True)
    product = np.prod(p ** share[:, None, None], axis=0)
    want = product / product.sum(-1, keepdims=True)

    def near(got, want):
        np.testing.assert_allclose(got, want, rtol=32 * BOUND)

    scaled = activations.softmax(net.apply(params, {}, x)[0])
    near(scaled, want)
    of_masks = jnp.stack([net.apply(params, {}, jnp.asarray(x * m.astype(x.dtype) / keep))[0] for m in masks])
    mean_log = jnp.sum(losses.log_softmax(of_masks) * share.astype(x.dtype)[:, None, None], axis=0)
    near(activations.softmax(mean_log), want)
    with pytest.raises(AssertionError):  # the arithmetic mean is another distribution
        near((p * share[:, None, None]).sum(0), want)

    # what training draws are such subnetworks, all of them
    train = jax.jit(lambda keys: jax.vmap(lambda key: net.apply(params, {}, x[:1], key=key, train=True)[0])(keys))
    logits = train(jax.random.split(KEY, 512))[:, 0]
    distance = np.abs(np.asarray(logits)[:, None] - np.asarray(of_masks)[None, :, 0]).max(-1)
    assert distance.min(1).max() < 1e-5
    assert set(distance.argmin(1)) == set(range(len(masks)))

    # one subnetwork that rules a class out rules it out for all; in the arithmetic mean it doesn't
    p[3, 0, 1] = 0
    assert np.prod(p ** share[:, None, None], axis=0)[0, 1] == 0
    assert (p * share[:, None, None]).sum(0)[0, 1] > 0


# ── solvers ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.source("GB-2.3-NOINV")
def test_solving_beats_inverting_and_the_package_never_inverts():
    """Hilbert's matrix in float32: the residual of a solution is smaller than that of the inverse times b."""
    a = scipy.linalg.hilbert(6).astype(np.float32)
    for seed in range(5):
        b = np.random.default_rng(seed).normal(size=6).astype(np.float32)
        solved, inverted = jnp.linalg.solve(a, b), jnp.linalg.inv(a) @ b
        residuals = [np.linalg.norm(a.astype(np.float64) @ np.asarray(v, np.float64) - b) for v in (solved, inverted)]
        assert residuals[0] < residuals[1]
    for path in Path(jn.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("inv", "pinv"), f"{path}:{node.lineno} inverts a matrix; solve instead"
