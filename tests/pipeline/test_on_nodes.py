"""Real Rays of several nodes on this machine in; proof that replicas follow the nodes, and survive their leaving, out."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import pyarrow.dataset as ds
import pytest
from ray.cluster_utils import Cluster as RayCluster

from pipeline.spec import JobSpec
from pipeline.status import read_status
from tests.pipeline.small import CHECKPOINT

pytestmark = [pytest.mark.ray, pytest.mark.timeout(150)]

STORE_BYTES = 80_000_000
"""Object store of a node: Ray's least."""
PATIENCE = 100.0
"""Seconds after which a test gives up."""


@contextmanager
def nodes(ray_environment: Path, head: dict[str, Any], *workers: dict[str, Any]) -> Iterator[RayCluster]:
    """A Ray of its own, with raylets for nodes; the head has no dashboard."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_raylet_heartbeat_period_milliseconds", "100")
        cluster = RayCluster()
        try:
            cluster.add_node(object_store_memory=STORE_BYTES, include_dashboard=False, **head)
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
        return [told for told in self.events if told["event"] == event]

    def wait_for(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """What it told of a kind, as soon as there is enough of it."""
        deadline = time.monotonic() + PATIENCE
        while len(self.of(event)) < count and time.monotonic() < deadline and self.process.poll() is None:
            time.sleep(0.05)
        found = self.of(event)
        assert len(found) >= count, self.events[-5:]
        return found

    def replicas(self) -> set[float]:
        """Process ids of the replicas that have answered something."""
        return {told["replica"] for told in self.of("committed")}

    def wait_for_replicas(self, count: int) -> None:
        """Return as soon as so many replicas have answered something."""
        deadline = time.monotonic() + PATIENCE
        while len(self.replicas()) < count and time.monotonic() < deadline and self.process.poll() is None:
            time.sleep(0.05)
        assert len(self.replicas()) == count, self.events[-5:]

    def end(self) -> dict[str, Any]:
        """How it ended."""
        self.process.wait(PATIENCE)
        time.sleep(0.2)
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


def whole(folder: Path, shards: int) -> bool:
    """Whether every row is there once, answered."""
    table = ds.dataset(folder / "out/data").to_table(columns=["source", "row", "label"])
    keys = set(zip(table["source"].to_pylist(), table["row"].to_pylist(), strict=True))
    return len(keys) == table.num_rows == 4 * shards and table["label"].null_count == 0


def test_there_is_a_replica_a_gpu_on_unlike_nodes_and_a_run_outlives_the_loss_of_a_node(
    ray_environment: Path, repository: Path, tmp_path: Path
) -> None:
    job = sleepy_job(tmp_path, shards=60, nap=0.4)
    gpus = {"num_cpus": 2, "num_gpus": 2}, {"num_cpus": 1, "num_gpus": 1}
    with (
        nodes(ray_environment, {"num_cpus": 1}, *gpus) as cluster,
        driver(cluster, job, tmp_path, repository) as running,
    ):
        running.wait_for_replicas(3)
        cluster.remove_node(cluster.list_all_nodes()[-2])  # the larger one
        ended = running.end()
    assert ended["state"] == "done", ended
    assert whole(tmp_path, 60)
    assert read_status(str(tmp_path / "out")).complete
