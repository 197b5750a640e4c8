"""Bundles of encoded shards in, the same bundles with answers out: the actor around one copy of the model.

It neither reads, nor writes, nor decodes. Rows of all shards of a bundle share packs; their answers are put back in
order, so that a row's answer does not depend on its neighbours.
"""

import logging
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from models.boundary import DeviceFacts, HeadAsk
from pipeline.bundle import ShardTables, pack, unpack
from pipeline.cluster.ray_state import assigned_gpus
from pipeline.inference.answers import answer_shards
from pipeline.inference.batching import TokenBudget, budget_between
from pipeline.inference.checkpoint_state import CheckpointState
from pipeline.inference.child import LoadOrder
from pipeline.inference.desk import Desk
from pipeline.inference.node_cache import checkpoint_here, compiler_settings
from pipeline.inference.replica_news import Publisher, device_words
from pipeline.inference.supervisor import Supervisor
from pipeline.telemetry import journal, metrics

USABLE = 0.9
"""The part of its share of a GPU's memory that JAX may preallocate; the rest is for allocations outside its pool."""
SAID = 1_000
"""How many characters of a model process's output the run's record keeps."""


@dataclass(frozen=True)
class ReplicaOrder:
    """The model, the questions and the limits of a replica.

    asks: what each task asks, by its name.
    batch_tokens: token budget of a pass, or the first one and the largest, between which the replica finds its own.
    checkpoint: the required state of what is loaded; None for a loader without a checkpoint. gpus: GPUs, or the part of one,
    that Ray gave it.
    """

    load: LoadOrder
    asks: Mapping[str, HeadAsk]
    batch_tokens: int | tuple[int, int]
    threads: int
    stall: float
    task: str = ""
    run: str = ""
    checkpoint: CheckpointState | None = None
    gpus: float = 0.0

    @property
    def head_folders(self) -> list[str] | None:
        """The folders of the heads below the checkpoint; None where the checkpoint is the only one."""
        return list(self.load.heads) if isinstance(self.load.heads, Mapping) else None

    def budget(self, facts: DeviceFacts) -> TokenBudget:
        """A replica's budget at its start; facts: what the model runs on."""
        if isinstance(self.batch_tokens, int):
            return TokenBudget(tokens=self.batch_tokens)
        return budget_between(self.batch_tokens, facts)

    @property
    def in_order(self) -> bool:
        """Whether packs hold windows as they come: Flax and TensorFlow lay them into rows of one width on a GPU."""
        return self.load.device == "cuda" and self.load.framework != "torch"


