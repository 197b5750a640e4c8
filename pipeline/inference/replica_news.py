"""What a replica is doing now, published once a second for the driver's progress line.

News may be lost: nothing but a number on that line depends on them.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from pipeline.bundle import ShardTables
from pipeline.cluster.ray_state import publish
from pipeline.inference.answers import OnTokens
from pipeline.rows import SKIPPED, STORED

PERIOD = 1.0
"""Seconds between two publications."""


@dataclass
class Work:
    """Some bundles. stored: bytes of the input files that they are. skipped: bytes before them that are annotated already."""

    rows: int = 0
    tokens: int = 0
    stored: float = 0.0
    skipped: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.rows + other.rows,
            self.tokens + other.tokens,
            self.stored + other.stored,
            self.skipped + other.skipped,
        )


@dataclass(frozen=True)
class ReplicaNews:
    """One publication. beat: its number. device: what the model runs on. seconds: that loading took. done: bundles that are
    answered. open: those that the replica holds. answered: tokens of the latter that are."""

    beat: int
    device: str
    seconds: float
    done: Work
    open: Work
    answered: int

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "ReplicaNews":
        """From `to_json`."""
        values = json.loads(text)
        return cls(**{**values, "done": Work(**values["done"]), "open": Work(**values["open"])})


class Publisher:
    """Publishes one replica's news under its run and number, from a thread of its own, so that no bundle waits for it."""

    def __init__(self, *, run: str, number: float, device: str, seconds: float) -> None:
        self._key = f"{run}/{number:.0f}"
        self._device, self._seconds = device, seconds
        self._lock = threading.Lock()
        self._beat = 0
        self._done = Work()
        self._open: dict[int, tuple[Work, int]] = {}
        self._ended = threading.Event()
        if run:
            threading.Thread(target=self._run, name="preln-news", daemon=True).start()

    @contextmanager
    def bundle(self, shards: Sequence[ShardTables]) -> Iterator[OnTokens]:
        """Around the answering of a bundle; what it yields takes the tokens."""
        work = Work(
            rows=sum(0 if shard.rows is None else shard.rows.num_rows for shard in shards),
            stored=sum(shard.facts.get(STORED, float(shard.shard.size)) for shard in shards),
            skipped=sum(shard.facts.get(SKIPPED, 0.0) for shard in shards),
        )
        key = id(work)
        with self._lock:
            self._open[key] = work, 0

        def on_tokens(tokens: int, answered: int) -> None:
            work.tokens = tokens
            with self._lock:
                self._open[key] = work, answered

        try:
            yield on_tokens
            with self._lock:
                self._done = self._done + work
        finally:
            with self._lock:
                self._open.pop(key, None)

    def news(self) -> ReplicaNews:
        """What there is to publish now."""
        with self._lock:
            self._beat += 1
            works = list(self._open.values())
            return ReplicaNews(
                beat=self._beat,
                device=self._device,
                seconds=self._seconds,
                done=self._done,
                open=sum((work for work, _ in works), Work()),
                answered=sum(answered for _, answered in works),
            )

    def _run(self) -> None:
        while True:
            publish(self._key, self.news().to_json())
            if self._ended.wait(PERIOD):
                return

    def close(self) -> None:
        """Publish no more."""
        self._ended.set()


def device_words(facts: Mapping[str, str | int | float | bool], *, dtype: str) -> str:
    """A replica's device as a person reads it: cpu in bfloat16; cuda (NVIDIA A10G) in float16."""
    name = f" ({facts['name']})" if "name" in facts else ""
    return f"{facts.get('device', 'cpu')}{name} in {facts.get('dtype', dtype)}"
