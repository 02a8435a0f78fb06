"""Several processes that train one study: what each of them does, and what process 0 alone does."""
