"""Everything that reads Ray's private state: nodes, actors, autoscaler. No other file may."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated import autoscaler_pb2, common_pb2, gcs_pb2

from pipeline.cluster.nodes import ACCELERATOR, UNLIMITED, NodeKind, Nodes, Request

BOOTSTRAP_FILE = "ray_bootstrap_config.yaml"
"""What `ray up` leaves in the home folder of the head node, where a submitted driver runs."""


AUTOSCALING_STATUS = b"__autoscaling_status"


STATIC_NODE_PREFIX = "node_"
"""Under a cluster that does not grow, Ray's monitor reports every node as a type of its own with this name."""


def nodes_of_ray(*, home: Path) -> Nodes:
    """The nodes of the Ray that this process is connected to. home: where `ray up` may have left its file."""
    up, config = kinds_up(ray.nodes()), _file_of_ray_up(home / BOOTSTRAP_FILE)
    if told := _told_by_ray():
        return Nodes(up=up, to_come=told, grows=True)
    if config and (told := kinds_of_config(config)):
        return Nodes(up=up, to_come=told, grows=True, most=int(config.get("max_workers", UNLIMITED)))
    return Nodes(up=up, grows=autoscaler_at_work())


NOSET_VARIABLE = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"
"""With it Ray leaves CUDA_VISIBLE_DEVICES alone, and every worker of a node would take its first GPU."""


def assigned_gpus() -> list[str] | None:
    """The GPUs that Ray gave this worker, where Ray was told not to say so in CUDA_VISIBLE_DEVICES; else None."""
    if os.environ.get(NOSET_VARIABLE, "").lower() not in ("1", "true") or not ray.is_initialized():
        return None
    return [str(one) for one in ray.get_runtime_context().get_accelerator_ids().get("GPU", [])]


def kinds_up(nodes: Iterable[Mapping[str, Any]]) -> list[NodeKind]:
    """Nodes that are alive, those with the same resources and labels together."""
    found: dict[str, NodeKind] = {}
    for node in nodes:
        if not node["Alive"]:
            continue
        resources = {
            name: amount for name, amount in node["Resources"].items() if name in ("CPU", "GPU") or ACCELERATOR in name
        }
        labels = {key: value for key, value in (node.get("Labels") or {}).items() if key != "ray.io/node-id"}
        key = json.dumps([resources, labels], sort_keys=True)
        name = found[key].name if key in found else labels.get("ray.io/node-group") or "node"
        count = found[key].count + 1 if key in found else 1
        found[key] = NodeKind(name=name, resources=resources, labels=labels, count=count)
    return list(found.values())


def _told_by_ray() -> list[NodeKind]:
    """Node types as Ray's own state has them, where its autoscaler reports them there."""
    config = ray._private.state.state.get_cluster_config()
    groups = config.node_group_configs if config else ()
    return [
        NodeKind(
            name=group.name,
            resources=dict(group.resources),
            labels=dict(getattr(group, "labels", {})),
            count=UNLIMITED if group.max_count < 0 else group.max_count,
        )
        for group in groups
        if group.resources and group.max_count != 0
    ]


def _file_of_ray_up(path: Path) -> dict[str, Any] | None:
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    return config if isinstance(config, dict) else None


def kinds_of_config(config: Mapping[str, Any]) -> list[NodeKind]:
    """The node types of a cluster file, each with the most nodes that it may have; the head's own is left out."""
    most = int(config.get("max_workers", UNLIMITED))
    return [
        NodeKind(
            name=name,
            resources={key: float(amount) for key, amount in (kind.get("resources") or {}).items()},
            labels=dict(kind.get("labels") or {}),
            count=min(int(kind.get("max_workers", most)), most),
        )
        for name, kind in config.get("available_node_types", {}).items()
        if name != config.get("head_node_type") and kind.get("max_workers", most) != 0
    ]


def autoscaler_at_work() -> bool:
    """Whether anything could start further nodes: an autoscaler with node types of its own, in either of its versions.

    The second one reports what it knows some seconds after the head is up, which on Kubernetes a driver may be before; that it
    is to come, the head knows from its start.
    """
    if is_autoscaler_v2(fetch_from_server=True, gcs_client=_gcs_client()):
        return True
    status = json.loads(_gcs_client().internal_kv_get(AUTOSCALING_STATUS, None) or b"{}").get("autoscaler_report") or {}
    types = {*(status.get("node_type_mapping") or {}).values(), *(status.get("active_nodes") or {})}
    reply = _cluster_status()
    if reply.HasField("autoscaling_state"):
        types |= {node.ray_node_type_name for node in reply.cluster_resource_state.node_states}
    return any(name and not name.startswith(STATIC_NODE_PREFIX) for name in types)


def infeasible_requests() -> list[Request]:
    """Requests, of whomever, that the autoscaler says no node type of its can ever meet (its second version says so)."""
    return infeasible_of(_cluster_status())


def infeasible_of(reply: Any) -> list[Request]:
    """The same, of a status."""
    return [
        Request.of(
            resources=request.resources_bundle,
            labels=[
                (part.label_key, part.operator == common_pb2.LABEL_OPERATOR_NOT_IN, part.label_values)  # type: ignore[attr-defined]
                for selector in request.label_selectors
                for part in selector.label_constraints
            ],
        )
        for request in reply.autoscaling_state.infeasible_resource_requests
    ]


def _cluster_status() -> Any:
    """Ray's `GetClusterStatusReply`; the class is made at run time, so that nothing is known of its type before."""
    reply_class: Any = autoscaler_pb2.GetClusterStatusReply  # type: ignore[attr-defined]
    return reply_class.FromString(_gcs_client().get_cluster_status())


def _gcs_client() -> Any:
    """This driver's own; Ray's global one is lost when any other cluster that the process made is shut down."""
    worker: Any = ray._private.worker.global_worker
    return worker.gcs_client


# The class is made at run time, so that nothing is known of its type before.
ActorTableData: Any = gcs_pb2.ActorTableData  # type: ignore[attr-defined]


def _actors() -> list[Any]:
    accessor = ray._private.state.state._connect_and_get_accessor()
    return [ActorTableData.FromString(row) for row in accessor.get_actor_table(None, None)]


def free_nodes(nodes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Nodes as Ray tells them, with what is free of their resources instead of all."""
    available = ray._private.state.available_resources_per_node()
    return [{**node, "Resources": available.get(node["NodeID"], {})} for node in nodes if node["Alive"]]


CLASS_NAME = "MapWorker("


def _placed_actors() -> int:
    """Replicas of this driver that have a process on a living node and are not ready yet.

    An address is no sign of a place: an actor that waits in a node's queue has that node's.
    """
    job = ray.get_runtime_context().get_job_id()
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return sum(
        actor["JobID"] == job
        and actor["ActorClassName"].startswith(CLASS_NAME)
        and actor["State"] in ("PENDING_CREATION", "RESTARTING")
        and actor["Pid"] != 0
        and actor["Address"]["NodeID"] in alive
        for actor in ray._private.state.actors().values()
    )
