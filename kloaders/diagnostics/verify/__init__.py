"""Finds damaged samples by reading each once, in a separate process."""
