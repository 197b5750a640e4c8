"""Scores annotated rows against their gold labels."""
