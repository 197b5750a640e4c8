"""Everything that reads Ray's private state: nodes to come, actors, replica pools. No other file may (tests/test_house.py).

Ray promises nothing about these modules between its versions. They are known to work with Ray OLDEST to NEWEST. With another
version one line says so; what this Ray does not have is reported once, and is None (unknown) to the caller, never a guess.
"""

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import ray
import yaml

from pipeline.cluster.nodes import ACCELERATOR, UNLIMITED, NodeKind, Nodes, Request, kinds_of_config

OLDEST, NEWEST = (2, 55), (2, 60)
"""The Ray versions whose private state is known: tests/pipeline/cluster/ pass with both."""

BOOTSTRAP_FILE = "ray_bootstrap_config.yaml"
"""What `ray up` leaves in the home folder of the head node, where a submitted driver runs."""

AUTOSCALING_STATUS = b"__autoscaling_status"

STATIC_NODE_PREFIX = "node_"
"""On a cluster that does not grow, Ray's monitor reports every node as a type of its own with this name."""

NOSET_VARIABLE = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"
"""With it Ray leaves CUDA_VISIBLE_DEVICES alone, and every worker of a node would take its first GPU."""

UPLOAD_LOGGER = "ray._private.runtime_env.packaging"
"""Reports each upload of code."""

REPLICA_CLASS = "MapWorker("
"""How the class names of Ray Data's actors begin."""

DIFFERS = (ImportError, AttributeError, KeyError, TypeError, ValueError)
"""What reading state raises in a Ray that has it elsewhere, in another form, or not at all."""

Value = TypeVar("Value")
_reported: set[str] = set()


def check_version() -> None:
    """Report, once, a Ray whose private state was never tested."""
    if not OLDEST <= _version() <= NEWEST:
        _report(f"preln is tested with Ray {_tested()}; this is Ray {ray.__version__}, of which it may know less")


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in ray.__version__.split(".")[:2])


def _tested() -> str:
    return " to ".join(".".join(map(str, version)) for version in (OLDEST, NEWEST))


def _report(message: str) -> None:
    if message not in _reported:
        _reported.add(message)
        logging.getLogger("preln").warning(message)


def _known(what: str, read: Callable[[], Value]) -> Value | None:
    """What `read` returns; None, and one line that `what` is unknown, if this Ray does not have what it reads."""
    check_version()
    try:
        return read()
    except DIFFERS as error:
        _report(
            f"unknown with Ray {ray.__version__}: {what} ({type(error).__name__}: {error}); tested with {_tested()}"
        )
        return None


# Nodes


def nodes_of_ray(*, home: Path) -> Nodes:
    """The nodes of the Ray that this process is connected to. home: where `ray up` may have left its file.

    `grows` is None if this Ray does not tell whether an autoscaler is at work.
    """
    up, config = kinds_up(ray.nodes()), _file_of_ray_up(home / BOOTSTRAP_FILE)
    if kinds := _known("which node types the autoscaler may start", _configured_kinds):
        return Nodes(up=up, to_come=kinds, grows=True)
    if config and (kinds := kinds_of_config(config)):
        return Nodes(up=up, to_come=kinds, grows=True, most=int(config.get("max_workers", UNLIMITED)))
    return Nodes(up=up, grows=autoscaler_at_work())


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


def _configured_kinds() -> list[NodeKind]:
    """Node types as Ray's own state has them, if its autoscaler reports them there."""
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


def free_nodes() -> list[dict[str, Any]] | None:
    """The living nodes as `ray.nodes` has them, with only what is free of their resources; None if unknown."""
    available = _known("what is free on each node", lambda: dict(ray._private.state.available_resources_per_node()))
    if available is None:
        return None
    return [{**node, "Resources": available.get(node["NodeID"], {})} for node in ray.nodes() if node["Alive"]]


def assigned_gpus() -> list[str] | None:
    """The GPUs that Ray gave this worker, if Ray was asked not to put them into CUDA_VISIBLE_DEVICES; else None."""
    if os.environ.get(NOSET_VARIABLE, "").lower() not in ("1", "true") or not ray.is_initialized():
        return None
    return [str(gpu) for gpu in ray.get_runtime_context().get_accelerator_ids().get("GPU", [])]


