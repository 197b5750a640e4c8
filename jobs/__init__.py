"""What a person runs: `preln VERB`, which is `python -m jobs VERB`."""

__version__ = "0.1.0"
