"""Logs and metrics of the workers."""
