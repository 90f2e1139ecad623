"""What several rooms share and none owns: errors, files, tables, statistics."""
