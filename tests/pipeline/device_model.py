"""A model that reports a device and answers late, as one on a GPU would; NumPy only.

The checkpoint's folder says by its name how it behaves: `patient` answers a pack only when the next one has come.
"""

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from models.boundary import Answers, Ask, DeviceFacts, Framework, Head, Tokens
from models.errors import PrelnError
from tests.pipeline.hostile import window_answers

LOADER = "tests.pipeline.device_model:load"
PATIENCE = 2.0
"""Seconds that a pack waits for the one behind it."""
NO_DRIVER = "Found no NVIDIA driver on your system"


def load(*, checkpoint: str, framework: Framework, heads: tuple[Head, ...], dtype: str, device: str) -> "DeviceModel":
    """The model. Raises as a framework without a driver does where the folder is named so."""
    behaviour = Path(checkpoint).name
    if behaviour == "no-driver" and device == "cuda":
        raise PrelnError(f"device is 'cuda', and it can't be used: {NO_DRIVER}")
    if behaviour == "talks":
        print("a library warns: the driver is old", flush=True)
    return DeviceModel(behaviour, device)


class DeviceModel:
    """Answers as the hostile model does, when `result` is called."""

    def __init__(self, behaviour: str, device: str) -> None:
        self.behaviour = behaviour
        self.device = device
        self.submitted = 0
        self.more = threading.Condition()

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        """The answers at once."""
        return {head: {"logits": window_answers(tokens)} for head in asks}

    def submit(self, tokens: Tokens, asks: Mapping[str, Ask]) -> "Late":
        """Count the pack; the answers come later."""
        with self.more:
            self.submitted += 1
            self.more.notify_all()
            return Late(self, self.submitted, tokens, tuple(asks))

    def try_out(self) -> DeviceFacts:
        """What it claims to run on, and what it sees of GPUs."""
        seen = {name: value for name, value in os.environ.items() if name in SEEN}
        device = "cpu" if self.behaviour == "falls-back" else self.device
        return {"device": device, "name": "made up", **seen}

    def probe(self) -> None:
        """It answers."""


SEEN = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "JAX_PLATFORMS",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "PRELN_GPU_SHARE",
)


@dataclass(frozen=True)
class Late:
    """A pack's answers. The third column says whether the next pack was there before this one was answered."""

    model: DeviceModel
    number: int
    tokens: Tokens
    heads: tuple[str, ...]

    def result(self) -> Mapping[str, Answers]:
        """The answers."""
        answers = window_answers(self.tokens)
        if self.model.behaviour == "patient":
            deadline = time.monotonic() + PATIENCE
            with self.model.more:
                while self.model.submitted <= self.number and time.monotonic() < deadline:
                    self.model.more.wait(0.05)
                answers[:, 2] = self.model.submitted > self.number
        return {head: {"logits": answers} for head in self.heads}
