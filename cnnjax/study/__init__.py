"""What a user asks for: hyperparameters, their validation, and the plan of trials. Imports no jax."""
