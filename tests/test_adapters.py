"""Networks from Flax, Equinox and Haiku as Layers: the same outputs, gradients and states as in their own packages."""

import dataclasses
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxnet as jn
from jaxnet import adapters, checkpoint, layers, losses
from jaxnet.rules import match
from jaxnet.summaries import summary

FLOAT = jnp.result_type(float)
EPS = 64 * float(np.finfo(np.float32).eps)
KEY = jax.random.key(3)
RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 24)
X = jnp.asarray(RNG.normal(size=(24, 5)) + 2 * np.eye(3, 5)[Y], FLOAT)
Y = jnp.asarray(Y, jnp.int32)
BATCH = X[:8], Y[:8]


def linen_net():
    linen = pytest.importorskip("flax.linen")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x, train):
            x = linen.Dense(6)(x)
            x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(x)
            x = linen.Dropout(0.25, deterministic=not train)(linen.relu(x))
            return linen.Dense(3)(x)

    return Net()


def nnx_constructor():
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.hidden = nnx.Linear(5, 6, rngs=rngs)
            self.norm = nnx.BatchNorm(6, momentum=0.9, rngs=rngs)
            self.dropout = nnx.Dropout(0.25, rngs=rngs)
            self.out = nnx.Linear(6, 3, rngs=rngs)

        def __call__(self, x):
            return self.out(self.dropout(nnx.relu(self.norm(self.hidden(x)))))

    return lambda rngs: Net(rngs)


def equinox_constructor():
    eqx = pytest.importorskip("equinox")

    class Net(eqx.Module):
        hidden: eqx.nn.Linear
        norm: eqx.nn.BatchNorm
        dropout: eqx.nn.Dropout
        out: eqx.nn.Linear
        calls: jax.Array

        def __init__(self, key):
            first, last = jax.random.split(key)
            self.hidden = eqx.nn.Linear(5, 6, key=first)
            self.norm = eqx.nn.BatchNorm(6, axis_name="batch", mode="batch")
            self.dropout = eqx.nn.Dropout(0.25)
            self.out = eqx.nn.Linear(6, 3, key=last)
            self.calls = jnp.arange(3)

        def __call__(self, x, state, *, key=None):
            x, state = self.norm(self.hidden(x), state)
            return self.out(self.dropout(jax.nn.relu(x), key=key)) + 0 * self.calls, state

    return eqx.nn.make_with_state(Net)


def haiku_net():
    hk = pytest.importorskip("haiku")

    def forward(x, is_training):
        x = hk.Linear(6)(x)
        x = hk.BatchNorm(create_scale=True, create_offset=True, decay_rate=0.9)(x, is_training=is_training)
        x = jax.nn.relu(x)
        x = hk.dropout(hk.next_rng_key(), 0.25, x) if is_training else x
        return hk.nets.MLP([4, 3])(x)

    return hk.transform_with_state(forward)


NETS = {
    "flax": lambda: adapters.flax(linen_net()),
    "nnx": lambda: adapters.nnx(nnx_constructor()),
    "equinox": lambda: adapters.equinox(equinox_constructor()),
    "haiku": lambda: adapters.haiku(haiku_net()),
    "function": lambda: adapters.function(
        lambda key, spec: {"w": 0.1 * jax.random.normal(key, (*spec.shape, 3), spec.dtype)},
        lambda params, x: x @ params["w"],
    ),
}
skipped = pytest.mark.skipif(jax.config.jax_enable_x64, reason="NNX's batch norm casts to float32 with a warning")
every_net = pytest.mark.parametrize("name", NETS)


def agree(got, want):
    """Leaf by leaf, in trees of any kind: 64 ε of max(largest of the leaf, 10⁻³ · largest of the tree)."""
    want = [np.asarray(a, np.float64) for a in jax.tree.leaves(want)]
    largest = max(np.abs(a).max(initial=0) for a in want)
    for a, b in zip(jax.tree.leaves(got), want, strict=True):
        scale = max(np.abs(b).max(initial=0), 1e-3 * largest)
        np.testing.assert_allclose(np.asarray(a, np.float64), b, rtol=0, atol=EPS * scale, strict=True)


def mean_loss(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, BATCH[1]).mean()


def step(net, params, state, key=KEY):
    """(new state, gradient) of one training step by jaxnet."""
    gradient = jn.loss_and_grad(net, losses.softmax_cross_entropy)
    (_, state), grads = jax.jit(lambda p, s: gradient(p, s, BATCH, key=key, train=True))(params, state)
    return state, grads


def initial(net, key=KEY, spec=(5,)):
    return jax.jit(net.init, static_argnums=1)(key, spec)


