"""Rows as token windows in, the model's answers out."""
