"""A training that goes on where it stopped: the callback, and the file of its state."""
