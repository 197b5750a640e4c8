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


def _refused_by_ray() -> list[Request] | None:
    from pipeline.cluster.ray_state import infeasible_requests  # imports Ray, which planning need not wait for

    return infeasible_requests()


@dataclass
class CapacityWait:
    """One wait: how long it may last, and who is notified meanwhile.

    demand: what a replica needs. seconds: the maximum wait. look: the nodes as they are now.
    refused: requests, of any job, that the autoscaler reports as impossible; None if unknown.
    """

    demand: Demand
    seconds: float
    say: Notify
    look: Callable[[], Nodes]
    refused: Callable[[], list[Request] | None] = _refused_by_ray
    clock: Callable[[], float] = time.monotonic
    _since: float | None = field(default=None, init=False)
    _reported: float | None = field(default=None, init=False)

    def end(self) -> None:
        """There is room: the next wait starts from zero."""
        self._since = self._reported = None

    def wait(self, *, room_known: bool = True) -> None:
        """There is no room yet, or no replica is ready and it is unknown whether one has room (room_known=False).

        Raises SpecError if there can never be any, ResourceError after `seconds`.
        """
        now = self.clock()
        if self._since is None:
            self._since = now
        waited = now - self._since
        if waited >= self.seconds:
            missed = (
                f"no node had room for a replica ({self.demand})"
                if room_known
                else f"no replica ({self.demand}) was ready, and whether a node had room for one is unknown,"
            )
            raise ResourceError(
                f"{missed} within resources.wait ({self.seconds:g} s); the cluster has {self.look()}. "
                "Add such nodes, ask for less in resources, or wait longer; then run the same command to resume"
            )
        if waited >= FIRST_REPORT and (self._reported is None or now - self._reported >= NEXT_REPORT):
            self._reported = now
            self._refuse_impossible_demand()
            left = self.seconds - waited
            awaited = "a node with room for a replica" if room_known else "a replica to be ready"
            self.say(
                f"waiting for {awaited} ({self.demand}); the cluster has {self.look()}; "
                f"{left:.0f} s of resources.wait left"
            )

    def _refuse_impossible_demand(self) -> None:
        # Other jobs on this cluster have requests too, for more or for other nodes.
        if self.demand.request in (self.refused() or ()):
            raise SpecError(
                f"resources: the cluster's autoscaler has no node type for a replica ({self.demand}); the cluster has "
                f"{self.look()}. Ask for less, or add such a type to the cluster"
            )
