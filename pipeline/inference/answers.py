"""Asks the model for the windows of shards, and turns its answers into Arrow tables of each task, and back into arrays.

W: the windows of one task. E: those of them that are equal to an earlier one. S: the sequences of all.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.boundary import Answers, HeadAsk
from pipeline.bundle import ShardTables
from pipeline.errors import RowError
from pipeline.inference.batching import TokenBudget, packs
from pipeline.inference.passes import Solver
from pipeline.inference.sequences import Asked
from pipeline.inference.windows import sequences_of
from pipeline.ragged import members
from pipeline.rows import error_array, no_errors

OnTokens = Callable[[int, int], None]
"""Called with the tokens of a bundle, and how many of them are answered."""


@dataclass(eq=False)
class AnsweredWindows:
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
        for values in self.arrays.values():
            if not np.issubdtype(values.dtype, np.floating) or np.isfinite(values).all():
                continue
            owners = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
            bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
            for window in np.unique(owners[bad]).tolist():
                self.failures.setdefault(window, ("nan", "the model's scores are not finite"))

    def share(self) -> None:
        """Give the answers of windows that were asked for equal ones to those too."""
        answered_W = self.asked.answered_W
        equal_E = np.flatnonzero(answered_W != np.arange(len(answered_W)))
        rows, owners = members(self.offsets, equal_E), members(self.offsets, answered_W[equal_E])
        for values in self.arrays.values():
            values[rows] = values[owners]
        for window, owner in zip(equal_E.tolist(), answered_W[equal_E].tolist(), strict=True):
            if owner in self.failures:
                self.failures[window] = self.failures[owner]

    def split(self, counts: Sequence[int]) -> list[tuple[pa.Table, pa.Table]]:
        """(answers, failures) of each shard, given its number of windows."""
        self.share()
        self.refuse_non_finite()
        result, window = [], 0
        for count in counts:
            first, last = int(self.offsets[window]), int(self.offsets[window + count])
            answers = answers_table({name: values[first:last] for name, values in self.arrays.items()})
            if self.failures:
                errors = error_array([self.failures.get(index) for index in range(window, window + count)])
            else:
                errors = no_errors(count)
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


def answer_shards(
    *,
    shards: Sequence[ShardTables],
    asks: Mapping[str, HeadAsk],
    budget: TokenBudget,
    supervisor: Solver,
    in_order: bool = False,
    on_tokens: OnTokens | None = None,
) -> list[ShardTables]:
    """Every shard with `answers` and `failures` of each task; those that failed as a whole, or were written before, as they
    are. in_order: packs hold windows as they come, not by length.
    on_tokens: called with the tokens of all sequences and of those answered, before the first pack and after each."""
    asked = [shard for shard in shards if shard.tasks]
    if not asked:
        return list(shards)
    windows = [{name: shard.tasks[name]["windows"] for name in asks} for shard in asked]
    sequences = sequences_of(windows, asks)
    ledgers = {name: AnsweredWindows(asked=one) for name, one in sequences.asked.items()}
    passes = budgeted = answered_tokens = 0
    lengths_S = sequences.lengths_S
    all_tokens = int(lengths_S.sum())
    if on_tokens is not None:
        on_tokens(all_tokens, 0)

    def wanted() -> Iterator[Sequence[int]]:
        nonlocal passes, budgeted
        for chosen in packs(lengths_W=lengths_S, budget=budget, in_order=in_order):
            passes, budgeted = passes + 1, budgeted + budget.tokens
            yield chosen.tolist()

    for part, reply in supervisor.solve_all(wanted(), sequences.question, budget):
        for ledger in ledgers.values():
            ledger.take(np.asarray(part), reply)
        if on_tokens is not None:
            answered_tokens += int(lengths_S[np.asarray(part)].sum())
            on_tokens(all_tokens, answered_tokens)
    finished = {
        name: iter(ledger.split([shard[name].num_rows for shard in windows])) for name, ledger in ledgers.items()
    }
    pass_facts = {"passes": float(passes), "budget_tokens": float(budgeted)} if passes else {}
    done = []
    for shard, tokens in zip(asked, sequences.shard_tokens, strict=True):
        tasks = {}
        for name, parts in finished.items():
            answers, failures = next(parts)
            tasks[name] = {"answers": answers, "failures": failures}
        done.append(shard.with_(tasks=tasks, facts={**pass_facts, "tokens": float(tokens)}))
        pass_facts = {}  # of the bundle, so by its first shard only
    answered = iter(done)
    return [next(answered) if shard in asked else shard for shard in shards]
