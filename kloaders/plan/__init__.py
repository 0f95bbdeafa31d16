"""Which sample comes when: arithmetic only, without files, threads or Keras."""
