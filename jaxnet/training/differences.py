"""What makes two programs differ, in words: a checksum of the lowered text alone says only that they do.

description(settings, carry, text)   what a store keeps of a program, as JSON can hold it
in_words(old, new)                   one sentence per difference that can be named
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from jaxnet.training.identity import sha256

Description = Mapping[str, Any]

MOST = 8  # of one kind said in a sentence
LONG = 40  # letters of a constant that is kept as it is; a longer one by its checksum


def description(settings: Mapping[str, Any], carry: Any, text: str) -> dict[str, Any]:
    """What is known of a program: its settings, the shapes it carries, the constants and operations of its text.

    >>> text = jax.jit(lambda x: 0.5 * x).lower(jax.ShapeDtypeStruct((2,), "float32")).as_text()
    >>> about = description({"batch_size": 32}, {"w": jax.numpy.zeros(2)}, text)
    >>> about["shapes"], about["constants"], about["operations"]["multiply"]
    ({"['w']": 'float32(2,)'}, ['5.000000e-01 f32'], 1)
    """
    shapes = {
        jax.tree_util.keystr(path): f"{leaf.dtype}{tuple(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(carry)
    }
    found = re.findall(r"stablehlo\.constant dense<([^>]*)> : tensor<([^>]*)>", text)
    constants = [f"{value if len(value) < LONG else sha256(value)[:12] + '…'} {kind}" for value, kind in found]
    operations = dict(sorted(Counter(re.findall(r"stablehlo\.(\w+)", text)).items()))
    plain = {
        name: value if isinstance(value, (bool, int, type(None))) else str(value) for name, value in settings.items()
    }
    return {"settings": plain, "shapes": shapes, "constants": constants, "operations": operations}


def in_words(old: Description, new: Description) -> list[str]:
    """The differences of two descriptions, settings first; empty where none can be named.

    Operations are compared where everything else is equal, for they follow it.

    >>> blank = {"settings": {}, "shapes": {}, "operations": {}}
    >>> in_words(blank | {"constants": ["1.000000e-03 f32"]}, blank | {"constants": ["1.000000e-02 f32"]})
    ['a constant: 0.001 in the store, 0.01 now']
    """
    named = [*_by_name(old["settings"], new["settings"], ""), *_shapes(old["shapes"], new["shapes"])]
    constants = list(_constants(old["constants"], new["constants"]))
    return named + constants or list(_by_name(old["operations"], new["operations"], "operations ", absent=0))


def _by_name(old: Mapping[str, Any], new: Mapping[str, Any], kind: str, absent: Any = None) -> Iterator[str]:
    differ = [name for name in {**old, **new} if old.get(name, absent) != new.get(name, absent)]
    for name in differ[:MOST]:
        yield f"{kind}{name}: {old.get(name, absent)} in the store, {new.get(name, absent)} now"
    if len(differ) > MOST:
        yield f"{len(differ) - MOST} more {kind}".rstrip()


def _shapes(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    """Of the parameters; of the rest of the carry where the parameters are the same, for it follows them."""

    def part(shapes: Mapping[str, str], chosen: bool) -> dict[str, str]:
        return {name: shape for name, shape in shapes.items() if name.startswith(".params") is chosen}

    parameters = list(_by_name(part(old, True), part(new, True), ""))
    yield from parameters or _by_name(part(old, False), part(new, False), "")


def _constants(old: list[str], new: list[str]) -> Iterator[str]:
    """Pair by pair in two texts of one structure; else those that only one of the two has."""
    if len(old) == len(new):
        pairs = list(dict.fromkeys((one, other) for one, other in zip(old, new, strict=True) if one != other))
        if len(pairs) <= MOST:
            for one, other in pairs:
                yield f"a constant: {_number(one)} in the store, {_number(other)} now"
            return
    gone, come = (
        ", ".join(list(dict.fromkeys(map(_number, a)))[:MOST]) or "none"
        for a in ([c for c in old if c not in set(new)], [c for c in new if c not in set(old)])
    )
    if gone != come:
        yield f"constants: {gone} in the store, {come} now"


def _number(constant: str) -> str:
    """A constant as people write it.

    >>> _number("0.899999976 f32"), _number("1 i32"), _number("0x7FC00000 f32")
    ('0.9', '1', '0x7FC00000 f32')
    """
    try:
        return f"{float(constant.split()[0]):.6g}"
    except ValueError:
        return constant
