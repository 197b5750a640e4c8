"""Windows of one or several tasks in, the token sequences that the model is to read out, each once, with who asks what of it.

Tasks that encode a text alike share its sequence, and so the encoder's pass. Which windows are one sequence is told where
they are encoded (`numbered`), and read where they are answered (`Sequences`).
Legend: S sequences, W windows of one task, T tokens, G positions asked by one task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.boundary import Ask, Tokens
from pipeline.tasks.task import HeadAsk

SEQUENCE = "sequence"
"""Column of a window in a job of several tasks: the number of its sequence in the shard."""

Ints: TypeAlias = npt.NDArray[np.int32]
Longs: TypeAlias = npt.NDArray[np.int64]


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


def _codes(tables: Sequence[pa.Table]) -> list[Longs]:
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


def _occurrences(code_W: Longs) -> Longs:
    """How many equal ones stand before each."""
    order = np.argsort(code_W, kind="stable")
    ordered = code_W[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(ordered) else order
    runs = np.diff(np.concatenate([starts, [len(ordered)]]))
    nth = np.empty(len(code_W), np.int64)
    nth[order] = np.arange(len(ordered)) - np.repeat(starts, runs)
    return nth


@dataclass(frozen=True, eq=False)
class Asked:
    """What one task asks, of all shards of a bundle.

    key: the head's name in the model. sequence_W: which sequence each window is. window_S: a sequence's window, -1 where it
    has none of this task's. position_offsets: [W + 1], where each window's positions begin.
    """

    key: str
    ask: HeadAsk
    sequence_W: Longs
    window_S: Longs
    positions_G: Ints
    position_offsets: Longs
    gold_G: Ints | None

    def of(self, chosen_S: Longs, cu_seqlens: Ints) -> Ask | None:
        """The question to the model that reads some sequences; None where this task asks nothing of them."""
        windows = self.window_S[chosen_S]
        here = windows >= 0
        windows, starts = windows[here], cu_seqlens[:-1][here]
        if not len(windows):
            return None
        asked = members(self.position_offsets, windows)
        counts = self.position_offsets[windows + 1] - self.position_offsets[windows]
        return Ask(
            positions_G=self.positions_G[asked] + np.repeat(starts, counts).astype(np.int32),
            top_k=self.ask.top_k,
            candidates_K=None if self.ask.candidates is None else np.asarray(self.ask.candidates, np.int32),
            gold_G=None if self.gold_G is None else self.gold_G[asked],
            reduce=self.ask.reduce,
        )


@dataclass(frozen=True, eq=False)
class Sequences:
    """What the model reads of all shards of a bundle, flat, and what each task asks of it.

    shard_offsets: where each shard's sequences begin, and the last one's end. causal: of all tasks alike.
    """

    input_ids_T: Ints
    token_offsets: Longs
    token_type_ids_T: Ints | None
    shard_offsets: Longs
    causal: bool
    asked: Mapping[str, Asked]

    @classmethod
    def of(cls, windows: Sequence[Mapping[str, pa.Table]], asks: Mapping[str, HeadAsk]) -> "Sequences":
        """From the windows of several shards, by task."""
        tables = {name: [shard[name] for shard in windows] for name in asks}
        sequence_W, shard_offsets = _across_shards(tables)
        asked = {}
        for name, ask in asks.items():
            window_S = np.full(shard_offsets[-1], -1, np.int64)
            window_S[sequence_W[name]] = np.arange(len(sequence_W[name]))
            positions, offsets = _joined(tables[name], "positions")
            gold = _joined(tables[name], "gold")[0] if "gold" in tables[name][0].column_names else None
            asked[name] = Asked(name or ask.head, ask, sequence_W[name], window_S, positions, offsets, gold)
        ids, offsets = _read_once(tables, "input_ids", asked)
        types = None
        if any("token_type_ids" in shards[0].column_names for shards in tables.values()):
            types, _ = _read_once(tables, "token_type_ids", asked)
        (causal,) = {ask.causal for ask in asks.values()}
        return cls(ids, offsets, types, shard_offsets, causal, asked)

    @property
    def lengths_S(self) -> Longs:
        """Tokens of each sequence."""
        return np.diff(self.token_offsets)

    @property
    def shard_tokens(self) -> list[int]:
        """Tokens of each shard, what its tasks share counted once."""
        return [int(count) for count in np.diff(self.token_offsets[self.shard_offsets])]

    def question(self, part: Sequence[int]) -> tuple[Tokens, dict[str, Ask]]:
        """The model's input for some sequences, and what all tasks ask of them."""
        chosen = np.asarray(part, np.int64)
        tokens = members(self.token_offsets, chosen)
        lengths = self.token_offsets[chosen + 1] - self.token_offsets[chosen]
        cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        asks = {one.key: one.of(chosen, cu_seqlens) for one in self.asked.values()}
        return (
            Tokens(
                input_ids_T=self.input_ids_T[tokens],
                cu_seqlens=cu_seqlens,
                token_type_ids_T=None if self.token_type_ids_T is None else self.token_type_ids_T[tokens],
                causal=self.causal,
            ),
            {key: ask for key, ask in asks.items() if ask is not None},
        )


