"""Prefetching with threads and worker processes."""
