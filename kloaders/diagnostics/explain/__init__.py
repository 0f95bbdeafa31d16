"""What bounds a training, measured and put into words."""
