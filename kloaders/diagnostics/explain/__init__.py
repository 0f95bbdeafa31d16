"""Measures what limits the speed of training, and reports it."""
