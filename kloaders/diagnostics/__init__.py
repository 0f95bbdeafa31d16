"""What a loader tells of itself: `summary`, `show`, `explain`, `verify`."""
