"""A Ray of several nodes on this machine, and the processes of it that a storm may hit.

Only descendants of this cluster's raylets are found, and the raylets of its worker nodes.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray._private import services, utils
from ray.cluster_utils import Cluster as RayCluster

STORE_BYTES = 80_000_000
"""Object store of a node: Ray's least."""
ENVIRONMENT = {
    # A node that is lost or stopped is noticed within twenty seconds; a busy machine is no lost node.
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "5",
    # A raylet of a busy machine may take a minute to start.
    "RAY_raylet_start_wait_time_s": "240",
    # Workers start when there is something for them to do.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}
AGENTS = ("dashboard_agent", "runtime_env_agent")
"""What Ray calls the processes beside a raylet."""
IDLE_AGENT = (sys.executable, "-S", "-E", str(Path(__file__).with_name("idle_agent.py")))
ROW_WORKERS = ("Read", "encode", "finish", "Map(")
"""What is in the names of workers that read or write rows."""


@contextmanager
def ray_nodes(*, workers: int, cpus: int) -> Iterator[RayCluster]:
    """A Ray of its own: a head, and nodes that may be lost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        usual = services._build_python_executable_command_memory_profileable

        def command(kind: str, *arguments: Any, **options: Any) -> list[str]:
            return [*IDLE_AGENT, kind] if kind in AGENTS else list(usual(kind, *arguments, **options))

        patch.setattr(services, "_build_python_executable_command_memory_profileable", command)
        # The head's own process of the dashboard stays, and imports little: Ray takes its libraries for missing.
        patch.setattr(utils, "get_dashboard_dependency_error", lambda: ImportError("not wanted here"))
        cluster = RayCluster()
        try:
            head = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
            cluster.add_node(object_store_memory=STORE_BYTES, num_cpus=1, **head)
            for _ in range(workers):
                cluster.add_node(object_store_memory=STORE_BYTES, num_cpus=cpus)
            yield cluster
        finally:
            cluster.shutdown()


@dataclass(frozen=True)
class Process:
    """One of this machine's processes. command: its words."""

    pid: int
    parent: int
    command: str


def processes() -> dict[int, Process]:
    """Every process of this machine that lives."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    found[int(entry.name)] = Process(int(entry.name), int(parent), command)
    return found


def has_raylet(node: Any) -> bool:
    """Whether a node has come up, and was not taken away."""
    return bool(node.all_processes.get("raylet"))


def nodes_of(cluster: RayCluster) -> list[Any]:
    """The nodes that may be lost."""
    return [node for node in cluster.list_all_nodes() if not node.head and has_raylet(node)]


def raylet_of(node: Any) -> int:
    """The process id of a node's raylet."""
    return int(node.all_processes["raylet"][0].process.pid)


def below(pid: int) -> list[int]:
    """A process and all that it has started, and theirs."""
    found, family = processes(), [pid]
    for parent in family:  # it grows meanwhile
        family += [each.pid for each in found.values() if each.parent == parent]
    return family


def workers(cluster: RayCluster, kind: str) -> list[int]:
    """Process ids of a kind: child, replica, or worker, which reads or writes rows."""
    found = processes()
    raylets = {raylet_of(node) for node in cluster.list_all_nodes() if has_raylet(node)}
    ours = {each.pid: each for each in found.values() if each.parent in raylets and each.command.startswith("ray::")}
    if kind == "child":
        return [each.pid for each in found.values() if each.parent in ours and "inference.child" in each.command]
    if kind == "replica":
        return [pid for pid, each in ours.items() if "Replica" in each.command]
    return [pid for pid, each in ours.items() if any(word in each.command for word in ROW_WORKERS)]


def is_alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def signalled(pids: list[int], number: int) -> int:
    """Send a signal to each; how many got it."""
    count = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            count += 1
    return count
