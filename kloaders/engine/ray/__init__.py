"""Batches made by actors of a Ray cluster instead of worker processes of this machine."""
