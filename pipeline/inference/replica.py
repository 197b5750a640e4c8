"""Bundles of encoded shards in, the same bundles with answers out: the actor around one copy of the model.

It neither reads, nor writes, nor decodes. Rows of all shards of a bundle share packs; their answers are put back in
order, so that nothing a row is told depends on its neighbours.
"""

import os
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from models.boundary import HeadAsk
from pipeline.bundle import ShardTables, pack, unpack
from pipeline.inference.answers import _Answered
from pipeline.inference.batching import TokenBudget, packs
from pipeline.inference.checkpoint_state import CheckpointState
from pipeline.inference.child import LoadOrder
from pipeline.inference.node_cache import checkpoint_here, compiler_settings
from pipeline.inference.supervisor import Supervisor
from pipeline.inference.windows import sequences_of
from pipeline.telemetry import journal, metrics


@dataclass(frozen=True)
class ReplicaOrder:
    """What a replica is to be: the model, the questions, and its limits.

    asks: what each task asks, by its name.
    batch_tokens: token budget of a pass, or the first one and the largest, between which the replica finds its own.
    checkpoint: what is loaded must be; None for a loader that reads none.
    """

    load: LoadOrder
    asks: Mapping[str, HeadAsk]
    batch_tokens: int | tuple[int, int]
    threads: int
    stall: float
    task: str = ""
    run: str = ""
    checkpoint: CheckpointState | None = None

    @property
    def head_folders(self) -> list[str] | None:
        """The folders of the heads below the checkpoint; None where the checkpoint is the only one."""
        return list(self.load.heads) if isinstance(self.load.heads, Mapping) else None

    def budget(self) -> TokenBudget:
        """A replica's budget at its start."""
        first, most = self.batch_tokens if isinstance(self.batch_tokens, tuple) else (self.batch_tokens,) * 2
        return TokenBudget(tokens=first, most=most)


class Replica:
    """A Ray Data actor: called with bundles, one at a time."""

    def __init__(self, order: ReplicaOrder) -> None:
        load = order.load
        if order.checkpoint is not None:
            load = replace(
                load, checkpoint=checkpoint_here(url=load.checkpoint, state=order.checkpoint, names=order.head_folders)
            )
        self._order = order
        self._budget = order.budget()
        self._supervisor = Supervisor(
            order=load, threads=order.threads, stall=order.stall, environment=compiler_settings()
        )
        self._supervisor.start()
        self._processes = 0
        self._number = float(secrets.randbits(48))  # process ids are the same on many nodes
        self._tell_processes()
        self._idle_since = time.monotonic()

    def __call__(self, bundle: pa.Table) -> pa.Table:
        began = time.monotonic()
        waited, computed = began - self._idle_since, self._supervisor.seconds.computing
        shards = unpack(bundle)
        answered = answer_shards(shards=shards, asks=self._order.asks, budget=self._budget, supervisor=self._supervisor)
        computing = self._supervisor.seconds.computing - computed
        handling = time.monotonic() - began - computing
        facts = {"replica": self._number, "computing_s": computing, "waiting_s": waited, "handling_s": handling}
        told = _first_with(answered, facts=facts)
        result = pack(told)
        self._idle_since = time.monotonic()
        self._tell_processes()
        metrics.count_bundle(task=self._order.task, facts=_sums(told), seconds=self._idle_since - began)
        return result

    def close(self) -> None:
        """End the model's process."""
        self._supervisor.close()

    def _tell_processes(self) -> None:
        """Count and note model processes that were started since the last time."""
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
                framework=self._order.load.framework,
                dtype=self._order.load.dtype,
            )
        self._processes += started


def _sums(shards: Sequence[ShardTables]) -> Counter[str]:
    """Facts of all shards together."""
    sums: Counter[str] = Counter()
    for shard in shards:
        sums.update(shard.facts)
    return sums


def _first_with(shards: Sequence[ShardTables], *, facts: Mapping[str, float]) -> list[ShardTables]:
    """What is said of the bundle, told once, by its first shard."""
    return [shard.with_(facts=facts) if index == 0 else shard for index, shard in enumerate(shards)]


def answer_shards(
    *, shards: Sequence[ShardTables], asks: Mapping[str, HeadAsk], budget: TokenBudget, supervisor: Supervisor
) -> list[ShardTables]:
    """Every shard with `answers` and `failures` of each task; those that failed as a whole, or were written before, as they
    are."""
    asked = [shard for shard in shards if shard.tasks]
    if not asked:
        return list(shards)
    windows = [{name: shard.tasks[name]["windows"] for name in asks} for shard in asked]
    sequences = sequences_of(windows, asks)
    ledgers = {name: _Answered(asked=one) for name, one in sequences.asked.items()}
    passes = budgeted = 0
    for chosen in packs(lengths_W=sequences.lengths_S, budget=budget):
        passes, budgeted = passes + 1, budgeted + budget.tokens
        before = replace(supervisor.seconds)
        for part, reply in supervisor.solve(chosen.tolist(), sequences.question):
            for ledger in ledgers.values():
                ledger.take(np.asarray(part), reply)
        if supervisor.seconds.out_of_memory > before.out_of_memory:
            budget.refused()
        else:
            seconds = supervisor.seconds.computing - before.computing
            budget.took(tokens=int(sequences.lengths_S[chosen].sum()), seconds=seconds)
    finished = {
        name: iter(ledger.split([shard[name].num_rows for shard in windows])) for name, ledger in ledgers.items()
    }
    told = {"passes": float(passes), "budget_tokens": float(budgeted)} if passes else {}
    done = []
    for shard, tokens in zip(asked, sequences.shard_tokens, strict=True):
        tasks = {}
        for name, parts in finished.items():
            answers, failures = next(parts)
            tasks[name] = {"answers": answers, "failures": failures}
        done.append(shard.with_(tasks=tasks, facts={**told, "tokens": float(tokens)}))
        told = {}  # of the bundle, so by its first shard only
    answered = iter(done)
    return [next(answered) if shard in asked else shard for shard in shards]
