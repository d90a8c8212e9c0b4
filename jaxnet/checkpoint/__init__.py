"""Arrays that reach the disk whole, and come back exactly as they were or not at all.

    save(path, tree, settings)              any pytree of arrays and, as JSON can hold it, what they belong to: one file
    tree, settings = load(path, like)       the same dtypes, shapes and bits, in the structure of `like`
    write_whole(path, content)              any bytes, by the same road to the disk
    Checkpoints(folder, keep=3)             numbered ones: the last few, the best, and the newest that is intact
    CheckpointError                         what a damaged, foreign or unfitting file raises

A safetensors file that other tools read, with a JSON manifest of checksums: `docs/checkpoints.md`.
"""

from jaxnet.checkpoint.files import load, save
from jaxnet.checkpoint.format import CheckpointError
from jaxnet.checkpoint.series import Checkpoints
from jaxnet.checkpoint.whole import write_whole

__all__ = ["CheckpointError", "Checkpoints", "load", "save", "write_whole"]
