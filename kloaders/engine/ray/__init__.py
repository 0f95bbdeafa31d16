"""Makes batches with actors of a Ray cluster instead of worker processes on this machine."""
