"""A network from elsewhere as a `Layer` without a backward rule: `loss_and_grad`, `fit`, `predict` and `sweep` take it.

    flax(module)             a Flax Linen module: MLP()
    nnx(constructor)         a Flax NNX module from its Rngs: lambda rngs: MLP(rngs=rngs)
    equinox(constructor)     an Equinox module from a key: lambda key: MLP(key=key); a module starts from its arrays
    haiku(transformed)       hk.transform(f) or hk.transform_with_state(f)
    function(init, apply)    two pure functions

Parameters become a nested dict of arrays, named as the package names them: `summary` and `rules` read them. What else a
network keeps, such as running averages, becomes the state. An argument of its call that says whether this is training
(`train`, `training`, `is_training`, `deterministic`, `inference`, `use_running_average`) is found by its name and set.
"""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.layers import Layer, as_spec, batch_of

FLAGS = {  # the names of the argument, and what it is in training
    "train": True, "training": True, "is_training": True,
    "deterministic": False, "inference": False, "use_running_average": False,
}  # fmt: skip


def function(init: Callable[..., Any], apply: Callable[..., Any]) -> Layer:
    """A Layer of `init(key, spec) -> params` and `apply(params, x) -> y`, pure functions.

    `spec` is one example as ShapeDtypeStruct, so `spec.shape` is its shape; x and y have a leading batch axis; params
    is a nested dict of arrays. `apply` may also take `key` and a flag such as `train`, by keyword. What keeps a state
    is a `Layer(name, init, apply)` itself.

    Raises:
        TypeError: what can't be called; at init, parameters that aren't a dict.

    >>> net = function(lambda key, spec: {"w": jax.random.normal(key, (*spec.shape, 2))},
    ...                lambda params, x: x @ params["w"])
    >>> net.apply(*net.init(jax.random.key(0), (3,)), jnp.ones((5, 3)))[0].shape
    (5, 2)
    """
    for name, given in (("init", init), ("apply", apply)):
        if not callable(given) or isinstance(given, Layer):
            raise TypeError(f"adapters.function: got {name} {given!r}; expected a pure function of arrays")

    def layer_init(key, spec):
        params = init(key, as_spec(spec))
        if not isinstance(params, dict):
            raise TypeError(
                f"adapters.function: init gave parameters of type {type(params).__name__}; expected a dict of arrays: "
                'name them, {"w": w}'
            )
        return params, {}

    def layer_apply(params, state, x, *, key=None, train=False):
        return apply(params, x, **_options(apply, train, key)), state

    return Layer("function", layer_init, layer_apply, settings=(("", getattr(apply, "__name__", "apply")),))


def flax(module: Any, *, rngs: tuple[str, ...] = ("dropout",)) -> Layer:
    """A Layer of a Flax Linen module that takes one input, a batch.

    The collection `params` becomes the parameters, all others (`batch_stats`, …) the state, which only training
    changes; what is sown into `intermediates` is dropped. `rngs` names the module's own streams of random numbers:
    the i-th gets this step's key folded with i. The initial parameters are those of `module.init(key, x)`.

    Raises:
        TypeError: what isn't an instance of a Linen module. ImportError: Flax isn't installed.

    >>> from flax import linen
    >>> net = flax(linen.Dense(2))
    >>> params, state = net.init(jax.random.key(0), (3,))
    >>> jax.tree.map(jnp.shape, params)
    {'bias': (2,), 'kernel': (3, 2)}
    """
    linen = _package("flax.linen", "flax", "flax")
    if not isinstance(module, linen.Module):
        cure = "an instance, not the class" if isinstance(module, type) else "for NNX use adapters.nnx(constructor)"
        raise TypeError(f"adapters.flax: got {module!r}; expected a Linen module: {cure}")
    call = type(module).__call__

    def streams(key, first):
        return {} if key is None else {name: jax.random.fold_in(key, i) for i, name in enumerate(rngs, first)}

    def init(key, spec):
        variables = module.init({"params": key} | streams(key, 1), _zeros(spec), **_options(call, False))
        collections = dict(variables)
        return collections.pop("params", {}), collections

    def apply(params, state, x, *, key=None, train=False):
        variables, options = {"params": params, **state}, _options(call, train)
        if not (train and state):
            return module.apply(variables, x, rngs=streams(key, 0), **options), state
        y, changed = module.apply(variables, x, rngs=streams(key, 0), mutable=list(state), **options)
        new_state = state | dict(changed)
        before, after = (str(jax.tree.structure(tree)) for tree in (state, new_state))
        if before != after:
            raise ValueError(
                f"adapters.flax: training made the state {after} of {before}; expected the same tree: don't sow into "
                "collections that init makes"
            )
        return y, new_state

    return Layer("flax", init, apply, settings=(("", type(module).__name__),))


