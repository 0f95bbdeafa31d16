"""Files for the tests in this folder, and loaders of them."""

from tests.support.ram_reads import raw_files, two_level  # noqa: F401
from tests.support.tfrecords import decoded, of_pictures, pictures, said, write  # noqa: F401
