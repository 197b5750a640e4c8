"""What a run has done and knows of its work in, the share that is done and the time left out."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.cluster.flight import Flight
from pipeline.output.sink import Receipt
from pipeline.rows import SKIPPED, STORED
from pipeline.shards import SourceFile

WINDOW = 60.0
"""Seconds over which the rate counts."""
LEAST = 2.0
"""Seconds that must have passed before there is a rate."""


@dataclass
class TimeLeft:
    """Work is counted in tokens. How many there are in all follows from the bundles that have come to a replica: their tokens
    for each byte of the input files, compressed as they are stored, times the bytes that the plan has.

    stored: those bytes.
    """

    stored: int
    clock: Callable[[], float] = time.monotonic
    tokens: int = 0
    _known_tokens: int = field(default=0, init=False)
    _known_stored: float = field(default=0.0, init=False)
    _skipped: float = field(default=0.0, init=False)
    _committed_tokens: int = field(default=0, init=False)
    _committed_stored: float = field(default=0.0, init=False)
    _committed_skipped: float = field(default=0.0, init=False)
    _samples: deque[tuple[float, int]] = field(default_factory=deque, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def flying(self, flight: Flight) -> None:
        """What the replicas are doing now."""
        if not flight.replicas and not flight.tokens:
            return  # the clock of the rate starts with the first replica
        self._advance(flight.tokens, flight.known.tokens, flight.known.stored, flight.known.skipped)

    def committed(self, receipt: Receipt) -> None:
        """One more shard; enough for an estimate where the replicas' news are not known."""
        self._committed_tokens += int(receipt.facts.get("tokens", 0))
        self._committed_stored += receipt.facts.get(STORED, stored_bytes(receipt))
        self._committed_skipped += receipt.facts.get(SKIPPED, 0.0)
        self._advance(self._committed_tokens, self._committed_tokens, self._committed_stored, self._committed_skipped)

    def _advance(self, tokens: int, known_tokens: int, known_stored: float, skipped: float) -> None:
        with self._lock:
            self.tokens = max(self.tokens, tokens)
            if known_stored >= self._known_stored:
                self._known_tokens, self._known_stored = known_tokens, known_stored
            self._skipped = max(self._skipped, skipped)
            now = self.clock()
            self._samples.append((now, self.tokens))
            while len(self._samples) > 2 and now - self._samples[1][0] > WINDOW:
                self._samples.popleft()

    @property
    def _all_tokens(self) -> float | None:
        if not self._known_stored or not self._known_tokens:
            return None
        rest = max(0.0, self.stored - self._skipped - self._known_stored)
        return self._known_tokens + rest * self._known_tokens / self._known_stored

    @property
    def share(self) -> float | None:
        """The part of the work that is done; None while nobody can know."""
        if all_tokens := self._all_tokens:
            return min(1.0, self.tokens / all_tokens)
        stored = self.stored - self._skipped
        return min(1.0, self._committed_stored / stored) if self._committed_stored and stored > 0 else None

    @property
    def rate(self) -> float:
        """Tokens per second over the last minute."""
        with self._lock:
            if len(self._samples) < 2:
                return 0.0
            (began, before), (now, tokens) = self._samples[0], self._samples[-1]
        return (tokens - before) / (now - began) if now - began >= LEAST else 0.0

    @property
    def seconds(self) -> float | None:
        """Seconds left; None while nobody can know."""
        if (all_tokens := self._all_tokens) is None or self.rate <= 0:
            return None
        return max(0.0, all_tokens - self.tokens) / self.rate


def stored_bytes(receipt: Receipt) -> float:
    """The bytes of the input file that a shard is: unknown, so none, for a compressed file without the fact."""
    file: SourceFile = receipt.shard.file
    return float(receipt.shard.size) if file.compression == "none" else 0.0
