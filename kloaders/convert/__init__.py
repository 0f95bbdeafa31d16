"""Writers: many samples into packs and TFRecord files, going on where a kill stopped them."""
