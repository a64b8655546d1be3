"""What goes in: rows of text data, read as a stream and checked with file and line."""
