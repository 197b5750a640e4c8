"""What a person runs: `preln VERB`, which is `python -m jobs VERB`."""
