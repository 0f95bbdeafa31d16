"""Decoded samples, kept in RAM or in a folder."""
