"""A small study of a user's own networks, by cnnjax and by the scripts that a user would write instead."""
