"""Labelled or plain text in, a tokenizer or a checkpoint that `preln annotate` takes out."""
