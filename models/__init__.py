"""What a model is, three times the same: `models.load` for flat tokens, `models.roberta_torch` and its siblings' classes."""
