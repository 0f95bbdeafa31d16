"""Converts the features of Examples to arrays."""
