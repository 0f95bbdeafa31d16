"""Data that lie elsewhere: object stores and other file systems, by URL; what is fetched ahead and kept."""
