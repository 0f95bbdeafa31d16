"""Use with other libraries: tf.data, torch Datasets, augmentation."""