def inferred(net, params, state):
    """The outputs for X; the state comes back as it was."""
    y, same = jax.jit(lambda p, s: net.apply(p, s, X))(params, state)
    assert jax.tree.structure(same) == jax.tree.structure(state)
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (same, state)), strict=True))
    return y


@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "flax", "equinox", *(pytest.param(n, marks=pytest.mark.long) for n in ("haiku", "function")),
        pytest.param("nnx", marks=(pytest.mark.long, skipped)),
    ],
)  # fmt: skip
def test_three_epochs_of_fit_and_what_comes_after(name, tmp_path):
    """Among other layers; then inference, the disk, the summary, rules."""
    net = layers.serial(layers.dense(5), NETS[name](), layers.tanh(), layers.dense(3))
    program = jn.program(net, losses.softmax_cross_entropy, optax.adam(0.05), batch_size=8)
    fitted = jn.fit(jax.random.key(0), program, jn.Data((X, Y), (X, Y)), epochs=3)
    assert fitted.history["valid_loss"][-1] < fitted.history["valid_loss"][0] - 0.05
    params, state = jax.eval_shape(lambda key: net.init(key, (5,)), KEY)
    assert jax.tree.map(jnp.shape, (params, state)) == jax.tree.map(jnp.shape, (fitted.params, fitted.state))
    logits = np.asarray(jn.predict(net, fitted, X), np.float64)
    right = logits[np.arange(24), np.asarray(Y)]
    assert (np.log(np.exp(logits).sum(-1)) - right).mean() == pytest.approx(
        float(fitted.metrics["valid_loss"]), rel=1e-5
    )

    checkpoint.save(tmp_path / "net", {"params": fitted.params, "state": fitted.state}, {})
    tree, _ = checkpoint.load(tmp_path / "net")
    again = dataclasses.replace(fitted, params=tree["params"], state=tree["state"])
    assert np.array_equal(jn.predict(net, again, X), logits.astype(FLOAT))

    told = summary(net, (5,))
    assert told.parameters == sum(a.size for a in jax.tree.leaves(params))
    roles = {leaf.role for leaf in told.leaves if leaf.kind == "parameter"}
    assert {"weight", "bias"} <= roles <= {"weight", "bias", "scale", "shift"}
    assert told.flops >= 2 * (5 * 5 + 5 * 3 + 3 * 3)
    weights = match(params, {r".*\.(w|kernel|weight)": 1}, default=0)
    matrices = sum(leaf.role == "weight" and len(leaf.shape) == 2 for leaf in told.leaves)
    assert sum(jax.tree.leaves(weights)) == matrices + (name == "equinox")  # which calls a norm's scale a weight


@every_net
def test_backprop_refuses(name):
    with pytest.raises(TypeError, match=f"{name}.*has a layer without a hand-written backward; .*use loss_and_grad"):
        jn.backprop(layers.serial(NETS[name](), layers.tanh()), losses.softmax_cross_entropy)


@pytest.mark.numerical
def test_flax_is_flax():
    module = linen_net()
    net = adapters.flax(module)
    params, state = initial(net)
    theirs = jax.jit(lambda key: module.init(key, jnp.zeros((1, 5), FLOAT), train=False))(KEY)
    assert jax.tree.structure((params, state["batch_stats"])) == jax.tree.structure(
        (theirs["params"], theirs["batch_stats"])
    )
    agree((params, state["batch_stats"]), (theirs["params"], theirs["batch_stats"]))

    @jax.jit
    def reference(params):
        def objective(params):
            y, changed = module.apply(
                {"params": params, **state}, BATCH[0], train=True, mutable=["batch_stats"],
                rngs={"dropout": jax.random.fold_in(KEY, 0)},
            )  # fmt: skip
            return mean_loss(y), changed

        return jax.grad(objective, has_aux=True)(params)

    grads, changed = reference(params)
    new_state, mine = step(net, params, state)
    agree((mine, new_state), (grads, changed))
    assert not np.allclose(new_state["batch_stats"]["BatchNorm_0"]["mean"], 0)
    want = jax.jit(lambda params, state: module.apply({"params": params, **state}, X, train=False))(params, new_state)
    agree(inferred(net, params, new_state), want)


@skipped
def test_nnx_is_nnx():
    from flax import nnx

    make = nnx_constructor()
    net = adapters.nnx(make)
    params, state = initial(net)
    module = nnx.jit(lambda key: make(nnx.Rngs(key)))(KEY)
    agree(params["hidden"]["kernel"], module.hidden.kernel[...])
    nnx.reseed(module, default=KEY)
    module.train()
    grads = nnx.jit(nnx.grad(lambda module: mean_loss(module(BATCH[0]))))(module)
    new_state, mine = step(net, params, state)
    agree(mine, nnx.to_pure_dict(grads))
    agree(new_state["norm"], {"mean": module.norm.mean[...], "var": module.norm.var[...]})
    module.eval()
    agree(inferred(net, params, new_state), nnx.jit(lambda module: module(X))(module))
    with pytest.raises(ValueError, match="got key=None in training; expected a key"):
        net.apply(params, state, X, train=True)


