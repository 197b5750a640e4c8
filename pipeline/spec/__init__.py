"""A job as a user writes it: parsed, checked, printable."""
