"""Batches made by actors of a Ray cluster, in place of worker processes of this machine."""
