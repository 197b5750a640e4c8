"""Ends Ray workers of a run that were stopped (SIGSTOP): they neither work nor die, and Ray waits for them forever.

Ray notices a worker that dies, and a raylet that no longer answers, but asks no worker whether it still runs. So the driver has
the workers of each node looked at once in a while, by a task that needs no CPU. What it kills is to Ray like any other worker
that died: its task runs again, its actor is restarted.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.cluster.capacity_wait import Notify
from pipeline.plurals import counted

SURE_SECONDS = 10.0
"""Seconds that a worker must stay stopped to be killed: a debugger stops one for a moment only."""
TRIES = 5
"""Looks at a node per round. One that gets no answer was sent to a worker that is stopped itself; the next gets another."""
ANSWER_SECONDS = 10.0
"""Seconds that an answer may take, beside SURE_SECONDS, before the second try; twice as many before each further one, since a
worker takes long to start on a busy node."""
GLANCE = 0.5
"""Seconds between two checks whether the run has ended, or a process is still stopped."""
STOPPED = ("T", "t")
"""The states of stopped and of traced processes in /proc."""
NO_JOB = "ffffffff"
"""What a worker has that Ray started before it knew for which job; it stays in the process's environment."""
OUR_TITLES = ("ReadShards", "encode)", "MapBatches(Replica)", "finish)", "ray::IDLE")
"""What the title of such a worker says while it works for a run, or for nobody: then a run may be given it at any time."""


def end_stopped_workers(job: str, seconds: float) -> list[int]:
    """Kill the workers of a Ray job on this node that stay stopped for `seconds`; their process ids. Runs in a worker."""
    stopped = {pid for pid in workers_of(job) if is_stopped(pid)}
    sure = time.monotonic() + seconds
    while stopped and time.monotonic() < sure:
        time.sleep(GLANCE)
        stopped = {pid for pid in stopped if is_stopped(pid)}
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return sorted(stopped)


def workers_of(job: str) -> list[int]:
    """Process ids of the workers that this one's raylet has started for a job; none where there is no /proc."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):
            _, parent = _state(int(entry.name))
            if parent == os.getppid() and is_of(job, entry):
                found.append(int(entry.name))
    return found


def is_of(job: str, process: Path) -> bool:
    """Whether a process, by its folder in /proc, is a worker of a job, or one without a job that may be."""
    environment = (process / "environ").read_bytes().decode(errors="replace").split("\0")
    if f"RAY_JOB_ID={NO_JOB}" not in environment:
        return f"RAY_JOB_ID={job}" in environment
    title = (process / "cmdline").read_bytes().decode(errors="replace")
    return any(ours in title for ours in OUR_TITLES)


def is_stopped(pid: int) -> bool:
    """Whether a process is stopped."""
    with suppress(OSError, IndexError, ValueError):
        return _state(pid)[0] in STOPPED
    return False


def _state(pid: int) -> tuple[str, int]:
    state, parent, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return state, int(parent)


@contextmanager
def ending_stopped_workers(*, every: float, say: Notify) -> Iterator[None]:
    """Look at the workers of this driver every so many seconds, from a thread of its own, and report what was killed."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(every):
            with suppress(Exception):  # Ray has no one class for a head that is away, and the run itself will say so
                for node, pids in look_at_nodes(sure=min(SURE_SECONDS, every), ended=ended).items():
                    workers, were = counted(len(pids), "Ray worker"), "was" if len(pids) == 1 else "were"
                    say(
                        f"{workers} on {node} ({', '.join(map(str, pids))}) {were} stopped and did no work: killed, and what "
                        "it held is computed again"
                    )

    thread = threading.Thread(target=look, name="preln-stopped-workers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=2 * GLANCE)


def look_at_nodes(*, sure: float, ended: threading.Event) -> dict[str, list[int]]:
    """Look at every living node; the process ids of what was killed, by the node's address."""
    job = ray.get_runtime_context().get_job_id()
    waiting = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    killed: dict[str, list[int]] = {}
    asked: dict[ray.ObjectRef[list[int]], str] = {}
    for number in range(TRIES):
        asked |= {_ask(node, job, sure): node for node in waiting}
        deadline = time.monotonic() + (sure + ANSWER_SECONDS) * 2**number
        while waiting and time.monotonic() < deadline and not ended.is_set():
            done, _ = ray.wait(list(asked), num_returns=len(asked), timeout=GLANCE)
            for answer in done:
                address = waiting.pop(asked.pop(answer), "a node")
                with suppress(ray.exceptions.RayError):  # the node is gone, and its workers with it
                    if pids := ray.get(answer):
                        killed.setdefault(address, []).extend(pids)
    for answer in asked:  # no longer needed: another of its node has answered, or the run has ended
        ray.cancel(answer)
    return killed


def _ask(node: str, job: str, sure: float) -> "ray.ObjectRef[list[int]]":
    look = ray.remote(num_cpus=0, max_retries=0)(end_stopped_workers)
    here = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    asked: ray.ObjectRef[list[int]] = look.options(scheduling_strategy=here).remote(job, sure)
    return asked
