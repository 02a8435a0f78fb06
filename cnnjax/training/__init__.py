"""Training: one member as pure functions, mapped over members, compiled, and run to the end."""
