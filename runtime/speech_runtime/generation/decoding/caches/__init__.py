"""Self-attention caches, one implementation for each way in which a graph takes its past."""
