"""Connects to Ray: the cluster that RAY_ADDRESS names, else a local Ray that it starts."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

import ray

from jobs.environment import ray_address, ray_folder, refuse_taken_port, token_without_home
from jobs.interruption import handlers_kept
from pipeline.cluster.capacity_wait import Notify
from pipeline.cluster.placement import Cluster, warn
from pipeline.cluster.ray_state import check_version, silence_worker_output
from pipeline.errors import ResourceError

OBJECT_STORE_BYTES = 1 << 30
"""Shared memory of a local Ray: room for many shards in flight, and a bound on what a run takes of a laptop."""


def connect() -> None:
    """Connect to the cluster of RAY_ADDRESS, or start a local Ray; only once in a process."""
    if ray.is_initialized():
        return
    workers_speak = bool(os.environ.get("PRELN_WORKER_LOGS"))
    address = ray_address(os.environ)
    ours = address == "local"
    folder = ray_folder(os.environ) if ours else None
    if ours:
        refuse_taken_port(os.environ)
        os.environ.update(token_without_home(os.environ))
    # Its C++ side warns of Ray's issue 53727 at every actor pool, whatever the pool is given.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Ray puts the working directory on its workers' path, where a folder `pipeline` or `models` of the user's would be found
    # before ours; so it is our root while Ray reads it.
    with handlers_kept(), silent_stderr(), chdir(Path(__file__).resolve().parents[1]):
        try:
            ray.init(
                address=address,
                logging_level=logging.ERROR,
                log_to_driver=workers_speak,
                include_dashboard=False if ours else None,
                object_store_memory=OBJECT_STORE_BYTES if ours else None,
                _temp_dir=folder,
            )
        except Exception as error:  # Ray has no one class for it
            raise ResourceError(_not_started(address, error)) from error
    check_version()
    if not workers_speak:
        silence_worker_output()


def _not_started(address: str, error: Exception) -> str:
    """Why Ray did not start, or could not be reached, in one line with the next step."""
    why = " ".join(str(error).split())[:300] or type(error).__name__
    if address == "local":
        return (
            f"Ray did not start on this machine: {why}. Free memory, disk and ports (see preln doctor), or set RAY_ADDRESS to a "
            "running cluster"
        )
    return (
        f"RAY_ADDRESS is {address}, and this process could not join that cluster: {why}. Use the cluster's versions of Ray and "
        "Python, or unset RAY_ADDRESS to run on this machine"
    )


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Discard standard error, below Python: Ray's C++ side reports there that its log level was set. Failures raise."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def this_cluster(*, say: Notify = warn, phase: Notify | None = None) -> Cluster:
    """Ray as a job sees it, connected on first use. say: called with what the run is waiting for. phase: called with what
    begins, before Ray is started or connected to, and after it."""

    def connecting() -> None:
        if phase is None or ray.is_initialized():
            connect()
            return
        phase("starting Ray" if ray_address(os.environ) == "local" else "connecting to Ray")
        connect()
        phase("planning")

    return Cluster(connecting, say=say)
