"""Numbers out of a run: its trials, statistics, measures of predictions. Imports no jax and no matplotlib."""
