"""TFRecord files: records, their checksums, and the Examples in them."""
