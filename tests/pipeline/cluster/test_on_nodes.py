"""Replicas follow the nodes of a real multi-node Ray, and the run survives losing them."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray.cluster_utils import Cluster as RayCluster

from pipeline.output.status import read_status
from tests.pipeline.on_nodes import STORE_BYTES, driver, nodes, sleepy_job, until, wake, whole

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

HOLD_THE_GPU = """
import sys, time, ray
ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
@ray.remote(num_gpus=1, num_cpus=0)
class Holder:
    def held(self): return True
holder = Holder.remote()
ray.get(holder.held.remote())
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def held_gpu(address: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the cluster's GPU while it lives."""
    words = [sys.executable, "-c", HOLD_THE_GPU, address]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@dataclass
class Growing:
    """A head, a node with a GPU, and a larger node that joins them in the middle of a test."""

    cluster: RayCluster
    larger: Any = None

    def grow(self) -> None:
        """Add the node with two GPUs, unless it is there."""
        if self.larger is None:
            self.larger = self.cluster.add_node(object_store_memory=STORE_BYTES, num_cpus=3, num_gpus=2)


@pytest.fixture(scope="module")
def growing(ray_environment: Path) -> Iterator[Growing]:
    with nodes({"num_cpus": 1}, {"num_cpus": 3, "num_gpus": 1}) as cluster:
        yield Growing(cluster)


def test_replicas_share_a_gpu_start_as_nodes_arrive_and_a_full_cluster_is_waited_for(
    growing: Growing, repository: Path, tmp_path: Path
) -> None:
    """Halves of GPUs: two on a node that somebody else holds at first, and more on one that comes in the middle."""
    job = sleepy_job(tmp_path, shards=50, nap=4.0, gpus=0.5, replicas={"min": 1, "max": 4})
    with (
        held_gpu(growing.cluster.address) as holder,
        driver(growing.cluster, job, tmp_path, repository) as running,
    ):
        waited = running.wait_for("waiting")[0]["words"]
        assert "waiting for a node with room for a replica (0.5 GPU and 1 CPU)" in waited
        assert not running.of("committed")
        holder.kill()
        running.wait_for_replicas(2)
        growing.grow()
        until(lambda: len(running.replicas()) > 2, process=running.process)
        wake(tmp_path)
        assert running.end()["state"] == "done"
    assert whole(tmp_path, 50)


def test_there_is_a_replica_a_gpu_on_unlike_nodes_and_a_run_outlives_the_loss_of_a_node(
    growing: Growing, repository: Path, tmp_path: Path
) -> None:
    job = sleepy_job(tmp_path, shards=50, nap=4.0)
    growing.grow()
    with driver(growing.cluster, job, tmp_path, repository) as running:
        running.wait_for_replicas(3)
        growing.cluster.remove_node(growing.larger)
        wake(tmp_path)
        ended = running.end()
    assert ended["state"] == "done", ended
    assert whole(tmp_path, 50)
    assert read_status(str(tmp_path / "out")).complete


@pytest.mark.slow
def test_runs_that_leave_each_other_nothing_to_read_with_take_turns(
    ray_environment: Path, repository: Path, tmp_path: Path
) -> None:
    """Two replicas of one CPU each hold both CPUs of the only node: without a word, both would wait for ever."""
    folders = [tmp_path / name for name in ("elder", "younger")]
    for folder in folders:
        folder.mkdir()
    jobs = [sleepy_job(folder, shards=20, nap=0.5, replicas=1, cpus=1) for folder in folders]
    with (
        nodes({"num_cpus": 2}) as cluster,
        driver(cluster, jobs[0], folders[0], repository) as elder,
        driver(cluster, jobs[1], folders[1], repository) as younger,
    ):
        assert elder.end()["state"] == younger.end()["state"] == "done"
    words = [told["words"] for running in (elder, younger) for told in running.of("waiting")]
    assert any("releases its replicas" in said for said in words)
    assert all(whole(folder, 20) for folder in folders)
