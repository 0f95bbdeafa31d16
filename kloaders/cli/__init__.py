"""The commands: `kloaders` in a terminal, its demo and its bench."""
