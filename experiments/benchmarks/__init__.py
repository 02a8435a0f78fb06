"""Timings of cnnjax beside the PyTorch loops it replaces."""
