"""Caches of decoded samples, in RAM or in a folder."""
