"""Is an optax optimizer a pure function of arrays that trains? The whole battery, for any GradientTransformation."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnet.testing.gradients import compare_trees, rounded_once_more, worst_leaves
from jaxnet.testing.reports import Report, Wrong, run_checks
from jaxnet.testing.roads import floating, named

STEPS, LONG = 3, 100


def check_optimizer(tx: optax.GradientTransformation, *, params: Any = None, seed: int = 0) -> Report:
    """The whole battery for an optimizer, on the quadratic f(p) = ½ Σ c ‖p − p*‖² with c between ½ and 2.

    The state is arrays only and keeps its form, dtypes and weak types; updates are like the parameters; jit is op by
    op, members under `vmap` are the members alone, a scan is a loop; a second call doesn't compile; gradients of zero
    never give NaN; bfloat16 and float32 stay; f falls within 100 steps. Line searches get `value`, `grad` and
    `value_fn`. What the optimizer raises is WRONG, with the sentence.

    Args:
        tx: (init, update), such as `optax.adam(1e-3)`.
        params: where f starts, a tree of floating arrays; else drawn, a dense layer and a number.
        seed: of everything drawn.

    Raises:
        TypeError: not a GradientTransformation.

    >>> report = check_optimizer(optax.sgd(-0.1))  # uphill
    >>> [check.name for check in report.wrong]
    ['descends']
    """
    if not (callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None))):
        raise TypeError(
            f"check_optimizer: got {tx!r}; expected an optax GradientTransformation: call it, optax.adam(1e-3)"
        )
    rng, dtype = np.random.default_rng(seed), jnp.result_type(float)
    if params is None:
        params = {"dense_0": {"w": rng.normal(size=(3, 2)), "b": rng.normal(size=2)}, "scale": rng.normal(size=())}
        params = jax.tree.map(lambda a: jnp.asarray(a, dtype), params)
    tests = _Battery(optax.with_extra_args_support(tx), jax.tree.map(jnp.asarray, params), rng)
    title = f"{type(tx).__name__} on {len(jax.tree.leaves(params))} arrays"
    first = run_checks(title, [("state of arrays", partial(_state, tests))])
    if not first:
        return first  # nothing else can be said
    rest = run_checks(title, [(name, partial(check, tests)) for name, check in CHECKS.items()])
    return Report(title, first.checks + rest.checks)


@dataclass
class _Battery:
    tx: Any
    params: Any
    rng: np.random.Generator

    @cached_property
    def problem(self):
        """(c, p*) for each array of the parameters, in float64."""
        return [
            (self.rng.uniform(0.5, 2.0, a.shape), self.rng.normal(size=a.shape)) for a in jax.tree.leaves(self.params)
        ]

    def value(self, params):
        terms = [
            jnp.sum(jnp.asarray(c / 2, p.dtype) * jnp.square(p - jnp.asarray(best, p.dtype)))
            for p, (c, best) in zip(jax.tree.leaves(params), self.problem, strict=True)
        ]
        return sum(terms[1:], terms[0])

    @property
    def best(self):
        """p*, where the gradient is zero."""
        leaves, tree = jax.tree.flatten(self.params)
        return jax.tree.unflatten(
            tree, [jnp.asarray(b, a.dtype) for a, (_, b) in zip(leaves, self.problem, strict=True)]
        )

    def updates(self, params, state):
        value, grads = jax.value_and_grad(self.value)(params)
        return self.tx.update(grads, state, params, value=value, grad=grads, value_fn=self.value)

    def step(self, carry):
        params, state = carry
        updates, state = self.updates(params, state)
        return optax.apply_updates(params, updates), state

    def start(self, params):
        return params, self.tx.init(params)

    def steps(self, params):
        carry = self.start(params)
        for _ in range(STEPS):
            carry = self.step(carry)
        return carry

    @cached_property
    def compiled(self):
        """(parameters and state after STEPS compiled steps, the same from parameters rounded once more)."""
        run = jax.jit(self.steps)
        return run(self.params), [run(rounded_once_more(self.params, seed)) for seed in range(2)]

    def compare(self, got, expected, near):
        """Floating arrays within the tolerance, all others equal; the trees are the same."""

        def known(tree):
            return {path: a for path, a in named(tree).items() if floating(a)}

        for path, a in named(expected).items():
            if not floating(a) and not np.array_equal(_raw(a), _raw(named(got)[path])):
                raise Wrong(f"got {named(got)[path]} at {path}; expected {a}")
        return compare_trees(known(got), known(expected), near=[known(tree) for tree in near])


def _raw(a):
    return jax.random.key_data(a) if jnp.issubdtype(getattr(a, "dtype", int), jax.dtypes.prng_key) else a


def _form(tree):
    return {path: (a.shape, str(a.dtype), bool(getattr(a, "weak_type", False))) for path, a in named(tree).items()}


def _state(tests):
    """Arrays only, so that it can be compiled, mapped and stored."""
    state = tests.tx.init(tests.params)
    for path, leaf in named(state).items():
        if leaf is not None and not isinstance(leaf, (jax.Array, np.ndarray)):
            raise Wrong(f"got {leaf!r} of type {type(leaf).__name__} at {path}; expected arrays only: jnp.asarray(…)")
    return f"{len(jax.tree.leaves(state))} arrays"


def _keeps_form(tests):
    carry = tests.start(tests.params)
    for _ in range(2):
        after = jax.eval_shape(tests.step, carry)
        for what, old, new in zip(("parameters", "state"), carry, after, strict=True):
            if str(jax.tree.structure(old)) != str(jax.tree.structure(new)):
                raise Wrong(f"got {what} of the tree {jax.tree.structure(new)}; expected {jax.tree.structure(old)}")
            for path, form in _form(old).items():
                if _form(new)[path] != form:
                    raise Wrong(f"got (shape, dtype, weak) {_form(new)[path]} of the {what} at {path}; expected {form}")
        carry = after
    return "shapes, dtypes and weak types"


def _like_parameters(tests):
    updates, _ = jax.eval_shape(tests.updates, *tests.start(tests.params))
    got, want = ({path: a[:2] for path, a in _form(tree).items()} for tree in (updates, tests.params))
    if got != want:
        raise Wrong(f"got updates {got}; expected those of the parameters, {want}")
    return "shapes and dtypes of the parameters"


def _op_by_op(tests):
    return tests.compare(tests.steps(tests.params), *tests.compiled)


def _mapped(tests):
    members = [tests.params, jax.tree.map(lambda a: 2 * a, tests.params), tests.best]
    stacked = jax.tree.map(lambda *a: jnp.stack(a), *members)
    together, run, found = jax.jit(jax.vmap(tests.steps))(stacked), jax.jit(tests.steps), []
    for i, member in enumerate(members):
        near = [run(rounded_once_more(member, seed)) for seed in range(2)]
        found.append(tests.compare(jax.tree.map(lambda a, i=i: a[i], together), run(member), near))
    return worst_leaves(found)


def _scan(tests):
    scanned, _ = jax.jit(lambda c: jax.lax.scan(lambda c, _: (tests.step(c), None), c, length=STEPS))(
        tests.start(tests.params)
    )
    return tests.compare(scanned, *tests.compiled)


def _compiles_once(tests):
    traces = []

    def step(carry):
        traces.append(1)
        return tests.step(carry)

    run, carry = jax.jit(step), tests.start(tests.params)
    for _ in range(STEPS):
        carry = run(carry)
    if len(traces) > 1:
        raise Wrong(
            f"got {len(traces)} compilations of {STEPS} steps; expected one: keep dtypes and weak types of the state"
        )
    return "once"


def _zero(tests):
    carry = jax.jit(tests.steps)(tests.best)
    for path, a in named(carry).items():
        if floating(a) and np.isnan(np.asarray(a).astype(np.float64)).any():
            raise Wrong(f"got NaN at {path} after gradients of zero")
    return "never NaN"


def _dtypes(dtype, tests):
    low = _Battery(tests.tx, jax.tree.map(lambda a: a.astype(dtype), tests.params), np.random.default_rng(0))
    return f"{_like_parameters(low)}; {_keeps_form(low)} kept"


def _descends(tests):
    run = jax.jit(lambda c: jax.lax.scan(lambda c, _: (tests.step(c), None), c, length=LONG)[0])
    first, last = float(tests.value(tests.params)), float(tests.value(run(tests.start(tests.params))[0]))
    if not last < first:
        raise Wrong(f"got f = {last:.6g} after {LONG} steps from {first:.6g}; expected less")
    return f"f falls from {first:.3g} to {last:.3g} in {LONG} steps"


CHECKS: dict[str, Callable] = {
    "state keeps its form": _keeps_form,
    "updates": _like_parameters,
    "jit = op by op": _op_by_op,
    "vmap over members = alone": _mapped,
    "scan = loop": _scan,
    "compiles once": _compiles_once,
    "gradients of zero": _zero,
    "bfloat16": partial(_dtypes, jnp.bfloat16),
    "float32": partial(_dtypes, jnp.float32),
    "descends": _descends,
}
