"""Rules against a loop over regular expressions, torch's parameter groups, and `layers.frozen`."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from drawing import examples
from hypothesis import given
from hypothesis import strategies as st

import jaxnet as jn
from jaxnet import layers, losses, rules
from jaxnet.summaries import summary

FLOAT = jnp.result_type(float)
NET = layers.serial(layers.dense(4), layers.batch_norm(), layers.tanh(), layers.dense(3))
SHAPES = jax.eval_shape(lambda key: NET.init(key, (5,))[0], jax.random.key(0))
PATHS = ["batch_norm_0.scale", "batch_norm_0.shift", "dense_0.b", "dense_0.w", "dense_1.b", "dense_1.w"]
PATTERNS = [
    r".*\.w",
    r"dense_.*",
    r".*\.(b|scale|shift)",
    r"dense_0\..*",
    r"dense_1\.b",
    r"batch.*",
    r".*",
    r"w",
    r"dense",
]


def arrays(seed=0, shapes=SHAPES):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape), a.dtype), shapes)


@given(st.lists(st.sampled_from(PATTERNS), unique=True, max_size=4), st.booleans())
@examples(50)
def test_the_first_rule_that_matches_wins(patterns, with_default):
    given_rules = {pattern: i for i, pattern in enumerate(patterns)}
    default = {"default": -1.0} if with_default else {}
    first = [next((p for p in patterns if re.fullmatch(p, path)), None) for path in PATHS]
    idle = [p for p in patterns if p not in first]
    if None in first and not with_default:
        with pytest.raises(ValueError, match=f"none that matches .*{re.escape(PATHS[first.index(None)])}"):
            rules.match(SHAPES, given_rules)
    elif idle:
        with pytest.raises(ValueError, match=re.escape(repr(idle[0]))) as error:
            rules.match(SHAPES, given_rules, **default)
        shadowed = any(re.fullmatch(idle[0], path) for path in PATHS)
        assert ("earlier rules match all of its leaves" in str(error.value)) == shadowed
    else:
        told = rules.report(SHAPES, given_rules, **default)
        want = [given_rules.get(p, -1.0) for p in first]
        assert [leaf.path for leaf in told.leaves] == PATHS
        assert [leaf.rule for leaf in told.leaves] == first
        assert [leaf.value for leaf in told.leaves] == want
        assert jax.tree.leaves(told.tree) == jax.tree.leaves(rules.match(SHAPES, given_rules, **default)) == want
        assert jax.tree.structure(told.tree) == jax.tree.structure(SHAPES)


def test_paths_are_those_of_the_summary():
    assert [leaf.path for leaf in rules.report(SHAPES, {r".*": 0}).leaves] == PATHS
    assert sorted(leaf.path for leaf in summary(NET, (5,)).leaves if leaf.kind == "parameter") == PATHS


def test_the_report():
    assert (
        str(rules.report(SHAPES, {r"dense_0\..*": 0.1, r".*\.w": 0.5}, default=1.0))
        == r"""
