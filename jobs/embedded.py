"""Where the embedded sample and checkpoints are."""

from pathlib import Path

SAMPLE = Path(__file__).parent / "sample"
CHECKPOINT = Path(__file__).parent / "checkpoints" / "random-tiny"
"""A random checkpoint, whose answers mean nothing; only their form is right."""
DEMO = Path(__file__).parent / "checkpoints" / "demo"
"""The trained one: a folder a head, and their encoder."""
DEMO_NUMBERS = "numbers.json"
"""File in it that says how good each head is on held-out rows; its card is written from that."""
