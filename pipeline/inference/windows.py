"""Windows of one or several tasks as Arrow tables in, the distinct sequences that the model reads out.

Which windows share a sequence is decided where they are encoded (`numbered`) and used where they are answered
(`sequences_of`). Legend: S sequences, W windows of one task, T tokens.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from models.boundary import HeadAsk
from pipeline.arrow_lists import flat_column, flat_columns
from pipeline.inference.sequences import Asked, Sequences
from pipeline.ragged import Int32s, Int64s, members, offsets_of, run_starts

SEQUENCE = "sequence"
"""Column for windows that share sequences: the number of each window's sequence in the shard."""
ENCODED, QUESTION = ("input_ids", "token_type_ids"), ("positions", "gold")
"""List columns: what the model reads of a window, and what a task asks about it."""


def numbered(windows: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """The windows of a shard's tasks with their sequences: equal tokens, of one task or of several, are one sequence.

    Answers to equal sequences of one pack may differ in the last bit on some processors; if they are computed once, they can't.
    A task that asks different questions about equal tokens has a sequence for each. If no sequence is shared, the tables stay
    as they are.
    """
    tables = list(windows.values())
    codes = _codes(tables, ENCODED)
    nth = [_nth_question(code_W, asked_W) for code_W, asked_W in zip(codes, _codes(tables, QUESTION), strict=True)]
    most = max((int(nth_W.max()) + 1 for nth_W in nth if len(nth_W)), default=1)
    keys = np.concatenate([code_W * most + nth_W for code_W, nth_W in zip(codes, nth, strict=True)])
    distinct, sequence = np.unique(keys, return_inverse=True)
    if len(tables) == 1 and len(distinct) == len(keys):
        return dict(windows)
    result, first = {}, 0
    for name, table in windows.items():
        numbers = sequence[first : first + table.num_rows].astype(np.int32)
        result[name] = table.append_column(SEQUENCE, pa.array(numbers))
        first += table.num_rows
    return result


def _codes(tables: Sequence[pa.Table], names: tuple[str, str]) -> list[Int64s]:
    """A number for each window, equal if both columns are equal."""
    one, other = (
        pa.concat_arrays([_as_bytes(table, name) for table in tables]).dictionary_encode().indices for name in names
    )
    other_W = other.to_numpy().astype(np.int64)
    both = one.to_numpy().astype(np.int64) * (int(other_W.max()) + 1 if len(other_W) else 1) + other_W
    ends = np.cumsum([table.num_rows for table in tables])
    return np.split(both, ends[:-1])


def _as_bytes(table: pa.Table, name: str) -> pa.LargeBinaryArray:
    """A list<int32> column as each list's bytes; empty where there is no such column."""
    if name not in table.column_names:
        return pa.array([b""] * table.num_rows, pa.large_binary())
    values, offsets = flat_column(table, name)
    buffers = [None, pa.py_buffer(offsets * values.itemsize), pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.large_binary(), table.num_rows, buffers)


def _nth_question(code_W: Int64s, asked_W: Int64s) -> Int64s:
    """Which of the different questions about the same tokens each window asks, counted from 0."""
    if not len(code_W):
        return code_W
    span = int(asked_W.max()) + 1
    pairs, inverse_W = np.unique(code_W * span + asked_W, return_inverse=True)
    first = np.flatnonzero(run_starts(pairs // span))
    nth = np.arange(len(pairs)) - np.repeat(first, np.diff([*first, len(pairs)]))
    return nth[inverse_W]


def sequences_of(windows: Sequence[Mapping[str, pa.Table]], asks: Mapping[str, HeadAsk]) -> Sequences:
    """The sequences of several shards' windows, given by task."""
    tables = {name: [shard[name] for shard in windows] for name in asks}
    sequence_W, shard_offsets = _across_shards(tables)
    asked = {}
    for name, ask in asks.items():
        window_S = np.full(shard_offsets[-1], -1, np.int64)
        window_S[sequence_W[name]] = np.arange(len(sequence_W[name]))
        positions, offsets = flat_columns(tables[name], "positions")
        gold = flat_columns(tables[name], "gold")[0] if "gold" in tables[name][0].column_names else None
        asked[name] = Asked(ask.key, ask, sequence_W[name], window_S, positions, offsets, gold)
    ids, offsets = _read_once(tables, "input_ids", asked)
    types = None
    if any("token_type_ids" in shards[0].column_names for shards in tables.values()):
        types, _ = _read_once(tables, "token_type_ids", asked)
    (causal,) = {ask.causal for ask in asks.values()}
    return Sequences(ids, offsets, types, shard_offsets, causal, asked)


def _across_shards(tables: Mapping[str, Sequence[pa.Table]]) -> tuple[dict[str, Int64s], Int64s]:
    """Each task's windows' sequences, numbered through all shards, and where each shard's begin."""
    numbers: dict[str, list[Int64s]] = {name: [] for name in tables}
    begins = [0]
    for shard in range(len(next(iter(tables.values())))):
        mine = {name: _sequence(shards[shard]) for name, shards in tables.items()}
        for name, numbers_W in mine.items():
            numbers[name].append(numbers_W + begins[-1])
        count = max((int(numbers_W.max()) + 1 for numbers_W in mine.values() if len(numbers_W)), default=0)
        begins.append(begins[-1] + count)
    return {name: np.concatenate(parts) for name, parts in numbers.items()}, np.asarray(begins)


def _sequence(table: pa.Table) -> Int64s:
    """The number of each window's sequence in its shard."""
    if SEQUENCE not in table.column_names:
        return np.arange(table.num_rows)
    return table[SEQUENCE].to_numpy().astype(np.int64)


def _read_once(
    tables: Mapping[str, Sequence[pa.Table]], name: str, asked: Mapping[str, Asked]
) -> tuple[Int32s, Int64s]:
    """A list<int32> column for each sequence, from the first task that has the sequence; zeros if it lacks the column."""
    if len(tables) == 1 and all(SEQUENCE not in table.column_names for shards in tables.values() for table in shards):
        return flat_columns(next(iter(tables.values())), name)
    values, lengths, place = [], [], 0
    chosen_S = np.full(len(next(iter(asked.values())).window_S), -1, np.int64)
    for task, shards in tables.items():
        there = name in shards[0].column_names
        flat, offsets = flat_columns(shards, name if there else "input_ids")
        values.append(flat if there else np.zeros_like(flat))
        lengths.append(np.diff(offsets))
        own = asked[task].window_S
        chosen_S = np.where((chosen_S < 0) & (own >= 0), own + place, chosen_S)
        place += len(offsets) - 1
    offsets = offsets_of(np.concatenate(lengths))
    chosen_T = members(offsets, chosen_S)
    return np.concatenate(values)[chosen_T], offsets_of(np.diff(offsets)[chosen_S])
