"""The sections of pages: a module each, with the functions `tables` and `figures`."""
