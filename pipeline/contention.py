"""What all runs on one cluster hold of it in; whether they wait for each other for ever, and the room that is left, out.

Each run leaves CPUs to read and write with (`pipeline.cluster`), and knows nothing of the others: the replicas of two runs may
hold every CPU between them, so that none can read. Then the younger one gives its replicas back and waits for room.
"""

import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.core.generated import gcs_pb2

from pipeline.cluster import READ_CPUS, Placement
from pipeline.nodes import Nodes, kinds_up, nodes_of_ray
from pipeline.patience import Patience, Say

POLL = 1.0
"""Seconds between two looks for room."""
SETTLING = 5.0
"""Seconds that the others get to take up work again before a run that gave way looks for room."""
SAME_AMOUNT = 1e-2

# The class is made at run time, so that nothing is known of its type before.
ActorTableData: Any = gcs_pb2.ActorTableData  # type: ignore[attr-defined]


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


def _actors() -> list[Any]:
    accessor = ray._private.state.state._connect_and_get_accessor()
    return [ActorTableData.FromString(row) for row in accessor.get_actor_table(None, None)]


def free_nodes(nodes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Nodes as Ray tells them, with what is free of their resources instead of all."""
    available = ray._private.state.available_resources_per_node()
    return [{**node, "Resources": available.get(node["NodeID"], {})} for node in nodes if node["Alive"]]


def room_now() -> Nodes:
    """The nodes with what is free on them, less what reading takes."""
    return Nodes(up=kinds_up(free_nodes(ray.nodes()))).less(lambda _: READ_CPUS)


def refitted(placement: Placement) -> Placement:
    """The placement on the nodes that are left; what may still come is not waited for."""
    return _fitted(placement, places=max(1, nodes_of_ray(home=Path.home()).places_now(placement.demand)))


def when_there_is_room(placement: Placement, *, say: Say) -> Placement:
    """The placement on what others leave free, as soon as that is enough for a replica. Raises ResourceError, as Patience."""
    patience = Patience(
        demand=placement.demand, seconds=placement.wait, say=say, look=lambda: nodes_of_ray(home=Path.home())
    )
    time.sleep(SETTLING)
    while not (places := room_now().places_now(placement.demand)):
        patience.wait()
        time.sleep(POLL)
    return _fitted(placement, places=places)


def _fitted(placement: Placement, *, places: int) -> Placement:
    smallest = min(placement.smallest, places)
    return replace(placement, smallest=smallest, initial=min(max(smallest, places), placement.largest))
