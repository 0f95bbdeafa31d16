"""Batches made ahead, on threads and in processes."""
