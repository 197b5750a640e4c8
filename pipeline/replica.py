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

from models.boundary import Answers, Ask, Tokens
from pipeline import journal, metrics
from pipeline.batching import TokenBudget, packs
from pipeline.bundle import ShardTables, pack, unpack
from pipeline.child import LoadOrder
from pipeline.job import CheckpointState
from pipeline.node_cache import checkpoint_here
from pipeline.rows import RowError, error_array
from pipeline.supervisor import Question, Supervisor
from pipeline.tasks.task import HeadAsk


@dataclass(frozen=True)
class ReplicaOrder:
    """What a replica is to be: the model, the question, and its limits.

    batch_tokens: token budget of a pass, or the first one and the largest, between which the replica finds its own.
    checkpoint: what is loaded must be; None for a loader that reads none.
    """

    load: LoadOrder
    ask: HeadAsk
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
            load = replace(load, checkpoint=checkpoint_here(url=load.checkpoint, state=order.checkpoint))
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
        answered = answer_shards(shards=shards, ask=self._order.ask, budget=self._budget, supervisor=self._supervisor)
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
    *, shards: Sequence[ShardTables], ask: HeadAsk, budget: TokenBudget, supervisor: Supervisor
) -> list[ShardTables]:
    """Every shard with `answers` and `failures`; those that failed as a whole, or were written before, as they are."""
    asked = [shard for shard in shards if "windows" in shard.tables]
    if not asked:
        return list(shards)
    windows = Windows.of([shard.tables["windows"] for shard in asked])
    ledger = _Answered(windows=windows, per_window=ask.reduce == "mean")
    passes = budgeted = 0
    for chosen in packs(lengths_W=windows.lengths_W, budget=budget):
        passes, budgeted = passes + 1, budgeted + budget.tokens
        before = replace(supervisor.seconds)
        for part, reply in supervisor.solve(chosen.tolist(), lambda part: windows.question(part, ask)):
            ledger.take(np.asarray(part), reply if isinstance(reply, tuple) else reply[ask.head])
        if supervisor.seconds.out_of_memory > before.out_of_memory:
            budget.refused()
        else:
            seconds = supervisor.seconds.computing - before.computing
            budget.took(tokens=int(windows.lengths_W[chosen].sum()), seconds=seconds)
    ledger.refuse_non_finite()
    finished = iter(ledger.split([shard.tables["windows"].num_rows for shard in asked]))
    result = []
    for shard in shards:
        if "windows" in shard.tables:
            answers, failures = next(finished)
            tokens = float(_flat(shard.tables["windows"], "input_ids")[1][-1])
            result.append(shard.having(answers=answers, failures=failures, facts={"tokens": tokens}))
        else:
            result.append(shard)
    if passes:
        first = next(index for index, shard in enumerate(result) if "answers" in shard.tables)
        result[first] = result[first].having(facts={"passes": float(passes), "budget_tokens": float(budgeted)})
    return result


def _flat(table: pa.Table, name: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """A list<int32> column as flat values and offsets [W + 1] from 0, without a copy where it is one chunk."""
    column = table[name]
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    offsets = array.offsets.to_numpy().astype(np.int64)
    return array.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0]


def _joined(tables: Sequence[pa.Table], name: str) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    parts = [_flat(table, name) for table in tables]
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([np.diff(offsets) for _, offsets in parts])
    return np.concatenate([values for values, _ in parts]), np.concatenate([[0], np.cumsum(lengths)])


def _members(offsets: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Flat indices of the lists chosen, one list after the other."""
    lengths = offsets[chosen + 1] - offsets[chosen]
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(offsets[chosen] - (ends - lengths), lengths)


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of all shards of a bundle, flat: ids and asked positions with the offsets of each window."""

    input_ids_T: npt.NDArray[np.int32]
    token_offsets: npt.NDArray[np.int64]
    positions_G: npt.NDArray[np.int32]
    position_offsets: npt.NDArray[np.int64]
    gold_G: npt.NDArray[np.int32] | None
    token_type_ids_T: npt.NDArray[np.int32] | None

    @classmethod
    def of(cls, tables: Sequence[pa.Table]) -> "Windows":
        """From the `windows` tables of several shards."""
        ids, offsets = _joined(tables, "input_ids")
        positions, position_offsets = _joined(tables, "positions")
        names = tables[0].column_names
        gold = _joined(tables, "gold")[0] if "gold" in names else None
        types = _joined(tables, "token_type_ids")[0] if "token_type_ids" in names else None
        return cls(ids, offsets, positions, position_offsets, gold, types)

    @property
    def lengths_W(self) -> npt.NDArray[np.int64]:
        """Tokens of each window."""
        return np.diff(self.token_offsets)

    def question(self, part: Sequence[int], ask: HeadAsk) -> Question:
        """The model's input for some windows."""
        chosen = np.asarray(part, np.int64)
        members, asked = _members(self.token_offsets, chosen), _members(self.position_offsets, chosen)
        lengths = self.token_offsets[chosen + 1] - self.token_offsets[chosen]
        cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        counts = self.position_offsets[chosen + 1] - self.position_offsets[chosen]
        tokens = Tokens(
            input_ids_T=self.input_ids_T[members],
            cu_seqlens=cu_seqlens,
            token_type_ids_T=None if self.token_type_ids_T is None else self.token_type_ids_T[members],
            causal=ask.causal,
        )
        positions = self.positions_G[asked] + np.repeat(cu_seqlens[:-1], counts).astype(np.int32)
        candidates = None if ask.candidates is None else np.asarray(ask.candidates, np.int32)
        gold = None if self.gold_G is None else self.gold_G[asked]
        return tokens, {
            ask.head: Ask(
                positions_G=positions, top_k=ask.top_k, candidates_K=candidates, gold_G=gold, reduce=ask.reduce
            )
        }


@dataclass(eq=False)
class _Answered:
    """Answers put back in the order of the windows as packs come in."""

    windows: Windows
    per_window: bool
    arrays: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    failures: dict[int, RowError] = field(default_factory=dict)

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Where each window's answers begin."""
        count = len(self.windows.token_offsets)
        return np.arange(count) if self.per_window else self.windows.position_offsets

    def take(self, part: npt.NDArray[np.int64], reply: Mapping[str, npt.NDArray[np.generic]] | RowError) -> None:
        """The reply for some windows."""
        if isinstance(reply, tuple):
            self.failures.update({int(window): reply for window in part})
            return
        rows = _members(self.offsets, part)
        for name, values in reply.items():
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