def nnx(constructor: Callable[[Any], Any]) -> Layer:
    """A Layer of the Flax NNX module that `constructor(rngs)` makes, and which takes one input, a batch.

    `nnx.Param`s become the parameters, all other variables the state, except those of random streams: each step they
    start from its key. `module.train()` and `module.eval()` are called before.

    Raises:
        TypeError: a constructor that doesn't make an NNX module. ImportError: Flax isn't installed.
        ValueError: training without a key, when the module draws.

    >>> from flax import nnx as flax_nnx
    >>> net = nnx(lambda rngs: flax_nnx.Linear(3, 2, rngs=rngs))
    >>> params, state = net.init(jax.random.key(0), (3,))
    >>> jax.tree.map(jnp.shape, params)
    {'bias': (2,), 'kernel': (3, 2)}
    """
    package = _package("flax.nnx", "nnx", "flax")
    if isinstance(constructor, package.Module) or not callable(constructor):
        raise TypeError(f"adapters.nnx: got {constructor!r}; expected a constructor: lambda rngs: MLP(rngs=rngs)")
    module = package.eval_shape(lambda: constructor(package.Rngs(0)))
    if not isinstance(module, package.Module):
        raise TypeError(f"adapters.nnx: the constructor made {type(module).__name__}; expected an NNX module")
    graph, *kinds = package.split(module, package.Param, package.RngState, ...)
    forms = [package.to_pure_dict(kind) for kind in kinds]

    def trees(module):
        _, params, _, rest = package.split(module, package.Param, package.RngState, ...)
        return _named(package.to_pure_dict(params)), _named(package.to_pure_dict(rest))

    def init(key, spec):
        return trees(constructor(package.Rngs(key)))

    def apply(params, state, x, *, key=None, train=False):
        if train and key is None and jax.tree.leaves(forms[1]):
            raise ValueError("adapters.nnx: got key=None in training; expected a key: the module draws random numbers")
        filled = [jax.tree.map(lambda a: a, kind) for kind in kinds]
        for kind, values, form in ((filled[0], params, forms[0]), (filled[2], state, forms[2])):
            package.replace_by_pure_dict(kind, _restored(values, form))
        module = package.merge(graph, *filled)
        if key is not None:
            package.reseed(module, default=key)
        (module.train if train else module.eval)()
        y = module(x, **_options(type(module).__call__, train))
        return y, trees(module)[1] if train else state

    return Layer("nnx", init, apply, settings=(("", type(module).__name__),))


def equinox(constructor: Any) -> Layer:
    """A Layer of the Equinox module that `constructor(key)` makes, mapped over the batch by `vmap`.

    A module takes one example and, if its call has it, `key=`, a key for each example. With a state the constructor is
    `eqx.nn.make_with_state(…)`, or makes a pair (module, eqx.nn.State) likewise; the module then takes (x, state) and
    the axis of the batch is named "batch". Floating arrays become the parameters; integers and `State` the
    state. `inference_mode` is set. A module, or a pair, instead of a constructor starts from its arrays whatever
    the key: a pretrained network, the same in every member of a study.

    Raises:
        TypeError: what is, or makes, no module. ImportError: Equinox isn't installed.

    >>> import equinox as eqx
    >>> net = equinox(lambda key: eqx.nn.Linear(3, 2, key=key))
    >>> params, state = net.init(jax.random.key(0), (3,))
    >>> jax.tree.map(jnp.shape, params)
    {'bias': (2,), 'weight': (2, 3)}
    """
    package = _package("equinox", "equinox", "equinox")

    def made(key):
        makes = callable(constructor) and not isinstance(constructor, package.Module)
        module = constructor(key) if makes else constructor
        module, state = module if isinstance(module, tuple) and len(module) == 2 else (module, None)
        if not isinstance(module, package.Module) or not (state is None or isinstance(state, package.nn.State)):
            raise TypeError(
                f"adapters.equinox: got {module!r}; expected a module, or a function of a key that makes one: "
                "lambda key: MLP(key=key)"
            )
        return module, state

    form, state_form = package.filter_eval_shape(made, jax.eval_shape(jax.random.key, 0))
    arrays_form, static = package.partition(form, lambda a: isinstance(a, jax.ShapeDtypeStruct))
    params_form, rest_form = package.partition(arrays_form, lambda a: jnp.issubdtype(a.dtype, jnp.inexact))

    def kept(rest, state):
        return {name: tree for name, tree in (("arrays", _named(rest)), ("state", _named(state))) if tree}

    def init(key, spec):
        module, state = made(key)
        params, rest = package.partition(package.filter(module, package.is_array), package.is_inexact_array)
        return _named(params), kept(rest, state)

    def apply(params, state, x, *, key=None, train=False):
        rest = _restored(state.get("arrays", {}), rest_form)
        module = package.combine(_restored(params, params_form), rest, static)
        module = package.nn.inference_mode(module, value=not train)
        before = None if state_form is None else _restored(state["state"], state_form)

        def one(x, key):
            options = _options(type(module).__call__, train, key)
            return (module(x, **options), None) if before is None else module(x, before, **options)

        keys = None if key is None else jax.random.split(key, len(jax.tree.leaves(x)[0]))
        y, after = jax.vmap(one, out_axes=(0, None), axis_name="batch")(x, keys)
        return y, kept(rest, after) if train else state

    return Layer("equinox", init, apply, settings=(("", type(form).__name__),))


