"""Waits for room for a replica: reports progress, then raises ResourceError."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.cluster.nodes import Demand, Nodes, Request
from pipeline.errors import ResourceError, SpecError

Notify = Callable[[str], None]

FIRST_REPORT = 5.0
"""Seconds of waiting before the first report."""
NEXT_REPORT = 30.0
"""Seconds between reports."""


def _refused_by_ray() -> list[Request]:
    from pipeline.cluster.ray_state import infeasible_requests  # imports Ray, which planning need not wait for

    return infeasible_requests()


@dataclass
class CapacityWait:
    """One wait: how long it may last, and who is notified meanwhile.

    demand: what a replica needs. seconds: the maximum wait. look: the nodes as they are now.
    refused: requests, of any job, that the autoscaler reports as impossible.
    """

    demand: Demand
    seconds: float
    say: Notify
    look: Callable[[], Nodes]
    refused: Callable[[], list[Request]] = _refused_by_ray
    clock: Callable[[], float] = time.monotonic
    _since: float | None = field(default=None, init=False)
    _reported: float | None = field(default=None, init=False)

    def end(self) -> None:
        """There is room: the next wait starts from zero."""
        self._since = self._reported = None

    def wait(self) -> None:
        """There is no room yet. Raises SpecError if there can never be any, ResourceError after `seconds`."""
        now = self.clock()
        if self._since is None:
            self._since = now
        waited = now - self._since
        if waited >= self.seconds:
            raise ResourceError(
                f"no node had room for a replica ({self.demand}) within resources.wait ({self.seconds:g} s); the cluster has "
                f"{self.look()}. Add such nodes, ask for less in resources, or wait longer; then run the same command to resume"
            )
        if waited >= FIRST_REPORT and (self._reported is None or now - self._reported >= NEXT_REPORT):
            self._reported = now
            self._refuse_impossible_demand()
            left = self.seconds - waited
            self.say(
                f"waiting for a node with room for a replica ({self.demand}); the cluster has {self.look()}; "
                f"{left:.0f} s of resources.wait left"
            )

    def _refuse_impossible_demand(self) -> None:
        if self.demand.request in self.refused():  # others on this cluster ask too, for more or for other nodes
            raise SpecError(
                f"resources: the cluster's autoscaler has no node type for a replica ({self.demand}); the cluster has "
                f"{self.look()}. Ask for less, or add such a type to the cluster"
            )
