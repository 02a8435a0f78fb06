"""Compares two settings, of one run or of two, from the files of the runs. Imports no jax."""

from cnnjax.analysis.compare.evidence import compare_settings
from cnnjax.analysis.compare.sides import read_side
from cnnjax.analysis.compare.text import FORMATS

__all__ = ["FORMATS", "compare_settings", "read_side"]
