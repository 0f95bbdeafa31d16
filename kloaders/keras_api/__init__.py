"""How Keras drives a loader."""
