"""What `import jaxnet` and touching every public name adds to `import jax, optax`.

    .venv/bin/python experiments/benchmarks/import_time.py

Median over 15 pairs of fresh processes, A B A B …

Result: 0.26 s (0.08…0.60) added to 0.63 s (2 cores, jax 0.10.2).
"""

import statistics
import subprocess
import sys

PAIRS = 15
CLOCK = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
BARE = "import jax, optax"
WITH = "import jax, optax; import jaxnet; [getattr(jaxnet, name) for name in jaxnet.__all__]"


def seconds(statement: str) -> float:
    command = [sys.executable, "-c", CLOCK.format(statement)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    pairs = [(seconds(WITH), seconds(BARE)) for _ in range(PAIRS)]
    added = [both - bare for both, bare in pairs]
    print(f"import jax, optax: {statistics.median(bare for _, bare in pairs):.3f} s")
    print(f"jaxnet and all its public names add {statistics.median(added):.3f} s ({min(added):.3f}…{max(added):.3f})")


if __name__ == "__main__":
    main()
