"""A model that makes up answers, or misbehaves if a window's first token says so: the loader `tests.pipeline.hostile:load`.

NumPy only, so that a child process starts in a moment.

`checkpoint` is a folder of this test's own, where what must happen once is remembered; its name may also tell the loading
to fail. Answers are a function of a window's own tokens, so that a test can tell which window an answer belongs to.
"""

import ctypes
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.boundary import Answers, Ask, Framework, Head, Tokens

LOADER = "tests.pipeline.hostile:load"
LABELS = 3
LARGEST_PASS = 4
"""Windows in one pass with FULL among them beyond which memory is said to be out."""

STUMBLES_AT = 2
"""Which loading fails where the folder is named so."""

SEGFAULT, EXIT, HANG, RAISE, MEMORY, NAN, FULL, KILLED_ONCE, KILLED_ALWAYS, POISONED = range(9001, 9011)
"""First tokens of windows that misbehave; every other token is harmless."""


def load(*, checkpoint: str, framework: Framework, heads: tuple[Head, ...], dtype: str, device: str) -> "HostileModel":
    """The model; or, where the folder is named so, a way to fail."""
    match Path(checkpoint).name:
        case "raises":
            raise ValueError(f"{checkpoint}: no such tensor")
        case "exits":
            print("the driver said: no device", flush=True)
            os._exit(7)
        case "hangs":
            time.sleep(60)
        case "stumbles" if _nth_time(Path(checkpoint), "loaded") == STUMBLES_AT:
            raise MemoryError("the device is still held by another process")
    return HostileModel(Path(checkpoint))


class HostileModel:
    """Behaves as the first token of each window says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        """Answers for the one head that is asked."""
        first_B = tokens.input_ids_T[tokens.cu_seqlens[:-1]].tolist()
        for token in first_B:
            self._misbehave(token, windows=len(first_B))
        ((head, ask),) = asks.items()
        if ask.reduce == "mean":
            return {head: {"hidden": window_answers(tokens)}}
        answers_BL = window_answers(tokens)
        owner_G = np.searchsorted(tokens.cu_seqlens, ask.positions_G, side="right") - 1
        answers_GL = answers_BL[owner_G]
        answers_GL[:, 0] = tokens.input_ids_T[ask.positions_G]
        answers_GL[np.asarray(first_B)[owner_G] == NAN, 1] = np.nan
        return {head: {"logits": answers_GL}}

    def _misbehave(self, token: int, *, windows: int) -> None:
        if token == SEGFAULT:
            ctypes.string_at(0)
        if token == EXIT:
            os._exit(3)
        if token == HANG:
            time.sleep(60)
        if token == RAISE:
            raise RuntimeError("no kernel for this text")
        if token == POISONED:
            raise RuntimeError("CUDA error: device-side assert triggered")
        if token == MEMORY or (token == FULL and windows > LARGEST_PASS):
            raise MemoryError("out of device memory")
        if token == KILLED_ALWAYS or (token == KILLED_ONCE and _nth_time(self._folder, "killed") == 1):
            os.kill(os.getpid(), signal.SIGKILL)


def _nth_time(folder: Path, what: str) -> int:
    """How often this has happened, this time included, in all processes that share the folder."""
    with (folder / what).open("a+b") as file:
        file.write(b".")
        return file.tell()


def window_answers(tokens: Tokens) -> npt.NDArray[np.float32]:
    """Each window's first token, sum and number of tokens, [B, LABELS]."""
    lengths_B = np.diff(tokens.cu_seqlens)
    sums_B = np.add.reduceat(tokens.input_ids_T, tokens.cu_seqlens[:-1])
    first_B = tokens.input_ids_T[tokens.cu_seqlens[:-1]]
    return np.stack([first_B, sums_B, lengths_B], axis=1).astype(np.float32)
