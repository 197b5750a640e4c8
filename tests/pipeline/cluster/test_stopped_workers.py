"""Ray workers that are stopped instead of killed are noticed, killed, and reported in one line; their rows are computed again."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import ray

from pipeline import run
from pipeline.cluster import stopped_workers
from pipeline.cluster.placement import Cluster
from pipeline.cluster.stopped_workers import end_stopped_workers, is_stopped, look_at_nodes, workers_of
from tests.pipeline.on_nodes import sleepy_job, until, whole
from tests.pipeline.sleepy import LOADER

STALL = 6.0
"""Seconds between two looks: more than a model's process takes to start."""
SHARDS = 12
JOB = "0a000000"


@contextmanager
def worker_like(job: str) -> Iterator[psutil.Process]:
    """A child of this process with a Ray job's number in its environment, as workers have it from their raylet."""
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; print(1, flush=True); sys.stdin.read()"],
        env={**os.environ, "RAY_JOB_ID": job},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield psutil.Process(process.pid)
        finally:
            process.kill()


def test_only_a_worker_of_the_job_that_stays_stopped_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getppid", os.getpid)  # this process is the raylet of its children
    with worker_like(JOB) as runs, worker_like(JOB) as stopped, worker_like("0b000000") as of_another_job:
        assert set(workers_of(JOB)) == {runs.pid, stopped.pid}
        for process in (stopped, of_another_job):
            process.send_signal(signal.SIGSTOP)
        until(lambda: is_stopped(stopped.pid) and is_stopped(of_another_job.pid))
        assert end_stopped_workers(JOB, 0.1) == [stopped.pid]
        assert runs.is_running()
        assert of_another_job.status() == psutil.STATUS_STOPPED


def test_a_worker_that_continues_in_time_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getppid", os.getpid)
    with worker_like(JOB) as stopped:
        stopped.send_signal(signal.SIGSTOP)
        until(lambda: is_stopped(stopped.pid))
        threading.Timer(0.2, stopped.send_signal, [signal.SIGCONT]).start()
        assert end_stopped_workers(JOB, 30.0) == []
        assert stopped.is_running()


@ray.remote(max_retries=-1)
def held(pids: Path) -> int:
    """A task that never ends in the first process that runs it."""
    with pids.open("a") as file:
        file.write(f"{os.getpid()}\n")
    while len(pids.read_text().splitlines()) == 1:
        time.sleep(0.05)
    return os.getpid()


@pytest.mark.ray
def test_one_look_kills_a_stopped_worker_of_ray_whose_task_then_runs_again(local_ray: None, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    result = held.remote(pids)
    until(pids.exists)
    stopped = int(pids.read_text())
    os.kill(stopped, signal.SIGSTOP)
    (killed,) = look_at_nodes(sure=0.5, ended=threading.Event()).values()
    assert killed == [stopped]
    assert ray.get(result, timeout=100) != stopped
    assert look_at_nodes(sure=0.5, ended=threading.Event()) == {}


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_whose_workers_are_all_stopped_kills_them_says_so_and_loses_no_row(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopped_workers, "ANSWER_SECONDS", 2.0)
    monkeypatch.setattr(stopped_workers, "SURE_SECONDS", 1.0)
    job = sleepy_job(tmp_path, shards=SHARDS, nap=0.3, gpus=0, replicas=1)
    job = job.model_copy(update={"limits": job.limits.model_copy(update={"stall": STALL})})
    stopped: list[psutil.Process] = []

    def stop_all() -> None:
        until(lambda: bool(list((tmp_path / "out/data").glob("*.parquet"))))
        for process in psutil.Process().children(recursive=True):
            name = " ".join(process.cmdline()[:1])
            if name.startswith("ray::") and "Map" in name:
                process.send_signal(signal.SIGSTOP)
                stopped.append(process)

    said: list[str] = []
    stopper = threading.Thread(target=stop_all)
    stopper.start()
    report = run.annotate(
        spec=job, cluster=Cluster(lambda: None, say=said.append), watcher=run.Unwatched(), loader=LOADER
    )
    stopper.join()
    assert stopped
    assert report.state == "done"
    assert whole(tmp_path, SHARDS)
    assert not any(process.is_running() and process.status() == psutil.STATUS_STOPPED for process in stopped)
    (line, *_) = [words for words in said if "stopped and did no work" in words]
    assert "\n" not in line