class Replica:
    """A Ray Data actor, called with bundles by one or more threads."""

    def __init__(self, order: ReplicaOrder) -> None:
        load = order.load
        if order.checkpoint is not None:
            load = replace(
                load, checkpoint=checkpoint_here(url=load.checkpoint, state=order.checkpoint, names=order.head_folders)
            )
        self._order = order
        environment = {**compiler_settings(), **gpu_settings(order.gpus, assigned_gpus() if order.gpus else None)}
        self._supervisor = Supervisor(order=load, threads=order.threads, stall=order.stall, environment=environment)
        self._supervisor.start()
        self._budget = order.budget(self._supervisor.facts)
        self._desk = Desk(self._supervisor)
        self._processes = 0
        self._number = float(secrets.randbits(48))  # process ids are the same on many nodes
        self._record_processes()
        self._spent = SpentTime()
        self._news = Publisher(
            run=order.run,
            number=self._number,
            device=device_words(self._supervisor.facts, dtype=load.dtype),
            seconds=self._supervisor.seconds.starting,
        )

    def __call__(self, bundle: pa.Table) -> pa.Table:
        began = time.monotonic()
        self._spent.begin()
        shards = unpack(bundle)
        with self._news.bundle(shards) as on_tokens:
            answered = answer_shards(
                shards=shards,
                asks=self._order.asks,
                budget=self._budget,
                supervisor=self._desk,
                in_order=self._order.in_order,
                on_tokens=on_tokens,
            )
        facts = {"replica": self._number, **self._spent.end(self._supervisor.seconds.computing)}
        shards = _first_with(answered, facts=facts, runs_on=self.runs_on)
        result = pack(shards, onto=bundle)
        self._record_processes()
        metrics.count_bundle(task=self._order.task, facts=_sums(shards), seconds=time.monotonic() - began)
        return result

    @property
    def runs_on(self) -> dict[str, str | int | float | bool]:
        """What the run's record keeps about the model's process, without numbers that differ between equal replicas."""
        facts = {key: value for key, value in self._supervisor.facts.items() if key not in ("pid", "free_gb")}
        if self._supervisor.said:
            facts["said"] = " | ".join(self._supervisor.said)[:SAID]
        return facts

    def _record_processes(self) -> None:
        """Count and log the model processes started since the last call, and what they run on."""
        started = self._supervisor.seconds.children - self._processes
        metrics.count("model_processes", started, task=self._order.task)
        if started:
            journal.write(
                "model loaded" if self._processes == 0 else "model process replaced",
                run=self._order.run,
                replica=os.getpid(),
                attempt=self._processes + started,
                seconds=round(self._supervisor.seconds.starting, 3),
                checkpoint=self._order.load.checkpoint,
                runs_on=dict(self._supervisor.facts),
                framework=self._order.load.framework,
                dtype=self._order.load.dtype,
            )
        if self._supervisor.said and self._processes == 0:
            journal.write(
                "the model's process said while it loaded",
                level=logging.WARNING,
                run=self._order.run,
                said=list(self._supervisor.said),
            )
        self._processes += started

    def close(self) -> None:
        """End the model's process."""
        self._news.close()
        self._desk.close()
        self._supervisor.close()


class SpentTime:
    """How a replica spends its time: its model computed, it had no bundle, or it handled one. The parts add up to the total."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bundles = 0
        self._ended = self._idle_since = time.monotonic()
        self._waited = self._computed = 0.0

    def begin(self) -> None:
        """A bundle has arrived."""
        with self._lock:
            if self._bundles == 0:
                self._waited += time.monotonic() - self._idle_since
            self._bundles += 1

    def end(self, computing: float) -> dict[str, float]:
        """A bundle is answered: returns the times since the previous end. computing: the model's seconds since its start."""
        with self._lock:
            now = time.monotonic()
            computed, waited = computing - self._computed, self._waited
            handling = max(now - self._ended - computed - waited, 0.0)
            self._computed, self._waited, self._ended = computing, 0.0, now
            self._bundles -= 1
            if self._bundles == 0:
                self._idle_since = now
            return {"computing_s": computed, "waiting_s": waited, "handling_s": handling}


def gpu_settings(gpus: float, assigned: Sequence[str] | None) -> dict[str, str]:
    """Environment variables that keep a model's process to its GPU and to its share of it.

    assigned: the GPU that Ray chose, if Ray does not set CUDA_VISIBLE_DEVICES itself; else None.
    """
    settings = {"CUDA_VISIBLE_DEVICES": ",".join(assigned)} if assigned else {}
    if 0 < gpus < 1:
        settings |= {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{USABLE * gpus:.3g}", "PRELN_GPU_SHARE": f"{gpus:.3g}"}
    return settings


def _sums(shards: Sequence[ShardTables]) -> Counter[str]:
    """Facts of all shards together."""
    sums: Counter[str] = Counter()
    for shard in shards:
        sums.update(shard.facts)
    return sums


def _first_with(
    shards: Sequence[ShardTables], *, facts: Mapping[str, float], runs_on: Mapping[str, str | int | float | bool]
) -> list[ShardTables]:
    """The shards, with a bundle's own facts in the first of them only, so that they count once."""
    return [
        replace(shard.with_(facts=facts), runs_on=dict(runs_on)) if index == 0 else shard
        for index, shard in enumerate(shards)
    ]
