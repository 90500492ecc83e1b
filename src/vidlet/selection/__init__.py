"""What is best for a set of clips, measured: candidates, cross-validation, the choice, and the plain baselines."""

from .decide import Decision, decide
from .measure import Pool

__all__ = ["Decision", "Pool", "decide"]
