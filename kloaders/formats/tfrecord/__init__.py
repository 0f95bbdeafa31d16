"""TFRecord files: records, checksums, and Examples."""
