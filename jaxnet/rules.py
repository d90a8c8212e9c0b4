"""Rules for parameters by their names: decay, learning-rate multipliers, freezing, or anything else, leaf by leaf.

    match(params, {r".*\\.w": 1e-4, r".*\\.(b|scale|shift)": 0.0})    -> a tree like params, a value for each leaf
    print(report(params, rules))                                    what each leaf gets, and by which rule
    scaled(rules), decayed(rules), frozen(optimizer, patterns)      for optax chains

A rule is a regular expression for the whole path of a leaf, its names joined by dots: "dense_0.w", as `summary` and
`compare_gradients` show it. The first rule that matches wins. A rule that decides nothing is an error, and so is a leaf
that no rule matches, unless there's a `default`: a misspelt name never passes in silence. Values may be traced.
Wherever optax takes a mask or labels it takes a function of the parameters:

    optax.adamw(rate, mask=lambda params: match(params, {r".*\\.w": True}, default=False))
    optax.partition({"slow": …, "fast": …}, lambda params: match(params, {r"dense_0\\..*": "slow"}, default="fast"))
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxnet.summaries import path_name
from jaxnet.tables import table

REQUIRED: Any = object()
"""The `default` of rules that have to match every leaf."""


@dataclass(frozen=True)
class Assigned:
    """What one leaf got."""

    path: str
    value: Any
    rule: str | None  # None: the default


@dataclass(frozen=True)
class Report:
    """All leaves, in the order of the tree; printed as a table."""

    leaves: tuple[Assigned, ...]
    tree: Any  # the values, in the tree of the parameters

    def __str__(self) -> str:
        rows = [(leaf.path, str(leaf.value), leaf.rule or "default") for leaf in self.leaves]
        return table(("leaf", "value", "rule"), rows)


def report(params: Any, rules: Mapping[str, Any], *, default: Any = REQUIRED) -> Report:
    """What each leaf of `params` gets by `rules` (pattern -> value, the first that matches wins), and by which rule.

    Raises:
        ValueError: a pattern that isn't a regular expression; a rule that decides no leaf; a leaf without a rule.
        TypeError: rules that aren't a mapping.

    >>> params = {"dense_0": {"b": jnp.zeros(2), "w": jnp.zeros((3, 2))}}
    >>> print(report(params, {r".*\\.w": 1e-4}, default=0.0))
    leaf       value   rule
    dense_0.b  0.0     default
    dense_0.w  0.0001  .*\\.w
    """
    if not isinstance(rules, Mapping):
        raise TypeError(
            f"rules: got {type(rules).__name__}; expected a mapping of patterns to values, {{r'.*\\.w': 1.0}}"
        )
    patterns = {rule: _compiled(rule) for rule in rules}
    paths, structure = jax.tree_util.tree_flatten_with_path(params)
    leaves = []
    for path, _ in paths:
        name = path_name(path)
        rule = next((rule for rule, pattern in patterns.items() if pattern.fullmatch(name)), None)
        leaves.append(Assigned(name, default if rule is None else rules[rule], rule))
    missed = [leaf.path for leaf in leaves if leaf.rule is None]
    if missed and default is REQUIRED:
        raise ValueError(
            f"rules: got none that matches {_some(missed)}; expected one for each leaf: add a rule, or give a default; "
            f"the rules are {list(rules)}"
        )
    idle = [rule for rule in rules if all(leaf.rule != rule for leaf in leaves)]
    for rule in idle:
        if any(patterns[rule].fullmatch(leaf.path) for leaf in leaves):
            raise ValueError(
                f"rules: got {rule!r}, but earlier rules match all of its leaves; expected the special before the "
                "general: move it up, or drop it (what is to catch the rest is the default)"
            )
        raise ValueError(
            f"rules: got {rule!r}, which matches no leaf; expected a regular expression for the whole path, as of "
            f"{_some([leaf.path for leaf in leaves])}"
        )
    return Report(tuple(leaves), jax.tree.unflatten(structure, [leaf.value for leaf in leaves]))


def match(params: Any, rules: Mapping[str, Any], *, default: Any = REQUIRED) -> Any:
    """The value of each leaf by `rules`, in the tree of `params`; see `report`.

    >>> params = {"dense_0": {"b": jnp.zeros(2), "w": jnp.zeros((3, 2))}}
    >>> match(params, {r".*\\.w": True, r".*\\.b": False})
    {'dense_0': {'b': False, 'w': True}}
    """
    return report(params, rules, default=default).tree


def scaled(rules: Mapping[str, Any], *, default: Any = REQUIRED) -> optax.GradientTransformation:
    """update ← m · update, m the leaf's value: learning-rate multipliers, at the end of an `optax.chain`.

    Multipliers may be traced. A multiplier of 0 keeps a leaf where it is, but a NaN stays a NaN: `frozen` is for that.

    >>> optimizer = optax.chain(optax.sgd(0.1), scaled({r"dense_0\\..*": 0.1}, default=1.0))
    >>> params = {"dense_0": {"w": jnp.ones(1)}, "dense_1": {"w": jnp.ones(1)}}
    >>> updates, _ = optimizer.update(params, optimizer.init(params))
    >>> [round(float(update["w"][0]), 3) for update in updates.values()]
    [-0.01, -0.1]
    """

    def update(updates, params):
        multipliers = match(updates, rules, default=default)
        return jax.tree.map(lambda m, u: jnp.asarray(m, u.dtype) * u, multipliers, updates)

    return _checked(update, rules, default)


def decayed(rules: Mapping[str, Any], *, default: Any = REQUIRED) -> optax.GradientTransformation:
    """update ← update + α · parameter, α the leaf's value: weight decay of different strength for different leaves.

    Before the rate's own scaling it's decoupled decay: AdamW is chain(scale_by_adam(), decayed(…),
    scale_by_learning_rate(rate)) (Loshchilov & Hutter 2019). α may be traced. At the front of a chain it's the gradient
    of ½ α ‖w‖², as in `penalized`, but it isn't part of the loss that is reported.

    >>> optimizer = optax.chain(decayed({r"w": 0.5, r"b": 0.0}), optax.sgd(1.0))
    >>> params = {"b": jnp.ones(1), "w": jnp.ones(1)}
    >>> updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    >>> float(updates["w"][0]), float(abs(updates["b"][0]))
    (-0.5, 0.0)
    """

    def update(updates, params):
        if params is None:
            raise ValueError("decayed: got no parameters; expected them: optimizer.update(updates, state, params)")
        decays = match(params, rules, default=default)
        return jax.tree.map(lambda a, u, p: u + jnp.asarray(a, p.dtype) * p, decays, updates, params)

    return _checked(update, rules, default)


def frozen(optimizer: optax.GradientTransformation, patterns: Iterable[str]) -> optax.GradientTransformation:
    """`optimizer` for all leaves but those that a pattern matches: these stay as they are, to the bit.

    It's `optax.partition` with `set_to_zero`: the optimizer keeps no moments of them, decays them not, and a norm that
    it clips leaves them out. Their gradients are still computed. `layers.frozen(layer)` takes the parameters out of
    the tree instead, so that no gradient is computed and no penalty sees them; it is part of the network, this
    part of the run: take this one to thaw them later with the same parameters. Rules within `optimizer` see the other
    leaves only.

    Raises:
        TypeError: one string instead of several.

    >>> optimizer = frozen(optax.sgd(1.0), [r"dense_0\\..*"])
    >>> params = {"dense_0": {"w": jnp.ones(1)}, "dense_1": {"w": jnp.ones(1)}}
    >>> updates, _ = optimizer.update(params, optimizer.init(params), params)
    >>> [float(update["w"][0]) for update in updates.values()]
    [0.0, -1.0]
    """
    if isinstance(patterns, str):
        raise TypeError(f"frozen: got the string {patterns!r}; expected several: [{patterns!r}]")
    rules = dict.fromkeys(patterns, "frozen")
    return optax.partition(
        {"frozen": optax.set_to_zero(), "trained": optimizer}, lambda params: match(params, rules, default="trained")
    )


def _checked(update, rules, default) -> optax.GradientTransformation:
    """A transformation without state whose rules are looked at before the first step."""

    def init(params):
        match(params, rules, default=default)
        return optax.EmptyState()

    return optax.GradientTransformation(init, lambda updates, state, params=None: (update(updates, params), state))


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:6])}{f', … ({len(names)} leaves)' if len(names) > 6 else ''}" or "no leaves at all"


def _compiled(rule: Any) -> re.Pattern:
    try:
        return re.compile(rule)
    except (re.error, TypeError) as error:
        raise ValueError(f"rules: got {rule!r}, which isn't a regular expression ({error}); expected one") from error
