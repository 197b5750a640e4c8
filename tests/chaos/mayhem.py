"""Runs a job to its end on a multi-node Ray while model processes, workers, replicas, raylets, nodes and drivers are killed or
stopped (SIGSTOP). What is stopped goes on after some seconds, but for a model process, which its supervisor must notice.

Only descendants of this cluster's raylets are hit, and the drivers that were started here.
"""

import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster as RayCluster

from pipeline.spec.job_spec import JobSpec

STORE_BYTES = 80_000_000
"""Object store of a node: Ray's least."""
KINDS = {
    "kill child": 0.2,
    "stop child": 0.1,
    "kill worker": 0.15,
    "stop worker": 0.1,
    "kill replica": 0.1,
    "stop replica": 0.07,
    "kill raylet": 0.05,
    "stop raylet": 0.05,
    "kill driver": 0.1,
    "stop driver": 0.04,
    "kill node": 0.04,
}
"""What is hit, and how often each."""
STOPPED_SECONDS = (1.0, 8.0)
"""How long something stays stopped: less than the health check of a node takes, and the stall limit of a job."""
STUCK_SECONDS = 60.0
"""A driver that says nothing for so long hangs, which nothing may do."""
ENDED_WELL = (0, 3)


@contextmanager
def ray_nodes(*, workers: int, cpus: int) -> Iterator[RayCluster]:
    """A Ray of its own: a head, and nodes that may be lost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
        # A lost node is noticed within five seconds; a busy machine is no lost node.
        patch.setenv("RAY_health_check_period_ms", "1000")
        cluster = RayCluster()
        try:
            cluster.add_node(object_store_memory=STORE_BYTES, include_dashboard=False, num_cpus=1)
            for _ in range(workers):
                cluster.add_node(object_store_memory=STORE_BYTES, num_cpus=cpus)
            yield cluster
        finally:
            cluster.shutdown()


def processes() -> dict[int, tuple[int, str]]:
    """Every process of this machine: its parent and its command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                found[int(entry.name)] = (parent, command)
    return found


def raylets(cluster: RayCluster) -> set[int]:
    """Process ids of the cluster's raylets."""
    return {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}


def workers(cluster: RayCluster) -> list[int]:
    """Ray's worker processes."""
    parents = raylets(cluster)
    return [pid for pid, (parent, command) in processes().items() if parent in parents and command.startswith("ray::")]


def replicas(cluster: RayCluster) -> list[int]:
    """Ray's workers that hold a replica."""
    found = processes()
    return [pid for pid in workers(cluster) if "Replica" in found.get(pid, (0, ""))[1]]


def row_workers(cluster: RayCluster) -> list[int]:
    """Ray's workers that read or write rows."""
    found = processes()
    return [pid for pid in workers(cluster) if any(word in found.get(pid, (0, ""))[1] for word in ROW_WORKERS)]


ROW_WORKERS = ("Read", "encode", "finish", "Map(")
"""What is in their names."""


def children(cluster: RayCluster) -> list[int]:
    """Processes that hold a model."""
    of = set(workers(cluster))
    return [
        pid for pid, (parent, command) in processes().items() if parent in of and "pipeline.inference.child" in command
    ]


