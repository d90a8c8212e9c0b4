"""What checkpoints cost: a run that saves every ten seconds, and a tree of 1 GB to the disk and back.

    .venv/bin/python experiments/benchmarks/checkpoints.py

The run is `jn.run` of 784-512-256-10 with Adam, dropout, validation and patience on 20,000 examples, for about 45 s:
its checkpoint has parameters, both moments and the best parameters. The share is the time spent in saves by that of
the run, so that noise of the machine cancels. The tree is eight float32 tensors of 125 MB of random bits; `save` and
the same bytes by plain `write` and `fsync` alternate, five times each, after one of each that doesn't count; `load`
checks every checksum. Memory is the peak of a fresh process beyond the tree.

Result (2 quiet cores; jax 0.10.2): saves are 0.18 % of the run (5 of 8.6 MB in 48 s, the longest 22 ms); save has 90 %
(73…104) of the speed of write and fsync, 1.67 of 1.83 GB/s; load 0.88 GB/s, from memory; no memory beyond the tree.
With other work on both cores the checksums cost more: 0.76 %, and 56 % (0.43 of 0.78 GB/s).
"""

import os
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from statistics import median

import numpy as np

TENSORS, EACH = 8, 125_000_000  # bytes
PAIRS = 5
SECONDS, EVERY = 45.0, 10.0


def share_of_a_run(folder: Path) -> str:
    import jax
    import optax

    import jaxnet as jn
    from jaxnet.training import saved

    spent: list[float] = []
    plain = saved.Saved.save

    def timed(*arguments):
        began = time.perf_counter()
        plain(*arguments)
        spent.append(time.perf_counter() - began)

    saved.Saved.save = timed  # type: ignore[method-assign]
    rng = np.random.default_rng(0)

    def examples(n):
        return rng.random((n, 784), np.float32), rng.integers(0, 10, n).astype(np.int32)

    data = jn.Data(examples(20_000), examples(2_000))
    net = jn.mlp([512, 256, 10], dropout=0.3)
    program = jn.program(net, jn.losses.softmax_cross_entropy, optax.adam(1e-4), batch_size=128, patience=10_000)
    key = jax.random.key(0)
    ends: list[float] = []

    def report(epoch, row):
        ends.append(time.perf_counter())

    jn.run(key, program, data, epochs=3, report=report)
    epochs = int(SECONDS / (ends[2] - ends[1])) + 1
    ends.clear()
    jn.run(key, program, data, epochs=epochs, store=folder / "run", every_minutes=EVERY / 60, report=report)
    total = time.perf_counter() - ends[0]
    saves = spent[1:]  # all but the start's
    size = max(path.stat().st_size for path in (folder / "run").glob("*.safetensors"))
    return (
        f"run of {total:.0f} s, {epochs} epochs: {len(saves)} saves of {size / 1e6:.1f} MB, median "
        f"{1e3 * median(saves):.0f} ms, the longest {1e3 * max(saves):.0f} ms: {100 * sum(saves) / total:.2f} % of it"
    )


def tree() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {f"w{i}": np.frombuffer(rng.bytes(EACH), np.uint32).view(np.float32) for i in range(TENSORS)}


def seconds(function, *arguments) -> float:
    began = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - began


def written(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """The raw way: the bytes, and fsync."""
    with open(path, "wb") as file:
        for array in arrays.values():
            file.write(memoryview(array).cast("B"))
        file.flush()
        os.fsync(file.fileno())


def there_and_back(folder: Path) -> list[str]:
    from jaxnet import checkpoint

    arrays = tree()
    raws, saves, loads = [], [], []
    for _ in range(PAIRS + 1):
        raws.append(seconds(written, folder / "raw", arrays))
        (folder / "raw").unlink()
        saves.append(seconds(checkpoint.save, folder / "a", arrays))
        loads.append(seconds(checkpoint.load, folder / "a"))
        (folder / "a").unlink()
    gb = TENSORS * EACH / 1e9
    shares = sorted(raw / save for raw, save in zip(raws[1:], saves[1:], strict=True))
    raw, save, load = (gb / median(times[1:]) for times in (raws, saves, loads))
    return [
        f"raw write and fsync {raw:.2f} GB/s, save {save:.2f} GB/s: {100 * median(shares):.0f} % of it "
        f"({100 * shares[0]:.0f}…{100 * shares[-1]:.0f})",
        f"load {load:.2f} GB/s (from memory, every checksum)",
    ]


def memory(folder: Path) -> str:
    """Peaks of fresh processes: with the tree alone, then with a save; without a tree, then with a load."""
    script = """
        import re, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        import checkpoints, jaxnet.checkpoint as checkpoint

        def peak():
            return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e6

        if sys.argv[3] == "save":
            arrays = checkpoints.tree()
            before = peak()
            checkpoint.save(sys.argv[2], arrays)
        else:
            before = peak()
            arrays = checkpoint.load(sys.argv[2])
        print(peak() - before)
        """

    def extra(what: str) -> float:
        command = [sys.executable, "-c", textwrap.dedent(script), str(Path(__file__).parent), str(folder / "m"), what]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    save, load = extra("save"), extra("load") - TENSORS * EACH / 1e9
    (folder / "m").unlink()
    return f"memory beyond the tree: {save:.2f} GB for save, {load:.2f} GB for load"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(*there_and_back(folder), memory(folder), share_of_a_run(folder), sep="\n", flush=True)


if __name__ == "__main__":
    main()
