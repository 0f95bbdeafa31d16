"""What all else stands on: trees of arrays, memory, threads, forks, messages, errors; no files, no Keras."""
