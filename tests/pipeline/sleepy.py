"""A model that sleeps, for tests of clusters rather than of models: its speed is known.

The checkpoint's folder holds `nap`, seconds that the next pass takes, which a test may change while it runs.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.boundary import Answers, Ask, DeviceFacts, Framework, Head, Tokens
from pipeline.inference.child import AtOnce

LOADER = "tests.pipeline.sleepy:load"
LABELS = 2


class SleepyModel:
    """Sleeps for a while instead of computing."""

    def __init__(self, nap: Path) -> None:
        self._nap = nap

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> dict[str, Answers]:
        """Logits [G, L] that follow from the tokens at the asked positions."""
        time.sleep(float(self._nap.read_text()))
        answers: dict[str, Answers] = {}
        for head, ask in asks.items():
            ids_G = tokens.input_ids_T[ask.positions_G].astype(np.float32)
            answers[head] = {"logits": np.stack([ids_G, -ids_G], axis=1)}
        return answers


class OnAnyDevice(AtOnce):
    """Reports the device that was ordered: the GPUs of these clusters exist only by name."""

    def __init__(self, model: SleepyModel, *, device: str) -> None:
        super().__init__(model)
        self._device = device

    def try_out(self) -> DeviceFacts:
        """The device, as ordered."""
        return {"device": self._device}


def load(*, checkpoint: str, framework: Framework, heads: tuple[Head, ...], dtype: str, device: str) -> OnAnyDevice:
    """The model whose nap is written in the checkpoint's folder."""
    return OnAnyDevice(SleepyModel(Path(checkpoint.removeprefix("file://")) / "nap"), device=device)
