"""What all runs on one cluster hold of it in; whether they wait for each other for ever, and the room that is left, out.

Each run leaves CPUs to read and write with (`pipeline.cluster`), and knows nothing of the others: the replicas of two runs may
hold every CPU between them, so that none can read. Then the younger one gives its replicas back and waits for room.
"""

import time
from dataclasses import replace
from pathlib import Path

import ray

from pipeline.cluster.capacity_wait import CapacityWait, Notify
from pipeline.cluster.nodes import Nodes
from pipeline.cluster.placement import READ_CPUS, Placement
from pipeline.cluster.ray_state import ActorTableData, _actors, free_nodes, kinds_up, nodes_of_ray

POLL = 1.0
"""Seconds between two looks for room."""
SETTLING = 5.0
"""Seconds that the others get to take up work again before a run that gave way looks for room."""
SAME_AMOUNT = 1e-2


def nothing_left_to_read_with() -> bool:
    """Whether replicas and other actors hold so much that no task of ours can run, and no task runs that would give CPUs back."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    free = [node["Resources"].get("CPU", 0.0) for node in free_nodes(nodes)]
    if max(free, default=0.0) >= READ_CPUS:
        return False
    used = sum(node["Resources"].get("CPU", 0.0) for node in nodes) - sum(free)
    held = sum(actor.required_resources.get("CPU", 0.0) for actor in _actors() if actor.state == ActorTableData.ALIVE)
    return used <= held + SAME_AMOUNT


def first_of_all(class_name: str) -> bool:
    """Whether this driver came before all others that have actors of this class alive."""
    mine = _number(bytes.fromhex(ray.get_runtime_context().get_job_id()))
    return all(
        _number(actor.job_id) >= mine
        for actor in _actors()
        if actor.state == ActorTableData.ALIVE and actor.class_name.startswith(class_name)
    )


def _number(job_id: bytes) -> int:
    """Jobs are numbered as they come."""
    return int.from_bytes(job_id, "little")


def room_now() -> Nodes:
    """The nodes with what is free on them, less what reading takes."""
    return Nodes(up=kinds_up(free_nodes(ray.nodes()))).less(lambda _: READ_CPUS)


def refitted(placement: Placement) -> Placement:
    """The placement on the nodes that are left; what may still come is not waited for."""
    return _fitted(placement, places=max(1, nodes_of_ray(home=Path.home()).places_now(placement.demand)))


def when_there_is_room(placement: Placement, *, say: Notify) -> Placement:
    """The placement on what others leave free, as soon as that is enough for a replica. Raises ResourceError, as CapacityWait."""
    capacity_wait = CapacityWait(
        demand=placement.demand, seconds=placement.wait, say=say, look=lambda: nodes_of_ray(home=Path.home())
    )
    time.sleep(SETTLING)
    while not (places := room_now().places_now(placement.demand)):
        capacity_wait.wait()
        time.sleep(POLL)
    return _fitted(placement, places=places)


def _fitted(placement: Placement, *, places: int) -> Placement:
    smallest = min(placement.smallest, places)
    return replace(placement, smallest=smallest, initial=min(max(smallest, places), placement.largest))
