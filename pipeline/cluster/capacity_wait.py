"""A replica without a place in, words now and then and at last a ResourceError out: nobody waits in silence, or for ever."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from pipeline.cluster.nodes import Demand, Nodes, Request
from pipeline.errors import ResourceError, SpecError

Notify = Callable[[str], None]

FIRST_WORD = 5.0
"""Seconds of waiting before anything is said of it."""
NEXT_WORD = 30.0
"""Seconds between one word and the next."""


def _refused_by_ray() -> list[Request]:
    from pipeline.cluster.ray_state import infeasible_requests  # imports Ray, which planning need not wait for

    return infeasible_requests()


@dataclass
class CapacityWait:
    """How long one wait may last, and who is told meanwhile.

    demand: what a replica asks. seconds: how long it may be waited for. look: the nodes as they are now.
    refused: requests, of whomever, that the autoscaler says it can never meet.
    """

    demand: Demand
    seconds: float
    say: Notify
    look: Callable[[], Nodes]
    refused: Callable[[], list[Request]] = _refused_by_ray
    clock: Callable[[], float] = time.monotonic
    _since: float | None = field(default=None, init=False)
    _said: float | None = field(default=None, init=False)

    def end(self) -> None:
        """There is a place: the next wait begins anew."""
        self._since = self._said = None

    def wait(self) -> None:
        """There is no place yet. Raises SpecError where there can never be one, ResourceError after `seconds`."""
        now = self.clock()
        if self._since is None:
            self._since = now
        waited = now - self._since
        if waited >= self.seconds:
            raise ResourceError(
                f"no node had room for a replica ({self.demand}) within resources.wait ({self.seconds:g} s); the cluster has "
                f"{self.look()}. Start such nodes, ask for less by resources, or wait longer; the same command then goes on"
            )
        if waited >= FIRST_WORD and (self._said is None or now - self._said >= NEXT_WORD):
            self._said = now
            self._refuse_what_can_not_come()
            left = self.seconds - waited
            self.say(
                f"waiting for a node with room for a replica ({self.demand}); the cluster has {self.look()}; "
                f"{left:.0f} s of resources.wait left"
            )

    def _refuse_what_can_not_come(self) -> None:
        if self.demand.request in self.refused():  # others on this cluster ask too, for more or for other nodes
            raise SpecError(
                f"resources: the cluster's autoscaler has no node type for a replica ({self.demand}); the cluster has "
                f"{self.look()}. Ask for less, or add such a type to the cluster"
            )
