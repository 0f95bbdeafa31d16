"""The public loader classes, and the functions that make a loader from another."""
