"""Small networks with a loss and a batch, as problems for methods that see the whole function."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet import layers, losses
from jaxnet.optimizers.second_order.of_network import of_network

NETS = {
    "dense": lambda k: layers.serial(layers.dense(4), layers.tanh(), layers.dense(k)),
    "deep": lambda k: layers.serial(
        layers.dense(3), layers.softplus(), layers.dense(4, bias=False), layers.tanh(), layers.dense(k)
    ),
    "graph": lambda k: layers.serial(
        layers.branch(layers.dense(2), layers.serial(layers.dense(2), layers.tanh())),
        layers.sum(),
        layers.residual(layers.serial(layers.tanh(), layers.dense(2))),
        layers.dense(k),
    ),
    "any": lambda k: layers.serial(
        layers.layer_norm(), layers.dense(3), layers.prelu(), layers.repeat(layers.dense(3), 2), layers.dense(k)
    ),
}
TARGETS = {
    "values": (losses.squared_error, lambda rng, n, k: rng.normal(size=(n, k))),
    "labels": (losses.softmax_cross_entropy, lambda rng, n, k: rng.integers(0, k, n)),
    "weighted classes": (
        losses.cross_entropy(smoothing=0.1, class_weights=(1.0, 2.0, 0.5), ignore=-1),
        lambda rng, n, k: rng.integers(-1, k, n),
    ),
    "shares": (losses.softmax_cross_entropy, lambda rng, n, k: rng.dirichlet(np.ones(k), n)),
    "bits": (losses.binary_cross_entropy(positive_weight=2.0), lambda rng, n, k: rng.integers(0, 2, (n, k))),
    "counts": (losses.poisson, lambda rng, n, k: rng.integers(0, 4, (n, k))),
    "margins": (losses.squared_hinge, lambda rng, n, k: 2 * rng.integers(0, 2, (n, k)) - 1),
}


def network_problem(net="dense", target="values", n=6, outputs=3, weighted=True, l2=0.1, seed=0):
    """(problem, params) of a drawn network and batch."""
    rng = np.random.default_rng(seed)
    network = NETS[net](outputs)
    loss, targets = TARGETS[target]
    x = jnp.asarray(rng.normal(size=(n, 2)), jnp.result_type(float))
    params, state = network.init(jax.random.key(seed), (2,))
    y = targets(rng, n, outputs)
    y = jnp.asarray(y, jnp.int32 if y.dtype.kind == "i" else x.dtype)
    weight = (jnp.asarray(rng.uniform(size=n), x.dtype),) if weighted else ()
    return of_network(network, loss, state, (x, y, *weight), l2), params
