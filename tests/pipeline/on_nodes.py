"""Starts a real multi-node Ray on this machine, and drivers on it whose output is read as it comes."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow.dataset as ds
import pytest
from ray.cluster_utils import Cluster as RayCluster

from pipeline.spec.job_spec import JobSpec
from tests.pipeline.small import CHECKPOINT

STORE_BYTES = 80_000_000
"""Object store of a node: Ray's least."""
PATIENCE = 120.0
"""Seconds after which a test gives up."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], bool], *, process: subprocess.Popen[str] | None = None) -> None:
    """Return as soon as something is true; fail where it never is, or where a process that should make it so has ended."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        assert process is None or process.poll() is None or true(), f"the process ended with {process.returncode}"
        time.sleep(0.05)


@contextmanager
def nodes(head: dict[str, Any], *workers: dict[str, Any]) -> Iterator[RayCluster]:
    """A Ray of its own, with raylets for nodes; the head has no dashboard unless asked for one."""
    with pytest.MonkeyPatch.context() as patch:
        # `python` in a submitted job is this interpreter; a lost node is noticed soon; metrics are fresh.
        patch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
        patch.setenv("RAY_health_check_period_ms", "500")
        patch.setenv("RAY_health_check_timeout_ms", "2000")
        patch.setenv("RAY_metrics_report_interval_ms", "500")
        cluster = RayCluster()
        try:
            cluster.add_node(object_store_memory=STORE_BYTES, **{"include_dashboard": False, **head})
            for worker in workers:
                cluster.add_node(object_store_memory=STORE_BYTES, **worker)
            yield cluster
        finally:
            cluster.shutdown()


@dataclass
class Driver:
    """A driver process and what it has told so far."""

    process: subprocess.Popen[str]
    events: list[dict[str, Any]] = field(default_factory=list)

    def read(self) -> None:
        """Take what it tells, until it ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line) if line.startswith('{"event') else {"event": "said", "words": line})

    def of(self, event: str) -> list[dict[str, Any]]:
        """What it told of one kind."""
        return [found for found in self.events if found["event"] == event]

    def wait_for(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """What it told of a kind, as soon as there is enough of it."""
        until(lambda: len(self.of(event)) >= count, process=self.process)
        return self.of(event)

    def replicas(self) -> set[float]:
        """Process ids of the replicas that have answered something."""
        return {found["replica"] for found in self.of("committed")}

    def wait_for_replicas(self, count: int) -> None:
        """Return as soon as so many replicas have answered something."""
        until(lambda: len(self.replicas()) >= count, process=self.process)
        assert len(self.replicas()) == count

    def end(self) -> dict[str, Any]:
        """How it ended."""
        self.process.wait(PATIENCE)
        until(lambda: bool(self.of("ended")))
        return self.of("ended")[-1]


@contextmanager
def driver(cluster: RayCluster, job: JobSpec, folder: Path, repository: Path) -> Iterator[Driver]:
    """The job on the cluster, by the model that sleeps."""
    file = folder / "job.yaml"
    file.write_text(job.to_yaml())
    with subprocess.Popen(
        [sys.executable, "-m", "tests.pipeline.sleepy_driver", str(file)],
        cwd=repository,
        env={**os.environ, "RAY_ADDRESS": cluster.address, "PYTHONPATH": str(repository)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        running = Driver(process)
        reader = Thread(target=running.read, daemon=True)
        reader.start()
        try:
            yield running
        finally:
            process.kill()
            process.wait()
            reader.join()


def sleepy_job(folder: Path, *, shards: int, nap: float, **resources: Any) -> JobSpec:
    """A job of so many shards of four rows; a replica sleeps `nap` seconds for each."""
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    for file in Path(CHECKPOINT).iterdir():
        (checkpoint / file.name).symlink_to(file)
    (checkpoint / "nap").write_text(str(nap))
    source = folder / "in"
    source.mkdir()
    for index in range(shards):
        (source / f"{index:04d}.txt").write_text("".join(f"Row {row} of file {index}.\n" for row in range(4)))
    return JobSpec.parse(
        {
            "input": str(source),
            "model": {"checkpoint": str(checkpoint), "dtype": "float32"},
            "task": "text-classification",
            "output": str(folder / "out"),
            "shards": {"rows": 4, "bytes": 100},
            "resources": {"wait": 60, **resources},
        }
    )


def wake(folder: Path, nap: float = 0.02) -> None:
    """Let the model of a sleepy job be quicker from now on."""
    file = folder / "checkpoint/nap"
    file.with_suffix(".new").write_text(str(nap))
    file.with_suffix(".new").replace(file)


def whole(folder: Path, shards: int) -> bool:
    """Whether every row is there once, answered."""
    table = ds.dataset(folder / "out/data").to_table(columns=["source", "row", "label"])
    keys = set(zip(table["source"].to_pylist(), table["row"].to_pylist(), strict=True))
    return len(keys) == table.num_rows == 4 * shards and table["label"].null_count == 0
