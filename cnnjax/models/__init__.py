"""The ladder of models: their layers as data, their Flax modules, and their cost."""
