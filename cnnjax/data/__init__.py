"""Image data sets: reading, preparing, resizing, splitting and describing them."""

from cnnjax.data.dataset import Dataset, Split
from cnnjax.data.load import load_dataset
from cnnjax.data.normalization import normalization_map

__all__ = ["Dataset", "Split", "load_dataset", "normalization_map"]
