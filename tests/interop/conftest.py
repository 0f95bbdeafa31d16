"""TFRecord files for the tests in this folder."""

from tests.support.tfrecords import decoded, of_pictures, pictures, said, write  # noqa: F401
