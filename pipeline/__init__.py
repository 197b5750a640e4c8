"""Batch annotation of text with pre-LN RoBERTa on Ray: what happens to a row, left to right."""

__version__ = "0.1.0"
