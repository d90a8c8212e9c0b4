"""The tests' study in a process of its own: python child.py STORE [wait]

Every look at the lanes writes a part, with a pause after each, so that there are many moments at which to be killed.
With `wait` it doesn't go on after the first part but keeps the store until it's killed.
"""

import sys
import time

import jax
from studies import SEEDS, swept

from jaxnet.sweeps import execute, session


def main(store: str, wait: bool) -> None:
    session.FLUSH_SECONDS = 0.0
    execute.LOOK = 0.0

    def report(progress):
        time.sleep(0.02)
        if wait and progress.done:
            time.sleep(600)

    print(f"{len(jax.local_devices())} devices", flush=True)
    swept(seeds=SEEDS, store=store, report=report)


if __name__ == "__main__":
    main(sys.argv[1], "wait" in sys.argv[2:])
