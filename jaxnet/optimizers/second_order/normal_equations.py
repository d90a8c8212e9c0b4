"""The damped normal equations (AᵀA + P + Λ) δ = −g of a problem at one point, in the smaller of two forms.

    primal   the P × P matrix AᵀA, summed over pieces of the examples, and its Cholesky factor
    dual     the rows × rows matrix A (P + Λ)⁻¹ Aᵀ, for fewer rows than parameters (Woodbury)

A and s are the rows of the problem (see `rows`), P the diagonal of the penalty, Λ that of the damping and
g = Aᵀs + Pθ. Both forms are scaled to a unit diagonal before they're factored, so the units of the parameters don't
matter. Products are formed in the full precision of the parameters' dtype.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import cho_solve

from jaxnet.gradients.penalties import role
from jaxnet.optimizers.second_order.memory import check_bytes
from jaxnet.optimizers.second_order.method import Problem
from jaxnet.optimizers.second_order.rows import Rows, rows_of_network, rows_of_residuals, shares

FORMS = ("primal", "dual")
PIECE = 2**26  # bytes of the rows that are alive at once in the primal form, of one member


class System(NamedTuple):
    """The normal equations at one point."""

    gradient: Array  # g (P,), with the penalty
    diagonal: Array  # of AᵀA + P, (P,)
    solve: Callable[[Array], Array]  # Λ (P,) -> δ (P,); NaN unless the matrix is positive definite


def size(problem: Problem, params: Any) -> tuple[int, int, int]:
    """(rows, parameters, bytes of a number), without computing anything.

    >>> from jaxnet.optimizers.second_order.method import of_residuals
    >>> size(of_residuals(lambda p: p * jnp.ones(3, p.dtype)), jnp.ones(1, jnp.float32))
    (3, 1, 4)
    """
    flat = jax.eval_shape(lambda p: ravel_pytree(p)[0], params)
    if problem.network is not None:
        net, _, state, (x, *_), _ = problem.network
        output, _ = jax.eval_shape(lambda p, s, x: net.apply(p, s, x, train=True), params, state, x)
        rows = sum(math.prod(a.shape) for a in jax.tree.leaves(output))
    elif problem.residuals is not None:
        rows = jax.eval_shape(problem.residuals, params).shape[0]
    else:
        raise ValueError(
            "got a function's value alone; expected residuals, or a network with its loss: take least_squares or "
            "program_full_batch, or lbfgs for any function"
        )
    return rows, flat.shape[0], flat.dtype.itemsize


def bytes_needed(rows: int, parameters: int, itemsize: int, form: str, *, pieces: bool) -> int:
    """Bytes of the largest arrays of one step of one member; `pieces` says that the rows needn't be there at once.

    >>> bytes_needed(1000, 301, 4, "primal", pieces=True) / 1e6
    3.495...
    """
    all_rows = rows * parameters * itemsize
    if form == "primal":
        return 3 * parameters**2 * itemsize + 2 * (min(all_rows, PIECE) if pieces else all_rows)
    return 3 * rows**2 * itemsize + 3 * all_rows


def chosen_form(name: str, problem: Problem, params: Any, form: str | None, limit: int | None) -> str:
    """The form asked for, or the one with the smaller matrix.

    Raises:
        ValueError: a problem without residuals; more memory than `limit` allows, half of it all unless given.

    >>> from jaxnet.optimizers.second_order.method import of_residuals
    >>> chosen_form("gauss_newton", of_residuals(lambda p: p[:1]), jnp.ones(2), None, None)
    'dual'
    """
    rows, parameters, itemsize = size(problem, params)
    form = form or ("primal" if parameters <= rows else "dual")
    needed = {f: bytes_needed(rows, parameters, itemsize, f, pieces=problem.network is not None) for f in FORMS}
    other = FORMS[1 - FORMS.index(form)]
    better = f"form={other!r}, " if needed[other] < needed[form] else ""
    check_bytes(
        f"{name}, {form} form, {parameters:,} parameters and {rows:,} rows",
        needed[form],
        limit,
        cure=f"take {better}smaller batches, fewer parameters, or lbfgs",
    )
    return form


def system(problem: Problem, params: Any, form: str) -> System:
    """The normal equations of `problem` at `params`.

    >>> from jaxnet.optimizers.second_order.method import of_residuals
    >>> plane = of_residuals(lambda p: jnp.array([[3.0, 4.0]]) @ p - 1.0)
    >>> for form in FORMS:
    ...     print(system(plane, jnp.zeros(2), form).solve(jnp.ones(2)))
    [0.1153... 0.1538...]
    [0.1153... 0.1538...]
    """
    flat, _ = ravel_pytree(params)
    penalty = penalties(problem, params)
    slope = penalty * flat
    if form == "primal":
        gram, gradient = normal_matrix(problem, params)
        return primal_system(gram, gradient + slope, penalty)
    a, s = rows_of(problem, params)
    gradient = jnp.matmul(s, a, precision="highest") + slope
    diagonal = jnp.sum(jnp.square(a), axis=0) + penalty
    return System(gradient, diagonal, lambda extra: -_dual_solve(a, s, penalty + extra, slope))


def primal_system(gram: Array, gradient: Array, penalty: Array) -> System:
    """The normal equations with the matrix gram + diag(penalty), (P, P), and the gradient of both.

    >>> primal_system(jnp.eye(1), jnp.ones(1), jnp.ones(1)).solve(jnp.full(1, 2.0)).tolist()
    [-0.25]
    """

    def solve(extra):
        return -primal_solve(gram, penalty + extra, gradient)

    return System(gradient, jnp.diagonal(gram) + penalty, solve)


def primal_solve(gram: Array, extra: Array, right: Array) -> Array:
    """(gram + diag(extra))⁻¹ right by Cholesky, scaled to a unit diagonal; `right` is (P,) or (P, k).

    >>> primal_solve(jnp.array([[1.0, 0.0], [0.0, 3.0]]), jnp.array([1.0, 1.0]), jnp.ones(2)).round(4).tolist()
    [0.5, 0.25]
    """
    return _scaled_solve(gram, extra, right)


def factored(gram: Array, extra: Array) -> tuple[Array, Array]:
    """(the Cholesky factor C (P, P), a scale S (P,)) with gram + diag(extra) = S⁻¹ C Cᵀ S⁻¹; NaN where there's none.

    >>> [a.tolist() for a in factored(jnp.array([[3.0]]), jnp.array([1.0]))]
    [[[1.0]], [0.5]]
    """
    total = jnp.diagonal(gram) + extra
    scale = 1 / jnp.sqrt(jnp.where(total > 0, total, jnp.ones_like(total)))
    unit = jnp.where(jnp.eye(len(total), dtype=bool), jnp.ones_like(gram), gram * scale[:, None] * scale[None, :])
    return jax.lax.linalg.cholesky(unit, symmetrize_input=False), scale


def _dual_solve(a, s, extra, slope):
    """(AᵀA + E)⁻¹ (Aᵀs + v) = E⁻¹ [Aᵀ (I + A E⁻¹ Aᵀ)⁻¹ (s − A E⁻¹ v) + v], without a difference of large terms."""
    over = a / extra
    inner = jnp.matmul(over, a.T, precision="highest")
    right = s - jnp.matmul(over, slope, precision="highest")
    z = primal_solve(inner, jnp.ones_like(s), right)
    return (jnp.matmul(z, a, precision="highest") + slope) / extra


def penalties(problem: Problem, params: Any) -> Array:
    """The second derivative of the penalty by each parameter, (P,): l2 for the network's weights, else 0.

    >>> from jaxnet.optimizers.second_order.method import of_residuals
    >>> penalties(of_residuals(lambda p: p), jnp.ones(2)).tolist()
    [0.0, 0.0]
    """
    flat, _ = ravel_pytree(params)
    if problem.network is None:
        return jnp.zeros_like(flat)
    return jnp.asarray(problem.network.l2, flat.dtype) * jnp.asarray(are_weights(params), flat.dtype)


def are_weights(params: Any) -> np.ndarray:
    """Which parameters are weights, leaves named w, (P,) bool: those that the penalty acts on.

    >>> are_weights({"b": jnp.zeros(2), "w": jnp.zeros((1, 2))}).tolist()
    [False, False, True, True]
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return np.concatenate([np.full(math.prod(jnp.shape(leaf)), role(path) == "w") for path, leaf in leaves])


