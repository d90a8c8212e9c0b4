"""Tools that prove gradients, for jaxnet's own tests and for anybody's layers."""

from jaxnet.testing.gradients import Comparison, LeafComparison, compare_gradients

__all__ = ["Comparison", "LeafComparison", "compare_gradients"]
