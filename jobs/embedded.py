"""Nothing in, where the embedded sample and checkpoints lie out."""

from pathlib import Path

SAMPLE = Path(__file__).parent / "sample"
CHECKPOINT = Path(__file__).parent / "checkpoints" / "random-tiny"
"""A random one, of which only the form of its answers means anything."""
DEMO = Path(__file__).parent / "checkpoints" / "demo"
"""The trained one: a folder a head, and their encoder."""
