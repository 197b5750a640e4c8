"""Watches the replicas of a running Dataset, so that no run waits silently or forever; called at every step of its loop.

Ray Data waits without a message and without a limit for actors that have no node. Here a run in which no replica can be
placed ends after `resources.wait` with the reason, shards of a lost replica are moved to living ones, and of two
runs that leave each other no CPU to read with, one gives way.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipeline.cluster.capacity_wait import CapacityWait
from pipeline.cluster.contention import first_of_all, nothing_left_to_read_with
from pipeline.cluster.ray_state import REPLICA_CLASS, ActorPool, actor_pools, placed_replicas

GLANCE = 1.0
"""Seconds between two looks at the pool."""
GRACE = 10.0
"""Seconds that idle replicas leave a lost one to come back before its shards are given to them, and that a run leaves others
to give CPUs back."""
GRACE_OF_THE_FIRST = 60.0
"""The latter, for the run that came first: the others give way."""


class ReplicasLostError(Exception):
    """Nothing is left to do but shards that wait for replicas whose nodes are gone; raised out of the Dataset's iteration."""


class StarvedError(Exception):
    """Replicas, of other runs too, hold every CPU, so that nothing can be read; raised out of the Dataset's iteration."""


@dataclass(frozen=True)
class PoolState:
    """How the replicas of a running Dataset are.

    alive: ready for work. starting: placed and loading the model; None if unknown. active: have shards, lost ones included.
    lost: were alive and have no node now. ended: the stage has nothing left to do. queued: shards that no replica has yet.
    starved: all are idle, since replicas hold every CPU and nothing can be read. first: no other run was here before.
    """

    alive: int
    starting: int | None
    active: int
    lost: int
    queued: int
    ended: bool
    starved: bool = False
    first: bool = False


@dataclass
class Watched:
    """One run's watch: decides from the states of its pool, one after the other, when waiting must end."""

    capacity_wait: CapacityWait
    clock: Callable[[], float] = time.monotonic
    next_look: float = field(default=0.0, init=False)
    queued: int = field(default=0, init=False)
    _stuck_since: float | None = field(default=None, init=False)
    _starved_since: float | None = field(default=None, init=False)

    def look(self, state: PoolState) -> None:
        """Raises ReplicasLostError, StarvedError, and what CapacityWait raises."""
        self.queued = state.queued
        if state.ended or state.alive or state.starting:
            self.capacity_wait.end()
        else:
            self.capacity_wait.wait(room_known=state.starting is not None)
        stuck = (
            state.alive > 0 and state.lost > 0 and state.active <= state.lost and not state.queued and not state.ended
        )
        self._stuck_since = self._since(stuck, self._stuck_since)
        if self._lasts(self._stuck_since, GRACE):
            raise ReplicasLostError
        self._starved_since = self._since(state.starved, self._starved_since)
        if self._lasts(self._starved_since, GRACE_OF_THE_FIRST if state.first else GRACE):
            raise StarvedError

    def _since(self, true: bool, since: float | None) -> float | None:
        """When a condition became true; None while it is not."""
        return (self.clock() if since is None else since) if true else None

    def _lasts(self, since: float | None, seconds: float) -> bool:
        return since is not None and self.clock() - since >= seconds


_WATCHED: dict[str, Watched] = {}


def look_at_pools(key: str, executor: Any) -> None:
    """One step of a Dataset's loop. Workers get a copy of what is called, so it holds a key, and the driver has the rest."""
    watched, now = _WATCHED.get(key), time.monotonic()
    if watched is not None and now >= watched.next_look:
        watched.next_look = now + GLANCE
        for pool in actor_pools(executor) or ():
            watched.look(pool_state(pool))


@dataclass(frozen=True)
class Watch:
    """What a Dataset's loop calls with its executor at each step."""

    key: str

    def __call__(self, executor: Any) -> None:
        look_at_pools(self.key, executor)

    def queued(self) -> int:
        """Bundles that were read and wait for a replica, when last looked at."""
        watched = _WATCHED.get(self.key)
        return 0 if watched is None else watched.queued


@contextmanager
def watching(capacity_wait: CapacityWait) -> Iterator[Watch]:
    """What to call with the executor at each step of a Dataset's loop, to watch its replicas by this capacity_wait."""
    key = uuid.uuid4().hex
    _WATCHED[key] = Watched(capacity_wait)
    try:
        yield Watch(key)
    finally:
        del _WATCHED[key]


def pool_state(pool: ActorPool) -> PoolState:
    """The state of a pool. Ray is asked about actors and nodes only while no replica is alive, or all are idle."""
    alive = pool.running - pool.restarting
    starved = alive > 0 and pool.active == 0 and not pool.ended and nothing_left_to_read_with()
    return PoolState(
        alive=alive,
        starting=0 if alive else placed_replicas(),
        active=pool.active,
        lost=pool.restarting,
        queued=pool.queued,
        ended=pool.ended,
        starved=starved,
        first=starved and first_of_all(REPLICA_CLASS),
    )
