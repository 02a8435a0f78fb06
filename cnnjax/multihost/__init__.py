"""Several processes that train one study: communication between them, and their shared run folder."""
