"""Runs a job to its end on a multi-node Ray while model processes, workers, replicas, raylets, nodes and drivers are killed or
stopped (SIGSTOP).

Some of what is stopped continues after seconds; some never does, and has to be noticed. A model process never continues.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ray.cluster_utils import Cluster as RayCluster

from pipeline.spec.job_spec import JobSpec
from tests.chaos.tally import AIM_OF_EACH_KIND
from tests.chaos.victims import STORE_BYTES, below, has_raylet, is_alive, nodes_of, raylet_of, signalled, workers

REPOSITORY = Path(__file__).resolve().parents[2]
KINDS: Mapping[str, float] = {
    "kill child": 0.3,
    "stop child": 0.06,
    "kill worker": 0.16,
    "stop worker": 0.1,
    "kill replica": 0.1,
    "stop replica": 0.08,
    "kill raylet": 0.03,
    "stop raylet": 0.04,
    "kill node": 0.03,
    "stop node": 0.03,
    "kill driver": 0.04,
    "stop driver": 0.06,
}
"""What is hit, and how often each; SHORT is added to the weight of a kind that is short of the tally's aim."""
SHORT = 0.2
BURSTS: Mapping[str, int] = {"child": 4, "worker": 2, "replica": 2}
"""How many of a kind are hit at most at once; of the others it is one."""
AT_ONCE = 4
"""How many kinds are hit at most at once, without a script."""
STOPPED_SECONDS = (1.0, 8.0)
"""How long something stays stopped."""
STOPPED_FOR_GOOD = 0.4
"""How often it stays so."""
NOTICED_SECONDS = 40.0
"""Seconds after which a node that was stopped for good is taken away: Ray has declared it dead by then."""
ASKED_SECONDS = 60.0
"""A driver that is silent for so long writes its stacks among its events."""
STUCK_SECONDS = 240.0
"""One that is silent for so long hangs, which nothing may do: longer than a store may stay away with all its retries."""


