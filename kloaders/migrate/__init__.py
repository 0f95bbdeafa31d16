"""Drop-in replacements for Keras' own loaders: the same calls return loaders of the same data and labels."""

from kloaders.migrate.audio import audio_dataset_from_directory
from kloaders.migrate.directory import image_dataset_from_directory
from kloaders.migrate.image_data_generator import ImageDataGenerator
from kloaders.migrate.text import text_dataset_from_directory
from kloaders.migrate.timeseries import timeseries_dataset_from_array

__all__ = [
    "ImageDataGenerator",
    "audio_dataset_from_directory",
    "image_dataset_from_directory",
    "text_dataset_from_directory",
    "timeseries_dataset_from_array",
]
