"""Bundles of encoded shards in, the same bundles with answers out: the actor around one copy of the model.

It neither reads, nor writes, nor decodes. Rows of all shards of a bundle share packs; their answers are put back in
order, so that nothing a row is told depends on its neighbours.
"""

import os
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.boundary import Answers
from pipeline import journal, metrics
from pipeline.batching import TokenBudget, packs
from pipeline.bundle import ShardTables, of_task, pack, unpack
from pipeline.child import LoadOrder
from pipeline.job import CheckpointState
from pipeline.node_cache import checkpoint_here
from pipeline.rows import RowError, error_array
from pipeline.sequences import Asked, Sequences, members
from pipeline.supervisor import Supervisor
from pipeline.tasks.task import HeadAsk


@dataclass(frozen=True)
class ReplicaOrder:
    """What a replica is to be: the model, the questions, and its limits.

    asks: what each task asks, by its name; under "" in a job of one.
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
                load, checkpoint=checkpoint_here(url=load.checkpoint, state=order.checkpoint, names=list(order.asks))
            )
        self._order = order
        self._budget = order.budget()
        self._supervisor = Supervisor(order=load, threads=order.threads, stall=order.stall)
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
    return [shard.having(facts=facts) if index == 0 else shard for index, shard in enumerate(shards)]


def answer_shards(
    *, shards: Sequence[ShardTables], asks: Mapping[str, HeadAsk], budget: TokenBudget, supervisor: Supervisor
) -> list[ShardTables]:
    """Every shard with `answers` and `failures` of each task; those that failed as a whole, or were written before, as they
    are."""
    asked = [shard for shard in shards if any(of_task("windows", name) in shard.tables for name in asks)]
    if not asked:
        return list(shards)
    windows = [{name: shard.tables[of_task("windows", name)] for name in asks} for shard in asked]
    sequences = Sequences.of(windows, asks)
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
        tables = {}
        for name, parts in finished.items():
            tables[of_task("answers", name)], tables[of_task("failures", name)] = next(parts)
        done.append(shard.having(tables=tables, facts={**told, "tokens": float(tokens)}))
        told = {}  # of the bundle, so by its first shard only
    answered = iter(done)
    return [next(answered) if shard in asked else shard for shard in shards]


@dataclass(eq=False)
class _Answered:
    """One task's answers put back in the order of its windows as packs come in."""

    asked: Asked
    arrays: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    failures: dict[int, RowError] = field(default_factory=dict)

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each window's answers begin."""
        offsets = self.asked.position_offsets
        return np.arange(len(offsets)) if self.asked.ask.reduce == "mean" else offsets

    def take(self, part: npt.NDArray[np.int64], reply: Mapping[str, Answers] | RowError) -> None:
        """The reply for some sequences."""
        windows = self.asked.window_S[part]
        windows = windows[windows >= 0]
        if isinstance(reply, tuple):
            self.failures.update({int(window): reply for window in windows})
            return
        rows = members(self.offsets, windows)
        for name, values in reply.get(self.asked.key, {}).items():
            if name not in self.arrays:
                fill = np.nan if np.issubdtype(values.dtype, np.floating) else -1
                self.arrays[name] = np.full((int(self.offsets[-1]), *values.shape[1:]), fill, values.dtype)
            self.arrays[name][rows] = values

    def refuse_non_finite(self) -> None:
        """A window with a NaN or an infinity among its scores has failed, rather than been answered with it."""
        owners = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        for values in self.arrays.values():
            if not np.issubdtype(values.dtype, np.floating) or not len(values):
                continue
            bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            for window in np.unique(owners[bad]).tolist():
                self.failures.setdefault(window, ("nan", "the model's scores are not finite"))

    def split(self, counts: Sequence[int]) -> list[tuple[pa.Table, pa.Table]]:
        """(answers, failures) of each shard, given its number of windows."""
        self.refuse_non_finite()
        result, window = [], 0
        for count in counts:
            first, last = int(self.offsets[window]), int(self.offsets[window + count])
            answers = answers_table({name: values[first:last] for name, values in self.arrays.items()})
            errors = error_array([self.failures.get(index) for index in range(window, window + count)])
            result.append((answers, pa.table({"error": errors})))
            window += count
        return result


def answers_table(answers: Mapping[str, npt.NDArray[np.generic]]) -> pa.Table:
    """Answer arrays [G] or [G, n] as Arrow columns."""
    columns = {
        name: pa.array(values)
        if values.ndim == 1
        else pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).ravel()), values.shape[1])
        for name, values in answers.items()
    }
    return pa.table(columns)


def answer_arrays(table: pa.Table) -> Answers:
    """The arrays that `answers_table` was made of, as views where the column is one chunk."""
    arrays: Answers = {}
    for name in table.column_names:
        column = table[name].combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            arrays[name] = column.flatten().to_numpy().reshape(len(column), column.type.list_size)
        else:
            arrays[name] = column.to_numpy()
    return arrays
