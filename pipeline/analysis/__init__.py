"""Finished outputs: rows drawn for review, error rates, two outputs compared."""
