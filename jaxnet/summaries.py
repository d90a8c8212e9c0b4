"""What a network is made of, layer by layer, without computing anything.

    print(summary(net, (784,)))     one line for each layer, and below it one for each of its arrays
    summary(net, (784,)).rows       the same as data

A layer that holds others is followed by what it holds, indented, and its numbers are theirs together. FLOPs are those
of matrix products and convolutions, two for each multiply-add, of the forward pass of one example in inference.
A layer from elsewhere that holds others in its own way is one row.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.flops import operations
from jaxnet.layers import Layer, as_spec, batch_of, spec_of
from jaxnet.layers import Sequence as Padded
from jaxnet.layers.combinators import names
from jaxnet.layers.elementwise import identity
from jaxnet.tables import table

ROLES = {
    "w": "weight", "kernel": "weight", "weight": "weight", "embedding": "weight", "embeddings": "weight",
    "b": "bias", "bias": "bias", "scale": "scale", "shift": "shift", "offset": "shift",
}  # fmt: skip
HOLD_MANY = ("serial", "branch", "parallel", "residual", "beside")
HOLD_ONE = (
    "frozen", "repeat", "time_distributed", "tapped", "tied", "weight_norm", "low_rank", "dropconnect", "weight_noise",
    "compute_dtype",
)  # fmt: skip


@dataclass(frozen=True)
class Leaf:
    """An array of a layer."""

    path: str  # its name in the tree of parameters, or of the state: "dense_0.w"
    role: str  # weight, bias, scale, …; of a name that isn't known the name itself
    kind: str  # "parameter"; "frozen", a parameter that is kept in the state; "state"
    shape: tuple[int, ...]
    dtype: str
    size: int
    bytes: int


@dataclass(frozen=True)
class Row:
    """A layer; its numbers are those of all that it holds."""

    path: str  # "residual_0.dense_0"; "" for the network itself
    depth: int
    kind: str  # "dense"
    settings: str  # "256, bias=False"
    output: Any  # the spec of one example's output
    parameters: int
    flops: int  # of one example, forward
    leaves: tuple[Leaf, ...]  # its own, none when other rows show them


@dataclass(frozen=True)
class Summary:
    """All layers, in order; printed as a table."""

    rows: tuple[Row, ...]

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """All arrays of the network."""
        return tuple(leaf for row in self.rows for leaf in row.leaves)

    def size(self, kind: str = "parameter") -> int:
        """How many numbers there are of a kind: "parameter", "frozen" or "state"."""
        return sum(leaf.size for leaf in self.leaves if leaf.kind == kind)

    def bytes(self, kind: str = "parameter") -> int:
        """The bytes that they take."""
        return sum(leaf.bytes for leaf in self.leaves if leaf.kind == kind)

    @property
    def parameters(self) -> int:
        """The number of parameters that are trained."""
        return self.size()

    @property
    def flops(self) -> int:
        """FLOPs of the forward pass of one example."""
        return self.rows[0].flops

    def __str__(self) -> str:
        lines = []
        for row in self.rows:
            indent = "  " * row.depth
            label = f"{row.kind}({row.settings})" if row.settings else row.kind
            numbers = f"{row.parameters:,}", f"{row.flops:,}"
            lines.append((indent + (row.path.rpartition(".")[2] or "net"), label, spec_text(row.output), *numbers))
            for leaf in row.leaves:
                inside = leaf.path.removeprefix(row.path and f"{row.path}.")
                role = leaf.role if leaf.kind == "parameter" else f"{leaf.kind} {leaf.role}"
                shape = spec_text(jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
                lines.append((f"{indent}  .{inside}", role, shape, f"{leaf.size:,}" * (leaf.kind == "parameter"), ""))
        total = [f"{self.parameters:,} parameters ({self.bytes():,} bytes), {self.flops:,} FLOPs per example, forward"]
        for kind, what in (("frozen", "frozen parameters"), ("state", "numbers of state")):
            if self.size(kind):
                total.append(f"{self.size(kind):,} {what} ({self.bytes(kind):,} bytes)")
        return table(("layer", "", "output", "parameters", "FLOPs"), lines, right=(3, 4)) + "\n" + "\n".join(total)


def summary(net: Layer, in_shape: Any) -> Summary:
    """The layers of `net` for examples of `in_shape`: their outputs, parameters, FLOPs, and the role of each array.

    `in_shape` is a spec as `net.init` takes it: the shape of one example, or a pytree of ShapeDtypeStruct. Shapes are
    those of one example, without the batch axis. Nothing is computed and nothing compiled: it's `jax.eval_shape`.

    Raises:
        TypeError: a net that isn't a Layer. ValueError: what `net.init` refuses.

    >>> from jaxnet.layers import dense, relu, serial
    >>> print(summary(serial(dense(4), relu(), dense(2, bias=False)), (3,)))
    layer                           output  parameters  FLOPs
    net        serial               (2,)            24     40
      dense_0  dense(4)             (4,)            16     24
        .b     bias                 (4,)             4
        .w     weight               (3, 4)          12
      relu_0   relu                 (4,)             0      0
      dense_1  dense(2, bias=False) (2,)             8     16
        .w     weight               (4, 2)           8
    24 parameters (96 bytes), 40 FLOPs per example, forward
    """
    if not isinstance(net, Layer):
        raise TypeError(f"summary: got net {net!r}; expected a Layer such as jn.mlp([256, 10])")
    params, state = _shapes(net, as_spec(in_shape))
    rows = tuple(_rows(net, as_spec(in_shape), params, state, (), 0, 1, False))
    return Summary(rows)


def count_parameters(params: Any) -> int:
    """How many numbers a pytree of arrays holds; of arrays only the shape is looked at.

    Raises:
        TypeError: a leaf that isn't an array or a number.

    >>> count_parameters({"w": jnp.zeros((3, 4)), "b": jax.ShapeDtypeStruct((4,), "float32")})
    16
    """
    total = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not hasattr(leaf, "shape") and not isinstance(leaf, (int, float, complex)):
            raise TypeError(
                f"count_parameters: got {leaf!r} at {path_name(path) or 'the top'}; expected arrays: partition the "
                "tree first"
            )
        total += math.prod(getattr(leaf, "shape", ()))
    return total


def path_name(path: Any) -> str:
    """The name of a leaf: the names that lead to it, joined by dots.

    >>> [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path({"dense_0": {"b": 0, "w": 1}})]
    ['dense_0.b', 'dense_0.w']
    """
    return jax.tree_util.keystr(path, simple=True, separator=".")


def spec_text(spec: Any) -> str:
    """A spec for people: shapes, and dtypes that aren't JAX's default float.

    >>> spec_text({"ids": jax.ShapeDtypeStruct((7,), jnp.int32), "x": as_spec((3,))})
    'ids (7,) int32, x (3,)'
    """

    def leaf(path, a):
        dtype = "" if a.dtype == jnp.result_type(float) else f" {jnp.dtype(a.dtype).name}"
        name = path_name(path)
        return f"{a.shape}{dtype}" if name.isdigit() or not name else f"{name} {a.shape}{dtype}"

    return ", ".join(leaf(path, a) for path, a in jax.tree_util.tree_leaves_with_path(spec))


def _shapes(layer: Layer, spec: Any) -> tuple[Any, Any]:
    """The shapes of the layer's own parameters and state."""
    return jax.eval_shape(lambda key: layer.init(key, spec), jax.eval_shape(jax.random.key, 0))