def _across_shards(tables: Mapping[str, Sequence[pa.Table]]) -> tuple[dict[str, Longs], Longs]:
    """Each task's windows' sequences, numbered through all shards, and where each shard's begin."""
    if len(tables) == 1:
        ((name, shards),) = tables.items()
        ends = np.cumsum([0, *(table.num_rows for table in shards)])
        return {name: np.arange(ends[-1])}, ends
    numbers: dict[str, list[Longs]] = {name: [] for name in tables}
    begins = [0]
    for shard in range(len(next(iter(tables.values())))):
        mine = {name: shards[shard][SEQUENCE].to_numpy().astype(np.int64) for name, shards in tables.items()}
        for name, numbers_W in mine.items():
            numbers[name].append(numbers_W + begins[-1])
        count = max((int(numbers_W.max()) + 1 for numbers_W in mine.values() if len(numbers_W)), default=0)
        begins.append(begins[-1] + count)
    return {name: np.concatenate(parts) for name, parts in numbers.items()}, np.asarray(begins)


def _read_once(tables: Mapping[str, Sequence[pa.Table]], name: str, asked: Mapping[str, Asked]) -> tuple[Ints, Longs]:
    """A list<int32> column of each sequence, from the first task that has it; zeros where that task has no such column."""
    if len(tables) == 1:
        return _joined(next(iter(tables.values())), name)
    values, lengths, place = [], [], 0
    chosen_S = np.full(len(next(iter(asked.values())).window_S), -1, np.int64)
    for task, shards in tables.items():
        there = name in shards[0].column_names
        flat, offsets = _joined(shards, name if there else "input_ids")
        values.append(flat if there else np.zeros_like(flat))
        lengths.append(np.diff(offsets))
        own = asked[task].window_S
        chosen_S = np.where((chosen_S < 0) & (own >= 0), own + place, chosen_S)
        place += len(offsets) - 1
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    chosen_T = members(offsets, chosen_S)
    return np.concatenate(values)[chosen_T], np.concatenate([[0], np.cumsum(np.diff(offsets)[chosen_S])])


def flat_column(table: pa.Table, name: str) -> tuple[Ints, Longs]:
    """A list<int32> column as flat values and offsets [W + 1] from 0, without a copy where it is one chunk."""
    column = table[name]
    array: Any = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    offsets = array.offsets.to_numpy().astype(np.int64)
    return array.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0]


def _joined(tables: Sequence[pa.Table], name: str) -> tuple[Ints, Longs]:
    parts = [flat_column(table, name) for table in tables]
    if len(parts) == 1:
        return parts[0]
    lengths = np.concatenate([np.diff(offsets) for _, offsets in parts])
    return np.concatenate([values for values, _ in parts]), np.concatenate([[0], np.cumsum(lengths)])


def members(offsets: Longs, chosen: Longs) -> Longs:
    """Flat indices of the lists chosen, one list after the other."""
    lengths = offsets[chosen + 1] - offsets[chosen]
    ends = np.cumsum(lengths)
    flat: Longs = np.arange(ends[-1] if len(ends) else 0) + np.repeat(offsets[chosen] - (ends - lengths), lengths)
    return flat
