"""Readers of image data, one module per format."""
