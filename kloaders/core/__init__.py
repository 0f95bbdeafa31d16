"""The foundation: trees of arrays, memory, threads, forks, messages, errors; no files, no Keras."""
