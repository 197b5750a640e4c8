"""Trains tokenizers and checkpoints that `preln annotate` can use."""