def haiku(transformed: Any) -> Layer:
    """A Layer of `hk.transform(f)` or `hk.transform_with_state(f)`, f a function of one input, a batch.

    Modules are named with dots instead of slashes: "mlp/~/linear_0" becomes "mlp.~.linear_0". Haiku's state is
    the state; only training changes it.

    Raises:
        TypeError: what isn't a transformed function. ImportError: Haiku isn't installed.

    >>> import haiku as hk
    >>> net = haiku(hk.transform(lambda x: hk.Linear(2)(x)))
    >>> params, state = net.init(jax.random.key(0), (3,))
    >>> jax.tree.map(jnp.shape, params)
    {'linear': {'b': (2,), 'w': (3, 2)}}
    """
    package = _package("haiku", "haiku", "dm-haiku")
    if not isinstance(transformed, (package.Transformed, package.TransformedWithState)):
        raise TypeError(f"adapters.haiku: got {transformed!r}; expected hk.transform(f) or hk.transform_with_state(f)")
    stateful = isinstance(transformed, package.TransformedWithState)
    pair = transformed if stateful else package.with_empty_state(transformed)

    def renamed(tree, old, new):
        return {module.replace(old, new): dict(leaves) for module, leaves in tree.items()}

    def init(key, spec):
        trees = pair.init(key, _zeros(spec), **_options(transformed.apply, True))  # running averages start in training
        return tuple(renamed(tree, "/", ".") for tree in trees)

    def apply(params, state, x, *, key=None, train=False):
        trees = (renamed(tree, ".", "/") for tree in (params, state))
        y, after = pair.apply(*trees, key, x, **_options(transformed.apply, train))
        return y, renamed(after, "/", ".") if train else state

    return Layer("haiku", init, apply)


def _package(module: str, adapter: str, distribution: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"adapters.{adapter}: got no package {module.partition('.')[0]}; expected it: pip install {distribution}"
        ) from error


def _options(call: Callable[..., Any], train: bool, key: Any = None) -> dict[str, Any]:
    """The keyword arguments of `call` that say whether this is training; its key, if it takes one and there is one."""
    known = inspect.signature(call).parameters
    flags = [name for name in FLAGS if name in known]
    if "inference" in flags and "deterministic" in flags:
        flags.remove("deterministic")  # Equinox's old name for the same
    options = {name: train if FLAGS[name] else not train for name in flags}
    return options | ({} if key is None or "key" not in known else {"key": key})


def _zeros(spec: Any) -> Any:
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), batch_of(spec))


def _named(tree: Any) -> dict[str, Any]:
    """Any tree of arrays as nested dicts, by the names of its paths."""
    result: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *above, last = (jax.tree_util.keystr((key,), simple=True) for key in path)
        branch = result
        for name in above:
            branch = branch.setdefault(name, {})
        branch[last] = leaf
    return result


def _restored(named: Any, form: Any) -> Any:
    """The tree of `form` with the leaves of `named`."""

    def leaf(path, _):
        tree = named
        for key in path:
            tree = tree[jax.tree_util.keystr((key,), simple=True)]
        return jnp.asarray(tree)

    return jax.tree_util.tree_map_with_path(leaf, form)
