"""Inspecting a loader: `summary`, `show`, `explain`, `verify`."""
