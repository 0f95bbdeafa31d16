"""Finds damaged samples: each is read once, in a separate process."""
