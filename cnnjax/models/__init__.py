"""The ladder of networks: their layers as data, as Flax modules, and what they cost."""
