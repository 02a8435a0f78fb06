"""One reader for each format of images that data.path takes."""