leaf                value  rule
batch_norm_0.scale  1.0    default
batch_norm_0.shift  1.0    default
dense_0.b           0.1    dense_0\..*
dense_0.w           0.1    dense_0\..*
dense_1.b           1.0    default
dense_1.w           0.5    .*\.w
""".strip()
    )


@pytest.mark.parametrize(
    ("given_rules", "options", "error", "sentence"),
    [
        ({r".*\.kernel": 0}, {"default": 0}, ValueError, r"matches no leaf; .* as of batch_norm_0\.scale, .*"),
        ({r".*\.w": 0}, {}, ValueError, r"none that matches batch_norm_0\.scale, .*dense_1\.b; .*give a default"),
        ({r".*": 0, r".*\.w": 1}, {}, ValueError, "expected the special before the general"),
        ({r"(": 0}, {"default": 0}, ValueError, r"isn't a regular expression \(missing \)"),
        ({0: 0}, {"default": 0}, ValueError, "isn't a regular expression"),
        ([(r".*", 0)], {}, TypeError, "got list; expected a mapping"),
    ],
)  # fmt: skip
def test_refusals(given_rules, options, error, sentence):
    with pytest.raises(error, match=sentence):
        rules.match(SHAPES, given_rules, **options)
    if error is ValueError:
        for transformation in (rules.scaled(given_rules, **options), rules.decayed(given_rules, **options)):
            with pytest.raises(error, match=sentence):  # before the first step
                transformation.init(SHAPES)


def test_a_network_without_parameters_and_one_of_a_single_array():
    assert rules.match({}, {}, default=1) == {}
    with pytest.raises(ValueError, match="as of no leaves at all"):
        rules.match({}, {r".*": 1})
    assert rules.match(jnp.ones(2), {"": 1}) == 1


def test_frozen_refusals():
    with pytest.raises(TypeError, match=r"got the string '.*'; expected several"):
        rules.frozen(optax.sgd(1.0), r"dense_0\..*")
    with pytest.raises(ValueError, match="which matches no leaf"):
        rules.frozen(optax.sgd(1.0), [r"conv_0\..*"]).init(arrays())


@pytest.mark.numerical
def test_decay_and_multipliers_are_torchs_parameter_groups():
    """Ten steps of AdamW with another rate and decay for each group."""
    torch = pytest.importorskip("torch")
    rate, decays, multipliers = 0.05, {r".*\.w": 0.1, r"dense_1\.b": 0.02}, {r"dense_0\..*": 0.1, r".*scale": 3.0}
    optimizer = optax.chain(
        optax.scale_by_adam(),
        rules.decayed(decays, default=0.0),
        optax.scale_by_learning_rate(rate),
        rules.scaled(multipliers, default=1.0),
    )
    params = arrays()
    state = optimizer.init(params)
    theirs = {
        path: torch.nn.Parameter(torch.tensor(np.asarray(a)))
        for path, a in zip(PATHS, jax.tree.leaves(params), strict=True)
    }

    def group(path):
        decay = 0.1 if path.endswith(".w") else 0.02 if path == "dense_1.b" else 0.0
        multiplier = 0.1 if path.startswith("dense_0") else 3.0 if path.endswith("scale") else 1.0
        return {"params": [theirs[path]], "lr": rate * multiplier, "weight_decay": decay}

    reference = torch.optim.AdamW([group(path) for path in PATHS], eps=1e-8)
    step = jax.jit(optimizer.update)
    for seed in range(10):
        grads = arrays(seed + 1)
        updates, state = step(grads, state, params)
        params = optax.apply_updates(params, updates)
        for path, grad in zip(PATHS, jax.tree.leaves(grads), strict=True):
            theirs[path].grad = torch.tensor(np.asarray(grad))
        reference.step()
    for path, mine in zip(PATHS, jax.tree.leaves(params), strict=True):
        bound = 1e-12 if jax.config.jax_enable_x64 else 1e-5
        np.testing.assert_allclose(mine, theirs[path].detach().numpy(), rtol=bound, atol=bound, err_msg=path)


def test_masks_for_optax():
    params, grads = arrays(), arrays(1)

    def updates(optimizer):
        return optimizer.update(grads, optimizer.init(params), params)[0]

    def weights(params):
        return rules.match(params, {r".*\.w": True}, default=False)

    plain, masked = (
        updates(optax.adamw(0.1, weight_decay=0.0)),
        updates(optax.adamw(0.1, weight_decay=0.5, mask=weights)),
    )
    for path, p, a, b in zip(PATHS, *map(jax.tree.leaves, (params, plain, masked)), strict=True):
        np.testing.assert_allclose(b, a - 0.1 * 0.5 * p if path.endswith(".w") else a, rtol=1e-6)
    two = optax.partition(
        {"slow": optax.sgd(0.01), "fast": optax.sgd(1.0)},
        lambda params: rules.match(params, {r"dense_0\..*": "slow"}, default="fast"),
    )
    for path, g, u in zip(PATHS, *map(jax.tree.leaves, (grads, updates(two))), strict=True):
        np.testing.assert_allclose(u, -(0.01 if path.startswith("dense_0") else 1.0) * g, rtol=1e-6)


@pytest.mark.numerical
def test_frozen_trains_the_rest_as_a_network_with_a_frozen_layer_does():
    """Clipping and decay see the other leaves only; a frozen leaf stays to the bit, even if its gradient is NaN."""
    optimizer = optax.chain(optax.clip_by_global_norm(0.1), optax.adamw(0.1, weight_decay=0.5))
    net = layers.serial(layers.dense(4), layers.tanh(), layers.dense(3))
    params, state = net.init(jax.random.key(0), (5,))
    first = layers.frozen(dataclasses.replace(layers.dense(4), init=lambda key, spec: (params["dense_0"], {})))
    other = layers.serial(first, layers.tanh(), layers.dense(3))
    rng = np.random.default_rng(0)
    batch = jnp.asarray(rng.normal(size=(8, 5)), FLOAT), jnp.asarray(rng.integers(0, 3, 8), jnp.int32)

    def trained(net, optimizer, params, state):
        step = jax.jit(jn.train_step(jn.loss_and_grad(net, losses.softmax_cross_entropy), optimizer))
        now = jn.train_state(params, state, optimizer, jax.random.key(1))
        for _ in range(5):
            now, _ = step(now, batch)
        return now

    _, frozen_state = other.init(jax.random.key(0), (5,))
    mine = trained(net, rules.frozen(optimizer, [r"dense_0\..*"]), params, state)
    want = trained(other, optimizer, {"dense_0": params["dense_1"]}, frozen_state)
    for name in ("w", "b"):
        assert np.array_equal(mine.params["dense_0"][name], params["dense_0"][name])
        assert not np.array_equal(mine.params["dense_1"][name], params["dense_1"][name])
        bound = 64 * float(jnp.finfo(FLOAT).eps)
        np.testing.assert_allclose(mine.params["dense_1"][name], want.params["dense_0"][name], rtol=0, atol=bound)

    tx = rules.frozen(optimizer, [r"dense_0\..*"])
    grads = jax.tree.map(jnp.ones_like, params) | {"dense_0": jax.tree.map(lambda a: a * jnp.nan, params["dense_0"])}
    updates, _ = tx.update(grads, tx.init(params), params)
    assert all((u == 0).all() for u in jax.tree.leaves(updates["dense_0"]))
    assert all(np.isfinite(u).all() for u in jax.tree.leaves(updates["dense_1"]))
    assert len(jax.tree.leaves(tx.init(params))) < len(jax.tree.leaves(optimizer.init(params)))  # no moments of it


def test_multipliers_are_inputs_of_one_compiled_population():
    rng = np.random.default_rng(0)
    train = jnp.asarray(rng.normal(size=(16, 5)), FLOAT), jnp.asarray(rng.integers(0, 3, 16), jnp.int32)
    data, net = jn.Data(train), jn.mlp([4, 3])
    traces = []

    @jax.jit
    def population(multipliers, decays):
        def member(multiplier, decay):
            traces.append(1)
            optimizer = optax.chain(
                rules.decayed({r".*\.w": decay}, default=0.0),
                optax.sgd(0.1),
                rules.scaled({r"dense_0\..*": multiplier}, default=1.0),
            )
            program = jn.program(net, losses.softmax_cross_entropy, optimizer, batch_size=8)
            return jn.fit(jax.random.key(0), program, data, epochs=2)

        return jax.vmap(member)(multipliers, decays)

    multipliers, decays = jnp.array([0.0, 1.0, 1.0], FLOAT), jnp.array([0.0, 0.0, 0.9], FLOAT)
    many = population(multipliers, decays).params
    assert len(traces) == 1
    start = net.init(jax.random.fold_in(jax.random.key(0), 0), (5,))[0]

    def moved(layer, name, member):
        return float(abs(many[layer][name][member] - start[layer][name]).max())

    for name in ("w", "b"):
        assert moved("dense_0", name, 0) < 1e-6  # how XLA fuses the initial draw
        assert min(moved("dense_1", name, 0), moved("dense_0", name, 1)) > 1e-4
    assert np.linalg.norm(many["dense_1"]["w"][2]) < np.linalg.norm(many["dense_1"]["w"][1])


@pytest.mark.parametrize("make", [rules.scaled, rules.decayed])
def test_the_dtype_of_the_parameters_is_kept_under_strict_promotion(make):
    params = jax.tree.map(lambda a: a.astype(jnp.bfloat16), arrays())
    optimizer = make({r".*\.w": jnp.float32(0.5)}, default=1)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert {a.dtype for a in jax.tree.leaves(updates)} == {jnp.dtype(jnp.bfloat16)}


def test_decayed_wants_the_parameters():
    optimizer = rules.decayed({r".*": 0.1})
    with pytest.raises(ValueError, match="got no parameters"):
        optimizer.update(arrays(), optimizer.init(arrays()))