@pytest.mark.numerical
def test_equinox_is_equinox():
    import equinox as eqx

    make = equinox_constructor()
    net = adapters.equinox(make)
    params, state = initial(net)
    module, before = eqx.filter_jit(make)(KEY)
    agree(params["hidden"]["weight"], module.hidden.weight)
    assert state["arrays"]["calls"].tolist() == [0, 1, 2]

    @eqx.filter_jit
    def reference(module, state):
        @eqx.filter_grad(has_aux=True)
        def gradient(module):
            call = jax.vmap(lambda x, key: module(x, state, key=key), out_axes=(0, None), axis_name="batch")
            y, after = call(BATCH[0], jax.random.split(KEY, 8))
            return mean_loss(y), after

        return gradient(module)

    grads, after = reference(module, before)
    new_state, mine = step(net, params, state)
    agree(mine["hidden"], {"bias": grads.hidden.bias, "weight": grads.hidden.weight})
    agree(mine["norm"], {"bias": grads.norm.bias, "weight": grads.norm.weight})
    agree(mine["out"], {"bias": grads.out.bias, "weight": grads.out.weight})
    assert set(mine) == {"hidden", "norm", "out"}  # not calls, which are integers
    agree(new_state["state"], after)
    inference = eqx.nn.inference_mode(module)
    want = eqx.filter_jit(lambda net, state: jax.vmap(lambda x: net(x, state)[0], axis_name="batch")(X))(
        inference, after
    )
    agree(inferred(net, params, new_state), want)


def test_an_equinox_module_starts_from_its_arrays():
    eqx = pytest.importorskip("equinox")
    module = eqx.nn.Sequential([eqx.nn.Lambda(jax.nn.relu), eqx.nn.Linear(5, 3, key=KEY)])
    net = adapters.equinox(module)
    params, state = net.init(jax.random.key(9), (5,))
    assert state == {}
    assert np.array_equal(params["layers"]["1"]["weight"], module.layers[1].weight)
    agree(inferred(net, params, {}), jax.nn.relu(X) @ module.layers[1].weight.T + module.layers[1].bias)
    fresh = adapters.equinox(lambda key: eqx.nn.Linear(5, 3, key=key))
    one, other = (initial(fresh, jax.random.key(i))[0]["weight"] for i in range(2))
    assert not np.array_equal(one, other)


def test_each_example_of_an_equinox_module_has_its_own_dropout():
    eqx = pytest.importorskip("equinox")
    net = adapters.equinox(eqx.nn.Dropout(0.5))
    y, _ = net.apply({}, {}, jnp.ones((50, 8), FLOAT), key=KEY, train=True)
    assert len(np.unique(np.asarray(y), axis=0)) > 25
    assert np.array_equal(net.apply({}, {}, X, key=KEY)[0], X)


@pytest.mark.numerical
def test_haiku_is_haiku():
    transformed = haiku_net()
    net = adapters.haiku(transformed)
    params, state = initial(net)
    theirs, their_state = jax.jit(lambda key: transformed.init(key, jnp.zeros((1, 5), FLOAT), True))(KEY)
    agree((params, state), (theirs, their_state))
    assert set(params) == {"linear", "batch_norm", "mlp.~.linear_0", "mlp.~.linear_1"}

    @jax.jit
    def reference(params):
        def objective(params):
            y, after = transformed.apply(params, their_state, KEY, BATCH[0], True)
            return mean_loss(y), after

        return jax.grad(objective, has_aux=True)(params)

    grads, after = reference(theirs)
    new_state, mine = step(net, params, state)
    agree((mine, new_state), (grads, after))
    want = jax.jit(lambda params, state: transformed.apply(params, state, None, X, False)[0])(theirs, after)
    agree(inferred(net, params, new_state), want)


def test_haiku_without_state():
    hk = pytest.importorskip("haiku")
    net = adapters.haiku(hk.transform(lambda x: x @ hk.get_parameter("w", (5, 3), init=jnp.ones)))
    params, state = net.init(KEY, (5,))
    assert (set(params), state) == ({"~"}, {})
    assert net.apply(params, state, X, train=True)[0].shape == (24, 3)


def test_a_haiku_state_changes_in_training_alone():
    hk = pytest.importorskip("haiku")

    def counted(x):
        calls = hk.get_state("calls", (), jnp.int32, init=jnp.zeros)
        hk.set_state("calls", calls + 1)
        return x

    net = adapters.haiku(hk.transform_with_state(counted))
    _, state = net.init(KEY, (5,))
    counts = [int(net.apply({}, state, X, train=train)[1]["~"]["calls"]) for train in (False, True)]
    assert counts == [0, 1]


