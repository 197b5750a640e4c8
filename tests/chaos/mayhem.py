"""Runs a job to its end on a multi-node Ray while model processes, workers, nodes and drivers are killed.

Only descendants of this cluster's raylets are killed, and the drivers that were started here.
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
KINDS = {"child": 0.45, "worker": 0.3, "driver": 0.15, "node": 0.1}
"""What is killed, and how often each."""
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

    seed: decides what is killed when. pause: mean seconds between kills. quiet_after: kills after which it stops, so that
    a job ends. kills, starts, hangs: what happened. words: the last of what drivers said besides.
    """

    cluster: RayCluster
    seed: int
    pause: float
    cpus: int
    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    hangs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def annotate(self, job: JobSpec, folder: Path, *, deadline: float, kill_until: float) -> None:
        """Start drivers until one ends well. Raises TimeoutError."""
        file = folder / f"job-{self.seed}.yaml"
        file.write_text(job.to_yaml())
        while True:
            driver = Driver.start(self.cluster, file)
            self.starts += 1
            try:
                code = self._see_through(driver, deadline=deadline, kill_until=kill_until)
            finally:
                driver.kill()
            self._listen(driver)
            if code in ENDED_WELL:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done by its deadline: {self.report()} {''.join(self.words[-20:])}")

    def _see_through(self, driver: Driver, *, deadline: float, kill_until: float) -> int | None:
        """The driver's exit status, however it came to its end."""
        next_kill = time.monotonic() + self._random.expovariate(1 / self.pause)
        while driver.process.poll() is None:
            now = time.monotonic()
            if now > deadline:
                return None
            if now - driver.last_word > STUCK_SECONDS:
                self.hangs += 1
                driver.process.send_signal(signal.SIGUSR1)
                time.sleep(1)
                return None
            if next_kill < now < kill_until:
                self.kill(driver)
                next_kill = now + self._random.expovariate(1 / self.pause)
            time.sleep(0.05)
        return driver.process.returncode

    def kill(self, driver: Driver) -> None:
        """One of them, of a random kind."""
        kind = self._random.choices(list(KINDS), weights=list(KINDS.values()))[0]
        if kind == "driver":
            driver.kill()
        elif kind == "node":
            nodes = [node for node in self.cluster.list_all_nodes() if not node.head]
            if not nodes:
                return
            self.cluster.remove_node(self._random.choice(nodes), allow_graceful=False)
            self.cluster.add_node(object_store_memory=STORE_BYTES, num_cpus=self.cpus, wait=False)
        else:
            targets = children(self.cluster) if kind == "child" else workers(self.cluster)
            if not targets:
                return
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(targets), signal.SIGKILL)
        self.kills[kind] += 1

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
        return (
            f"{self.kills.total()} kills ({kills}), {self.starts} drivers started (ended: {ends}), {self.hangs} hangs"
        )
