"""Writes the files of a bundle other than its graphs, and publishes the finished directory atomically."""