def _rows(layer, spec, shown_params, shown_state, path, depth, times, is_frozen) -> Iterator[Row]:
    """The layer's row, then those of what it holds.

    `shown_params` and `shown_state` are its parts of the network's own trees; `times` is how often it runs for one
    example of the network.
    """
    params, state = _shapes(layer, spec)
    y = jax.eval_shape(lambda p, s, x: layer.apply(p, s, x)[0], params, state, batch_of(spec))
    count = operations(lambda p, s, x: layer.apply(p, s, x)[0], params, state, batch_of(spec))
    inner, inner_times, inner_spec = layer, times, spec
    while inner.name in HOLD_ONE:
        if inner.name == "frozen":
            shown_params, shown_state = shown_state.get("params", {}), shown_state.get("state", {})
            is_frozen = True
        elif inner.name == "repeat":
            inner_times *= dict(inner.settings)["times"]
        elif inner.name == "time_distributed":
            steps = inner_spec.values if isinstance(inner_spec, Padded) else inner_spec
            inner_times *= steps.shape[0]
            inner_spec = jax.ShapeDtypeStruct(steps.shape[1:], steps.dtype)
        inner = inner.settings[0][1]
    leaves = (
        *_leaves(shown_params, path, "frozen" if is_frozen else "parameter"),
        *_leaves(shown_state, path, "state"),
    )
    held = [
        row
        for name, part, part_spec in _held(inner, inner_spec)
        for row in _rows(
            part, part_spec, shown_params.get(name, {}), shown_state.get(name, {}), (*path, name), depth + 1,
            inner_times, is_frozen,
        )
    ]  # fmt: skip
    if len([leaf for row in held for leaf in row.leaves]) != len(leaves):
        held = []  # it holds them in a way that isn't known here
    yield Row(
        ".".join(path), depth, layer.name, _settings(layer),
        spec_of(y), sum(leaf.size for leaf in leaves if leaf.kind == "parameter"), int(times * count.flops),
        () if held else leaves,
    )  # fmt: skip
    yield from held


def _held(layer: Layer, spec: Any) -> Iterator[tuple[str, Layer, Any]]:
    """(name, layer, spec of its input) of the layers that a combinator holds."""
    if layer.name not in HOLD_MANY:
        return
    parts = tuple(part for _, part in layer.settings)
    if layer.name == "residual" and len(parts) == 1:
        parts = (*parts, identity())
    known = tuple(name for name, _ in layer.settings) if layer.name == "beside" else names(parts)
    for i, (name, part) in enumerate(zip(known, parts, strict=True)):
        yield name, part, spec[i] if layer.name == "parallel" else spec
        if layer.name == "serial":
            y = jax.eval_shape(lambda p, s, x, part=part: part.apply(p, s, x)[0], *_shapes(part, spec), batch_of(spec))
            spec = spec_of(y)


def _leaves(tree: Any, path: tuple[str, ...], kind: str) -> Iterator[Leaf]:
    for inner, a in jax.tree_util.tree_leaves_with_path(tree):
        name = ".".join((*path, path_name(inner))).rstrip(".")
        size = math.prod(a.shape)
        *_, last = parts = name.split(".")
        role = next((ROLES[part] for part in reversed(parts) if part in ROLES), last)
        yield Leaf(name, role, kind, a.shape, np.dtype(a.dtype).name, size, size * a.dtype.itemsize)


def _settings(layer: Layer) -> str:
    """What's between the brackets of its `repr`; of the layers it holds the kind alone, as they have their own rows."""
    if layer.name in HOLD_MANY:
        return ""

    def text(value):
        if not isinstance(value, Layer):
            return str(value)
        inner = _settings(value)
        return value.name if value.name in HOLD_MANY else f"{value.name}({inner})"

    return ", ".join(f"{key}={text(value)}" if key else text(value) for key, value in layer.settings)
