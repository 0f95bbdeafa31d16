"""The public classes, and the functions from loader to loader."""