def rows_of(problem: Problem, params: Any) -> Rows:
    """All rows at once."""
    if problem.network is None:
        return rows_of_residuals(problem.residuals, params)
    return rows_of_network(problem.network, params)


def normal_matrix(problem: Problem, params: Any, piece: int = PIECE) -> tuple[Array, Array]:
    """(AᵀA (P, P), Aᵀs (P,)), summed over pieces of a network's examples whose rows take at most `piece` bytes.

    >>> from jaxnet.optimizers.second_order.method import of_residuals
    >>> [a.tolist() for a in normal_matrix(of_residuals(lambda p: p * jnp.array([3.0, 4.0])), jnp.ones(1))]
    [[[25.0]], [25.0]]
    """
    rows, parameters, itemsize = size(problem, params)
    if problem.network is None:
        return _products(rows_of(problem, params))
    network = problem.network
    share = shares(network.batch)
    n = share.shape[0]
    at_once = min(n, max(1, piece // (rows // n * parameters * itemsize)))

    def of_examples(params, state, examples):
        x, y, share = examples
        return _products(rows_of_network(network._replace(state=state, batch=(x, y)), params, share))

    x, y, *_ = network.batch
    cut = n - n % at_once
    folded = jax.tree.map(lambda a: a[:cut].reshape(-1, at_once, *a.shape[1:]), (x, y, share))
    one = jax.tree.map(lambda a: a[0], folded)
    convert, held = jax.closure_convert(of_examples, params, network.state, one)
    products = _member_by_member(convert)
    total = products(params, network.state, one, *held)
    if cut > at_once:
        total, _ = jax.lax.scan(
            lambda total, piece: (jax.tree.map(jnp.add, total, products(params, network.state, piece, *held)), None),
            total,
            jax.tree.map(lambda a: a[1:], folded),
        )
    if cut < n:
        rest = of_examples(params, network.state, jax.tree.map(lambda a: a[cut:], (x, y, share)))
        total = jax.tree.map(jnp.add, total, rest)
    return total


def _products(rows: Rows) -> tuple[Array, Array]:
    a, s = rows
    return jnp.matmul(a.T, a, precision="highest"), jnp.matmul(s, a, precision="highest")


def _member_by_member(function: Callable) -> Callable:
    """`function`, one member after the other under `vmap` on a CPU, where that's four times as fast as batched."""
    mapped = jax.custom_batching.sequential_vmap(function)
    return lambda *arrays: (mapped if jax.default_backend() == "cpu" else function)(*arrays)


@_member_by_member
def _scaled_solve(gram: Array, extra: Array, right: Array) -> Array:
    factor, scale = factored(gram, extra)
    column = scale.reshape(-1, *[1] * (right.ndim - 1))
    return column * cho_solve((factor, True), column * right)