@dataclass
class Driver:
    """A driver process, and its events as far as they were read. silent: seconds without any, by `own_seconds`."""

    pid: int
    file: Path
    offset: int = 0
    silent: float = 0.0
    looked: float = field(default_factory=time.monotonic)
    asked: bool = False
    state: str = ""
    stopped: bool = False

    def read(self) -> list[dict[str, Any]]:
        """The new events; other words come as events of the kind "said"."""
        if not self.file.exists():
            return []
        with self.file.open("rb") as file:
            file.seek(self.offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self.offset += len(whole)
        events = [event_of(line) for line in whole.decode(errors="replace").splitlines()]
        if any(event["event"] != "said" for event in events):
            self.silent, self.asked = 0.0, False
        self.state = next((event["state"] for event in events if event["event"] == "ended"), self.state)
        return events


def own_seconds(seconds: float) -> float:
    """How much of a time an idle machine would have needed, going by the load: ten processes a core take ten times as long."""
    return seconds * min(1.0, (os.cpu_count() or 1) / max(os.getloadavg()[0], 0.01))


def event_of(line: str) -> dict[str, Any]:
    """A line of a driver's file."""
    if line.startswith('{"event"'):
        with suppress(json.JSONDecodeError):  # a driver was killed in the middle of it
            return dict(json.loads(line))
    return {"event": "said", "words": line}


class Drivers:
    """Starts drivers on a cluster from one warm process."""

    def __init__(self, cluster: RayCluster, folder: Path) -> None:
        self._folder, self._count = folder, 0
        environment = {**os.environ, "RAY_ADDRESS": cluster.address, "PYTHONPATH": str(REPOSITORY)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.driver"],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, job: Path) -> Driver:
        """A new one."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._count += 1
        events = self._folder / f"{job.stem}-{self._count}.events"
        self._process.stdin.write(json.dumps({"job": str(job), "events": str(events)}) + "\n")
        self._process.stdin.flush()
        return Driver(pid=int(self._process.stdout.readline()), file=events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._process:  # closes its input, which ends it, and waits for it
            pass


@dataclass
class Mayhem:
    """Hits processes until a job is done all the same.

    stopped_for_good: how often what is stopped stays so.
    seed: decides what is hit when. pause: mean seconds between hits. drivers: how many run the job at once. before: what earlier
    rounds have hit. script: all that is hit, in order, where there is one; what is not there when its turn comes is hit after the
    others. hits, starts, hangs, ends: what happened. words: what else drivers said.
    """

    cluster: RayCluster
    starter: Drivers
    seed: int
    pause: float
    cpus: int
    drivers: int = 1
    before: Mapping[str, int] = field(default_factory=dict)
    script: Sequence[str] = ()
    stopped_for_good: float = STOPPED_FOR_GOOD
    hits: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    hangs: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._later: list[tuple[float, Callable[[], object]]] = []
        self._stopped: list[int] = []
        self._stopped_nodes: list[int] = []
        self._script = list(self.script)
        self._shards = self._shards_needed = 0

    def annotate(self, job: JobSpec, folder: Path, *, hit_seconds: float, end_seconds: float) -> None:
        """Start drivers, each again until it ends well. Raises TimeoutError.

        hit_seconds: of hits, from the first committed shard on. end_seconds: what the job may take until then, and after them.
        """
        file = folder / f"job-{self.seed}.yaml"
        file.write_text(job.to_yaml())
        running = [self._start(file) for _ in range(self.drivers)]
        next_hit = time.monotonic() + self.pause
        hit_until, deadline = float("inf"), time.monotonic() + end_seconds
        try:
            while running:
                now = time.monotonic()
                if self._shards and hit_until == float("inf"):
                    hit_until, deadline = now + hit_seconds, now + hit_seconds + end_seconds
                if now > deadline:
                    raise TimeoutError(f"not done by its deadline: {self.report()} {' '.join(self.words[-40:])}")
                if next_hit < now < hit_until and self._recovered() and (self._script or not self.script):
                    for _ in range(1 if self.script else self._random.randint(1, AT_ONCE)):
                        self.hit(self._random.choice(running))
                    next_hit = time.monotonic() + self._random.expovariate(1 / self.pause)
                self._do_what_is_due(now)
                running = [after for driver in running if (after := self._looked_after(driver, file)) is not None]
                time.sleep(0.2)
        finally:
            if not running:  # else the storm was broken off, and needs no nodes any more
                self._do_what_is_due(float("inf"))
            signalled(
                [driver.pid for driver in running] + self._stopped + (self._stopped_nodes if running else []),
                signal.SIGKILL,
            )

    def _recovered(self) -> bool:
        """Whether shards were committed since the last hit that all work waits for: a busy machine takes its time for that."""
        return self._shards > self._shards_needed

    def _start(self, file: Path) -> Driver:
        self.starts += 1
        return self.starter.start(file)

    def _looked_after(self, driver: Driver, file: Path) -> Driver | None:
        """The driver, its successor where it was killed or hangs, or None once it has ended well."""
        alive = is_alive(driver.pid)
        for event in driver.read():
            if event["event"] == "committed":
                self._shards += 1
            else:
                self.words.append(str(event.get("words", event)))
        if alive:
            now = time.monotonic()
            driver.silent, driver.looked = driver.silent + own_seconds(now - driver.looked), now
            if driver.silent > ASKED_SECONDS and not driver.asked and not driver.stopped:
                driver.asked = True
                signalled([driver.pid], signal.SIGUSR1)
            if driver.silent <= STUCK_SECONDS:
                return driver
            self.hangs += 1
            signalled([driver.pid], signal.SIGKILL)
        self.ends[driver.state or "killed"] += 1
        return None if driver.state in ("done", "incomplete") else self._start(file)

    def _do_what_is_due(self, now: float) -> None:
        due = [action for moment, action in self._later if moment <= now]
        self._later = [(moment, action) for moment, action in self._later if moment > now]
        for action in due:
            action()

    def hit(self, driver: Driver) -> None:
        """One of them, of a kind by chance; nothing where none of that kind is there."""
        kind = self._script[0] if self._script else self._random.choices(list(KINDS), weights=self._weights())[0]
        deed, _, what = kind.partition(" ")
        if what in ("raylet", "node"):
            count = self._hit_node(deed, what)
        elif what == "driver":
            count = self._hit_driver(deed, driver)
        else:
            count = self._hit_workers(deed, what)
        self.hits[kind] += count
        if count and what in ("raylet", "node", "driver"):
            self._shards_needed = self._shards
        if self._script:
            self._script = self._script[1:] if count else [*self._script[1:], kind]

    def _weights(self) -> list[float]:
        counts = {kind: self.before.get(kind, 0) + self.hits[kind] for kind in KINDS}
        return [share + SHORT * (counts[kind] < AIM_OF_EACH_KIND) for kind, share in KINDS.items()]

    def _hit_workers(self, deed: str, what: str) -> int:
        found = [pid for pid in workers(self.cluster, what) if pid not in self._stopped]
        pids = self._random.sample(found, min(self._random.randint(1, BURSTS[what]), len(found)))
        if deed == "kill":
            return signalled(pids, signal.SIGKILL)
        count = signalled(pids, signal.SIGSTOP)
        if what == "child" or self._random.random() < self.stopped_for_good:
            self._stopped += pids
        else:
            self._after(self._random.uniform(*STOPPED_SECONDS), partial(signalled, pids, signal.SIGCONT))
        return count

    def _hit_driver(self, deed: str, driver: Driver) -> int:
        if not is_alive(driver.pid) or (deed == "stop" and driver.stopped):
            return 0
        if deed == "kill":
            return signalled([driver.pid], signal.SIGKILL)
        driver.stopped = True

        def resume() -> None:
            signalled([driver.pid], signal.SIGCONT)
            driver.stopped = False

        self._after(self._random.uniform(*STOPPED_SECONDS), resume)
        return signalled([driver.pid], signal.SIGSTOP)

    def _hit_node(self, deed: str, what: str) -> int:
        nodes = [node for node in nodes_of(self.cluster) if is_alive(raylet_of(node))]
        if not nodes:
            self._add_node()  # earlier ones did not come up
            return 0
        node = self._random.choice(nodes)
        pids = [raylet_of(node)] if what == "raylet" else below(raylet_of(node))
        if deed == "kill":
            signalled(pids, signal.SIGKILL)
            self._replace(node)
        else:
            signalled(pids, signal.SIGSTOP)
            self._stopped_nodes += pids
            if self._random.random() < self.stopped_for_good:
                self._after(NOTICED_SECONDS, partial(self._replace, node))
            else:
                self._after(self._random.uniform(*STOPPED_SECONDS), partial(signalled, pids, signal.SIGCONT))
        return 1

    def _after(self, seconds: float, action: Callable[[], object]) -> None:
        self._later.append((time.monotonic() + seconds, action))

    def _replace(self, node: Any) -> None:
        """Take a node's processes away, and start another node; one that was taken away meanwhile is left."""
        if not has_raylet(node):
            return
        pids = below(raylet_of(node))
        with suppress(Exception):  # Ray has no one class for it
            self.cluster.remove_node(node, allow_graceful=False)
        signalled(pids, signal.SIGKILL)
        self._add_node()

    def _add_node(self) -> None:
        """A new node; one that does not come up on a busy machine is tried again when a node is to be hit."""
        with suppress(Exception):  # Ray has no other class for it
            self.cluster.add_node(object_store_memory=STORE_BYTES, num_cpus=self.cpus, wait=False)

    def report(self) -> str:
        """In a line."""
        hits = ", ".join(f"{count} {kind}" for kind, count in sorted(self.hits.items()))
        ends = ", ".join(f"{count} {state}" for state, count in sorted(self.ends.items()))
        started = f"{self.starts} drivers started (ended: {ends})"
        return f"{self.hits.total()} kills and stops ({hits}), {started}, {self.hangs} hangs"
