"""A model that can't start, or starts after some attempts.

The folder holds `ill`: how a start ends, and how many starts end so. Each start adds its process id to `starts`.
"""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.boundary import Answers, Ask, Framework, Head, Tokens

LOADER = "tests.pipeline.ill_model:load"


class WellModel:
    """Made-up logits [G, 2], after a nap."""

    def __init__(self, nap: float) -> None:
        self._nap = nap

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> dict[str, Answers]:
        """What follows from the tokens asked for."""
        time.sleep(self._nap)
        ids = {head: tokens.input_ids_T[ask.positions_G].astype(np.float32) for head, ask in asks.items()}
        return {head: {"logits": np.stack([ids_G, -ids_G], axis=1)} for head, ids_G in ids.items()}


def load(*, checkpoint: str, framework: Framework, heads: tuple[Head, ...], dtype: str, device: str) -> WellModel:
    """The model, unless this start is one of those that fail."""
    folder = Path(checkpoint.removeprefix("file://"))
    how, times = (folder / "ill").read_text().split()
    with (folder / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    if len(starts_of(folder)) <= int(times):
        fall_ill(how)
    return WellModel(float((folder / "nap").read_text()))


def starts_of(folder: Path) -> list[int]:
    """Process ids of all starts so far."""
    return [int(line) for line in (folder / "starts").read_text().splitlines()] if (folder / "starts").exists() else []


def fall_ill(how: str) -> None:
    """One way not to start."""
    if how == "raises":
        raise ValueError("the weights are not those of this model")
    if how == "memory":
        raise MemoryError("cannot allocate 96 GB")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "hangs":
        time.sleep(3_600)
