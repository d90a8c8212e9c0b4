"""The tests' run in a process of its own: python run_child.py STORE [EPOCHS] [PAUSE] [endless]

Every epoch is saved and printed, with a pause of so many seconds after each, so that there are many moments at which to
be killed. "endless" gives it an epoch that doesn't end while anybody waits.
"""

import sys
import time

import jax.numpy as jnp
import numpy as np
from training_runs import DATA, EPOCHS, KEY, everything

import jaxnet as jn
from jaxnet.training import host


def main(store: str, epochs: int, pause: float, endless: bool) -> None:
    host.SEGMENT = 0.0
    data = DATA
    if endless:
        data = jn.Data(tuple(jnp.asarray(np.resize(a, (5_000_000, *a.shape[1:]))) for a in DATA.train), DATA.valid)

    def report(epoch, row):
        print(f"epoch {epoch}", flush=True)
        time.sleep(pause)

    print("ready", flush=True)
    fitted = jn.run(KEY, everything(), data, epochs=epochs, store=store, every=1, report=report)
    print("history", np.asarray(fitted.history["valid_loss"]).tobytes().hex(), flush=True)


if __name__ == "__main__":
    given = sys.argv[2:]
    words = [word for word in given if word != "endless"]
    main(
        sys.argv[1],
        int(words[0]) if words else EPOCHS,
        float(words[1]) if words[1:] else 0.02,
        "endless" in given,
    )
