"""Which samples are damaged: each is read once, in a process of its own."""
