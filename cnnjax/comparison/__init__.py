"""Two settings of one run, or of two, held against each other, from the files alone. Imports no jax."""

from cnnjax.comparison.evidence import compare_settings
from cnnjax.comparison.sides import read_side
from cnnjax.comparison.text import FORMATS

__all__ = ["FORMATS", "compare_settings", "read_side"]
