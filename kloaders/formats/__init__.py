"""Conversion of file bytes to arrays, and back."""
