"""The command line: `kloaders` and its commands."""
