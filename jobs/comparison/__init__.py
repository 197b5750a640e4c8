"""The differences between two output folders as words, as plain values, and as a page."""
