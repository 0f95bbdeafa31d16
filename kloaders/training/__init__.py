"""Resume training where it stopped: the callback, and the file with the training state."""
