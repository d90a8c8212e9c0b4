"""What a block of code must not do: compile too much, move data silently, leak tracers, use a random key twice.

Each guard is a context manager that raises an `AssertionError` whose sentence says what happened and what to do; what
else is raised in the block passes through. They watch the thread that enters the block, `compiles` every thread.
"""

import contextlib
import re
from collections import Counter
from collections.abc import Iterator

import jax

COMPILED = "/jax/core/compile/backend_compile_duration"


@contextlib.contextmanager
def compiles(at_most: int) -> Iterator[list[str]]:
    """At most so many XLA compilations in the block; gives the list of the names compiled so far.

    Operations outside of any `jit` count, each of them is a small program, and so do programs that the persistent
    cache supplies. Warm up what may compile before the block.

    Raises:
        ValueError: at_most isn't a whole number ≥ 0. AssertionError, at the end: more were compiled; it names them.

    >>> double, x = jax.jit(lambda x: 2 * x), jax.numpy.ones(3)
    >>> with compiles(at_most=1):
    ...     y = double(double(x))
    >>> with compiles(at_most=0):
    ...     y = double(y)
    """
    if isinstance(at_most, bool) or not isinstance(at_most, int) or at_most < 0:
        raise ValueError(f"compiles: got at_most={at_most!r}; expected a whole number of compilations, 0 or more")
    names: list[str] = []
    open_ = True

    def listener(event: str, duration_secs: float, **about: str | int) -> None:
        if open_ and event == COMPILED:
            names.append(str(about.get("fun_name", "a program")))

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        yield names
    finally:
        open_ = False
        unregister = getattr(jax.monitoring, "unregister_event_duration_listener", None)
        if unregister is not None:  # older versions of jax keep the listener, which ignores what comes
            unregister(listener)
    if len(names) > at_most:
        listed = ", ".join(f"{name} {count} times" if count > 1 else name for name, count in Counter(names).items())
        raise AssertionError(
            f"compiles(at_most={at_most}): got {len(names)} compilations, of {listed}; expected at most {at_most}: "
            "keep shapes, dtypes and weak types of the arguments as they are, call one jax.jit made outside the loop, "
            "and pass numbers that change as arrays"
        )


@contextlib.contextmanager
def no_transfers() -> Iterator[None]:
    """No implicit transfer between host and device in the block; `jax.device_put` and `jax.device_get` may.

    On a CPU it sees what goes to the device (NumPy arrays and Python numbers as arguments, `jnp.ones`); reading a
    result (`float`, `np.asarray`) moves nothing there, so it's seen on accelerators only. A call of `jit` that traces
    passes: constants of a program are moved when it's compiled.

    Raises:
        AssertionError: there was one.

    >>> double, x = jax.jit(lambda x: 2 * x), jax.numpy.ones(3)
    >>> with no_transfers():
    ...     y = double(x)
    """
    try:
        with jax.transfer_guard("disallow"):
            yield
    except jax.errors.JaxRuntimeError as error:
        found = re.search(r"Disallowed (\S+) transfer(?:.*?ShapedArray\(([^()]*?\]))?", str(error))
        if not found:
            raise
        direction, array = found.groups()
        raise AssertionError(
            f"no_transfers: got a {direction} transfer{f' of {array}' if array else ''}; expected none: jax.device_put "
            "inputs and numbers before the block and read results after it (the traceback shows the line)"
        ) from error


@contextlib.contextmanager
def no_leaks() -> Iterator[None]:
    """No value of a trace outlives it, such as one that a function under `jit` stores in a list or an attribute.

    It sees jit, vmap and scan; jax doesn't tell of a value kept from `jax.grad` alone. What was compiled before the
    block isn't traced again, so isn't seen: jax.clear_caches() forgets it.

    Raises:
        AssertionError: one did.

    >>> with no_leaks():
    ...     y = jax.jit(lambda x: 2 * x)(1.0)
    """
    try:
        with jax.checking_leaks():
            yield
    except Exception as error:
        found = re.match(r"Leaked (?:trace|sublevel|level)\b.*?\n(?:\n?)([^\n]*\[[\d,]*\][^\n]*)?", str(error), re.S)
        if not found:
            raise
        value = f", {found[1]}," if found[1] else ""
        place = re.search(r"while tracing the function (.+?)\.?\s*$", str(error), re.M)
        where = f" of {place[1]}" if place else ""
        raise AssertionError(
            f"no_leaks: got a value{value} that outlives the trace{where}; expected none: return what is computed "
            "under a transformation instead of storing it outside"
        ) from error


@contextlib.contextmanager
def no_key_reuse() -> Iterator[None]:
    """No random key is consumed twice in the block, under `jit` either.

    Only typed keys, of `jax.random.key`, are followed: `jax.random.PRNGKey` gives plain integers, of which nothing is
    known.

    Raises:
        AssertionError: one was.

    >>> with no_key_reuse():
    ...     a, b = jax.random.split(jax.random.key(0))
    ...     x, y = jax.random.normal(a), jax.random.normal(b)
    """
    try:
        with jax.debug_key_reuse(True):
            yield
    except jax.errors.KeyReuseError as error:
        sentence = str(error).partition("\n")[0].rstrip(".:")
        raise AssertionError(
            f"no_key_reuse: got a random key used twice ({sentence}); expected each once: take a new one of "
            "jax.random.split or jax.random.fold_in for each use"
        ) from error
