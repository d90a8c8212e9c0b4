"""`jaxnet check MODULE:NAME`: the battery of `jaxnet.testing` for somebody's layer, loss or optimizer.

check(options) -> whether nothing is wrong; the report is printed
"""

import importlib
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnet import testing
from jaxnet.cli.options import Check
from jaxnet.cli.studykeys import nearest
from jaxnet.layers import Layer
from jaxnet.losses import Loss


def check(options: Check) -> bool:
    """Find what is asked for, run its battery and print the report; whether nothing is wrong.

    Raises:
        ImportError: no such module, or one that fails. ValueError, TypeError: no such name in it, something that is
            neither layer nor loss nor optimizer, options that don't fit it. All say what to do.

    >>> check(Check("jaxnet.layers:relu"))
    Traceback (most recent call last):
    ValueError: got no --shape for the layer relu(); expected that of one example: --shape 28,28,1
    """
    what = found(options.what)
    if isinstance(what, Layer):
        if options.shape is None:
            raise ValueError(f"got no --shape for the layer {what!r}; expected that of one example: --shape 28,28,1")
        shape = shape_of(options.shape)
        spec: Any = shape if options.dtype is None else jax.ShapeDtypeStruct(shape, dtype_of(options.dtype))
        report = testing.check_layer(what, spec, seed=options.seed, bound=options.bound)
    elif options.dtype is not None:
        raise ValueError(f"got --dtype {options.dtype} for {what!r}; expected it for layers only: leave it out")
    elif isinstance(what, Loss):
        outputs: Any = 3 if options.shape is None else shape_of(options.shape)
        report = testing.check_loss(what, outputs, seed=options.seed, bound=options.bound)
    else:
        for name, value in (("shape", options.shape), ("bound", options.bound)):
            if value is not None:
                raise ValueError(
                    f"got --{name} {value} for an optimizer; expected it for layers and losses: leave it out"
                )
        report = testing.check_optimizer(what, seed=options.seed)
    print(report)
    return bool(report)


def found(words: str) -> Layer | Loss | optax.GradientTransformation:
    """What `MODULE:NAME` stands for; what can be called without arguments is called.

    Raises:
        ImportError, ValueError, TypeError: see `check`.

    >>> found("jaxnet.layers:relu")
    relu()
    """
    place, colon, name = words.rpartition(":")
    if not (place and colon and name):
        raise ValueError(f"got {words}; expected MODULE:NAME, such as mypackage.layers:swish or layers.py:swish")
    value: Any = module(place)
    for part in name.split("."):
        if not hasattr(value, part):
            raise ValueError(f"{place}: got no {part} there; {nearest(part, (n for n in dir(value) if n[0] != '_'))}")
        value = getattr(value, part)
    kinds = Layer, Loss, optax.GradientTransformation
    if not isinstance(value, kinds) and callable(value):
        needed = needed_arguments(value)
        if needed:
            raise TypeError(
                f"{words}: got a {type(value).__name__} that needs arguments: {', '.join(needed)}; expected a Layer, a "
                f"Loss, an optax optimizer or what makes one without arguments: my_{name.lower()} = {name}(…)"
            )
        try:
            value = value()
        except Exception as error:
            raise ValueError(f"{words}: calling it raised {type(error).__name__}: {error}") from error
    if not isinstance(value, kinds):
        raise TypeError(f"{words}: got a {type(value).__name__}; expected a Layer, a Loss or an optax optimizer")
    return value


def needed_arguments(function: Any) -> list[str]:
    """The names of the arguments that a call can't do without.

    >>> from jaxnet.layers import dense, gelu
    >>> needed_arguments(dense), needed_arguments(gelu)
    (['units'], [])
    """
    parameters = inspect.signature(function).parameters.values()
    unnamed = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    return [p.name for p in parameters if p.default is p.empty and p.kind not in unnamed]


def module(place: str) -> ModuleType:
    """The module of a dotted name, looked for in the current folder too, or of a file.

    Raises:
        ImportError: there's none, or it fails.

    >>> module("jaxnet.layers").__name__
    'jaxnet.layers'
    """
    path = Path(place)
    is_file = path.suffix == ".py" or len(path.parts) > 1
    if is_file and not path.is_file():
        raise ImportError(f"{place}: got no such file; expected a Python file or the dotted name of a module")
    sys.path.insert(0, str(path.resolve().parent) if is_file else str(Path.cwd()))  # what it imports lies beside it
    try:
        return importlib.import_module(path.stem if is_file and path.suffix == ".py" else place)
    except Exception as error:
        sentence = " ".join(str(error).split())
        raise ImportError(f"{place}: importing it raised {type(error).__name__}: {sentence}") from error
    finally:
        sys.path.pop(0)


def shape_of(words: str) -> tuple[int, ...]:
    """The shape that "28,28,1" is; "" is a single number.

    Raises:
        ValueError: anything else.

    >>> shape_of("28,28,1"), shape_of("3"), shape_of("")
    ((28, 28, 1), (3,), ())
    """
    if not re.fullmatch(r"([1-9]\d*(,[1-9]\d*)*)?", words):
        raise ValueError(f"got --shape {words}; expected positive integers separated by commas, such as 28,28,1")
    return tuple(int(n) for n in words.split(",") if n)


def dtype_of(name: str) -> jnp.dtype:
    """The dtype of that name.

    Raises:
        ValueError: a name that isn't one.

    >>> dtype_of("int32").name
    'int32'
    """
    try:
        return jnp.dtype(name)
    except TypeError:
        raise ValueError(f"got --dtype {name}; expected the name of one, such as float32, bfloat16 or int32") from None
