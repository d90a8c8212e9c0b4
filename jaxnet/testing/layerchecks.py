"""Does a layer keep the contract of `jaxnet.layers.layer`? The whole battery, for anybody's layer."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.layers import Layer, as_spec, batch_of
from jaxnet.testing import roads
from jaxnet.testing.gradcheck import Parts, check_by_values
from jaxnet.testing.gradients import worst_leaves
from jaxnet.testing.members import Members
from jaxnet.testing.reports import Report, Skipped, Wrong, run_checks
from jaxnet.testing.roads import check_finite, floating, forms


def check_layer(
    layer: Layer,
    in_shape: Any,
    *,
    draw: Callable[[np.random.Generator, int], Any] | None = None,
    bound: float | None = None,
    batch: int = 4,
    seed: int = 0,
) -> Report:
    """The whole battery for a layer: its gradient on both roads, its types, its state, its keys, its batches.

    The hand-written `backward` is `jax.vjp` of `apply` for drawn members (parameters, states, inputs), in training and
    in inference, and for inputs of zero; the derivative is that of five-point differences; jit is op by op; members
    under `vmap` are the members alone; bfloat16 and float32 stay what they are under strict promotion. Without a
    `backward` everything else is checked. Nothing that the layer raises gets out: it's WRONG, with the sentence.

    Args:
        layer: any Layer, a network too.
        in_shape: the spec of one example, as for `init`: (784,), or a pytree of ShapeDtypeStruct.
        draw: (rng, size) -> a batch x, where standard normals (and integers 0 to 3) aren't what the layer takes. Then
            inputs of zero aren't tried.
        bound: the share of a leaf's scale that errors may have; `tolerance` unless given. For what computes in a
            narrower dtype than its inputs have.
        batch, seed: the number of examples; of everything drawn.

    Raises:
        TypeError: not a Layer.

    >>> from jaxnet.layers import parameterless
    >>> wrong = parameterless("cube", lambda x, key, train: x**3, lambda x, dy, key, train: 2 * x**2 * dy)
    >>> report = check_layer(wrong, (3,))
    >>> bool(report), [check.name for check in report.wrong][:2]
    (False, ['backward = autodiff, training', 'backward = autodiff, inference'])
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"check_layer: got {layer!r}; expected a Layer: call the constructor, relu()")
    title = f"{layer!r} on {in_shape if isinstance(in_shape, tuple) else 'inputs of the given spec'}"
    members = Members(layer, as_spec(in_shape), draw, bound, batch, seed)
    first = run_checks(title, [("init", partial(_init, members)), ("output", partial(_output, members))])
    if not first:
        return first  # nothing else can be said
    rest = run_checks(title, [(name, partial(check, members)) for name, check in CHECKS.items()])
    return Report(title, first.checks + rest.checks)


def _init(members):
    """`init` gives two dicts of arrays, the same for the same key."""
    layer, spec, key = members.layer, members.spec, members.keys[0]
    found, again = layer.init(key, spec), layer.init(key, spec)
    if not isinstance(found, tuple) or len(found) != 2:
        raise Wrong(f"got {type(found).__name__} from init; expected the pair (params, state)")
    for what, tree in zip(("params", "state"), found, strict=True):
        _check_dicts(what, tree)
    if not _same(found, again):
        raise Wrong("one key gave two different results; expected the key to decide every value")
    parameters, state = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in found)
    return f"{parameters} parameters, {state} numbers of state"


def _check_dicts(path, tree):
    """(Nested) dicts of strong finite arrays, {} when empty."""
    if not isinstance(tree, dict):
        if not isinstance(tree, (jax.Array, np.ndarray)):
            raise Wrong(f"got {path} of type {type(tree).__name__}; expected (nested) dicts of arrays, {{}} when empty")
        if getattr(tree, "weak_type", False):
            raise Wrong(f"got {path} of weak type {tree.dtype}; expected a dtype: jnp.asarray(value, spec.dtype)")
        if floating(tree) and not np.isfinite(np.asarray(tree, np.float64)).all():
            raise Wrong(f"got {path} with numbers that aren't finite")
        return
    if tree and not jax.tree.leaves(tree):
        raise Wrong(f"got {path} = {tree!r} without an array; expected {{}}")
    for name, part in tree.items():
        _check_dicts(f"{path}.{name}", part)


