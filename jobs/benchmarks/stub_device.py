"""A stub of a GPU model, which leaves only the host's own work to measure.

It prepares each pack as the real flat models do, stays busy for a fixed time per token, and returns arrays of the right
shapes. It writes how long its device waited before each pack, and the CPU time of its process so far, to the file that
PRELN_STUB_LOG names.

Legend: B sequences, T packed tokens, G asked positions, K candidates.
"""

import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.boundary import Answers, Ask, DeviceFacts, Framework, Head, Tokens
from models.checkpoint import Checkpoint
from models.flat_tokens import (
    asked_once,
    check_asks,
    flat_positions,
    is_all,
    length_order,
    segments_of,
    token_order,
)
from models.named_heads import encoder_config, open_heads

LOADER = "jobs.benchmarks.stub_device:load"
SECONDS_A_TOKEN = 0.022 / 65_536
"""22 ms a pack of 64k tokens: base size in bfloat16 on an H100, by arithmetic."""
LOG_VARIABLE = "PRELN_STUB_LOG"


def load(
    *,
    checkpoint: str,
    framework: Framework,  # noqa: ARG001
    heads: tuple[Head, ...] | Mapping[str, Head],
    dtype: str,  # noqa: ARG001
    device: str,
) -> "StubDevice":
    """The stub, with the configuration of a checkpoint whose weights nobody reads."""
    named = open_heads(checkpoint=Checkpoint.open(checkpoint), heads=heads)
    return StubDevice(encoder_config(named), {name: one.head for name, one in named.items()}, device)


class StubDevice:
    """Prepares, waits, answers."""

    def __init__(self, config: Any, kinds: Mapping[str, Head], device: str) -> None:
        self.config, self.kinds, self.device = config, kinds, device
        self.free_at = 0.0
        self.lock = threading.Lock()
        path = os.environ.get(LOG_VARIABLE)
        self.log = Path(path).open("a", encoding="utf-8") if path else None  # noqa: SIM115 - as long as the process

    def __call__(self, tokens: Tokens, asks: Mapping[str, Ask]) -> Mapping[str, Answers]:
        """The same at once."""
        return self.submit(tokens, asks).result()

    def submit(self, tokens: Tokens, asks: Mapping[str, Ask]) -> "Busy":
        """Prepare the pack and put it behind what the device has."""
        prepare(tokens, asks, self.kinds, self.config)
        with self.lock:
            now = time.perf_counter()
            idle = max(now - self.free_at, 0.0) if self.free_at else 0.0
            begins = max(now, self.free_at)
            self.free_at = begins + len(tokens.input_ids_T) * SECONDS_A_TOKEN
            if self.log is not None:
                told = {"tokens": len(tokens.input_ids_T), "idle": idle, "cpu": time.process_time()}
                self.log.write(json.dumps(told) + "\n")
                self.log.flush()
            return Busy(self, self.free_at, tokens, asks)

    def try_out(self) -> DeviceFacts:
        """It is whatever was ordered."""
        return {"device": self.device, "name": "stub"}

    def probe(self) -> None:
        """It answers."""


def prepare(tokens: Tokens, asks: Mapping[str, Ask], kinds: Mapping[str, Head], config: Any) -> None:
    """The NumPy part of a flat model's pass."""
    check_asks(tokens=tokens, asks=asks, kinds=kinds, vocab_size=config.vocab_size)
    order_B, _ = length_order(lengths_B=tokens.lengths_B)
    order_T = token_order(tokens=tokens, order_B=order_B)
    place_T = np.empty_like(order_T)
    place_T[order_T] = np.arange(len(order_T), dtype=order_T.dtype)
    places = {head: place_T[ask.positions_G] for head, ask in asks.items()}
    asked_K, ranks = asked_once(places=places, tokens=len(order_T))
    positions_T = flat_positions(tokens=tokens, config=config)
    for values in (tokens.input_ids_T, positions_T):
        np.ascontiguousarray(values[order_T], dtype=np.int64)
    for head, ask in asks.items():
        if ask.reduce == "mean":
            segments_of(tokens=tokens, ask=ask)
        if not is_all(ranks[head], len(asked_K)):
            ranks[head].astype(np.int64)


@dataclass(frozen=True, eq=False)
class Busy:
    """A pack on the stub's device, which answers at `done`."""

    model: StubDevice
    done: float
    tokens: Tokens
    asks: Mapping[str, Ask]

    def result(self) -> Mapping[str, Answers]:
        """Arrays of the right shapes, when the time has come."""
        rng = np.random.default_rng(0)
        answers = {name: self._answers(self.model.kinds[name], ask, rng) for name, ask in self.asks.items()}
        time.sleep(max(self.done - time.perf_counter(), 0.0))
        return answers

    def _answers(self, kind: Head, ask: Ask, rng: np.random.Generator) -> Answers:
        config, asked = self.model.config, len(ask.positions_G)
        if kind == "encoder":
            rows = len(segments_of(tokens=self.tokens, ask=ask).counts_B) if ask.reduce == "mean" else asked
            return {"hidden": np.zeros((rows, config.hidden_size), np.float32)}
        if kind == "question-answering":
            scores = rng.random((2, asked), np.float32)
            return {"start_logits": scores[0], "end_logits": scores[1]}
        if kind == "masked-lm":
            k = ask.top_k or len(ask.candidates_K if ask.candidates_K is not None else ())
            return {"ids": np.full((asked, k), 5, np.int32), "probs": np.full((asked, k), 0.1, np.float32)}
        return {"logits": rng.random((asked, config.num_labels), np.float32)}
