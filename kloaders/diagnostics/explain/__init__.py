"""Measures what limits training speed, and describes it."""
