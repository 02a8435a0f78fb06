"""Convolutions in C, one pass through the caches: what kernels of our own could bring on a CPU."""
