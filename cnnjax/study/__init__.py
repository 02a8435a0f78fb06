"""Studies: hyperparameters, validation, and the plan of trials. Imports no JAX."""
