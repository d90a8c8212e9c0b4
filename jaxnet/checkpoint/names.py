"""Trees and names: every leaf of a pytree has a name, `opt_state/0/mu/dense_0/w`, that other tools can read.

    flat(tree)                 name -> Leaf or Empty, in the tree's order
    nested(named)              nested dicts by these names
    spec_of(like)              name -> the Spec that a file must meet to fill the tree `like`
    filled(like, named)        the tree `like` with these leaves

Parts of a name: a dict's key, a sequence's index, the name of a NamedTuple's or dataclass's field, the index of a child
of any other registered node; "~" and "/" within a part are written "~0" and "~1" (as JSON pointers do, RFC 6901).
Dicts, lists and tuples of NumPy arrays and numbers don't need jax.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from jaxnet.checkpoint.format import DTYPES, MAX_DEPTH

EMPTY: dict[str, Callable[[], Any]] = {"dict": dict, "list": list, "tuple": tuple, "none": lambda: None}


class Leaf(NamedTuple):
    """An array as it's stored."""

    array: Any  # NumPy's or JAX's, of real numbers
    key: str | None = None  # of typed keys, whose data these are: the generator


class Empty(NamedTuple):
    """A container without leaves: "dict", "list", "none", or "tuple" for every other."""

    kind: str


class Spec(NamedTuple):
    """What a leaf has to be."""

    dtype: str  # its name; key<fry> for typed keys
    shape: tuple[int, ...]


def flat(tree: Any) -> dict[str, Leaf | Empty]:
    """Every leaf and every empty container below the top, by name.

    Raises:
        TypeError: a dict's key that is neither text nor an integer; a leaf that's no array or number.
        ValueError: two leaves of one name, more than 100 levels.

    >>> flat({"a": [1.5, {}], "b/c": None})
    {'a/0': Leaf(array=array(1.5), key=None), 'a/1': Empty(kind='dict'), 'b~1c': Empty(kind='none')}
    """
    named: dict[str, Leaf | Empty] = {}
    for name, leaf in _walk((), tree):
        if name in named or name == "__metadata__":
            why = "two leaves with" if name in named else "a leaf with the reserved"
            raise ValueError(f"tree: got {why} name {name!r}; expected another: rename it")
        named[name] = leaf
    return named


