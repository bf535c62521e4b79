"""Writes the files of a bundle other than its graphs, and puts a finished directory in its place atomically."""
