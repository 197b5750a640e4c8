"""A model whose logits follow from each window's own tokens: NumPy only, so that a killed process restarts in a moment.

`LoadOrder.loader` is `tests.chaos.fickle_model:load`. The checkpoint's folder may hold `nap`, the seconds a pass takes.
"""

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from models.boundary import Answers, Ask, Framework, Head, Tokens

LOADER = "tests.chaos.fickle_model:load"
LABELS = 2


class FickleModel:
    """Different texts get different scores; the same text always the same."""

    def __init__(self, nap: float) -> None:
        self._nap = nap

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> dict[str, Answers]:
        """Logits [G, L] of the windows that the asked positions lie in."""
        time.sleep(self._nap)
        weights_T = np.sin(tokens.input_ids_T.astype(np.float64))
        sums_B = np.add.reduceat(weights_T, tokens.cu_seqlens[:-1])
        answers: dict[str, Answers] = {}
        for head, ask in asks.items():
            owner_G = np.searchsorted(tokens.cu_seqlens, ask.positions_G, side="right") - 1
            answers[head] = {"logits": np.stack([sums_B[owner_G], -sums_B[owner_G]], axis=1).astype(np.float32)}
        return answers


def load(*, checkpoint: str, framework: Framework, heads: tuple[Head, ...], dtype: str, device: str) -> FickleModel:
    """The model whose nap is written in the checkpoint's folder."""
    nap = Path(checkpoint) / "nap"
    return FickleModel(float(nap.read_text()) if nap.exists() else 0.0)
