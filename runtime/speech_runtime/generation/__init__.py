"""Decoding: settings, constraints, search, and the loop that joins them with the graphs."""