def _same(a, b):
    a, b = roads.named(a), roads.named(b)
    return a.keys() == b.keys() and all(np.array_equal(a[path], b[path]) for path in a)


def _output(members):
    """One example gives one shape, whatever the batch and the mode."""
    layer = members.layer
    params, state = layer.init(members.keys[0], members.spec)
    seen: dict[tuple, str] = {}
    for size in (members.batch, members.batch + 1):
        x = members.draw(members.rng, size)
        for train in (True, False):
            y, _ = jax.eval_shape(partial(layer.apply, key=members.keys[1], train=train), params, state, x)
            for path, (shape, dtype) in forms(y).items():
                if shape[:1] != (size,):
                    raise Wrong(f"got y {path} of shape {shape}; expected the batch axis, {size}, in front")
                seen.setdefault((path, shape[1:], dtype), f"batch {size}, {'training' if train else 'inference'}")
    if len(seen) > len(forms(y)):
        raise Wrong(f"got different outputs for an example: {seen}; expected one shape and dtype")
    return f"{len(seen)} array(s), " + ", ".join(f"{shape} {dtype}" for _, shape, dtype in seen)


def _keyless(members):
    if members.keyless_error is not None:
        raise members.keyless_error
    return "none needed"


def _roads_of(members, mode, which):
    by_hand, automatic = members.errors
    if members.layer.backward is None:
        raise Skipped("no backward rule")
    if by_hand is not None and str(by_hand) == str(automatic):
        raise Skipped(f"no derivative on either road: {automatic}")
    for error in (by_hand, automatic):
        if error is not None:
            raise error
    found = []
    for result, near in members.alone[which]:
        _, _, hand, auto = result[mode]
        _check_form(hand, auto)
        found.append(members.compare(hand, auto, [other[mode][3] for other in near]))
    return worst_leaves(found)


def _check_form(hand, auto):
    """The same tree, shapes and dtypes."""
    got, want = forms(hand), forms(auto)
    for path in want.keys() | got.keys():
        if got.get(path) != want.get(path):
            raise Wrong(f"got {path} of form {got.get(path)} from backward; expected {want.get(path)}")


def _agree(mode, members):
    return _roads_of(members, mode, slice(0, -1) if members.zeros else slice(None))


def _zeros(members):
    """Where kinks and ties are: both roads agree on finite gradients."""
    if not members.zeros:
        raise Skipped("inputs are drawn by a function")
    (result, _) = members.alone[-1]
    for y, _, *both in result:
        check_finite("inputs of zero", [y, *both])
    try:
        return worst_leaves([_roads_of(members, mode, slice(-1, None)) for mode in (0, 1)])
    except Skipped:
        return "finite values"


def _integers(members):
    """dx is None for integers; `roads.by_hand` raises otherwise."""
    inputs = [path for path, a in roads.named(members.arguments[0][2]).items() if not floating(a)]
    if not inputs or members.layer.backward is None:
        raise Skipped("no integers among the inputs" if members.layer.backward else "no backward rule")
    if members.errors[0] is not None:
        raise members.errors[0]
    return f"dx is None for {len(inputs)}"


def _differences(members):
    """In training, so that what is drawn or normalized by the batch takes part."""
    layer, (params, state, x, dy, key) = members.layer, members.arguments[0]
    if all(error is not None for error in members.errors):
        raise Skipped("no derivative")
    if members.bound is not None and members.bound > 1e-3:
        raise Skipped(f"differences say nothing about errors as large as the bound, {members.bound}")
    if not any(floating(a) for a in jax.tree.leaves((params, x))):
        raise Skipped("nothing floating to differentiate by")

    road = 2 if members.errors[0] is None else 3
    result, near = members.alone[0]
    y, _ = jax.eval_shape(lambda: layer.apply(params, state, x, key=key, train=True))
    given = iter(dy)
    parts = Parts(
        lambda params, x: layer.apply(params, state, x, key=key, train=True)[0], (params, x),
        jax.tree.map(lambda a: next(given) if floating(a) else None, y),
    )  # fmt: skip

    def gradient(found):
        return jax.tree.leaves((found[0][road]["params"], list(found[0][road]["dx"].values())))

    return check_by_values(
        parts, gradient(result), [gradient(other) for other in near], complex_step=False, bound=members.bound
    )


