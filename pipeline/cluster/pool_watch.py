"""The pool of replicas of a running Dataset in, an end to waiting out: called by Ray Data at every step of its loop.

Ray Data waits without a word and without an end for actors that have no place. Here a run in which no replica can be
placed ends after `resources.wait` with the reason, shards that wait for a lost replica are taken to living ones, and of two
runs that leave each other no CPU to read with, one gives way.
"""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ray.data._internal.execution.execution_callback import ExecutionCallback

from pipeline.cluster.capacity_wait import CapacityWait
from pipeline.cluster.contention import first_of_all, nothing_left_to_read_with
from pipeline.cluster.ray_state import CLASS_NAME, _placed_actors

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

    alive: ready for work. starting: placed, loading the model. active: with shards in hand, lost ones included.
    lost: had been alive and have no place now. ended: the stage has nothing left to do. queued: shards nobody has taken yet.
    starved: all are idle, since replicas hold every CPU and nothing can be read. first: no other run was here before.
    """

    alive: int
    starting: int
    active: int
    lost: int
    queued: int
    ended: bool
    starved: bool = False
    first: bool = False


@dataclass
class Watched:
    """What is made of the pool's states, one after the other."""

    capacity_wait: CapacityWait
    clock: Callable[[], float] = time.monotonic
    _stuck_since: float | None = field(default=None, init=False)
    _starved_since: float | None = field(default=None, init=False)

    def look(self, state: PoolState) -> None:
        """Raises ReplicasLostError, StarvedError, and what CapacityWait raises."""
        if state.ended or state.alive or state.starting:
            self.capacity_wait.end()
        else:
            self.capacity_wait.wait()
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
        """When something that is true now became true."""
        return (self.clock() if since is None else since) if true else None

    def _lasts(self, since: float | None, seconds: float) -> bool:
        return since is not None and self.clock() - since >= seconds


_WATCHED: dict[str, Watched] = {}


class PoolWatch(ExecutionCallback):
    """Ray Data's hook. Workers get a copy of the context that names it, so it holds a key and the driver has the rest."""

    def __init__(self, key: str) -> None:
        self._watched = _WATCHED.get(key)
        self._next_look = 0.0

    def on_execution_step(self, executor: Any) -> None:
        """Look at the pool now and then."""
        now = time.monotonic()
        if self._watched is not None and now >= self._next_look:
            self._next_look = now + GLANCE
            for operator, queues in executor._topology.items():
                if operator.get_autoscaling_actor_pools():
                    self._watched.look(pool_state(operator, queued=queues.total_enqueued_input_blocks()))


@contextmanager
def watching(capacity_wait: CapacityWait) -> Iterator[Callable[[], PoolWatch]]:
    """A callback class for `DataContext.custom_execution_callback_classes` that watches by this capacity_wait."""
    key = uuid.uuid4().hex
    _WATCHED[key] = Watched(capacity_wait)
    try:
        yield partial(PoolWatch, key)
    finally:
        del _WATCHED[key]


def pool_state(operator: Any, *, queued: int) -> PoolState:
    """The state of an actor stage's pool. Ray is asked about actors and nodes only while none is alive, or all are idle."""
    pool = operator.get_autoscaling_actor_pools()[0]
    lost = pool.num_restarting_actors()
    alive = pool.num_running_actors() - lost
    active = pool.num_active_actors()
    ended = operator.has_completed()
    starved = alive > 0 and active == 0 and not ended and nothing_left_to_read_with()
    return PoolState(
        alive=alive,
        starting=0 if alive else _placed_actors(),
        active=active,
        lost=lost,
        queued=queued,
        ended=ended,
        starved=starved,
        first=starved and first_of_all(CLASS_NAME),
    )
