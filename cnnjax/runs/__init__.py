"""The files of a run's folder. Imports no jax."""
