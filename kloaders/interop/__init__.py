"""Beside other libraries: tf.data, torch Datasets, augmentation."""