@dataclass
class Driver:
    """A driver process; what it tells goes into a queue."""

    process: subprocess.Popen[str]
    events: "queue.Queue[dict[str, Any]]"
    last_word: float = field(default_factory=time.monotonic)
    reader: threading.Thread | None = None

    @classmethod
    def start(cls, cluster: RayCluster, job_file: Path) -> "Driver":
        """A new one on the cluster."""
        repository = Path(__file__).resolve().parents[2]
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.driver", str(job_file)],
            cwd=repository,
            env={**os.environ, "RAY_ADDRESS": cluster.address, "PYTHONPATH": str(repository)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        driver = cls(process, queue.Queue())
        driver.reader = threading.Thread(target=driver._read, daemon=True)
        driver.reader.start()
        return driver

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.last_word = time.monotonic()
            self.events.put(json.loads(line) if line.startswith('{"event"') else {"event": "said", "words": line})

    def kill(self) -> None:
        """SIGKILL, and what it told until then is read."""
        self.process.kill()
        self.process.wait()
        if self.reader is not None:
            self.reader.join(5)
        if self.process.stdout is not None:
            self.process.stdout.close()


@dataclass
class Mayhem:
    """Kills until a job is done all the same.

    seed: decides what is killed when. pause: mean seconds between kills. drivers: how many run the job at once. kills, starts,
    hangs: what happened. words: the last of what drivers said besides.
    """

    cluster: RayCluster
    seed: int
    pause: float
    cpus: int
    drivers: int = 1
    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    hangs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._stopped: list[tuple[float, int]] = []

    def annotate(self, job: JobSpec, folder: Path, *, deadline: float, kill_until: float) -> None:
        """Start drivers, each again until it ends well. Raises TimeoutError."""
        file = folder / f"job-{self.seed}.yaml"
        file.write_text(job.to_yaml())
        running = [self._start(file) for _ in range(self.drivers)]
        next_kill = time.monotonic() + self._random.expovariate(1 / self.pause)
        try:
            while running:
                now = time.monotonic()
                if now > deadline:
                    raise TimeoutError(f"not done by its deadline: {self.report()} {''.join(self.words[-20:])}")
                if next_kill < now < kill_until:
                    self.hit(self._random.choice(running))
                    next_kill = now + self._random.expovariate(1 / self.pause)
                self._let_go(before=now)
                running = [after for driver in running if (after := self._looked_after(driver, file)) is not None]
                time.sleep(0.05)
        finally:
            self._let_go(before=float("inf"))
            for driver in running:
                driver.kill()

    def _start(self, file: Path) -> Driver:
        self.starts += 1
        return Driver.start(self.cluster, file)

    def _looked_after(self, driver: Driver, file: Path) -> Driver | None:
        """The driver, its successor where it was killed or hangs, or None once it has ended well."""
        if driver.process.poll() is None:
            if time.monotonic() - driver.last_word <= STUCK_SECONDS:
                return driver
            self.hangs += 1
            driver.process.send_signal(signal.SIGUSR1)
            time.sleep(1)
        code = driver.process.poll()
        driver.kill()
        self._listen(driver)
        return None if code in ENDED_WELL else self._start(file)

    def _let_go(self, *, before: float) -> None:
        """What was stopped goes on, if its time is over."""
        for moment, pid in self._stopped:
            if moment <= before:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        self._stopped = [(moment, pid) for moment, pid in self._stopped if moment > before]

    def hit(self, driver: Driver) -> None:
        """One of them, of a random kind; nothing where none of that kind is there."""
        kind = self._random.choices(list(KINDS), weights=list(KINDS.values()))[0]
        deed, _, what = kind.partition(" ")
        nodes = [node for node in self.cluster.list_all_nodes() if not node.head]
        if kind == "kill driver":
            driver.kill()
        elif kind == "kill node" or kind == "kill raylet":
            if not nodes:
                return
            node = self._random.choice(nodes)
            if kind == "kill raylet":  # its workers find out by themselves, and the head by its health check
                with suppress(ProcessLookupError):
                    os.kill(node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
            self.cluster.remove_node(node, allow_graceful=False)
            self._add_node()
        else:
            targets = self._targets(what, driver, nodes)
            if not targets:
                return
            pid = self._random.choice(targets)
            try:
                os.kill(pid, signal.SIGKILL if deed == "kill" else signal.SIGSTOP)
            except ProcessLookupError:
                return
            if deed == "stop" and what != "child":
                self._stopped.append((time.monotonic() + self._random.uniform(*STOPPED_SECONDS), pid))
        self.kills[kind] += 1

    def _add_node(self) -> None:
        """A new node; one that does not come up on a busy machine is tried again at the next loss of a node."""
        for _ in range(2):
            with suppress(Exception):  # Ray has no other class for it
                self.cluster.add_node(object_store_memory=STORE_BYTES, num_cpus=self.cpus, wait=False)
                return

    def _targets(self, what: str, driver: Driver, nodes: list[Any]) -> list[int]:
        """Process ids of a kind."""
        if what == "driver":
            return [driver.process.pid]
        if what == "raylet":
            return [node.all_processes["raylet"][0].process.pid for node in nodes]
        find = {"child": children, "replica": replicas, "worker": row_workers}[what]
        return find(self.cluster)

    def _listen(self, driver: Driver) -> None:
        while not driver.events.empty():
            event = driver.events.get()
            if event["event"] == "ended":
                self.ends[event["state"]] += 1
                self.words += [f"{event}\n"] if event["state"] != "done" else []
            elif event["event"] == "said":
                self.words.append(event["words"])

    def report(self) -> str:
        """In a line."""
        kills = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kills.items()))
        ends = ", ".join(f"{count} {state}" for state, count in sorted(self.ends.items()))
        started = f"{self.starts} drivers started (ended: {ends})"
        return f"{self.kills.total()} kills and stops ({kills}), {started}, {self.hangs} hangs"
