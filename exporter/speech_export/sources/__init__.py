"""Where a composite model comes from; every source ends in a `Composite`."""
