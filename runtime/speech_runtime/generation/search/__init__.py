"""Search over candidate tokens: greedy, sampling and beam search."""
