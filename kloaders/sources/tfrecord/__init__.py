"""The features of Examples as arrays."""
