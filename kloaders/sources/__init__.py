"""Numbered samples: columns of files and arrays, tables, labels."""
