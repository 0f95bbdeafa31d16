"""Drop-ins for Keras' old image loaders: the same calls, the same files and labels, as loaders."""

from kloaders.migrate.directory import image_dataset_from_directory
from kloaders.migrate.image_data_generator import ImageDataGenerator

__all__ = ["ImageDataGenerator", "image_dataset_from_directory"]
