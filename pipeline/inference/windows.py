"""Windows of one or several tasks as Arrow tables in, the sequences that the model reads for them out.

Which windows share a sequence is decided where they are encoded (`numbered`) and used where they are answered
(`sequences_of`). Legend: S sequences, W windows of one task, T tokens.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from models.boundary import HeadAsk
from pipeline.arrow_lists import flat_column, flat_columns
from pipeline.inference.sequences import Asked, Sequences
from pipeline.ragged import Int32s, Int64s, members, offsets_of

SEQUENCE = "sequence"
"""Column of a window in a job of several tasks: the number of its sequence in the shard."""


def numbered(windows: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """The windows of a shard's tasks with their sequences: equal tokens of different tasks are one. A single task's windows
    are a sequence each, and stay as they are."""
    if len(windows) == 1:
        return dict(windows)
    codes = _codes(list(windows.values()))
    nth = [_occurrences(code_W) for code_W in codes]
    most = max((int(nth_W.max()) + 1 for nth_W in nth if len(nth_W)), default=1)
    # The second window of a task with the same tokens is a sequence of its own: each is answered apart.
    keys = np.concatenate([code_W * most + nth_W for code_W, nth_W in zip(codes, nth, strict=True)])
    sequence = np.unique(keys, return_inverse=True)[1].astype(np.int32)
    result, first = {}, 0
    for name, table in windows.items():
        result[name] = table.append_column(SEQUENCE, pa.array(sequence[first : first + table.num_rows]))
        first += table.num_rows
    return result


def _codes(tables: Sequence[pa.Table]) -> list[Int64s]:
    """A number a window, equal where ids and segments are."""
    ids = pa.concat_arrays([_as_bytes(table, "input_ids") for table in tables])
    types = pa.concat_arrays([_as_bytes(table, "token_type_ids") for table in tables])
    code, segment = (column.dictionary_encode().indices.to_numpy().astype(np.int64) for column in (ids, types))
    both = code * (int(segment.max()) + 1 if len(segment) else 1) + segment
    ends = np.cumsum([table.num_rows for table in tables])
    return np.split(both, ends[:-1])


def _as_bytes(table: pa.Table, name: str) -> pa.LargeBinaryArray:
    """A list<int32> column as each list's bytes; empty where there is no such column."""
    if name not in table.column_names:
        return pa.array([b""] * table.num_rows, pa.large_binary())
    values, offsets = flat_column(table, name)
    buffers = [None, pa.py_buffer(offsets * values.itemsize), pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.large_binary(), table.num_rows, buffers)


def _occurrences(code_W: Int64s) -> Int64s:
    """How many equal ones stand before each."""
    order = np.argsort(code_W, kind="stable")
    ordered = code_W[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else order
    runs = np.diff(np.concatenate([starts, [len(ordered)]]))
    nth = np.empty(len(code_W), np.int64)
    nth[order] = np.arange(len(ordered)) - np.repeat(starts, runs)
    return nth


def sequences_of(windows: Sequence[Mapping[str, pa.Table]], asks: Mapping[str, HeadAsk]) -> Sequences:
    """From the windows of several shards, by task."""
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
    if len(tables) == 1:
        ((name, shards),) = tables.items()
        ends = np.cumsum([0, *(table.num_rows for table in shards)])
        return {name: np.arange(ends[-1])}, ends
    numbers: dict[str, list[Int64s]] = {name: [] for name in tables}
    begins = [0]
    for shard in range(len(next(iter(tables.values())))):
        mine = {name: shards[shard][SEQUENCE].to_numpy().astype(np.int64) for name, shards in tables.items()}
        for name, numbers_W in mine.items():
            numbers[name].append(numbers_W + begins[-1])
        count = max((int(numbers_W.max()) + 1 for numbers_W in mine.values() if len(numbers_W)), default=0)
        begins.append(begins[-1] + count)
    return {name: np.concatenate(parts) for name, parts in numbers.items()}, np.asarray(begins)


def _read_once(
    tables: Mapping[str, Sequence[pa.Table]], name: str, asked: Mapping[str, Asked]
) -> tuple[Int32s, Int64s]:
    """A list<int32> column of each sequence, from the first task that has it; zeros where that task has no such column."""
    if len(tables) == 1:
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
