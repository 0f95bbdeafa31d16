"""Sources of numbered samples: columns of files and arrays, tables, labels."""
