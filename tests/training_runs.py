"""A run that carries everything a run can carry, on data that take no time; shared by the tests of `run`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnet as jn
from jaxnet import losses

KEY = jax.random.key(7)
EPOCHS = 12
DTYPE = jnp.result_type(float)


def blobs(n, seed):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return (rng.normal(size=(n, 4)) + np.eye(3, 4)[y]).astype(DTYPE), y.astype(np.int32)


DATA = jn.Data(blobs(41, 0), blobs(30, 1))
NET = jn.serial(jn.dense(8), jn.batch_norm(), jn.relu(), jn.dropout(0.3), jn.dense(3))


def everything(optimizer=None, net=NET, **options):
    """Dropout, batch norm, a schedule, momentum, an average that is validated, patience, batches of two sizes."""
    if optimizer is None:
        rate = optax.cosine_decay_schedule(0.03, 60)
        optimizer = optax.chain(optax.adam(rate), jn.optimizers.exponential_average(0.9))
        options = {"averaged": jn.optimizers.averaged_parameters} | options
    return jn.program(net, losses.softmax_cross_entropy, optimizer, **{"batch_size": 16, "patience": 8} | options)
