"""Compares two configurations, of one run or of two, from the files of the runs. Imports no jax."""

from cnnjax.analysis.compare.evidence import compare_configurations
from cnnjax.analysis.compare.sides import read_side
from cnnjax.analysis.compare.text import FORMATS

__all__ = ["FORMATS", "compare_configurations", "read_side"]
