"""Detects runs on one cluster that block each other, and finds the room that the others leave.

Each run leaves CPUs to read and write with (`pipeline.cluster`) but knows nothing of the others: the replicas of two runs may
hold every CPU between them, so that neither can read. Then the younger run releases its replicas and waits for room.
"""

import time
from dataclasses import replace
from pathlib import Path

import ray

from pipeline.cluster.capacity_wait import CapacityWait, Notify
from pipeline.cluster.nodes import Nodes
from pipeline.cluster.placement import READ_CPUS, Placement
from pipeline.cluster.ray_state import alive_actors, free_nodes, kinds_up, nodes_of_ray, this_job

POLL = 1.0
"""Seconds between two looks for room."""
SETTLING = 5.0
"""Seconds that the others have to resume work before a run that gave way looks for room."""
SAME_AMOUNT = 1e-2


def nothing_left_to_read_with() -> bool:
    """Whether actors hold so many CPUs that no task of ours can run, and no running task will give any back; False if unknown."""
    free_each, actors = free_nodes(), alive_actors()
    if free_each is None or actors is None:
        return False
    free = [node["Resources"].get("CPU", 0.0) for node in free_each]
    if max(free, default=0.0) >= READ_CPUS:
        return False
    used = sum(node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]) - sum(free)
    return used <= sum(actor.cpus for actor in actors) + SAME_AMOUNT


def first_of_all(class_name: str) -> bool:
    """Whether this driver started before all others that have living actors of this class; False if unknown."""
    actors, mine = alive_actors(), this_job()
    return actors is not None and all(actor.job >= mine for actor in actors if actor.class_name.startswith(class_name))


def room_now() -> Nodes | None:
    """The nodes with what is free on them, less what reading takes; None if unknown."""
    free = free_nodes()
    return None if free is None else Nodes(up=kinds_up(free)).less(lambda _: READ_CPUS)


def refitted(placement: Placement) -> Placement:
    """The placement on the nodes that are left, without waiting for nodes that may still come."""
    return _fitted(placement, places=max(1, nodes_of_ray(home=Path.home()).places_now(placement.demand)))


def when_there_is_room(placement: Placement, *, say: Notify) -> Placement:
    """The placement on what others leave free, as soon as a replica fits. Raises ResourceError, as CapacityWait does."""
    capacity_wait = CapacityWait(
        demand=placement.demand, seconds=placement.wait, say=say, look=lambda: nodes_of_ray(home=Path.home())
    )
    time.sleep(SETTLING)
    while not (places := (room := room_now()) and room.places_now(placement.demand)):
        capacity_wait.wait(room_known=room is not None)
        time.sleep(POLL)
    return _fitted(placement, places=places)


def _fitted(placement: Placement, *, places: int) -> Placement:
    smallest = min(placement.smallest, places)
    return replace(placement, smallest=smallest, initial=min(max(smallest, places), placement.largest))