@pytest.mark.parametrize(
    "flag", ["train", "training", "is_training", "deterministic", "inference", "use_running_average"]
)
def test_flags_by_name(flag):
    linen = pytest.importorskip("flax.linen")
    seen = []

    def call(self, x, **options):
        seen.append(options)
        return x

    namespace = {}
    exec(f"def call(self, x, {flag}=None):\n    seen.append({flag})\n    return x", {"seen": seen}, namespace)
    net = adapters.flax(type("Net", (linen.Module,), {"__call__": namespace["call"]})())
    for train in (True, False):
        net.apply({}, {}, X, train=train)
    assert seen == ([True, False] if flag.endswith("train") or "training" in flag else [False, True])


def test_a_function_gets_what_it_asks_for():
    seen = {}

    def apply(params, x, key, train):
        seen.update(key=key, train=train)
        return x * params["scale"]

    net = adapters.function(lambda key, spec: {"scale": jnp.ones(spec.shape, spec.dtype)}, apply)
    params, state = net.init(KEY, (5,))
    net.apply(params, state, X, key=KEY, train=True)
    assert seen == {"key": KEY, "train": True}


def test_flax_streams_and_collections():
    linen = pytest.importorskip("flax.linen")

    class Noisy(linen.Module):
        @linen.compact
        def __call__(self, x, train):
            count = self.variable("counts", "calls", lambda: jnp.zeros((), jnp.int32))
            if train:
                count.value += 1
                x = x + jax.random.normal(self.make_rng("noise"), x.shape, x.dtype)
            self.sow("intermediates", "x", x)
            return x

    net = adapters.flax(Noisy(), rngs=("dropout", "noise"))
    params, state = net.init(KEY, (5,))
    assert (params, int(state["counts"]["calls"]), set(state)) == ({}, 0, {"counts"})
    y, state = net.apply(params, state, X, key=KEY, train=True)
    assert int(state["counts"]["calls"]) == 1
    assert not np.array_equal(y, X)
    y, state = net.apply(params, state, X, key=KEY)
    assert int(state["counts"]["calls"]) == 1
    assert np.array_equal(y, X)


def test_a_flax_state_that_grows_is_refused():
    linen = pytest.importorskip("flax.linen")

    class Growing(linen.Module):
        @linen.compact
        def __call__(self, x):
            self.sow("losses", "x", x.sum())
            return x

    net = adapters.flax(Growing())
    _, state = net.init(KEY, (5,))
    with pytest.raises(ValueError, match="expected the same tree: don't sow into collections that init makes"):
        net.apply({}, state, X, train=True)


@pytest.mark.parametrize("name", ["flax", "nnx", "equinox", "haiku"])
def test_refusals(name):
    pytest.importorskip({"nnx": "flax"}.get(name, name))
    for wrong in (3, None):
        with pytest.raises(TypeError, match=f"adapters.{name}: got {wrong}; expected"):
            getattr(adapters, name)(wrong)
    with pytest.raises(TypeError, match=f"adapters.{name}: .*expected"):
        getattr(adapters, name)(lambda given: 7)


def test_refusals_that_say_which_adapter():
    linen = pytest.importorskip("flax.linen")
    with pytest.raises(TypeError, match="an instance, not the class"):
        adapters.flax(linen.Dense)
    with pytest.raises(TypeError, match=r"for NNX use adapters\.nnx\(constructor\)"):
        adapters.flax(nnx_constructor())
    with pytest.raises(TypeError, match=r"got init 3; expected a pure function"):
        adapters.function(3, lambda params, x: x)
    with pytest.raises(TypeError, match="got apply dense"):
        adapters.function(lambda key, spec: {}, layers.dense(2))
    net = adapters.function(lambda key, spec: [jnp.ones(2)], lambda params, x: x)
    with pytest.raises(TypeError, match=r'parameters of type list; expected a dict of arrays: name them, \{"w": w\}'):
        net.init(KEY, (5,))


@pytest.mark.parametrize(
    ("name", "module", "distribution"),
    [("flax", "flax.linen", "flax"), ("nnx", "flax.nnx", "flax"),
     ("equinox", "equinox", "equinox"), ("haiku", "haiku", "dm-haiku")],
)  # fmt: skip
def test_a_missing_package_is_named(name, module, distribution, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"adapters\.{name}: got no package .*: pip install {distribution}"):
        getattr(adapters, name)(None)


def test_nothing_is_imported_before_it_is_needed():
    code = "import sys, jaxnet.adapters; print(sorted({'flax', 'equinox', 'haiku'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
