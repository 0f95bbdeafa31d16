"""Resuming training: the callback, and the file with the training state."""
