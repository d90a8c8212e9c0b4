"""Reports: what a run or a study found, as one HTML page that needs nothing else."""

from jaxnet.report.demo import DemoResults, Mistake, ProofRow, write_demo

__all__ = ["DemoResults", "Mistake", "ProofRow", "write_demo"]
