"""Lets several threads share one supervisor: takes the packs of each and returns to each its own answers.

While one bundle's packs are computed, the next bundle is unpacked and cut and the previous one is assembled. A thread hands in
all of its packs before the next one hands in any, so that bundles end one after the other without gaps for the device.
"""

import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.inference.batching import TokenBudget
from pipeline.inference.passes import AskFor, Part, Wanted
from pipeline.inference.supervisor import Supervisor

AHEAD = 2
"""Packs that are cut ahead of the child."""
GLANCE = 1.0
"""Seconds between a waiting thread's checks whether the supervisor has given up."""

_Box = queue.SimpleQueue[Part | BaseException]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Addressed(Wanted):
    """A pack, and where its answers go."""

    box: _Box = field(default_factory=queue.SimpleQueue)


class Desk:
    """Where threads hand in packs. `close` ends its thread; the supervisor must be closed by its owner."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._wanted: queue.Queue[_Addressed | None] = queue.Queue(maxsize=AHEAD)
        self._turn = threading.Lock()
        self._boxes: set[_Box] = set()
        self._failed: BaseException | None = None
        threading.Thread(target=self._drive, daemon=True).start()

    def solve_all(self, packs: Iterable[Sequence[int]], ask: AskFor, budget: TokenBudget) -> Iterator[Part]:
        """As `Supervisor.solve_all`, for the thread that calls it. Raises what ended the supervisor."""
        box: _Box = queue.SimpleQueue()
        self._boxes.add(box)
        open_windows = 0
        try:
            with self._turn:
                for windows in packs:
                    self._put(_Addressed(windows, ask(windows), ask, budget, box=box))
                    open_windows += len(windows)
                    while not box.empty():
                        part = _opened(box.get())
                        open_windows -= len(part[0])
                        yield part
            while open_windows:
                part = _opened(box.get())
                open_windows -= len(part[0])
                yield part
        finally:
            self._boxes.discard(box)

    def _put(self, wanted: _Addressed | None) -> None:
        while True:
            if self._failed is not None:
                raise self._failed
            try:
                self._wanted.put(wanted, timeout=GLANCE)
                return
            except queue.Full:
                continue

    def take(self, *, wait: bool) -> Wanted | None:
        """The next pack, for the supervisor."""
        try:
            return self._wanted.get(block=wait)
        except queue.Empty:
            return None

    def _drive(self) -> None:
        try:
            for wanted, part in self._supervisor.serve(self):
                assert isinstance(wanted, _Addressed)
                wanted.box.put(part)
        except BaseException as error:  # whoever waits must hear of it, whatever it is
            self._failed = error
            for box in list(self._boxes):
                box.put(error)

    def close(self) -> None:
        """No more packs."""
        if self._failed is None:
            self._put(None)


def _opened(found: Part | BaseException) -> Part:
    if isinstance(found, BaseException):
        raise found
    return found