# The autoscaler


def autoscaler_at_work() -> bool | None:
    """Whether anything could start further nodes: an autoscaler with node types of its own, in either of its versions.

    The second version reports its node types some seconds after the head is up, and on Kubernetes a driver may be faster; but
    the head knows from its start that this version runs. None if unknown.
    """
    return _known("whether an autoscaler may start nodes", _autoscaler_at_work)


def _autoscaler_at_work() -> bool:
    from ray.autoscaler.v2.utils import is_autoscaler_v2

    if is_autoscaler_v2(fetch_from_server=True, gcs_client=_gcs_client()):
        return True
    status = json.loads(_gcs_client().internal_kv_get(AUTOSCALING_STATUS, None) or b"{}").get("autoscaler_report") or {}
    types = {*(status.get("node_type_mapping") or {}).values(), *(status.get("active_nodes") or {})}
    reply = _cluster_status()
    if reply.HasField("autoscaling_state"):
        types |= {node.ray_node_type_name for node in reply.cluster_resource_state.node_states}
    return any(name and not name.startswith(STATIC_NODE_PREFIX) for name in types)


def infeasible_requests() -> list[Request] | None:
    """Requests, of any job, that the autoscaler (in its second version) says no node type can ever meet; None if unknown."""
    return _known("which requests the autoscaler can never meet", lambda: infeasible_of(_cluster_status()))


def infeasible_of(reply: Any) -> list[Request]:
    """The infeasible requests of a status reply."""
    from ray.core.generated import common_pb2

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
    """Ray's `GetClusterStatusReply`, a class made at run time, so that its type is not known to mypy."""
    from ray.core.generated import autoscaler_pb2

    reply_class: Any = autoscaler_pb2.GetClusterStatusReply  # type: ignore[attr-defined]
    return reply_class.FromString(_gcs_client().get_cluster_status())


def _gcs_client() -> Any:
    """This driver's own; Ray's global one is lost when any other cluster that the process made is shut down."""
    worker: Any = ray._private.worker.global_worker
    return worker.gcs_client


# Tasks


def task_attempts() -> int | None:
    """How often the current task was attempted before, because its process or its node was lost; None outside a task, or if
    unknown."""
    if not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return None
    return _known("how often a task was attempted", _task_attempts)


def _task_attempts() -> int:
    worker: Any = ray._private.worker.global_worker
    return int(worker.core_worker.get_current_task_attempt_number())


# Actors


@dataclass(frozen=True)
class Actor:
    """A living actor of any job. job: the number of its job; jobs are numbered in the order of their start."""

    class_name: str
    job: int
    cpus: float


def alive_actors() -> list[Actor] | None:
    """All living actors of the cluster; None if unknown."""
    return _known("which actors are alive", _alive_actors)


def _alive_actors() -> list[Actor]:
    from ray.core.generated import gcs_pb2

    table: Any = gcs_pb2.ActorTableData  # type: ignore[attr-defined]  # made at run time
    accessor = ray._private.state.state._connect_and_get_accessor()
    actors = [table.FromString(row) for row in accessor.get_actor_table(None, None)]
    return [
        Actor(
            class_name=actor.class_name,
            job=_job_number(actor.job_id),
            cpus=actor.required_resources.get("CPU", 0.0),
        )
        for actor in actors
        if actor.state == table.ALIVE
    ]


def this_job() -> int:
    """The number of this driver's job."""
    return _job_number(bytes.fromhex(ray.get_runtime_context().get_job_id()))


def _job_number(job_id: bytes) -> int:
    return int.from_bytes(job_id, "little")


def placed_replicas() -> int | None:
    """Replicas of this driver that have a process on a living node and are not ready yet; None if unknown."""
    return _known("whether a replica that is not ready has a node", _placed_replicas)


