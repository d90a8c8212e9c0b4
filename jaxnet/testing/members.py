"""A layer, drawn members of it (parameters, state, inputs), and all that its two roads give for them, computed once."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.layers import Layer
from jaxnet.testing import roads
from jaxnet.testing.gradients import Comparison, compare_trees, longest_sum, rounded_once_more
from jaxnet.testing.roads import floating

MEMBERS = 3  # and one more, whose inputs are zeros


def error_of(function: Callable) -> Exception | None:
    """What function() raises.

    >>> error_of(lambda: 1 / 0)
    ZeroDivisionError('division by zero')
    """
    try:
        function()
    except Exception as error:
        return error
    return None


class Members:
    """Members of a layer. `everything` is compiled once alone and once mapped; a mode is (training, its index).

    >>> from jaxnet.layers import dense
    >>> members = Members(dense(2), (3,), None, None, 4, 0)
    >>> y, state, by_hand, automatic = members.alone[0][0][0]  # of the first member, not rounded, in training
    >>> y.shape, sorted(by_hand["params"])
    ((4, 2), ['b', 'w'])
    """

    def __init__(self, layer: Layer, spec: Any, draw: Callable | None, bound: float | None, batch: int, seed: int):
        self.layer, self.spec, self.bound, self.batch = layer, spec, bound, batch
        self.zeros = draw is None
        self.draw = draw or (lambda rng, size: roads.drawn_inputs(rng, spec, size))
        self.rng, self.keys = np.random.default_rng(seed), jax.random.split(jax.random.key(seed), MEMBERS + 1)

    @cached_property
    def arguments(self) -> list[tuple]:
        """(params, state, x, dy, key) of each member; with `zeros`, the inputs of the last are zeros."""
        made = []
        for i, key in enumerate(self.keys):
            params, state = self.layer.init(key, self.spec)
            params, x = roads.moved(self.rng, params), jax.tree.map(np.asarray, self.draw(self.rng, self.batch))
            if self.zeros and i == MEMBERS:
                x = jax.tree.map(lambda a: np.zeros_like(a) if floating(a) else a, x)
            y, _ = jax.eval_shape(lambda *a, key=key: self.layer.apply(*a, key=key, train=True), params, state, x)
            made.append((*jax.tree.map(jnp.asarray, (params, state, x, self.cotangents(y))), key))
        return made

    def cotangents(self, y: Any) -> list[np.ndarray]:
        """A drawn gradient by each floating array of y."""
        return [np.asarray(self.rng.normal(size=a.shape), a.dtype) for a in jax.tree.leaves(y) if floating(a)]

    @cached_property
    def keyless_error(self) -> Exception | None:
        """What inference without a key raises."""
        params, state, x, *_ = self.arguments[0]
        return error_of(lambda: jax.eval_shape(lambda *a: self.layer.apply(*a), params, state, x))

    def modes(self, key: Any) -> tuple[tuple[bool, Any], ...]:
        """(train, key) of training and of inference, which gets no key if it needs none."""
        return (True, key), (False, key if self.keyless_error else None)

    @cached_property
    def errors(self) -> list[Exception | None]:
        """What each road raises when it's traced: [by hand, automatic]."""
        params, state, x, dy, key = self.arguments[0]

        def traced(road):
            for train, used in self.modes(key):
                jax.eval_shape(lambda *a, k=used, t=train: road(self.layer, *a, k, t), params, state, x, dy)

        by_hand = NotImplementedError("no backward rule") if self.layer.backward is None else None
        return [by_hand or error_of(lambda: traced(roads.by_hand)), error_of(lambda: traced(roads.automatic))]

    def everything(self, params, state, x, dy, key) -> list[tuple]:
        """[(y, state, by hand, automatic)] in training and, in the state that it leaves, in inference."""
        results = []
        works = [error is None for error in self.errors]
        for train, used in self.modes(key):
            y, after = self.layer.apply(params, state, x, key=used, train=train)
            both = [
                road(self.layer, params, state, x, dy, used, train) if ok else None
                for road, ok in zip((roads.by_hand, roads.automatic), works, strict=True)
            ]
            results.append((y, after, *both))
            state = after
        return results

    @cached_property
    def alone(self) -> list[tuple]:
        """(results, [results for inputs rounded once more]) of each member."""
        run, found = jax.jit(self.everything), []
        for params, state, x, dy, key in self.arguments:
            near = [rounded_once_more((params, x), seed) for seed in range(2)]
            found.append((run(params, state, x, dy, key), [run(p, state, a, dy, key) for p, a in near]))
        return found

    def mappable(self, results: list[tuple]) -> dict:
        """Of `everything`, what `mapped` has: one of the roads, by hand where there's a rule."""
        return {
            mode: {"y": y, "state": after, "gradient": automatic if by_hand is None else by_hand}
            for mode, (y, after, by_hand, automatic) in zip(("training", "inference"), results, strict=True)
        }

    @cached_property
    def mapped(self) -> Any:
        """The results of all members in one program, under `jax.vmap`."""
        *arguments, keys = (list(column) for column in zip(*self.arguments, strict=True))
        stacked = [
            jax.tree.map(lambda *a: np.stack([np.asarray(leaf) for leaf in a]), *argument) for argument in arguments
        ]
        return jax.jit(jax.vmap(lambda *a: self.mappable(self.everything(*a))))(*stacked, jnp.stack(keys))

    def compare(self, tested: Any, expected: Any, near: list) -> Comparison:
        """Two trees; `near` has trees like `expected` for inputs rounded once more."""
        params, _, x, *_ = self.arguments[0]
        return compare_trees(tested, expected, bound=self.bound, fan_in=longest_sum(params, x), near=near)