def _op_by_op(members):
    params, state, x, _, key = members.arguments[0]
    y, after = members.layer.apply(params, state, x, key=key, train=True)
    result, near = members.alone[0]

    def compiled(found):
        return {"y": found[0][0], "state": found[0][1]}

    return members.compare({"y": y, "state": after}, compiled(result), [compiled(other) for other in near])


def _mapped(members):
    found = []
    for i, (result, near) in enumerate(members.alone):
        member = jax.tree.map(lambda a, i=i: a[i], members.mapped)
        found.append(members.compare(member, members.mappable(result), [members.mappable(other) for other in near]))
    return worst_leaves(found)


def _state(members):
    """Training leaves a state of the same form."""
    if not jax.tree.leaves(members.arguments[0][1]):
        raise Skipped("no state")
    for (_, state, *_), (result, _) in zip(members.arguments, members.alone, strict=True):
        if forms(result[0][1]) != forms(state):
            raise Wrong(f"got the state {forms(result[0][1])} from training; expected the form {forms(state)}")
    return "keeps its form"


def _untouched(members):
    for result, _ in members.alone:
        if not _same(result[1][1], result[0][1]):
            raise Wrong("inference changed the state; expected it as it was given")
    return "as it was given"


def _one(members):
    """One example in training, backward too, is finite; or training refuses, and inference of it is."""
    params, state, _, _, key = members.arguments[0]
    x = jax.tree.map(jnp.asarray, members.draw(members.rng, 1))
    (train, used), inference = members.modes(key)
    try:
        y, _ = members.layer.apply(params, state, x, key=used, train=train)
        told = "finite"
    except ValueError as error:  # one row has no statistics
        (train, used), told = inference, f"finite in inference; training refuses: {error}"
        y, _ = members.layer.apply(params, state, x, key=used, train=train)
    dy = [jnp.ones(a.shape, a.dtype) for a in jax.tree.leaves(y) if floating(a)]
    known = members.errors[0] is None
    gradient = roads.by_hand(members.layer, params, state, x, dy, used, train) if known else None
    check_finite("a batch of one", (y, gradient))
    return told


def _dtypes(dtype, members):
    """From inputs of `dtype` everything is of it, under strict promotion; layers of integers keep their own."""
    layer, key = members.layer, members.keys[0]

    def low(tree):
        return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, dtype) if floating(a) else a, tree)

    spec = low(members.spec)
    if not any(floating(a) for a in jax.tree.leaves(spec)):
        raise Skipped("no floating inputs")
    params, state = roads.strictly(jax.eval_shape, lambda key: layer.init(key, spec), key)
    x, dy = batch_of(spec, members.batch), low(members.arguments[0][3])
    results = roads.strictly(jax.eval_shape, members.everything, params, state, x, dy, key)
    name = jnp.dtype(dtype).name
    for what, tree in (
        ("params", params),
        *((w, r) for y, _, *both in results for w, r in (("y", y), ("gradient", both))),
    ):
        for path, a in roads.named(tree).items():
            if floating(a) and (a.dtype != dtype or a.weak_type):
                weak = "weak " if a.weak_type else ""
                raise Wrong(f"got {what} {path} of {weak}{a.dtype} for inputs of {name}; expected {name}")
    for _, after, *_ in results:
        if forms(after) != forms(state):
            raise Wrong(f"got the state {forms(after)} for inputs of {name}; expected the form {forms(state)}")
    return "everything keeps it"


CHECKS: dict[str, Callable] = {
    "inference without a key": _keyless,
    "backward = autodiff, training": partial(_agree, 0),
    "backward = autodiff, inference": partial(_agree, 1),
    "inputs of zero": _zeros,
    "integer inputs": _integers,
    "five-point differences": _differences,
    "jit = op by op": _op_by_op,
    "vmap over members = alone": _mapped,
    "state in training": _state,
    "state in inference": _untouched,
    "batch of one": _one,
    "bfloat16": partial(_dtypes, jnp.bfloat16),
    "float32": partial(_dtypes, jnp.float32),
}
