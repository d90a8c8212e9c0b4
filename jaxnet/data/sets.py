"""`Data`: what a run learns from and is judged by, as one pytree of arrays."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.data.arrays import is_sparse, owned


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Data:
    """A training set and, optionally, a validation set; each is (x, y) or (x, y, weight).

    x (n, …) is an array or a pytree of arrays, y (n, …), weight (n,) ≥ 0. `rows` (m,) picks the examples of `train`
    that count, by index and with repeats if wished: a fold, a bootstrap, a subset, without copying the set.
    `valid_rows` does so for `valid`, or for `train` when there is no `valid`.

    NumPy arrays (and pandas' Series, torch's tensors) are copied here, so that a set stays what it was when it was
    made, whatever its maker does with them afterwards; jax's own arrays can't change and aren't copied: where several
    `Data` share a large set, give that. Values aren't checked here; `fit` and `prepared` check what they are given.

    >>> import numpy as np
    >>> data = Data((np.zeros((6, 2)), np.arange(6)), rows=np.array([0, 1, 2, 3]), valid_rows=np.array([4, 5]))
    >>> data.size, data.valid_size
    (4, 2)
    """

    train: Any
    valid: Any = None
    rows: Any = None
    valid_rows: Any = None

    def __post_init__(self) -> None:
        for part in ("train", "valid", "rows", "valid_rows"):
            object.__setattr__(self, part, jax.tree.map(owned, getattr(self, part), is_leaf=is_sparse))

    @property
    def size(self) -> int:
        """The number of training examples in an epoch."""
        return number_of_examples(self.train) if self.rows is None else self.rows.shape[0]

    @property
    def judged(self) -> Any:
        """The set that validation reads: `valid`, else `train` when there are `valid_rows`, else None."""
        return self.valid if self.valid is not None or self.valid_rows is None else self.train

    @property
    def valid_size(self) -> int:
        """The number of validation examples, 0 without a validation set."""
        if self.judged is None:
            return 0
        return number_of_examples(self.judged) if self.valid_rows is None else self.valid_rows.shape[0]


def number_of_examples(examples: Any) -> int:
    """The length of the first axis of a set.

    >>> number_of_examples((jnp.zeros((6, 2)), jnp.arange(6)))
    6
    """
    return jax.tree.leaves(examples)[0].shape[0]


def take(examples: Any, rows: Any) -> Any:
    """The examples at `rows`, which must be in bounds: inside a compiled program nothing checks them.

    >>> take((jnp.array([[1.0], [2.0], [3.0]]), jnp.array([1, 2, 3])), jnp.array([2, 0]))[1].tolist()
    [3, 1]
    """
    return jax.tree.map(lambda a: jnp.asarray(a).at[rows].get(mode="promise_in_bounds"), examples)