def _placed_replicas() -> int:
    job = ray.get_runtime_context().get_job_id()
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    return sum(
        actor["JobID"] == job
        and actor["ActorClassName"].startswith(REPLICA_CLASS)
        and actor["State"] in ("PENDING_CREATION", "RESTARTING")
        # An address alone proves nothing: an actor that waits in a node's queue has that node's.
        and actor["Pid"] != 0
        and actor["Address"]["NodeID"] in alive
        for actor in ray._private.state.actors().values()
    )


# News of workers

NEWS = b"preln"
"""The namespace of what replicas publish, in the head's key-value store."""
AWAY = 5.0
"""Seconds after which the head counts as away."""


def publish(key: str, value: str) -> None:
    """Put a worker's news where its driver finds it; nothing happens without Ray, or while its head does not answer."""
    _of_the_head(lambda head: head.internal_kv_put(key.encode(), value.encode(), True, NEWS, timeout=AWAY))


def published(prefix: str) -> dict[str, bytes]:
    """The news below a prefix, by key; none while the head does not answer."""

    def read(head: Any) -> dict[str, bytes]:
        keys = list(head.internal_kv_keys(prefix.encode(), NEWS, timeout=AWAY))
        found = head.internal_kv_multi_get(keys, NEWS, timeout=AWAY) if keys else {}
        return {key.decode(): value for key, value in found.items()}

    return _of_the_head(read) or {}


def forget_published(prefix: str) -> None:
    """Delete the news below a prefix."""
    _of_the_head(lambda head: head.internal_kv_del(prefix.encode(), True, NEWS, timeout=AWAY))


def _of_the_head(ask: Callable[[Any], Value]) -> Value | None:
    try:
        return _known("what replicas are doing", lambda: ask(_gcs_client())) if ray.is_initialized() else None
    except Exception:  # Ray has no one class for a head that is away, and the run itself will say so
        return None


# A running Dataset


@dataclass(frozen=True)
class ActorPool:
    """The actors of one stage of a running Dataset.

    running: those that were ready once, restarting ones included. active: those with work. queued: blocks that no actor has
    yet. ended: the stage has nothing left to do.
    """

    running: int
    restarting: int
    active: int
    queued: int
    ended: bool


def actor_pools(executor: Any) -> list[ActorPool] | None:
    """The pools of a running Dataset, from the executor that Ray Data passes to its callbacks; None if unknown."""
    return _known("how the replicas of this run are", lambda: list(_actor_pools(executor)))


def _actor_pools(executor: Any) -> Iterable[ActorPool]:
    for operator, queues in executor._topology.items():
        for pool in operator.get_autoscaling_actor_pools()[:1]:
            yield ActorPool(
                running=pool.num_running_actors(),
                restarting=pool.num_restarting_actors(),
                active=pool.num_active_actors(),
                queued=queues.total_enqueued_input_blocks(),
                ended=operator.has_completed(),
            )


def call_at_each_step(context: Any, step: Callable[[Any], None]) -> None:
    """Let Ray Data call `step(executor)` at every step of a Dataset's loop; without such a hook the run is not watched.

    context: the DataContext of the Dataset. step: must be picklable, since workers get a copy of the context.
    """

    def add() -> None:
        from ray.data._internal.execution.execution_callback import ExecutionCallback  # noqa: F401

        # Ray only calls what is in this list, so a partly applied function does as well as a class.
        context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, partial(_hook, step)]

    _known("whether replicas of this run are lost or find no node", add)


def _hook(step: Callable[[Any], None]) -> Any:
    """An object of Ray Data's own callback class, which also answers the calls that a later Ray may add."""
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    hook: Any = ExecutionCallback()
    hook.on_execution_step = step
    return hook


def silence_worker_output() -> None:
    """Keep Ray from printing the traceback of an actor that can't start, which it does at every try at any log level."""
    worker: Any = getattr(getattr(ray, "_private", None), "worker", None)
    if hasattr(worker, "print_to_stdstream"):
        worker.print_to_stdstream = _print_nothing
    else:
        check_version()
        _report(f"Ray {ray.__version__} may print tracebacks of its workers between preln's messages")


def _print_nothing(*_: object, **__: object) -> None:
    """Errors are raised as exceptions and printed in one line."""