def nested(named: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts whose paths are the names.

    Raises:
        ValueError: a name that goes on below a leaf.

    >>> nested({"a/0": 1, "a/1": 2, "b~1c": 3})
    {'a': {'0': 1, '1': 2}, 'b/c': 3}
    """
    tree: dict[str, Any] = {}
    for name, leaf in named.items():
        *above, last = (part.replace("~1", "/").replace("~0", "~") for part in name.split("/"))
        try:
            branch = reduce(lambda tree, key: tree.setdefault(key, {}), above, tree)
            branch[last] = leaf
        except (AttributeError, TypeError) as error:
            raise ValueError(f"the name {name!r} goes on below a leaf") from error
    return tree


def spec_of(like: Any) -> dict[str, Spec]:
    """What each leaf of `like` has to be: arrays, ShapeDtypeStructs, numbers.

    >>> spec_of({"w": np.zeros((2, 3), "float32"), "n": 3})
    {'n': Spec(dtype='int64', shape=()), 'w': Spec(dtype='float32', shape=(2, 3))}
    """
    specs: dict[str, Spec] = {}
    for name, leaf in _leaves(like):
        if isinstance(leaf, (bool, int, float)):
            leaf = np.asarray(leaf)
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise TypeError(f"like: {name}: got a {type(leaf).__name__}; expected an array or a ShapeDtypeStruct")
        if name in specs:
            raise ValueError(f"like: got two leaves with name {name!r}; expected different ones: rename one")
        specs[name] = Spec(str(leaf.dtype) if _is_key(leaf) else np.dtype(leaf.dtype).name, tuple(leaf.shape))
    return specs


def filled(like: Any, named: Mapping[str, Leaf]) -> Any:
    """The tree `like` with the leaves `named`: NumPy arrays, typed keys for keys, numbers where `like` has numbers.

    >>> filled([0, np.zeros(2)], {"0": Leaf(np.array(3)), "1": Leaf(np.ones(2))})
    [3, array([1., 1.])]
    """
    import jax

    leaves: list[Any] = []
    for name, leaf in _leaves(like):
        value, key = named[name]
        if key is not None:
            value = jax.random.wrap_key_data(value, impl=key)
        leaves.append(value.item() if isinstance(leaf, (bool, int, float)) else value)
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def key_spec(generator: str, shape: tuple[int, ...]) -> Spec:
    """The Spec of typed keys with uint32 data of that shape; of an unknown generator, or no keys of it, a Spec alike.

    >>> key_spec("threefry2x32", (3, 2)), key_spec("dice", (2,))
    (Spec(dtype='key<fry>', shape=(3,)), Spec(dtype="data of 'dice'", shape=(2,)))
    """
    import jax

    data = jax.ShapeDtypeStruct(shape, np.uint32)
    try:
        keys = jax.eval_shape(lambda data: jax.random.wrap_key_data(data, impl=generator), data)
    except (ValueError, TypeError):
        return Spec(f"data of {generator!r:.40}", shape)
    return Spec(str(keys.dtype), keys.shape)


def _walk(path: tuple[str, ...], node: Any) -> Iterator[tuple[str, Leaf | Empty]]:
    parts = _parts(node)
    if parts is None:
        yield "/".join(path), _leaf("/".join(path), node)
        return
    found = False
    for key, part in parts:
        found = True
        if len(path) == MAX_DEPTH:
            raise ValueError(
                f"tree: got more than {MAX_DEPTH} levels below {'/'.join(path[:3])}/…; expected a flatter one"
            )
        yield from _walk((*path, _part(key, path)), part)
    if path and not found:
        kinds = (("none", type(None)), ("dict", Mapping), ("list", list))
        yield "/".join(path), Empty(next((kind for kind, of in kinds if isinstance(node, of)), "tuple"))


def _parts(node: Any) -> Iterable[tuple[Any, Any]] | None:
    """(key, child) for the children of a node, in order; None for a leaf."""
    if node is None:
        return ()
    if isinstance(node, Mapping):
        return node.items()
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        return zip(node._fields, node, strict=True)
    if type(node) in (list, tuple):
        return enumerate(node)
    if isinstance(node, (np.ndarray, np.generic, bool, int, float)):
        return None
    import jax

    found, structure = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda part: part is not node)
    return None if jax.tree_util.treedef_is_leaf(structure) else [(_key(path[0]), part) for path, part in found]


def _leaves(like: Any) -> Iterator[tuple[str, Any]]:
    """(name, leaf) as JAX orders them."""
    import jax

    for path, leaf in jax.tree_util.tree_flatten_with_path(like)[0]:
        yield "/".join(_part(_key(entry), ()) for entry in path), leaf


def _key(entry: Any) -> Any:
    """What JAX's entry of a path holds: a dict's key, an index or a field's name."""
    return next(getattr(entry, name) for name in ("key", "idx", "name") if hasattr(entry, name))


def _part(key: Any, path: tuple[str, ...]) -> str:
    if not isinstance(key, (str, int)) or isinstance(key, bool):
        raise TypeError(f"tree: got the name {key!r} below {'/'.join(path)!r}; expected text or an integer")
    return str(key).replace("~", "~0").replace("/", "~1")


def _leaf(name: str, value: Any) -> Leaf:
    if _is_key(value):
        import jax

        return Leaf(jax.random.key_data(value), str(jax.random.key_impl(value)))
    array = value if hasattr(value, "shape") and hasattr(value, "dtype") else np.asarray(value)
    if np.dtype(array.dtype).name not in DTYPES:
        raise TypeError(f"{name}: got an array of dtype {array.dtype}; expected real numbers of at most 64 bits")
    return Leaf(array)


def _is_key(value: Any) -> bool:
    if isinstance(value, (np.ndarray, np.generic)) or not hasattr(value, "dtype"):
        return False
    import jax

    return jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
