"""Rows for human review: the files that are written for it, and read back."""

from typing import Literal, TypeAlias

Form: TypeAlias = Literal["label-studio", "jsonl", "csv"]
"""Label Studio's tasks, JSON Lines, or CSV."""
