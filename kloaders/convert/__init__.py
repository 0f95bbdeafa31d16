"""Writers of packs and TFRecord files, which continue where they were stopped."""
