"""Annotated rows that hold the truth too in, numbers out."""
