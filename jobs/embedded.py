"""Nothing in, where the embedded sample and checkpoint lie out."""

from pathlib import Path

SAMPLE = Path(__file__).parent / "sample"
CHECKPOINT = Path(__file__).parent / "checkpoints" / "random-tiny"
