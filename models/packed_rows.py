"""Lays sequences end to end into rows of one width, in NumPy.

For frameworks that compile per shape. First-fit-decreasing leaves 0.04 % of the slots in rows of 512 empty.
Legend: B sequences, T packed tokens, R rows, X = R x width slots of all rows, U slots asked by any head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from models.boundary import IntArray, Tokens
from models.config import RobertaPreLayerNormConfig
from models.flat_tokens import flat_positions

WIDTH = 512  # tokens of a row on a GPU, or fewer where the model takes fewer
PIECE_ROWS = (64, 16, 4)  # such rows at a time; the last ones are filled up with empty rows
FEW_ASKED = 16  # one asked slot in so many counts as few: a sequence's first token, a mask

BoolArray: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class PackedRows:
    """The slot of every token.

    rows, width: the shape. slot_T: each token's slot, row x width + column. sequence_X: the sequence of each slot's token, -1
    for an empty slot.
    """

    rows: int
    width: int
    slot_T: IntArray
    sequence_X: IntArray

    def spread(self, values_T: IntArray, *, fill: int) -> IntArray:
        """[R, width], each token's value in its slot and `fill` in the empty ones."""
        spread_X = np.full(self.rows * self.width, fill, np.int32)
        spread_X[self.slot_T] = values_T
        return spread_X.reshape(self.rows, self.width)


def pack_rows(*, tokens: Tokens, width: int, multiple: int = 1) -> PackedRows:
    """Put sequences, none longer than the width, into as few rows as first-fit-decreasing needs. multiple: the number of rows is
    rounded up to a multiple of it by empty rows."""
    lengths_B = tokens.lengths_B
    row_B, place_B, rows = first_fit(lengths_B=lengths_B, width=width)
    rows += -rows % multiple
    sequence_T = np.repeat(np.arange(len(lengths_B), dtype=np.int32), lengths_B)
    within_T = np.arange(len(sequence_T)) - np.repeat(tokens.cu_seqlens[:-1], lengths_B)
    slot_T = (row_B[sequence_T] * width + place_B[sequence_T] + within_T).astype(np.int32)
    sequence_X = np.full(rows * width, -1, np.int32)
    sequence_X[slot_T] = sequence_T
    return PackedRows(rows=rows, width=width, slot_T=slot_T, sequence_X=sequence_X)


def first_fit(*, lengths_B: IntArray, width: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
    """(row of each sequence, its first place there, number of rows): longest first, each into the first row with room."""
    row_B, place_B = np.zeros(len(lengths_B), np.int64), np.zeros(len(lengths_B), np.int64)
    free_R = np.full(len(lengths_B), width, np.int64)
    rows = 0
    for sequence in np.argsort(-lengths_B, kind="stable"):
        length = int(lengths_B[sequence])
        # A new row always has room, so the search never fails.
        row = int(np.argmax(free_R[: rows + 1] >= length)) if rows < len(lengths_B) else rows - 1
        row_B[sequence], place_B[sequence] = row, width - free_R[row]
        free_R[row] -= length
        rows = max(rows, row + 1)
    return row_B, place_B, rows


def gpu_width(config: RobertaPreLayerNormConfig) -> int:
    """The width of all rows where shapes are few."""
    return min(WIDTH, power_of_two(config.max_tokens))


def gpu_rows(*, tokens: Tokens, config: RobertaPreLayerNormConfig) -> PackedRows:
    """Rows of the one width, or of a wider one for a text with more `<pad>`s typed in it than the model has positions."""
    width = max(gpu_width(config), power_of_two(int(tokens.lengths_B.max())))
    return pack_rows(tokens=tokens, width=width, multiple=PIECE_ROWS[-1])


def row_inputs(*, tokens: Tokens, rows: PackedRows, config: RobertaPreLayerNormConfig) -> tuple[IntArray, ...]:
    """What an encoder reads of the rows, each [R, width]: ids, types, positions, and the sequence of each slot.

    Raises ValueError as `flat_positions` does.
    """
    types_T = np.zeros_like(rows.slot_T) if tokens.token_type_ids_T is None else tokens.token_type_ids_T
    return (
        rows.spread(tokens.input_ids_T, fill=config.pad_token_id),
        rows.spread(types_T, fill=0),
        rows.spread(flat_positions(tokens=tokens, config=config), fill=config.pad_token_id),
        rows.sequence_X.reshape(rows.rows, rows.width),
    )


def asked_slots(mark_X: BoolArray) -> IntArray:
    """The marked slots of a piece: padded by zeros to a fixed number if they are few, else to as many as there are slots."""
    asked_U = np.flatnonzero(mark_X)
    few = len(mark_X) // FEW_ASKED
    slots_U = np.zeros(few if len(asked_U) <= few else len(mark_X), np.int32)
    slots_U[: len(asked_U)] = asked_U
    return slots_U


def power_of_two(size: int, *, least: int = 1) -> int:
    """The smallest power of two that is at least `size` and `least`."""
    return max(1 << max(size - 1, 0).bit_length(), least)


def row_pieces(*, rows: int, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """(first row, number) of pieces of few sizes, the largest that fits first. sizes: falling; the last divides the rows."""
    pieces, first = [], 0
    while first < rows:
        size = next(size for size in sizes if size <= rows - first)
        pieces.append((first, size))
        first += size
    return pieces


def powers_up_to(largest: int) -> tuple[int, ...]:
    """Powers of two, falling to 1."""
    return tuple(1 << power for power in reversed(range(max(largest, 1).bit_length())))
