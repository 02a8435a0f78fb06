"""Images: reading, preparing, resizing, splitting and describing them."""

from cnnjax.data.dataset import Dataset, Split, normalisation
from cnnjax.data.load import load_dataset

__all__ = ["Dataset", "Split", "load_dataset", "normalisation"]
