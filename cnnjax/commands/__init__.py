"""The commands without their flags: run, confirm, predict, inspect."""
