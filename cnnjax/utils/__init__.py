"""What every package may use: errors, text, paths, signals, progress, and the command line."""
