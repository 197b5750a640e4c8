"""Checkpoints that come with the repository, and what makes them."""
