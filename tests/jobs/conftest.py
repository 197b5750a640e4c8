"""Fixtures of the verbs' tests."""

from tests.jobs.small_training import make_spec

__all__ = ["make_spec"]
