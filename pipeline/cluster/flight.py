"""The news of a run's replicas in, what is in flight out, once a second for whoever shows it."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from pipeline.cluster.ray_state import forget_published, published
from pipeline.inference.replica_news import ReplicaNews, Work

PERIOD = 1.0
"""Seconds between two looks."""
SILENT = 15.0
"""Seconds without news after which a replica counts as lost, and what it held as to be done again."""


@dataclass(frozen=True)
class Flight:
    """What a run's replicas are doing.

    queued: bundles that are read and wait for a replica. replicas: those that are ready; device, seconds: of the first one, and
    how long it took to load. rows: that replicas hold now. tokens: answered so far, those of unfinished bundles included.
    known: all bundles that have come to a replica.
    """

    queued: int = 0
    replicas: int = 0
    device: str = ""
    seconds: float = 0.0
    rows: int = 0
    tokens: int = 0
    known: Work = field(default_factory=Work)


OnFlight = Callable[[Flight], None]


@dataclass
class Gathered:
    """The newest news of each replica, and when it came."""

    clock: Callable[[], float] = time.monotonic
    _newest: dict[str, tuple[ReplicaNews, float]] = field(default_factory=dict, init=False)

    def take(self, found: Mapping[str, bytes]) -> None:
        """What is published now, by key."""
        for key, text in found.items():
            news = ReplicaNews.from_json(text)
            if key not in self._newest or self._newest[key][0].beat != news.beat:
                self._newest[key] = news, self.clock()

    def flight(self, *, queued: int = 0) -> Flight:
        """All of them together."""
        now = self.clock()
        living = [news for news, since in self._newest.values() if now - since < SILENT]
        every = [news for news, _ in self._newest.values()]
        return Flight(
            queued=queued,
            replicas=len(living),
            device=living[0].device if living else "",
            seconds=living[0].seconds if living else 0.0,
            rows=sum(news.open.rows for news in living),
            tokens=sum(news.done.tokens for news in every) + sum(news.answered for news in living),
            known=sum([*(news.done for news in every), *(news.open for news in living)], Work()),
        )


@contextmanager
def following(run: str, *, on_flight: OnFlight | None, queued: Callable[[], int]) -> Iterator[None]:
    """Call `on_flight` once a second, from a thread of its own, while the replicas of a run are at work."""
    if on_flight is None or not run:
        yield
        return
    ended, gathered = threading.Event(), Gathered()

    def look() -> None:
        while not ended.wait(PERIOD):
            gathered.take(published(run))
            on_flight(gathered.flight(queued=queued()))
        forget_published(run)  # in this thread: a run whose head is gone must not wait for it

    thread = threading.Thread(target=look, name="preln-flight", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=2 * PERIOD)
